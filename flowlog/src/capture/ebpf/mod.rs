//! Capture by eBPF: programs on the functions of conntrack write each event
//! into a ring, in all network namespaces, with the reason of its end, and no
//! netlink message is built. Dumps and queries still go over netlink.
//!
//! | module | its one job |
//! |---|---|
//! | [`btf`] | the kernel's own description of its types and functions |
//! | [`layout`] | where things are in this kernel |
//! | [`hooks`] | which function tells what, and what stands in for it |
//! | `attach` | the programs that the settings need |
//! | [`probes`] | the programs: loaded, attached, gone |
//! | `bpf` | the calls of bpf(2) that aya does not make |
//! | `decode` | bytes of the ring → events |
//! | `reader` | events, some ahead, to whoever takes them |
//! | [`replay`] | records out of memory, for tests |
//! | `counts` | what the programs count |
//! | `clock` | the kernel's clock → time of day |
//! | `dumps` | dumps and queries over netlink, as flows of one namespace |
//! | `selfcheck` | do the hooks see all? |
//! | [`witness`] | the same for a cross-check: events with their origin, and due messages |
//! | [`trace`] | the same for a trace: events, refusals, and where each happened |
//! | [`symbols`] | addresses of the kernel's functions → names |
//! | `ledger` | how many messages were due in each namespace |
//! | `spoil` | events dropped or altered on purpose, for tests |
//! | [`unable`] | why it cannot be had here |
//! | `ability` | what can be had here, found by trying |

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use flowlog_ebpf::{filter, kind};
use tracing::warn;

pub use self::ability::{Ability, abilities};
use self::attach::Attached;
use self::btf::KernelBtf;
use self::clock::Clock;
use self::counts::Counts;
use self::decode::Decoder;
use self::dumps::Dumps;
use self::ledger::Ledger;
pub use self::probes::Method;
use self::probes::{Probes, Sizes, maps};
use self::reader::Reader;
use self::selfcheck::SelfCheck;
use self::spoil::Spoil;
use self::trace::{Functions, Refusals};
pub use self::unable::Unable;
use self::witness::{Losses, Passed};
use super::filter::Filter;
use super::turn::{self, Replying};
use super::{Capture, Drained, DumpKind, FlowKey, HookCost, Progress, RecordSink};
use crate::config::Attach;
use crate::event::{Kinds, Lost, Record};
use crate::flow::Flow;
use crate::kernel::TableFill;
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

mod ability;
mod attach;
mod bpf;
pub mod btf;
pub(in crate::capture) mod clock;
mod counts;
mod decode;
mod dumps;
pub mod hooks;
pub mod layout;
mod ledger;
#[cfg(feature = "ebpf-log")]
mod messages;
pub mod probes;
mod reader;
pub mod replay;
mod selfcheck;
mod spoil;
pub mod symbols;
pub mod trace;
pub mod unable;
pub mod witness;

/// Bytes of the ring that an event takes, with the header of its record.
const RECORD: usize = size_of::<flowlog_ebpf::RawFlow>() + 8;
/// The same while connections are traced.
const TRACED_RECORD: usize = size_of::<flowlog_ebpf::RawTrace>() + 8;
/// Between two looks at what the programs count.
const COUNTS: Duration = Duration::from_secs(1);
/// What loses the events of records that cannot be decoded.
const UNDECODED: &str = "ebpf_malformed";
/// Namespaces whose messages are counted.
const NAMESPACES: u32 = 4096;
/// Tasks of each processor that can be in a function between its entry and its
/// exit. The maps of them drop their least used entries, and each processor takes
/// 128 free ones at a time (`LOCAL_FREE_TARGET`, kernel/bpf/bpf_lru_list.c, 6.12):
/// with twice as many no entry in use is dropped.
const TASKS: u32 = 256;
/// Of all processors at least.
const TASKS_MIN: u32 = 1024;

