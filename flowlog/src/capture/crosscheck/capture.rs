//! The capture that has two witnesses: eBPF, and netlink all the time or for a
//! while now and then. What they tell goes through the matcher; dumps and
//! queries go to netlink as they do for eBPF alone.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tracing::warn;

use super::matcher::{Matcher, Rules};
use super::sides::{EbpfSide, NetlinkSide, Replies};
use super::{Due, Report, Schedule, Settings};
use crate::capture::ebpf::clock::boot_ns;
use crate::capture::ebpf::{self, EbpfCapture, Unable};
use crate::capture::live::BUDGET;
use crate::capture::netlink::exchange::is_transient;
use crate::capture::netlink::{self, NetlinkCapture};
use crate::capture::turn::{self, Replying};
use crate::capture::{Capture, Discard, Drained, DumpKind, FlowKey, Progress, RecordSink};
use crate::event::Record;
use crate::log::notice;
use crate::netns::Home;
use crate::stats::{Check, CheckKind, Stats};

/// Between two looks at what the sources have lost, at least.
const LOSSES: Duration = Duration::from_millis(500);
/// While netlink is listened to for a while only, nobody is woken up for it.
const DRAIN: Duration = Duration::from_millis(20);
/// How long netlink is waited for at the end while it cannot be read, and between two attempts.
const LAST: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

/// Why the sources cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CannotCompare {
    /// eBPF cannot be had.
    #[error("{0}; {remedy}", remedy = .0.remedy())]
    Ebpf(#[from] Unable),
    /// Netlink cannot be had.
    #[error("conntrack events cannot be had over netlink: {0}; it needs CAP_NET_ADMIN")]
    Netlink(#[from] io::Error),
}

impl CannotCompare {
    /// The same may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Ebpf(error) => error.is_transient(),
            Self::Netlink(error) => is_transient(error),
        }
    }
}

/// What is to be captured, and how it is compared.
#[derive(Clone, Debug)]
pub struct Sources {
    /// By eBPF.
    pub ebpf: ebpf::Settings,
    /// Over netlink. The groups are chosen here.
    pub netlink: netlink::Settings,
    /// How they are compared.
    pub settings: Settings,
}

/// What goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// eBPF tells alone; from then on the sources are compared again.
    Alone { until: Instant },
    /// Both tell, until then or for ever.
    Comparing { until: Option<Instant> },
    /// Netlink hears nothing since then, in nanoseconds of `CLOCK_BOOTTIME`; what it
    /// had queued is read.
    Leaving { at: u64 },
    /// Netlink tells no more; what it may still be asked for waits until then.
    Closing { until: Instant },
}

/// eBPF, compared with netlink.
pub struct CrossCapture {
    ebpf: EbpfCapture,
    netlink: Option<NetlinkCapture>,
    sources: Sources,
    matcher: Matcher,
    phase: Phase,
    /// The namespace of both: what its file is called may become another's name.
    home: Home,
    /// Messages that netlink may have queued before the comparison began, and that
    /// are not yet read.
    opening: Option<usize>,
    /// When the comparison began.
    begun: Instant,
    /// How long former ones lasted.
    lasted: Duration,
    /// Notices have ids.
    paired: bool,
    /// Messages that were due in former comparisons.
    due: BTreeMap<u32, Due>,
    /// Answers to dumps and queries that wait for the events before them.
    held: VecDeque<(u64, Record<'static>)>,
    looked: Instant,
    drained: Instant,
    stats: Stats,
}

impl CrossCapture {
    /// Opens both in the current network namespace, or eBPF alone where the
    /// first comparison is yet to come.
    ///
    /// # Errors
    /// What cannot be had, and what to do.
    pub fn open(mut sources: Sources, stats: Stats) -> Result<Self, CannotCompare> {
        sources.ebpf.all_updates = true;
        let compared = sources.ebpf.tells();
        sources.netlink.groups = groups(compared);
        let now = Instant::now();
        let home = Home::here()?;
        let netlink = match sources.settings.schedule {
            // Before eBPF: what eBPF tells, netlink can tell too.
            Schedule::Always => Some(NetlinkCapture::open(&sources.netlink, stats.clone())?),
            Schedule::Every { .. } => None,
        };
        let ebpf = EbpfCapture::open(&sources.ebpf, stats.clone())?;
        stats.use_ebpf();
        stats.use_crosscheck();
        let Settings { window, max_pending, .. } = sources.settings;
        let rules = Rules { window, max_pending, compared, netns: ebpf.own_netns() };
        let mut capture = Self {
            ebpf,
            netlink: None,
            sources,
            matcher: Matcher::new(rules, stats.clone()),
            phase: Phase::Alone { until: now },
            home,
            opening: None,
            begun: now,
            lasted: Duration::ZERO,
            paired: false,
            due: BTreeMap::new(),
            held: VecDeque::new(),
            looked: now,
            drained: now,
            stats,
        };
        if let Some(netlink) = netlink {
            capture.compare(netlink, None)?;
        }
        Ok(capture)
    }

