//! The end of the wait: what both have told goes out, and of what one has not
//! told the words that are missing say why.

use std::time::{Duration, Instant};

use super::{HESITATION, Matcher};
use crate::capture::RecordSink;
use crate::capture::crosscheck::budget::Explained;
use crate::capture::crosscheck::late::Late;
use crate::capture::crosscheck::queue::{Content, Item, Parts};
use crate::capture::crosscheck::report::Loser;
use crate::event::{Record, Witness};
use crate::stats::{Check, CheckKind};

/// A source that is further behind than its window and this is not waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why an item goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// Its window has closed, or nothing more will come.
    Closed,
    /// There are too many.
    Evicted,
}

impl Matcher {
    /// Hands on what both have told, and what has waited long enough.
    pub(in super::super) fn release(&mut self, now: Instant, sink: &mut dyn RecordSink) {
        while let Some(first) = self.queue.first() {
            let item = self.queue.get(first);
            let closed = item.done.is_some() || self.is_ripe(item, now);
            let reason = if closed { Reason::Closed } else { Reason::Evicted };
            if !closed && self.queue.len() <= self.rules.max_pending {
                break;
            }
            self.let_go(reason, sink);
        }
        let seen = self.netlink_seen.saturating_sub(HESITATION);
        self.late_netlink.forget(seen);
        let seen = self.ebpf_seen.saturating_sub(HESITATION);
        self.late_ebpf.forget(seen);
        self.late_notices.forget(seen);
        self.tell_lost(now, sink);
    }

    /// The window of an item has closed, and what is missing can no longer come:
    /// the daemon itself may have stood still while words waited for it.
    fn is_ripe(&self, item: &Item, now: Instant) -> bool {
        let closes = item.since + self.rules.window;
        let told = |seen: u64| seen.saturating_sub(HESITATION) >= item.at;
        let ebpf = item.parts.contains(Parts::EBPF) || told(self.ebpf_seen);
        let netlink = item.parts.contains(Parts::NETLINK) || told(self.netlink_seen);
        closes <= now && (ebpf && netlink || closes + PATIENCE <= now)
    }

    /// Hands on all that is left: nothing more will come.
    pub(in super::super) fn flush(&mut self, sink: &mut dyn RecordSink) {
        self.ebpf_seen = u64::MAX;
        self.netlink_seen = u64::MAX;
        while !self.queue.is_empty() {
            self.let_go(Reason::Closed, sink);
        }
        self.late_ebpf = Late::default();
        self.late_netlink = Late::default();
        self.late_notices = Late::default();
        self.lost.samples.clear();
        self.tell_lost_of(self.budget.lost_by_ebpf(), sink);
    }

    /// The first item goes.
    fn let_go(&mut self, reason: Reason, sink: &mut dyn RecordSink) {
        let Some(mut item) = self.queue.pop() else { return };
        let witness = match item.done {
            Some(witness) => Some(witness),
            None => self.judge(&item, reason),
        };
        self.expect_late(&item);
        if let (Some(witness), Some(mut content)) = (witness, item.content.take()) {
            if let (Witness::Healed, Content::Event(event)) = (witness, &mut content) {
                // The notice tells it better than the message does.
                event.at = item.noticed.unwrap_or(event.at);
            }
            hand_on(content, item.id, witness, sink);
        }
    }