/// What is to be captured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which events are wanted.
    pub mask: Kinds,
    /// The ends of all flows are wanted, whatever the mask says: somebody keeps
    /// a table.
    pub tracked: bool,
    /// Flows whose events are wanted.
    pub filter: Filter,
    /// How programs are to be attached.
    pub attach: Attach,
    /// Size of the ring, bytes: a power of two, in pages.
    pub ring: u32,
    /// Inode number of the one namespace that is wanted; none: all.
    pub netns: Option<u32>,
    /// Inode number of the namespace that the daemon's sockets are in.
    pub own_netns: u32,
    /// The events are compared with netlink's, which tells all updates if it
    /// tells any: all are wanted, and messages can be counted by namespace.
    pub all_updates: bool,
    /// The programs shall tell where each thing happened, and of refusals too,
    /// and whoever drains does so by [`EbpfCapture::drain_trace`].
    pub traced: Option<Refusals>,
    /// The caller tries again: a transient failure is an error, and no reason for a
    /// second choice.
    pub retried: bool,
}

impl Settings {
    /// Which kinds of events are told, by [`CheckKind`](crate::stats::CheckKind).
    pub fn tells(&self) -> [bool; 4] {
        let (new, updates) = (self.wants_new(), self.wants_updates());
        [new, updates, self.wants_ends(), self.wants_expectations()]
    }

    fn wants_new(&self) -> bool {
        self.mask.intersects(Kinds::NEW | Kinds::HELPER)
    }

    fn wants_ends(&self) -> bool {
        self.mask.intersects(Kinds::DESTROY | Kinds::GC) || self.tracked
    }

    fn wants_updates(&self) -> bool {
        decode::updates(self.mask) != 0
    }

    /// Bytes of the ring that an event takes.
    fn record(&self) -> usize {
        if self.traced.is_some() { TRACED_RECORD } else { RECORD }
    }

    /// Which changes make an update.
    fn updates(&self) -> u32 {
        if self.all_updates && self.wants_updates() {
            return u32::MAX;
        }
        decode::updates(self.mask)
    }

    fn sizes(&self) -> Sizes {
        // Those that the kernel may ever have, for each of which it keeps a list.
        let tasks = tasks(aya::util::nr_cpus().unwrap_or(1));
        // The programs' own sizes take some memory, the first of each processor.
        Sizes {
            ring: self.ring,
            namespaces: if self.all_updates { NAMESPACES } else { 1 },
            messages: if self.all_updates { tasks } else { 1 },
            allocations: if self.traced.is_some() { tasks } else { 1 },
            tasks,
        }
    }

    fn wants_expectations(&self) -> bool {
        self.mask.contains(Kinds::EXPECT)
    }

    /// What the programs are told.
    fn for_programs(&self, layout: flowlog_ebpf::Layout) -> flowlog_ebpf::Settings {
        let mut kinds = 0;
        for (wanted, kind) in [
            (self.wants_new(), kind::NEW),
            (self.wants_updates(), kind::UPDATE),
            (self.wants_ends(), kind::DESTROY),
            (self.wants_expectations(), kind::EXPECT_NEW),
            (self.wants_expectations(), kind::EXPECT_DESTROY),
        ] {
            kinds |= u32::from(wanted) << kind;
        }
        let mut protocols = [0; 8];
        for protocol in &self.filter.protocols {
            protocols[usize::from(protocol / 32)] |= 1 << (protocol % 32);
        }
        flowlog_ebpf::Settings {
            layout,
            netns: self.netns.unwrap_or(0),
            counted_netns: self.own_netns,
            filters: filters(&self.filter),
            kinds,
            updates: self.updates(),
            protocols,
        }
    }
}

/// Tasks that can be in a function between its entry and its exit.
fn tasks(processors: usize) -> u32 {
    u32::try_from(processors).unwrap_or(1).saturating_mul(TASKS).max(TASKS_MIN)
}