    /// "by eBPF (fentry) and netlink"
    pub fn describe(&self) -> String {
        let method = self.ebpf.method().name();
        match self.sources.settings.schedule {
            Schedule::Always => format!("by eBPF ({method}) and netlink"),
            Schedule::Every { period, lasting } => format!(
                "by eBPF ({method}), and netlink for {} s every {} s",
                lasting.as_secs_f32(),
                period.as_secs_f32()
            ),
        }
    }

    /// Compares from now on.
    fn compare(
        &mut self,
        netlink: NetlinkCapture,
        until: Option<Instant>,
    ) -> Result<(), CannotCompare> {
        self.paired = self.ebpf.begin_notices()?;
        let now = Instant::now();
        // Whether eBPF could see what is queued already is unknown. A message
        // takes half of what the queue is sized by, at least.
        self.opening = Some(2 * netlink.queue_events());
        self.netlink = Some(netlink);
        self.matcher.begin(boot_ns(), now, self.paired);
        (self.begun, self.phase) = (now, Phase::Comparing { until });
        // At once: what comes later is no longer at the boundary. It has just been
        // opened, so that little is queued.
        while self.opening.is_some() {
            self.drain_netlink(BUDGET)?;
        }
        Ok(())
    }

    /// Begins and ends comparisons when it is time.
    fn keep_schedule(&mut self, now: Instant, sink: &mut dyn RecordSink) -> io::Result<()> {
        match self.phase {
            Phase::Alone { until } if until <= now => self.begin(now),
            Phase::Comparing { until: Some(until) } if until <= now => {
                self.leave()?;
            }
            Phase::Closing { until } if until <= now || self.matcher.is_empty() => {
                self.look(now);
                self.matcher.flush(sink);
                self.release(now, sink);
                self.report_one();
                let Schedule::Every { period, .. } = self.sources.settings.schedule else {
                    return Ok(());
                };
                self.phase = Phase::Alone { until: (self.begun + period).max(now) };
            }
            Phase::Alone { .. }
            | Phase::Comparing { .. }
            | Phase::Leaving { .. }
            | Phase::Closing { .. } => {}
        }
        Ok(())
    }

    /// Begins a comparison; if it cannot be had, the next one is waited for.
    fn begin(&mut self, now: Instant) {
        let Schedule::Every { period, lasting } = self.sources.settings.schedule else { return };
        let settings = &self.sources.netlink;
        let opened = self.home.enter(|| NetlinkCapture::open(settings, self.stats.clone()));
        let begun = opened
            .map_err(|error| error.to_string())
            .and_then(|netlink| netlink.map_err(|error| error.to_string()))
            .and_then(|netlink| {
                self.compare(netlink, Some(now + lasting)).map_err(|error| error.to_string())
            });
        if let Err(error) = begun {
            self.netlink = None;
            self.ebpf.end_notices();
            self.phase = Phase::Alone { until: now + period };
            warn!("eBPF cannot be compared with netlink now: {error}");
        }
    }

    /// Netlink hears no more. What it has queued is read in the turns that follow.
    fn leave(&mut self) -> io::Result<()> {
        let at = boot_ns();
        if let Some(netlink) = &mut self.netlink {
            netlink.leave()?;
        }
        self.lasted += self.begun.elapsed();
        match self.ebpf.due() {
            Ok(due) => add(&mut self.due, &due),
            Err(error) => warn!("what netlink should have told is not known: {error}"),
        }
        self.phase = Phase::Leaving { at };
        Ok(())
    }

    /// Netlink, which hears nothing since `at`, has been read dry.
    fn left(&mut self, at: u64) {
        let now = Instant::now();
        self.look(now);
        self.matcher.end(at);
        self.ebpf.end_notices();
        self.netlink = None;
        self.phase = Phase::Closing { until: now + self.sources.settings.window };
    }