    /// What the missing words of an item mean; returns as told by whom it is to
    /// be logged, if at all.
    fn judge(&mut self, item: &Item, reason: Reason) -> Option<Witness> {
        let kind = item.key.kind;
        if self.is_at_boundary(item) {
            self.findings.count(Check::Boundary, kind);
            return item.parts.contains(Parts::EBPF).then_some(Witness::Single);
        }
        if item.parts.contains(Parts::EBPF) {
            return Some(self.judge_without_netlink(item, reason));
        }
        if item.again {
            self.findings.count(Check::Redelivered, kind);
            return None;
        }
        let seen = self.ebpf_seen.saturating_sub(HESITATION) >= item.at;
        if reason == Reason::Evicted || !seen {
            self.findings.count(Check::Unchecked, kind);
            // Until eBPF tells it after all.
            self.healed += u64::from(item.parts.contains(Parts::NETLINK));
        } else if item.parts.contains(Parts::NETLINK) {
            let explained = self.budget.explain_ebpf(kind);
            if explained.is_none() && item.parts == Parts::NETLINK && item.since <= self.settled {
                // It was on its way when eBPF was not yet there.
                self.findings.count(Check::Boundary, kind);
                return None;
            }
            self.findings.count(Check::OnlyNetlink, kind);
            self.findings.lost(Loser::Ebpf, &item.key);
            match explained {
                Some(Explained::Lost) => self.healed += 1,
                Some(Explained::Fault) => {}
                None => self.findings.unexplained(Check::OnlyNetlinkUnexplained, "eBPF", item),
            }
            self.findings.count(Check::Healed, kind);
        } else {
            self.findings.count(Check::Unseen, kind);
            self.findings.lost(Loser::Both, &item.key);
            let ebpf = self.budget.explain_ebpf(kind).is_some();
            let netlink = self.budget.explain_netlink();
            if !(ebpf && netlink) {
                self.findings.unexplained(Check::UnseenUnexplained, "eBPF and netlink", item);
            }
        }
        item.parts.contains(Parts::NETLINK).then_some(Witness::Healed)
    }

    fn judge_without_netlink(&mut self, item: &Item, reason: Reason) -> Witness {
        let kind = item.key.kind;
        let seen = self.netlink_seen.saturating_sub(HESITATION) >= item.at;
        if reason == Reason::Evicted || !seen {
            self.findings.count(Check::Unchecked, kind);
            return Witness::Single;
        }
        // Of expectations there are no notices.
        if !item.parts.contains(Parts::NOTICE) && kind != CheckKind::Expect {
            let lost = self.budget.explain_notice();
            self.findings.count(if lost { Check::Unchecked } else { Check::Silent }, kind);
            return Witness::Single;
        }
        self.findings.count(Check::OnlyEbpf, kind);
        self.findings.lost(Loser::Netlink, &item.key);
        if !self.budget.explain_netlink() {
            self.findings.unexplained(Check::OnlyEbpfUnexplained, "netlink", item);
        }
        Witness::Ebpf
    }

    /// One of the sources was not listened to when this happened. At the end eBPF
    /// is listened to for longer than netlink, so what it has not told is missing.
    fn is_at_boundary(&self, item: &Item) -> bool {
        let timed = item.parts.intersects(Parts::EBPF | Parts::NOTICE);
        let before = if timed { item.at < self.from } else { item.early };
        let known = timed && item.parts.contains(Parts::NETLINK);
        let hesitation = if known { 0 } else { HESITATION };
        before || self.until.is_some_and(|until| item.at > until.saturating_sub(hesitation))
    }

    /// Words that are missing may come yet, unless their source has told all
    /// that happened until then, and belong to what has gone. The sources tell
    /// in order, so they come before any like them of what still waits.
    fn expect_late(&mut self, item: &Item) {
        let Item { key, parts, at, .. } = *item;
        if !parts.intersects(Parts::EBPF | Parts::NETLINK) {
            // It has not been logged.
            return;
        }
        let ebpf = self.ebpf_seen.saturating_sub(HESITATION) < at;
        let netlink = self.netlink_seen.saturating_sub(HESITATION) < at;
        if ebpf && !parts.contains(Parts::EBPF) {
            self.late_ebpf.expect(key, at);
        }
        if netlink && !parts.contains(Parts::NETLINK) {
            self.late_netlink.expect(key, at);
        }
        if ebpf && !parts.contains(Parts::NOTICE) && key.kind != CheckKind::Expect {
            self.late_notices.expect(key, at);
        }
    }
}

pub(super) fn hand_on(
    content: Content,
    id: Option<u32>,
    witness: Witness,
    sink: &mut dyn RecordSink,
) {
    match content {
        Content::Event(mut event) => {
            event.flow.id = event.flow.id.or(id);
            event.witness = witness;
            sink.record(Record::Event(&event));
        }
        Content::Expectation(expectation, at) => {
            sink.record(Record::Expectation(&expectation, at));
        }
    }
}
