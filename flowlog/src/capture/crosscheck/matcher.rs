//! Two streams of events → one: each event once, with what both sources know of
//! it, and each that only one of them told accounted for.
//!
//! Up to three words are spoken of an event: eBPF tells it, the kernel is seen to
//! make a netlink message of it (a notice), and netlink delivers the message.
//! They come in this order, but at the end of a flow the notice comes first. An
//! event is let go when eBPF and netlink have told it, or when its window closes;
//! then the words that are missing say what has happened.
//!
//! Times here are nanoseconds of `CLOCK_BOOTTIME`: by the time of day, which may be
//! set at any moment, nothing is judged.

use std::time::{Duration, Instant};

use self::ended::Ended;
use self::judge::hand_on;
use self::lost::{Sample, Unhealed};
use super::budget::Budget;
use super::findings::Findings;
use super::late::Late;
use super::queue::{Content, Id, Item, Key, Parts, Queue};
use crate::capture::RecordSink;
use crate::capture::ebpf::witness::{Losses, Notice, Origin};
use crate::event::{Event, Expectation, Kinds, Witness};
use crate::flow::{Flow, Netns};
use crate::stats::{Check, CheckKind, Counter, Stats};

mod ended;
mod judge;
mod lost;

/// A processor that is about to speak may be kept from it for so long, by its
/// host if it is a virtual one. Nanoseconds.
const HESITATION: u64 = 500_000_000;
/// Between two looks at what waits for a source that is behind.
const AGAIN: Duration = Duration::from_millis(20);

/// What is compared, and how patiently.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// How long an event waits.
    pub(super) window: Duration,
    /// How many wait at most.
    pub(super) max_pending: usize,
    /// Which kinds both sources tell, by [`CheckKind`].
    pub(super) compared: [bool; 4],
    /// The namespace that netlink tells of.
    pub(super) netns: u32,
}

/// Puts the two streams together.
pub(super) struct Matcher {
    rules: Rules,
    netns: Netns,
    queue: Queue,
    budget: Budget,
    findings: Findings,
    /// Words that may come after their event has gone.
    late_ebpf: Late,
    late_netlink: Late,
    late_notices: Late,
    /// All that happened until then has been told.
    ebpf_seen: u64,
    netlink_seen: u64,
    /// Both sources are listened to from then on, and until then.
    from: u64,
    until: Option<u64>,
    /// What netlink had queued before `from` arrives now.
    opening: bool,
    /// Messages that arrive until then may have been on their way before `from`.
    settled: Instant,
    /// The words of one event come in a fixed order ([`Matcher::find`]).
    paired: bool,
    ended: Ended,
    /// Events that eBPF lost, and that have been logged as netlink told them.
    healed: u64,
    lost: Unhealed,
}

impl Matcher {
    pub(super) fn new(rules: Rules, stats: Stats) -> Self {
        Self {
            netns: Netns { cookie: None, inum: rules.netns },
            rules,
            queue: Queue::default(),
            budget: Budget::default(),
            findings: Findings::new(stats),
            late_ebpf: Late::default(),
            late_netlink: Late::default(),
            late_notices: Late::default(),
            ebpf_seen: 0,
            netlink_seen: 0,
            from: 0,
            until: None,
            opening: false,
            settled: Instant::now(),
            paired: false,
            ended: Ended::default(),
            healed: 0,
            lost: Unhealed::default(),
        }
    }

    /// Both sources are listened to from `from` on; what netlink has queued until [`Matcher::opened`] is older. `paired`:
    /// notices have ids.
    pub(super) fn begin(&mut self, from: u64, now: Instant, paired: bool) {
        self.from = from;
        self.until = None;
        (self.ebpf_seen, self.netlink_seen) = (0, 0);
        // Of what has happened since the last comparison nothing is known.
        self.ended = Ended::default();
        self.budget.begin();
        self.opening = true;
        self.settled = now + Duration::from_nanos(HESITATION);
        self.paired = paired;
    }

