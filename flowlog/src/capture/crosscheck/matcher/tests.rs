//! The matcher against what has happened: words told in order, lost, late,
//! false.

use CheckKind::{Destroy, New, Update};

use super::*;
use crate::event::Record;
use crate::flow::Tuple;

mod clock;
mod model;

const NETNS: u32 = 7;
const WINDOW: Duration = Duration::from_secs(2);
/// A moment when both sources are listened to for long, nanoseconds.
const T: u64 = 1_000_000_000_000;

/// What has been logged.
#[derive(Default)]
struct Log {
    events: Vec<(CheckKind, u16, Witness, Option<u32>)>,
    expectations: usize,
    lost: u64,
}

impl RecordSink for Log {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Event(event) => {
                let flow = &event.flow;
                assert!(flow.netns.is_some());
                let kind = kind_of(event.kinds);
                self.events.push((kind, flow.orig.src_l4, event.witness, flow.id));
            }
            Record::Expectation(..) => self.expectations += 1,
            Record::Lost(lost) => {
                assert_eq!(lost.source, "both");
                self.lost += lost.events;
            }
            other => unreachable!("{other:?}"),
        }
    }
}

struct Scene {
    matcher: Matcher,
    log: Log,
    now: Instant,
    stats: Stats,
    /// When it happens.
    at: u64,
    /// By how much the time of day is ahead.
    ahead: i64,
    /// Which of the connections with the same tuple.
    life: u16,
}

fn event(kind: CheckKind, port: u16) -> Event {
    let kinds = match kind {
        New => Kinds::NEW,
        Update => Kinds::UPDATE,
        Destroy => Kinds::DESTROY,
        CheckKind::Expect => unreachable!("no event"),
    };
    let orig = Tuple { src_l4: port, ..Tuple::default() };
    Event { kinds, at: T, flow: Flow { orig, ..Flow::default() }, ..Event::default() }
}

const fn armed(entry: u64) -> Origin {
    Origin { entry, armed: true, boot: T }
}

impl Scene {
    fn new() -> Self {
        Self::with(1000)
    }

    fn with(max_pending: usize) -> Self {
        let stats = Stats::default();
        let rules = Rules { window: WINDOW, max_pending, compared: [true; 4], netns: NETNS };
        let mut matcher = Matcher::new(rules, stats.clone());
        let begun = Instant::now();
        matcher.begin(T - 1_000_000_000, begun, true);
        matcher.opened();
        let now = begun + Duration::from_secs(1);
        Self { matcher, log: Log::default(), now, stats, at: T, ahead: 0, life: 0 }
    }

    fn entry(&self, port: u16) -> u64 {
        u64::from(port) + 1000 * u64::from(self.life)
    }

    /// The time of day.
    fn real(&self) -> u64 {
        self.at.saturating_add_signed(self.ahead)
    }

    fn ebpf(&mut self, kind: CheckKind, port: u16) {
        let mut event = Event { at: self.real(), ..event(kind, port) };
        event.flow.netns = Some(Netns { cookie: Some(1), inum: NETNS });
        let origin = Origin { boot: self.at, ..armed(self.entry(port)) };
        self.matcher.ebpf_event(&event, origin, self.now, &mut self.log);
    }

    fn notice(&mut self, kind: CheckKind, port: u16) {
        let Flow { orig, zone, .. } = event(kind, port).flow;
        let (entry, id) = (self.entry(port), Some(self.entry(port) as u32));
        let (at, boot) = (self.real(), self.at);
        self.matcher.notice(&Notice { kind, entry, id, orig, zone, at, boot }, self.now);
    }

    fn netlink(&mut self, kind: CheckKind, port: u16) {
        let mut event = Event { at: self.real(), ..event(kind, port) };
        event.flow.id = Some(self.entry(port) as u32);
        self.matcher.netlink_event(&event, self.at, self.now);
    }

    fn all(&mut self, kind: CheckKind, port: u16) {
        if kind == Destroy {
            self.notice(kind, port);
            self.ebpf(kind, port);
        } else {
            self.ebpf(kind, port);
            self.notice(kind, port);
        }
        self.netlink(kind, port);
    }

    fn dry(&mut self) {
        self.matcher.ebpf_is_dry(self.at + HESITATION);
        self.matcher.netlink_is_dry(self.at + HESITATION);
    }

    fn release(&mut self) {
        self.matcher.release(self.now, &mut self.log);
    }

    /// All windows close.
    fn wait(&mut self) {
        self.dry();
        for _ in 0..2 {
            self.release();
            self.now += WINDOW;
        }
        self.release();
    }