    /// Says what an audit has found so far; warnings have told the details.
    fn report_one(&self) {
        let report = self.report();
        notice!(
            "eBPF and netlink compared: {} events matched, {} healed, {} unexplained so far",
            report.sum(Check::Matched),
            report.sum(Check::Healed),
            report.unexplained()
        );
    }

    fn drain_ring(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let (now, boot) = (Instant::now(), boot_ns());
        let mut side = EbpfSide { matcher: &mut self.matcher, now, boot, sink };
        let progress = self.ebpf.drain_witness(budget, &mut side)?;
        if progress.drained == Drained::Dry {
            self.matcher.ebpf_is_dry(boot);
        }
        Ok(progress)
    }

    fn drain_netlink(&mut self, budget: usize) -> io::Result<Progress> {
        let (now, boot) = (Instant::now(), boot_ns());
        let Some(netlink) = &mut self.netlink else {
            return Ok(Progress { messages: 0, drained: Drained::Dry });
        };
        let (filter, stats) = (&self.sources.netlink.filter, &self.stats);
        let mut side = NetlinkSide { matcher: &mut self.matcher, filter, now, stats };
        let progress =
            netlink.drain(self.opening.map_or(budget, |left| budget.min(left)), &mut side)?;
        if progress.drained == Drained::Dry {
            self.matcher.netlink_is_dry(boot);
        }
        if let Some(left) = self.opening.take() {
            let left = left.saturating_sub(progress.messages);
            if progress.drained == Drained::More && left > 0 {
                self.opening = Some(left);
            } else {
                self.matcher.opened();
            }
        }
        Ok(progress)
    }

    /// Looks at what the sources have lost: it must be known before anything
    /// that is missing is judged.
    fn look(&mut self, now: Instant) {
        self.looked = now;
        let boot = boot_ns();
        let matcher = &mut self.matcher;
        self.ebpf.tell_losses(&mut EbpfSide { matcher, now, boot, sink: &mut Discard });
        if let Some(netlink) = &mut self.netlink {
            let (filter, stats) = (&self.sources.netlink.filter, &self.stats);
            netlink.tell_losses(&mut NetlinkSide { matcher, filter, now, stats });
        }
    }

    /// Hands on what has waited long enough, and answers behind it.
    fn release(&mut self, now: Instant, sink: &mut dyn RecordSink) {
        let due = self.matcher.deadline().is_some_and(|deadline| deadline <= now);
        if due || now.duration_since(self.looked) >= LOSSES {
            self.look(now);
        }
        self.matcher.release(now, sink);
        while let Some((mark, record)) = self.held.front()
            && self.matcher.has_passed(*mark)
        {
            let record = *record;
            self.held.pop_front();
            sink.record(record);
        }
    }

    /// Adds the messages that were due to the counts.
    fn tell_due(&mut self) {
        let due = self.report().due.get(&self.ebpf.own_netns()).copied().unwrap_or_default();
        let compared = self.sources.ebpf.tells();
        for (kind, due) in CheckKind::ALL.into_iter().zip([due.new, due.update, due.destroy]) {
            if compared[kind as usize] {
                let told = self.stats.check(Check::Due, kind);
                self.stats.add_check(Check::Due, kind, due.saturating_sub(told));
            }
        }
    }

    /// What has been found so far.
    pub fn report(&self) -> Report {
        let comparing = matches!(self.phase, Phase::Comparing { .. });
        let mut due = self.due.clone();
        if comparing && let Ok(now) = self.ebpf.due() {
            add(&mut due, &now);
        }
        let now = if comparing { self.begun.elapsed() } else { Duration::ZERO };
        Report {
            lasted: self.lasted + now,
            netns: self.ebpf.own_netns(),
            method: self.ebpf.method().name(),
            paired: self.paired,
            fields: self.matcher.findings().fields().clone(),
            lost: self.matcher.findings().last_lost(),
            due,
            lag: self.matcher.findings().lag(),
            stats: self.stats.clone(),
        }
    }
}

/// The multicast groups of these kinds of events.
fn groups(compared: [bool; 4]) -> Vec<u32> {
    const GROUPS: [&[u32]; 4] = [&[1], &[2], &[3], &[4, 6]];
    let wanted = compared.into_iter().zip(GROUPS).filter(|(wanted, _)| *wanted);
    wanted.flat_map(|(_, groups)| groups.iter().copied()).collect()
}

fn add(sum: &mut BTreeMap<u32, Due>, due: &BTreeMap<u32, Due>) {
    for (netns, Due { new, update, destroy }) in due {
        let sum = sum.entry(*netns).or_default();
        sum.new += new;
        sum.update += update;
        sum.destroy += destroy;
    }
}

impl Replying for CrossCapture {
    fn receive_reply(&mut self) {
        self.ebpf.receive_reply();
    }