/// Which filters there are, as the programs know them.
fn filters(wanted: &Filter) -> u32 {
    let mut filters = 0;
    for (networks, v4, v6) in [
        (&wanted.sources, filter::SRC_V4, filter::SRC_V6),
        (&wanted.destinations, filter::DST_V4, filter::DST_V6),
    ] {
        for network in networks {
            filters |= if network.address().is_ipv4() { v4 } else { v6 };
        }
    }
    if !wanted.protocols.is_empty() {
        filters |= filter::PROTO;
    }
    filters
}

/// Records from the programs' ring.
pub struct EbpfCapture {
    ring: RingBuf<MapData>,
    method: Method,
    /// None once they are detached, at the end.
    probes: Option<Probes>,
    counts: Counts,
    counted: Instant,
    /// Losses that have been counted and not yet told.
    untold: Losses,
    /// Times that programs were passed over, as last seen.
    passed: Passed,
    reader: Reader,
    ledger: Ledger,
    spoil: Option<Spoil>,
    own_netns: u32,
    dumps: Dumps,
    selfcheck: Option<SelfCheck>,
    functions: Functions,
    /// Why the programs' counts cannot be read.
    uncounted: Option<String>,
    room: usize,
    complaints: RateLimit,
    stats: Stats,
}

impl EbpfCapture {
    /// Loads and attaches the programs. Events are captured from now on.
    ///
    /// # Errors
    /// Why it cannot be had here.
    pub fn open(settings: &Settings, stats: Stats) -> Result<Self, Unable> {
        // First what every method needs, so that this is what is told.
        unable::preconditions(Method::Fentry)?;
        let dumps = Dumps::open(settings.own_netns, stats.clone())?;
        let btf = KernelBtf::open(btf::DIRECTORY.as_ref())?;
        let layout = layout::layout(&btf)?;
        let Attached { mut probes, hooked, functions } =
            attach::attach(settings, &settings.for_programs(layout), &btf)?;
        let counts = Counts::new(probes.take_map(maps::COUNTS)?, stats.clone())?;
        let ring = RingBuf::try_from(probes.take_map(maps::RECORDS)?)?;
        let ledger = Ledger::new(probes.take_map(maps::LEDGER)?, probes.take_map(maps::MESSAGES)?)?;
        let mut capture = Self {
            ring,
            method: probes.method(),
            probes: Some(probes),
            counts,
            counted: Instant::now(),
            untold: Losses::default(),
            passed: Passed::default(),
            reader: Reader::new(Decoder { hz: clock::jiffies_per_second() }, stats.clone()),
            ledger,
            spoil: Spoil::wanted(settings.own_netns),
            own_netns: settings.own_netns,
            dumps,
            selfcheck: None,
            functions,
            uncounted: None,
            room: settings.ring as usize / settings.record(),
            complaints: RateLimit::per_second(),
            stats,
        };
        if settings.wants_updates() {
            capture.dumps.arm()?;
        }
        capture.selfcheck = hooked.map(|hooked| {
            // The files belong to the namespace of the source, which the thread that
            // compares later has left.
            SelfCheck::begin(Instant::now(), TableFill::open(), hooked, || capture.seen())
        });
        // From now on nobody tries once more.
        capture.probes.iter_mut().for_each(Probes::no_longer_retried);
        Ok(capture)
    }

    /// How the programs are attached.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Reads the ring until it is dry or the budget is spent.
    fn drain_ring(&mut self, budget: usize, sink: &mut dyn RecordSink) -> Progress {
        let clock = Clock::now();
        let mut messages = 0;
        while messages < budget {
            let Some(record) = self.ring.next() else { break };
            messages += 1;
            self.reader.take(&record, clock, sink);
        }
        self.reader.hand_on(sink);
        self.stats.add(Counter::EbpfRecords, messages as u64);
        let drained = if messages < budget { Drained::Dry } else { Drained::More };
        Progress { messages, drained }
    }

    /// Tells what the programs have counted. A loss stands behind what was read
    /// before it was noticed.
    fn read_counts(&mut self, sink: &mut dyn RecordSink) {
        self.look();
        let losses = std::mem::take(&mut self.untold);
        let at = crate::capture::netlink::now_ns();
        for (source, events) in [("ebpf", losses.events()), (UNDECODED, losses.malformed)] {
            if events > 0 {
                sink.record(Record::Lost(Lost::noticed(source, events, at)));
            }
        }
    }

