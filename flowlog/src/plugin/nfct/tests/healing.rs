//! What no source told, and what the comparison of the tables makes of it.

use super::*;
use crate::flow::Netns;

/// What a line shows of who told it: tag, cause, witness.
type Shown = (Kinds, Option<Cause>, Witness);

/// Notes what is shown of each item.
#[derive(Default)]
struct Lines(Vec<Shown>);

impl Downstream for Lines {
    fn push(&mut self, item: &Item<'_>) {
        if let Body::Flow { how, witness, .. } = item.body {
            self.0.push((item.tag, how.map(|how| how.cause), witness));
        }
    }
}

/// NFCT, and what it hands on.
struct Case {
    nfct: Nfct,
    lines: Lines,
}

impl Case {
    /// After a dump at start that showed `old`.
    fn new(mask: Kinds, old: &[&Flow]) -> Self {
        Self::with_room(10, mask, old)
    }

    fn with_room(room: usize, mask: Kinds, old: &[&Flow]) -> Self {
        let settings = Bench::new(mask, Some(room)).nfct.settings;
        let mut case =
            Self { nfct: Nfct::new(settings, Stats::default()), lines: Lines::default() };
        case.dump(old);
        assert!(case.take().is_empty(), "flows that exist at start are not logged");
        case
    }

    fn tell(&mut self, record: Record<'_>) {
        self.nfct.record(record, &mut self.lines);
    }

    fn event(&mut self, kinds: Kinds, at: u64, flow: &Flow) {
        self.tell(Record::Event(&Event { kinds, at, flow: flow.clone(), ..Event::default() }));
    }

    fn dump(&mut self, flows: &[&Flow]) {
        let action = self.nfct.tick(Instant::now(), &mut self.lines);
        assert!(matches!(action, Some(Action::Dump)), "{action:?}");
        for flow in flows {
            self.tell(Record::Known(flow, 77));
        }
        let netns = flows.iter().find_map(|flow| flow.netns).map(|netns| netns.inum);
        self.tell(Record::DumpDone { complete: true, netns });
    }

    /// A loss and the dump after it.
    fn resync(&mut self, flows: &[&Flow]) {
        self.tell(Record::Lost(Lost::noticed("ebpf", 1, 1)));
        self.dump(flows);
    }

    /// The queries after a dump find nothing.
    fn nothing_is_found(&mut self) {
        let later = Instant::now() + Duration::from_secs(1);
        let action = self.nfct.tick(later, &mut self.lines);
        assert!(matches!(action, Some(Action::Query(_))), "{action:?}");
        self.tell(Record::QueryDone { complete: true });
    }

    fn take(&mut self) -> Vec<Shown> {
        std::mem::take(&mut self.lines.0)
    }
}

/// A flow of the namespace 7, as a source with namespaces tells it; with the
/// id that only a dump and netlink know.
fn within(id: Option<u32>, status: Status) -> Flow {
    Flow { id, netns: Some(Netns { cookie: None, inum: 7 }), ..flow(1, status) }
}

const TOLD: Shown = (Kinds::DESTROY, None, Witness::Single);
const LOST: Shown = (Kinds::DESTROY, Some(Cause::Lost), Witness::Single);
const EVERYTHING: Kinds = Kinds::all();

#[test]
fn an_end_that_was_lost_is_told_as_lost() {
    for flow in [flow(1, SEEN), within(None, SEEN)] {
        let mut case = Case::new(Kinds::DESTROY, &[]);
        case.event(Kinds::NEW, 10, &flow);
        case.resync(&[]);
        case.nothing_is_found();
        assert_eq!(case.take(), [LOST]);
    }
}

#[test]
fn a_successor_tells_that_an_end_was_lost() {
    let mut case = Case::new(Kinds::DESTROY, &[]);
    case.event(Kinds::NEW, 10, &within(None, SEEN));
    case.event(Kinds::NEW, 20, &within(Some(5), Status::empty()));
    case.event(Kinds::DESTROY, 30, &within(None, SEEN));
    assert_eq!(case.take(), [LOST, TOLD]);
}

#[test]
fn what_no_event_would_have_told_is_not_called_lost() {
    // By netlink, an old flow: the kernel may never have told its end.
    let mut case = Case::new(Kinds::DESTROY, &[&flow(1, SEEN)]);
    case.resync(&[]);
    case.nothing_is_found();
    assert_eq!(case.take(), [TOLD]);
    // By eBPF its end is told as any other.
    let mut case = Case::new(Kinds::DESTROY, &[&within(Some(5), SEEN)]);
    case.resync(&[&Flow { orig: flow(9, SEEN).orig, ..within(Some(9), SEEN) }]);
    case.nothing_is_found();
    assert_eq!(case.take(), [LOST]);
    // The dump for old flows, without a loss.
    let mut case = Case::new(Kinds::DESTROY, &[&flow(1, SEEN)]);
    case.nfct.settings.redump = Some(Duration::ZERO);
    case.nfct.tracker = Some(Tracker::new(10, &case.nfct.settings));
    case.dump(&[&flow(1, SEEN)]);
    case.dump(&[]);
    case.nothing_is_found();
    assert_eq!(case.take(), [TOLD]);
}