    /// The ring goes first: what netlink tells stands there already.
    fn drain_events(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        self.drained = Instant::now();
        let ring = self.drain_ring(budget, sink)?;
        let netlink = self.drain_netlink(budget)?;
        if let Phase::Leaving { at } = self.phase
            && netlink.drained == Drained::Dry
        {
            self.left(at);
        }
        self.release(Instant::now(), sink);
        let messages = ring.messages + netlink.messages;
        let drained = if ring.drained == Drained::More { ring.drained } else { netlink.drained };
        Ok(Progress { messages, drained })
    }

    fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
        let (matcher, held) = (&mut self.matcher, &mut self.held);
        self.ebpf.hand_on_reply(&mut Replies { matcher, held, sink })
    }
}

impl Capture for CrossCapture {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let mut descriptors = self.ebpf.descriptors()?;
        if let Some(netlink) = &self.netlink {
            descriptors.extend(netlink.descriptors()?);
        }
        Ok(descriptors)
    }

    fn take_renewed(&mut self) -> bool {
        let netlink = self.netlink.as_mut().is_some_and(Capture::take_renewed);
        self.ebpf.take_renewed() | netlink
    }

    fn knows_losses(&self) -> bool {
        self.ebpf.knows_losses()
    }

    fn health(&self) -> Option<String> {
        self.netlink.as_ref().and_then(Capture::health).or_else(|| self.ebpf.health())
    }

    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        self.keep_schedule(Instant::now(), sink)?;
        if matches!(self.phase, Phase::Alone { .. }) {
            return self.ebpf.drain(budget, sink);
        }
        turn::drain(self, budget, sink)
    }

    fn start_dump(&mut self, kind: DumpKind) -> io::Result<()> {
        self.ebpf.start_dump(kind)
    }

    fn query(&mut self, flows: Vec<FlowKey>) -> io::Result<()> {
        self.ebpf.query(flows)
    }

    fn queue_events(&self) -> usize {
        // A notice takes half the room of an event.
        let ring = self.ebpf.queue_events() * 2 / 3;
        self.netlink.as_ref().map_or(ring, |netlink| ring.min(netlink.queue_events()))
    }

    fn holds(&self) -> Duration {
        self.sources.settings.window
    }

    fn check_due(&self) -> Option<Instant> {
        let (phase, drain) = match self.phase {
            Phase::Alone { until } => (Some(until), None),
            Phase::Comparing { until } => (until, until.map(|_| self.drained + DRAIN)),
            Phase::Leaving { .. } => (Some(self.drained), None),
            Phase::Closing { until } => (Some(until), None),
        };
        let matcher = self.matcher.deadline();
        let netlink = self.netlink.as_ref().and_then(Capture::check_due);
        [self.ebpf.check_due(), netlink, phase, drain, matcher].into_iter().flatten().min()
    }

    fn check(&mut self, now: Instant) {
        self.ebpf.check(now);
    }

    fn before_totals(&mut self) {
        self.tell_due();
    }

    fn hook_costs(&self) -> Vec<crate::capture::HookCost> {
        self.ebpf.hook_costs()
    }

    /// Netlink ends first, so that no message is left that eBPF did not see.
    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        if matches!(self.phase, Phase::Alone { .. }) {
            return self.ebpf.finish(sink);
        }
        if matches!(self.phase, Phase::Comparing { .. }) {
            self.leave()?;
        }
        // Nothing is added to its queue any more. One that cannot be read is not waited for long.
        let patience = Instant::now() + LAST;
        while let Phase::Leaving { at } = self.phase {
            match self.drain_netlink(BUDGET)?.drained {
                Drained::More => {}
                Drained::Later if Instant::now() < patience => std::thread::sleep(PAUSE),
                Drained::Dry | Drained::Later => self.left(at),
            }
        }
        self.phase = Phase::Closing { until: Instant::now() };
        self.look(Instant::now());
        self.ebpf.detach();
        while self.drain_ring(usize::MAX, sink)?.messages > 0 {}
        self.look(Instant::now());
        self.matcher.flush(sink);
        self.release(Instant::now(), sink);
        Ok(())
    }
}