    /// What had been queued before has been read.
    pub(super) fn opened(&mut self) {
        self.opening = false;
    }

    /// Netlink is listened to no longer, and has been read dry.
    pub(super) fn end(&mut self, until: u64) {
        self.until = Some(until);
        self.netlink_seen = u64::MAX;
    }

    pub(super) fn findings(&self) -> &Findings {
        &self.findings
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// All that has arrived so far has a lower number than this.
    pub(super) fn mark(&self) -> u64 {
        self.queue.mark()
    }

    /// All that had arrived when the mark was made has gone.
    pub(super) fn has_passed(&mut self, mark: u64) -> bool {
        self.queue.has_passed(mark)
    }

    /// The beginning of this flow waits to be told.
    pub(super) fn is_beginning(&self, flow: &Flow) -> bool {
        let key = Key::of_flow(CheckKind::New, flow.orig, flow.zone);
        self.queue.named(&key).next().is_some()
    }

    /// When [`Matcher::release`] has something to do. What waits for a source
    /// that is behind is looked at again and again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let again = Instant::now() + AGAIN;
        let first = self.queue.first().map(|id| {
            let closes = self.queue.get(id).since + self.rules.window;
            if closes + AGAIN > again { closes } else { again }
        });
        let lost = self.lost.samples.front().and_then(|sample| sample.due);
        [first, lost].into_iter().flatten().min()
    }

    fn is_compared(&self, kind: CheckKind) -> bool {
        self.rules.compared[kind as usize]
    }

    /// eBPF has told an event.
    pub(super) fn ebpf_event(
        &mut self,
        event: &Event,
        origin: Origin,
        now: Instant,
        sink: &mut dyn RecordSink,
    ) {
        let kind = kind_of(event.kinds);
        if !self.is_here(event.flow.netns) || !self.is_compared(kind) {
            self.findings.stats().add(Counter::CrosscheckElsewhere, 1);
            return self.pass(Content::Event(event.clone()), kind, now, sink);
        }
        match kind {
            CheckKind::New => self.ended.remove(origin.entry),
            CheckKind::Destroy => self.ended.insert(origin.entry),
            CheckKind::Update | CheckKind::Expect => {}
        }
        let key = Key::of_flow(kind, event.flow.orig, event.flow.zone);
        let content = Content::Event(event.clone());
        self.ebpf(key, content, origin, now, sink);
    }

    /// The same for an expectation.
    pub(super) fn ebpf_expectation(
        &mut self,
        expectation: &Expectation,
        at: u64,
        origin: Origin,
        now: Instant,
        sink: &mut dyn RecordSink,
    ) {
        let content = Content::Expectation(expectation.clone(), at);
        let kind = CheckKind::Expect;
        if !self.is_here(expectation.netns) || !self.is_compared(kind) {
            self.findings.stats().add(Counter::CrosscheckElsewhere, 1);
            return self.pass(content, kind, now, sink);
        }
        let key = Key::of_expectation(expectation);
        self.ebpf(key, content, origin, now, sink);
    }

    fn is_here(&mut self, netns: Option<Netns>) -> bool {
        let here = netns.is_some_and(|netns| netns.inum == self.netns.inum);
        if here && self.netns.cookie.is_none() {
            self.netns.cookie = netns.and_then(|netns| netns.cookie);
        }
        here
    }

    fn ebpf(
        &mut self,
        key: Key,
        content: Content,
        origin: Origin,
        now: Instant,
        sink: &mut dyn RecordSink,
    ) {
        let at = origin.boot;
        self.ebpf_seen = self.ebpf_seen.max(at);
        let found = self.find(&key, Parts::EBPF, Some(origin.entry), None);
        if found.is_none() && self.until.is_some_and(|until| at > until) {
            // It is not compared any more.
            return self.pass(content, key.kind, now, sink);
        }
        self.findings.count(Check::Ebpf, key.kind);
        if self.late_ebpf.take(&key) {
            // It has been logged as netlink told it, and is not lost.
            self.healed = self.healed.saturating_sub(1);
            return;
        }
        let Some(id) = found else {
            if !origin.armed {
                self.findings.count(Check::Silent, key.kind);
                return self.pass(content, key.kind, now, sink);
            }
            let id = self.queue.push(key, now);
            self.take_ebpf(id, content, origin);
            return;
        };
        let netlink = self.take_ebpf(id, content, origin);
        if let Some(netlink) = netlink {
            self.matched(id, &netlink, now);
        }
    }