#[test]
fn polling_tells_no_cause() {
    let mut case = Case::new(Kinds::DESTROY, &[]);
    case.nfct.settings.poll = Some(Duration::ZERO);
    case.nfct.tracker = Some(Tracker::new(10, &case.nfct.settings));
    case.dump(&[&flow(1, SEEN)]);
    case.dump(&[]);
    case.nothing_is_found();
    assert_eq!(case.take(), [TOLD]);
}

/// With the table a beginning has no line of its own, healed or not.
#[test]
fn a_flow_that_is_taken_up_has_one_line_at_its_end() {
    for flow in [flow(1, Status::empty()), within(Some(5), Status::empty())] {
        let mut case = Case::new(Kinds::NEW | Kinds::DESTROY, &[]);
        case.resync(&[&flow]);
        // Its event was only late: the dump told it first.
        case.event(Kinds::NEW, 76, &Flow { start: None, ..flow.clone() });
        assert_eq!((case.take().len(), case.nfct.live()), (0, 1));
        case.event(Kinds::DESTROY, 90, &flow);
        assert_eq!((case.take(), case.nfct.live()), (vec![TOLD], 0));
    }
}

#[test]
fn what_became_true_meanwhile_is_told_once_by_the_dump() {
    let healed = (Kinds::CONFIRMED | Kinds::ASSURED, None, Witness::Healed);
    for flow in [flow(1, BOTH), within(Some(5), BOTH)] {
        let mut case = Case::new(EVERYTHING, &[]);
        case.resync(&[&flow]);
        assert_eq!(case.take(), [healed]);
        // They were queued when the dump was made.
        case.event(Kinds::NEW, 70, &Flow { status: Status::empty(), ..flow.clone() });
        case.event(Kinds::UPDATE, 71, &flow);
        assert_eq!(case.take(), []);
        case.event(Kinds::DESTROY, 90, &flow);
        assert_eq!(case.take(), [TOLD]);
    }
}

#[test]
fn a_successor_of_a_flow_that_was_taken_up_tells_its_own() {
    let mut case = Case::new(EVERYTHING, &[]);
    case.resync(&[&within(Some(5), SEEN)]);
    case.take();
    // Begun after the dump, so the flow of the dump has ended untold.
    case.event(Kinds::NEW, 80, &within(None, Status::empty()));
    case.event(Kinds::UPDATE, 81, &within(None, SEEN));
    assert_eq!(case.take(), [LOST, (Kinds::CONFIRMED, None, Witness::Single)]);
}

#[test]
fn only_what_is_unknown_and_wanted_is_healed() {
    // Of a flow that is kept the next event tells it.
    let mut case = Case::new(EVERYTHING, &[]);
    case.event(Kinds::NEW, 10, &flow(1, Status::empty()));
    case.resync(&[&flow(1, SEEN)]);
    assert_eq!(case.take(), []);
    case.event(Kinds::UPDATE, 11, &flow(1, SEEN));
    assert_eq!(case.take(), [(Kinds::CONFIRMED, None, Witness::Single)]);

    let mut case = Case::new(Kinds::ASSURED | Kinds::DESTROY, &[]);
    case.resync(&[&flow(1, SEEN)]);
    assert_eq!(case.take(), [], "the mask does not name it");

    let mut case = Case::new(EVERYTHING, &[]);
    case.nfct.settings.filter.sources = vec!["9.0.0.0/8".parse().unwrap()];
    case.resync(&[&flow(1, SEEN)]);
    assert_eq!((case.take().len(), case.nfct.live()), (0, 0), "the filter refuses it");

    let mut case = Case::with_room(1, EVERYTHING, &[&flow(1, SEEN)]);
    case.resync(&[&flow(1, SEEN), &flow(2, SEEN)]);
    assert_eq!(case.take(), [], "without an entry it would be told again and again");
}

#[test]
fn a_flow_that_ended_during_the_dump_is_not_healed() {
    let mut case = Case::new(EVERYTHING, &[]);
    case.tell(Record::Lost(Lost::noticed("ebpf", 1, 1)));
    assert!(case.nfct.tick(Instant::now(), &mut case.lines).is_some());
    case.event(Kinds::DESTROY, 20, &flow(1, SEEN));
    case.tell(Record::Known(&flow(1, SEEN), 21));
    case.tell(Record::DumpDone { complete: true, netns: None });
    assert_eq!(case.take(), [TOLD]);
}
