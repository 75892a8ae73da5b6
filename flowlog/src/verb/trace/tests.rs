//! Made-up events, which the tests of each format show; and the view on made-up
//! records.

use std::io::Read as _;

use super::chain::Chain;
use super::chain::tests::{place, symbols};
use super::kind::Kind;
use super::life::{Known, State};
use super::told::{Subject, Told};
use super::view::View;
use super::*;
use crate::capture::ebpf::symbols::Symbols;
use crate::capture::ebpf::trace::{Place, TraceSink, What};
use crate::capture::ebpf::witness::Losses;
use crate::event::{Cause, Comm, Event, Expectation, Kinds, Process};
use crate::verb::live::output::Output;
use crate::verb::watch::colour::Paint;
use crate::verb::watch::tests::{AT, ended, expectation, named, tcp};

/// What an event has that tests want to be otherwise.
#[derive(Clone, Copy)]
pub(super) struct Example<'a> {
    pub(super) kind: Kind,
    pub(super) event: &'a Event,
    pub(super) expectation: Option<&'a Expectation>,
    pub(super) number: Option<u64>,
    pub(super) before: Option<(State, u64)>,
    pub(super) changes: u32,
    pub(super) portid: Option<u32>,
    pub(super) reason: Option<Reason>,
    pub(super) hook: Option<&'static str>,
    pub(super) error: Option<i32>,
    pub(super) function: &'static str,
    pub(super) callers: &'a [&'a str],
    pub(super) task: Option<Process>,
}

impl<'a> Example<'a> {
    pub(super) fn of(event: &'a Event) -> Self {
        Self {
            kind: Kind::New,
            event,
            expectation: None,
            number: Some(1),
            before: None,
            changes: 0,
            portid: None,
            reason: None,
            hook: None,
            error: None,
            function: "hooked",
            callers: &[],
            task: Some(Process { pid: 1712, comm: Comm::new(b"my tool") }),
        }
    }
}

/// Shows an example.
pub(super) fn sample<T>(example: &Example<'_>, show: impl FnOnce(&Told<'_>) -> T) -> T {
    let names = [&[example.function], example.callers].concat();
    let symbols = symbols(&names);
    let place =
        Place { cpu: 1, tid: 1713, task: example.task, ..place(example.function, names.len()) };
    let subject = example.expectation.map_or(Subject::Flow(example.event), Subject::Expectation);
    show(&Told {
        kind: example.kind,
        at: AT,
        subject,
        known: Known { flow: example.number, before: example.before },
        changes: example.changes,
        portid: example.portid,
        reason: example.reason,
        hook: example.hook,
        error: example.error,
        place: &place,
        chain: &Chain::new(&place, &symbols),
        netns: Some(named()),
    })
}

fn options(selection: Selection) -> Options {
    Options {
        format: Format::Text,
        selection,
        callers: 5,
        summary: true,
        color: When::Never,
        netns: NetnsScope::All,
        attach: Attach::Auto,
        lasting: None,
        count: None,
        quiet: false,
        ring_buffer: 1 << 20,
    }
}

/// What a view shows of these, with its summary; how many events it has shown,
/// filtered and lost.
fn shown(options: &Options, tell: impl FnOnce(&mut View)) -> (Vec<String>, [u64; 3]) {
    let (mut reader, writer) = io::pipe().unwrap();
    let output = Output::new(writer).unwrap();
    let mut view = View::new(options, Paint(false), symbols(&["hooked", "x"]), output);
    tell(&mut view);
    view.flush();
    view.summarize();
    view.lines.close(Duration::from_secs(60));
    let counts = [view.lines.shown(), view.lines.filtered, view.lines.lost];
    drop(view);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (text.lines().map(str::to_owned).collect(), counts)
}

/// A beginning, an end, a refused connection, one that found the table full, an
/// expectation, and a loss.
fn all(view: &mut View) {
    let place = place("hooked", 2);
    let (new, end, none) = (tcp(Kinds::NEW), ended(Cause::Reset), tcp(Kinds::empty()));
    for event in [&new, &end] {
        let what = What::Event { event, entry: 7, changes: 0, portid: None };
        view.traced(&what, &place);
    }
    view.traced(&What::Unconfirmed(&none), &place);
    view.traced(&What::Unallocated { event: &none, full: true, error: 12 }, &place);
    view.traced(&What::Expectation(&expectation(), AT), &place);
    view.lost(Losses { new: 2, refused: 1, faults: 3, ..Losses::default() });
}

#[test]
fn a_view_shows_all_and_counts_it() {
    let (lines, counts) = shown(&options(Selection::default()), all);
    assert_eq!(counts, [5, 0, 3]);
    let begin: Vec<_> = lines[..6].iter().map(|line| &line[13..26]).collect();
    let expected = [
        "[NEW]     #1 ",
        "[DESTROY] #1 ",
        "[REFUSED] #2 ",
        "[FULL]    #3 ",
        "[EXPECT]  #- ",
        "[LOST]    3 e",
    ];
    assert_eq!(begin, expected);
    assert!(lines[1].contains(" state=SYN_SENT→CLOSE ") && lines[1].contains(" cause=reset "));
    assert!(lines[2].contains(" cause=elsewhere ") && lines[2].ends_with(" fn=hooked from x"));
    assert!(lines[3].contains(" cause=table_full "));
    let summary = lines[6..].join("\n");
    for count in ["1 refused", "1 table_full", "5 hooked", "2 new", "3 faults"] {
        assert!(summary.contains(&format!("         {count}")), "no {count} in {summary}");
    }
}

#[test]
fn what_is_not_selected_is_known_all_the_same() {
    let wanted = Selection { kinds: vec![Kind::Destroy], ..Selection::default() };
    let (lines, counts) = shown(&options(wanted), all);
    assert_eq!(counts, [1, 4, 3]);
    assert!(lines[0].contains(" state=SYN_SENT→CLOSE "), "{lines:?}");
}

#[test]
fn it_has_enough() {
    let options = Options { count: Some(2), format: Format::Json, ..options(Selection::default()) };
    let (lines, counts) = shown(&options, all);
    assert_eq!((lines.len(), counts), (3, [2, 0, 0]));
    assert!(lines[2].starts_with(r#"{"event":"summary","events":{"destroy":1,"new":1}"#));
}

#[test]
fn without_names_nothing_is_guessed() {
    let nameless = Symbols::default();
    let place = place("hooked", 2);
    let chain = Chain::new(&place, &nameless);
    assert_eq!(chain.refusal(), (Refusal::Unknown, None));
    assert!(chain.callers().is_empty());
}