    /// Looks at what the programs count.
    fn look(&mut self) {
        self.counted = Instant::now();
        let news = match self.counts.read() {
            Ok(news) => news,
            Err(error) => {
                if self.complaints.allow() {
                    warn!("the counts of the eBPF programs cannot be read: {error}");
                }
                self.uncounted = Some(error.to_string());
                return;
            }
        };
        self.uncounted = None;
        if news.losses.events() > 0 && self.complaints.allow() {
            let places: Vec<_> =
                news.lost_by_processor.iter().map(|(cpu, n)| format!("{n} on CPU {cpu}")).collect();
            warn!(
                "the ring was full; lost since the start: {}; raise ring_buffer_size",
                places.join(", ")
            );
        }
        self.untold += news.losses;
        self.look_for_missed();
    }
}

impl EbpfCapture {
    /// When the programs' counts are to be read: what the kernel passed over, or
    /// found no room for, shows nowhere else, whether or not a record follows it.
    fn counts_due(&self) -> Instant {
        self.counted + COUNTS
    }

    /// Entries of the counted namespace that the programs saw begin and end. Losses
    /// that show here are reported by the drain that follows.
    fn seen(&mut self) -> Option<(u64, u64)> {
        let news = self.counts.read().ok()?;
        self.untold += news.losses;
        Some(self.counts.counted())
    }
}

impl Replying for EbpfCapture {
    fn receive_reply(&mut self) {
        self.dumps.receive();
    }

    fn drain_events(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let events = self.drain_ring(budget, sink);
        #[cfg(feature = "ebpf-log")]
        self.probes.iter_mut().for_each(Probes::tell);
        if self.counts_due() <= Instant::now() {
            self.read_counts(sink);
        }
        Ok(events)
    }

    fn hand_on_reply(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
        self.dumps.hand_on(sink)
    }
}

impl Capture for EbpfCapture {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(vec![self.dumps.descriptor()?, self.ring.as_fd().try_clone_to_owned()?])
    }

    fn take_renewed(&mut self) -> bool {
        self.dumps.take_renewed()
    }

    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        turn::drain(self, budget, sink)
    }

    fn start_dump(&mut self, kind: DumpKind) -> io::Result<()> {
        self.dumps.start(kind)
    }

    fn query(&mut self, flows: Vec<FlowKey>) -> io::Result<()> {
        self.dumps.query(flows)
    }

    fn queue_events(&self) -> usize {
        self.room
    }

    fn hook_costs(&self) -> Vec<HookCost> {
        self.probes.as_ref().map(Probes::costs).unwrap_or_default()
    }

    /// Detaches, and reads what is left: nothing is added any more, so that the
    /// losses told are all there were.
    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        self.read_counts(sink);
        self.detach();
        while self.drain_ring(usize::MAX, sink).messages > 0 {}
        self.read_counts(sink);
        Ok(())
    }

    fn knows_losses(&self) -> bool {
        self.uncounted.is_none()
    }

    fn health(&self) -> Option<String> {
        let uncounted = self.uncounted.as_ref().map(|why| {
            format!(
                "the counts of the eBPF programs cannot be read ({why}), so losses are not known; \
                 restart flowlog"
            )
        });
        uncounted.or_else(|| self.dumps.trouble())
    }

    fn check_due(&self) -> Option<Instant> {
        // The drain that follows the call of `check` looks at the counts.
        let selfcheck = self.selfcheck.as_ref().map(SelfCheck::due);
        [Some(self.counts_due()), selfcheck, self.dumps.due()].into_iter().flatten().min()
    }

    fn check(&mut self, now: Instant) {
        if let Some(mut selfcheck) = self.selfcheck.take() {
            selfcheck.check(now, || self.seen());
            self.selfcheck = Some(selfcheck);
        }
    }
}