    /// The event of this name that `word`, which is told now, belongs to: the one
    /// that is known by its entry, or by its id, else one of which neither
    /// contradicts; of several the first.
    ///
    /// A beginning or a change is told by eBPF before its notice, within the same
    /// call: a notice that is there already belongs to another, of which eBPF has
    /// told nothing, and what eBPF has told last is what the notice is about. At
    /// an end the notice comes first.
    fn find(&self, key: &Key, word: Parts, entry: Option<u64>, id: Option<u32>) -> Option<Id> {
        let notice_first = key.kind == CheckKind::Destroy;
        let fits = |item: &Item| {
            !item.parts.contains(word)
                && match word {
                    Parts::EBPF if self.paired && !notice_first => {
                        !item.parts.contains(Parts::NOTICE)
                    }
                    Parts::NOTICE if self.paired && notice_first => {
                        !item.parts.contains(Parts::EBPF)
                    }
                    _ => true,
                }
        };
        let likeness = |item: &Item| {
            if !fits(item) {
                None
            } else if entry.is_some() && item.entry == entry {
                Some(0)
            } else if !is_same(item.entry, entry) || !is_same(item.id, id) {
                None
            } else {
                Some(if id.is_some() && item.id == id { 1 } else { 2 })
            }
        };
        let like = self.queue.named(key).filter_map(|(found, item)| Some((likeness(item)?, found)));
        if word == Parts::NOTICE && self.paired && !notice_first {
            let last = like.clone().filter(|(likeness, _)| *likeness == 0).last();
            if let Some((_, found)) = last {
                return Some(found);
            }
        }
        // Of equal ones `min_by_key` takes the first.
        like.min_by_key(|(likeness, _)| *likeness).map(|(_, found)| found)
    }

    /// eBPF's account takes the place of netlink's, which is returned.
    fn take_ebpf(&mut self, id: Id, content: Content, origin: Origin) -> Option<Content> {
        let item = self.queue.get_mut(id);
        item.parts |= Parts::EBPF;
        item.entry = Some(origin.entry);
        item.at = origin.boot;
        item.content.replace(content)
    }

    /// A message is due.
    pub(super) fn notice(&mut self, notice: &Notice, now: Instant) {
        let Notice { kind, entry, id, orig, zone, at, boot } = *notice;
        self.ebpf_seen = self.ebpf_seen.max(boot);
        if !self.is_compared(kind) {
            return;
        }
        if kind == CheckKind::New {
            self.ended.remove(entry);
        }
        let key = Key::of_flow(kind, orig, zone);
        if self.late_notices.take(&key) {
            return;
        }
        let found = self.find(&key, Parts::NOTICE, Some(entry), id);
        let found = found.unwrap_or_else(|| self.queue.push(key, now));
        let again = kind == CheckKind::Destroy && self.ended.contains(entry);
        let item = self.queue.get_mut(found);
        item.again = again;
        item.parts |= Parts::NOTICE;
        item.entry = Some(entry);
        item.id = item.id.or(id);
        item.noticed = item.noticed.or(Some(at));
        if item.at == 0 {
            item.at = boot;
        }
    }