    fn sum(&self, check: Check) -> u64 {
        CheckKind::ALL.into_iter().map(|kind| self.stats.check(check, kind)).sum()
    }

    /// All that has been counted, but for what each source told.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Check::ALL
            .into_iter()
            .skip(3)
            .map(|check| (check.name(), self.sum(check)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[test]
fn what_both_tell_is_logged_at_once_with_its_id() {
    let mut scene = Scene::new();
    for kind in [New, Update, Destroy] {
        scene.all(kind, 5);
    }
    scene.release();
    let logged = [New, Update, Destroy].map(|kind| (kind, 5, Witness::Both, Some(5)));
    assert_eq!(scene.log.events, logged);
    assert_eq!(scene.counts(), [("matched", 3)]);
    assert!(scene.matcher.is_empty());
    assert!(scene.matcher.findings().lag().is_some());
}

#[test]
fn what_netlink_lost_is_logged_when_its_window_closes() {
    let mut scene = Scene::new();
    scene.ebpf(New, 5);
    scene.notice(New, 5);
    scene.all(New, 6);
    scene.release();
    assert!(scene.log.events.is_empty(), "order is kept");
    scene.matcher.netlink_lost(1);
    scene.wait();
    let logged = [(New, 5, Witness::Ebpf, Some(5)), (New, 6, Witness::Both, Some(6))];
    assert_eq!(scene.log.events, logged);
    assert_eq!(scene.counts(), [("matched", 1), ("only_ebpf", 1)]);
}

#[test]
fn what_ebpf_lost_is_healed_in_its_place() {
    let mut scene = Scene::new();
    // The ring is read first, so the end is there before the beginning.
    scene.notice(Destroy, 5);
    scene.ebpf(Destroy, 5);
    scene.netlink(New, 5);
    scene.netlink(Destroy, 5);
    scene.matcher.ebpf_lost(Losses { new: 1, notices: 1, ..Losses::default() }, T);
    scene.wait();
    let logged = [(New, 5, Witness::Healed, Some(5)), (Destroy, 5, Witness::Both, Some(5))];
    assert_eq!(scene.log.events, logged);
    assert_eq!(scene.counts(), [("matched", 1), ("only_netlink", 1), ("healed", 1)]);
    scene.matcher.flush(&mut scene.log);
    assert_eq!(scene.log.lost, 0, "it has been healed");
}

#[test]
fn what_nobody_told_is_lost() {
    let mut scene = Scene::new();
    scene.notice(Destroy, 5);
    scene.matcher.ebpf_lost(Losses { new: 2, destroy: 1, ..Losses::default() }, T);
    scene.matcher.netlink_lost(3);
    scene.wait();
    assert!(scene.log.events.is_empty());
    assert_eq!(scene.counts(), [("unseen", 1)]);
    assert_eq!(scene.log.lost, 3);
    assert_eq!(scene.stats.get(Counter::CrosscheckLost), 3);
}

#[test]
fn what_nothing_explains_is_told() {
    let mut scene = Scene::new();
    scene.ebpf(New, 5);
    scene.notice(New, 5);
    scene.netlink(Update, 6);
    scene.notice(Destroy, 7);
    scene.wait();
    let expected = [
        ("only_ebpf", 1),
        ("only_ebpf_unexplained", 1),
        ("only_netlink", 1),
        ("only_netlink_unexplained", 1),
        ("healed", 1),
        ("unseen", 1),
        ("unseen_unexplained", 1),
    ];
    assert_eq!(scene.counts(), expected);
}

#[test]
fn netlink_may_be_silent_by_nature() {
    let mut scene = Scene::new();
    // No extension for events; then no notice, as when a namespace ends.
    let mut unarmed = event(Destroy, 5);
    unarmed.flow.netns = Some(Netns { cookie: None, inum: NETNS });
    let origin = Origin { armed: false, ..armed(5) };
    scene.matcher.ebpf_event(&unarmed, origin, scene.now, &mut scene.log);
    assert_eq!(scene.log.events.len(), 1, "nobody is waited for");
    scene.ebpf(Destroy, 6);
    scene.wait();
    assert_eq!(scene.counts(), [("silent", 2)]);
    // Where notices were lost, nobody knows.
    scene.ebpf(Destroy, 7);
    scene.matcher.ebpf_lost(Losses { notices: 1, ..Losses::default() }, T);
    scene.wait();
    assert_eq!(scene.counts(), [("silent", 2), ("unchecked", 1)]);
}

#[test]
fn other_namespaces_pass() {
    let mut scene = Scene::new();
    let mut other = event(New, 5);
    other.flow.netns = Some(Netns { cookie: None, inum: NETNS + 1 });
    scene.matcher.ebpf_event(&other, armed(1), scene.now, &mut scene.log);
    assert_eq!(scene.log.events, [(New, 5, Witness::Single, None)]);
    scene.ebpf(New, 6);
    scene.matcher.ebpf_event(&other, armed(1), scene.now, &mut scene.log);
    assert_eq!(scene.log.events.len(), 1, "it keeps its place");
    assert_eq!(scene.stats.get(Counter::CrosscheckElsewhere), 2);
}

#[test]
fn differing_accounts_are_told_once() {
    let mut scene = Scene::new();
    scene.ebpf(New, 5);
    scene.notice(New, 5);
    let mut other = event(New, 5);
    other.flow.mark = 9;
    scene.matcher.netlink_event(&other, T, scene.now);
    scene.release();
    assert_eq!(scene.counts(), [("matched", 1), ("differing", 1)]);
    assert_eq!(scene.matcher.findings().fields().get("mark"), Some(&1));
}

#[test]
fn ids_keep_successors_apart() {
    let mut scene = Scene::new();
    scene.ebpf(New, 5);
    scene.notice(New, 5);
    // The same tuple once more, of another entry; only its message arrives.
    let again = event(New, 5);
    let origin = armed(99);
    let netns = Some(Netns { cookie: None, inum: NETNS });
    let told = Event { flow: Flow { netns, ..again.flow.clone() }, ..again.clone() };
    scene.matcher.ebpf_event(&told, origin, scene.now, &mut scene.log);
    let Flow { orig, zone, .. } = again.flow;
    let notice = Notice { kind: New, entry: 99, id: Some(99), orig, zone, at: T, boot: T };
    scene.matcher.notice(&notice, scene.now);
    let message = Event { flow: Flow { id: Some(99), ..again.flow.clone() }, ..again };
    scene.matcher.netlink_event(&message, T, scene.now);
    scene.matcher.netlink_lost(1);
    scene.wait();
    let logged = [(New, 5, Witness::Ebpf, Some(5)), (New, 5, Witness::Both, Some(99))];
    assert_eq!(scene.log.events, logged);
}

#[test]
fn too_many_go_unchecked_and_none_twice() {
    let mut scene = Scene::with(2);
    for port in 1..=5 {
        scene.ebpf(New, port);
        scene.notice(New, port);
    }
    for port in 11..=15 {
        scene.netlink(New, port);
    }
    scene.release();
    // What is still to come of the first three belongs to them; the others have
    // been logged from netlink.
    assert_eq!(scene.sum(Check::Unchecked), 8);
    for port in 1..=5 {
        scene.netlink(New, port);
    }
    for port in 11..=15 {
        scene.ebpf(New, port);
        scene.notice(New, port);
    }
    scene.release();
    let mut ports: Vec<_> = scene.log.events.iter().map(|(_, port, ..)| *port).collect();
    ports.sort_unstable();
    assert_eq!(ports, [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]);
    assert_eq!(scene.counts(), [("matched", 2), ("unchecked", 8)]);
    assert!(scene.matcher.is_empty());
}

#[test]
fn a_source_that_lags_behind_makes_no_findings() {
    let mut scene = Scene::new();
    scene.ebpf(New, 5);
    scene.notice(New, 5);
    scene.ebpf(New, 6);
    scene.notice(New, 6);
    // The daemon has stood still: netlink's queue is long, and not read dry.
    scene.matcher.ebpf_is_dry(T + HESITATION);
    scene.now += 2 * WINDOW;
    scene.release();
    assert!(scene.log.events.is_empty(), "it is waited for");
    assert!(scene.matcher.deadline().is_some_and(|deadline| deadline > Instant::now()));
    scene.netlink(New, 5);
    scene.release();
    assert_eq!(scene.counts(), [("matched", 1)]);
    // But not for ever.
    scene.now += Duration::from_secs(60);
    scene.release();
    assert_eq!(scene.counts(), [("matched", 1), ("unchecked", 1)]);
    scene.netlink(New, 6);
    scene.wait();
    assert_eq!(scene.log.events.len(), 2, "it is not logged twice");
    assert_eq!(scene.counts(), [("matched", 1), ("unchecked", 1)]);
}

#[test]
fn a_message_that_comes_again_is_no_event() {
    let mut scene = Scene::new();
    scene.all(New, 5);
    scene.all(Destroy, 5);
    scene.notice(Destroy, 5);
    scene.netlink(Destroy, 5);
    scene.wait();
    assert_eq!(scene.log.events.len(), 2);
    assert_eq!(scene.counts(), [("matched", 2), ("redelivered", 1)]);
}

#[test]
fn nothing_is_found_at_the_edges() {
    let mut scene = Scene::new();
    scene.matcher.begin(T + 1, scene.now, true);
    // Before both listened.
    scene.ebpf(New, 1);
    scene.notice(New, 1);
    scene.netlink(New, 2);
    scene.notice(New, 3);
    scene.matcher.opened();
    scene.netlink(New, 4);
    scene.wait();
    assert_eq!(scene.counts(), [("boundary", 4)]);
    assert_eq!(scene.log.events, [(New, 1, Witness::Single, Some(1))]);
    // After netlink was left.
    scene.matcher.begin(T - 1, scene.now - Duration::from_secs(1), true);
    scene.matcher.opened();
    scene.ebpf(New, 4);
    scene.matcher.end(T);
    scene.at = T + 1;
    scene.ebpf(New, 5);
    scene.matcher.flush(&mut scene.log);
    assert_eq!(scene.counts(), [("boundary", 5)]);
    assert_eq!(scene.log.events.len(), 3);
}

#[test]
fn expectations_are_compared_too() {
    let expectation = |netns| Expectation {
        action: crate::event::ExpectAction::New,
        tuple: Tuple { dst_l4: 9, ..Tuple::default() },
        master: Tuple::default(),
        zone: 0,
        helper: None,
        netns,
    };
    let here = expectation(Some(Netns { cookie: None, inum: NETNS }));
    let mut scene = Scene::new();
    scene.matcher.ebpf_expectation(&here, T, armed(0), scene.now, &mut scene.log);
    scene.matcher.netlink_expectation(&expectation(None), T, T, scene.now);
    scene.matcher.ebpf_expectation(
        &here,
        T,
        Origin { armed: false, ..armed(0) },
        scene.now,
        &mut scene.log,
    );
    scene.matcher.ebpf_expectation(&here, T, armed(0), scene.now, &mut scene.log);
    scene.wait();
    let expected = [("matched", 1), ("only_ebpf", 1), ("only_ebpf_unexplained", 1), ("silent", 1)];
    assert_eq!(scene.counts(), expected);
    assert_eq!(scene.log.expectations, 3);
}

#[test]
fn marks_tell_what_has_gone() {
    let mut scene = Scene::new();
    scene.ebpf(New, 1);
    let flow = event(New, 1).flow;
    assert!(scene.matcher.is_beginning(&flow));
    let mark = scene.matcher.mark();
    assert!(!scene.matcher.has_passed(mark));
    scene.netlink(New, 1);
    scene.release();
    assert!(scene.matcher.has_passed(mark) && !scene.matcher.is_beginning(&flow));
}

#[test]
fn what_is_lost_right_at_the_beginning_is_healed() {
    let mut scene = Scene::new();
    scene.matcher.begin(T - 1, scene.now, true);
    scene.matcher.opened();
    scene.netlink(New, 1);
    scene.netlink(New, 2);
    scene.matcher.ebpf_lost(Losses { new: 1, ..Losses::default() }, T);
    scene.wait();
    assert_eq!(scene.counts(), [("only_netlink", 1), ("healed", 1), ("boundary", 1)]);
}

#[test]
fn one_change_that_ebpf_misses_shifts_no_other() {
    let mut scene = Scene::new();
    scene.all(New, 5);
    // All in the ring before netlink is read.
    scene.notice(Update, 5);
    for _ in 0..3 {
        scene.ebpf(Update, 5);
        scene.notice(Update, 5);
    }
    for mark in 0..4 {
        let mut told = event(Update, 5);
        (told.flow.id, told.flow.labels) = (Some(5), (mark == 0).then_some([1; 16]));
        scene.matcher.netlink_event(&told, T, scene.now);
    }
    scene.wait();
    let expected =
        [("matched", 4), ("only_netlink", 1), ("only_netlink_unexplained", 1), ("healed", 1)];
    assert_eq!(scene.counts(), expected);
}

#[test]
fn what_ebpf_has_not_told_by_the_end_is_missing() {
    let mut scene = Scene::new();
    scene.notice(Destroy, 5);
    scene.netlink(Destroy, 5);
    // Its end was seen just before netlink was left, and told just after.
    scene.notice(Destroy, 6);
    scene.netlink(Destroy, 6);
    scene.matcher.end(T);
    scene.at = T + 1;
    scene.ebpf(Destroy, 6);
    scene.matcher.flush(&mut scene.log);
    let expected =
        [("matched", 1), ("only_netlink", 1), ("only_netlink_unexplained", 1), ("healed", 1)];
    assert_eq!(scene.counts(), expected);
    assert_eq!(scene.log.events.len(), 2);
}
