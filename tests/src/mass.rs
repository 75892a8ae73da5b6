//! A mass of mixed flows through the [`Lab`]: ready-made frames put on both ends of the router's
//! links, since dialogues by sockets cost far too much where the processor is emulated. The router
//! sees what it would see of real hosts: handshakes, resets, answers, translation, zones and marks.
//! What it forwards is for machines that do not exist, see [`Lab::add_mass_rules`], so that nobody
//! answers but the generator.
//!
//! Flow number n has the low half of n in its addresses and the high half in its source port.
//!
//! | module | its one job |
//! |---|---|
//! | [`kind`] | what becomes of a flow: its tuples and its dialogue |
//! | [`frame`] | a packet of a dialogue as Ethernet has it |
//! | [`wire`] | an end of a link: frames put on it, and those that arrived |
//! | [`tally`] | lines of a log, held against the flows: each exactly once |

pub mod frame;
pub mod kind;
pub mod tally;
pub mod wire;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::frame::Frame;
use self::kind::{Kind, LONGEST, Side};
use self::wire::Wire;
use crate::lab::Lab;
use crate::lines::{Multiset, multiset};
use crate::traffic::Flow;

/// Flows whose dialogues go on step by step together. Their frames, which are queued before the
/// router and behind it, fit into the kernel's queue of a processor (`netdev_max_backlog`), with
/// those that may be on the way of other batches.
const BATCH: u32 = 128;
/// Threads that make them.
const WORKERS: usize = 2;
/// Beyond it two ICMP flows, which have no ports to tell them apart, would have the same line.
const MOST: u32 = 5 << 16;

/// What was made.
#[derive(Clone, Debug)]
pub struct Mass {
    /// The numbers of its flows.
    pub numbers: Range<u32>,
    /// Frames that were sent, of both sides.
    pub packets: u64,
    /// Wall-clock time of it.
    pub elapsed: Duration,
}

/// Makes `flows` flows, numbered from 0, see [`mass_of`].
///
/// # Errors
/// As there.
pub fn mass(lab: &Lab, flows: u32) -> Result<Mass> {
    mass_of(lab, 0..flows)
}

/// Makes the flows of these numbers, on two processors at once. The router has tracked and
/// forwarded all of their packets when this returns. Numbers whose flows still live must not be
/// made again.
///
/// # Errors
/// Frames cannot be sent, or the router does not forward them: its table is full, or the rules are
/// missing.
pub fn mass_of(lab: &Lab, numbers: Range<u32>) -> Result<Mass> {
    make(lab, numbers, true)
}

/// The same where the router may drop packets, because its table is full: nothing is waited for,
/// and nobody knows which flows there are.
///
/// # Errors
/// Frames cannot be sent.
pub fn mass_beyond_room(lab: &Lab, numbers: Range<u32>) -> Result<Mass> {
    make(lab, numbers, false)
}

fn make(lab: &Lab, numbers: Range<u32>, all: bool) -> Result<Mass> {
    ensure!(numbers.end <= MOST, "a mass ends at flow number {MOST}");
    let work = Work {
        client: Wire::open(lab.client(), lab.router(), "client")?,
        server: Wire::open(lab.server(), lab.router(), "server")?,
        next: AtomicU32::new(numbers.start),
        end: numbers.end,
        all,
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        let work = &work;
        let spawn = |processor| scope.spawn(move || work.on(processor));
        let workers: Vec<_> = processors()?.into_iter().map(spawn).collect();
        let panicked = |_panic| anyhow!("the generator panicked, see above");
        workers.into_iter().try_for_each(|worker| worker.join().map_err(panicked)?)
    })?;
    if all {
        [&work.client, &work.server].into_iter().try_for_each(|wire| wire.wait(wire.due()))?;
    }
    let packets = work.client.sent() + work.server.sent();
    Ok(Mass { numbers, packets, elapsed: begin.elapsed() })
}

/// Some of those that this thread may run on.
fn processors() -> Result<Vec<CpuSet>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for processors")?;
    let mut processors = Vec::new();
    for number in 0..CpuSet::count() {
        if allowed.is_set(number)? && processors.len() < WORKERS {
            let mut processor = CpuSet::new();
            processor.set(number)?;
            processors.push(processor);
        }
    }
    Ok(processors)
}

/// What is to be made, by a thread on each of two processors.
struct Work {
    client: Wire,
    server: Wire,
    /// The first flow that nobody has begun with.
    next: AtomicU32,
    end: u32,
    /// Whether the router must forward all packets.
    all: bool,
}

impl Work {
    /// Makes batch after batch.
    ///
    /// What the router receives waits in a queue of the processor that sent it, first in, first
    /// out, whatever link it came by. So on one processor an answer cannot overtake its question,
    /// even if the kernel puts the queue off.
    fn on(&self, processor: CpuSet) -> Result<()> {
        sched_setaffinity(Pid::from_raw(0), &processor).context("staying on a processor")?;
        loop {
            let first = self.next.fetch_add(BATCH, Ordering::Relaxed);
            if first >= self.end {
                return Ok(());
            }
            self.converse(first..self.end.min(first + BATCH))?;
        }
    }

    /// Leads the dialogues of a batch: all first steps, then all second ones, and so on.
    fn converse(&self, numbers: Range<u32>) -> Result<()> {
        let talk = |number| (number, kind::flow(number), Kind::of(number).dialogue());
        let mut talks: Vec<_> = numbers.map(talk).collect();
        for step in 0..LONGEST {
            talks.retain(|(_, _, dialogue)| step < dialogue.len());
            let is_client = Side::of(step) == Side::Client;
            let ends = (&self.client, &self.server);
            let (from, to) = if is_client { ends } else { (ends.1, ends.0) };
            let mut frames = Vec::with_capacity(talks.len());
            for (number, flow, dialogue) in &talks {
                let tuple = if is_client { &flow.orig } else { &flow.reply };
                frames.push(Frame::new(from.gateway, tuple, dialogue[step], *number)?);
            }
            let due = to.expect(frames.len());
            from.send(&frames)?;
            if self.all {
                // But for what others are just sending.
                to.wait(due.saturating_sub(u64::from(BATCH) * (WORKERS as u64 - 1)))?;
            }
        }
        Ok(())
    }
}

impl Mass {
    /// How many flows there are, and thus beginnings, as each got its entry in the table.
    pub fn flows(&self) -> u64 {
        u64::from(self.numbers.end - self.numbers.start)
    }

    /// How many flows there are of each kind.
    pub fn kinds(&self) -> BTreeMap<Kind, u64> {
        let mut kinds = BTreeMap::new();
        for number in self.numbers.clone() {
            *kinds.entry(Kind::of(number)).or_default() += 1;
        }
        kinds
    }

    /// The flows themselves.
    pub fn each(&self) -> impl Iterator<Item = Flow> {
        self.numbers.clone().map(kind::flow)
    }

    /// The lines, counters aside, if each of the flows has one with this tag.
    pub fn lines(&self, tag: &str) -> Multiset {
        multiset(self.each().map(|flow| flow.line(tag)))
    }
}