    /// An event of netlink, whose content is kept. It was read at `at`, for
    /// the message has no time of its own.
    pub(super) fn netlink_event(&mut self, event: &Event, at: u64, now: Instant) {
        let kind = kind_of(event.kinds);
        let key = Key::of_flow(kind, event.flow.orig, event.flow.zone);
        let mut event = event.clone();
        event.flow.netns = Some(self.netns);
        let id = event.flow.id;
        self.netlink(key, Content::Event(event), id, at, now);
    }

    /// The same for an expectation.
    pub(super) fn netlink_expectation(
        &mut self,
        told: &Expectation,
        real: u64,
        at: u64,
        now: Instant,
    ) {
        let key = Key::of_expectation(told);
        let told = Expectation { netns: Some(self.netns), ..told.clone() };
        self.netlink(key, Content::Expectation(told, real), None, at, now);
    }

    fn netlink(&mut self, key: Key, content: Content, told: Option<u32>, at: u64, now: Instant) {
        self.findings.count(Check::Netlink, key.kind);
        if !self.is_compared(key.kind) {
            return;
        }
        if self.late_netlink.take(&key) {
            return;
        }
        let Some(id) = self.find(&key, Parts::NETLINK, None, told) else {
            if self.late_netlink.is_full() {
                self.findings.count(Check::Unchecked, key.kind);
                return;
            }
            let id = self.queue.push_orphan(key, now);
            let item = self.queue.get_mut(id);
            (item.parts, item.content, item.id) = (Parts::NETLINK, Some(content), told);
            item.at = at;
            item.early = self.opening;
            return;
        };
        self.queue.place_orphans_before(id);
        let item = self.queue.get_mut(id);
        item.parts |= Parts::NETLINK;
        item.id = told.or(item.id);
        self.netlink_seen = self.netlink_seen.max(item.at);
        if item.parts.contains(Parts::EBPF) {
            self.matched(id, &content, now);
        } else {
            item.content = Some(content);
        }
    }

    /// Both have told it.
    fn matched(&mut self, id: Id, netlink: &Content, now: Instant) {
        let item = self.queue.get_mut(id);
        item.done = Some(Witness::Both);
        if let Some(ebpf) = &item.content {
            let lag = now.saturating_duration_since(item.since);
            self.findings.matched(&item.key, ebpf, netlink, lag);
        }
    }

    /// The ring has been read dry: all that happened until `at` has been told.
    pub(super) fn ebpf_is_dry(&mut self, at: u64) {
        self.ebpf_seen = self.ebpf_seen.max(at);
    }

    /// The same for netlink's queue.
    pub(super) fn netlink_is_dry(&mut self, at: u64) {
        self.netlink_seen = self.netlink_seen.max(at);
    }

    /// eBPF has lost these until `at`.
    pub(super) fn ebpf_lost(&mut self, losses: Losses, at: u64) {
        let before = self.budget.lost_by_ebpf();
        self.budget.ebpf_lost(losses);
        let lost = self.budget.lost_by_ebpf();
        if lost > before {
            self.lost.samples.push_back(Sample { lost, at, due: None });
        }
    }

    pub(super) fn netlink_lost(&mut self, messages: u64) {
        self.budget.netlink_lost(messages);
    }

    /// What needs no comparison keeps its place.
    fn pass(&mut self, content: Content, kind: CheckKind, now: Instant, sink: &mut dyn RecordSink) {
        if self.queue.is_empty() {
            return hand_on(content, None, Witness::Single, sink);
        }
        // Its name is of no use: nobody else will tell it.
        let key = Key::of_flow(kind, Default::default(), 0);
        let id = self.queue.push(key, now);
        let item = self.queue.get_mut(id);
        item.parts = Parts::all();
        item.content = Some(content);
        item.done = Some(Witness::Single);
    }
}

/// Two names do not contradict each other.
fn is_same<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn kind_of(kinds: Kinds) -> CheckKind {
    if kinds.contains(Kinds::DESTROY) {
        CheckKind::Destroy
    } else if kinds.contains(Kinds::NEW) {
        CheckKind::New
    } else {
        CheckKind::Update
    }
}

#[cfg(test)]
mod tests;
