//! Screens of made-up events, cell by cell as they would be seen; and the loop on
//! a made-up capture.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};

use super::*;
use crate::capture::{Progress, RecordSink};
use crate::event::{Cause, Event, Kinds, Record};
use crate::stats::Counter;
use crate::verb::watch::Selection;
use crate::verb::watch::colour::Paint;
use crate::verb::watch::names::Names;
use crate::verb::watch::tests::{ended, expectation, listening, tcp, udp6};

const BLUE: u32 = 4_026_532_210;

fn names() -> BTreeMap<u32, String> {
    [(BLUE, "blue".to_owned())].into()
}

fn options() -> Options {
    let kinds = Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY | Kinds::EXPECT;
    Options {
        listening: listening(Selection { kinds, ..Selection::default() }),
        interval: Duration::from_secs(2),
        lasting: None,
        once: false,
        color: When::Never,
    }
}

/// By eBPF or over netlink, before anything has happened.
fn top(ebpf: bool) -> (Top, Stats) {
    let (options, stats) = (options(), Stats::default());
    let mut source = options.listening.source("top").unwrap();
    let by = if ebpf {
        stats.use_ebpf();
        source.netns = NetnsScope::All;
        "by eBPF (fentry)"
    } else {
        "over netlink"
    };
    let table = TableFill::default();
    let mut top = Top::new(&options, &source, by.to_owned(), table, stats.clone());
    top.tally.names = Names::of(names);
    (top, stats)
}

/// Two intervals of two seconds: 8 beginnings and as many ends, then half of it.
fn busy() -> (Top, Stats) {
    let (mut top, stats) = top(true);
    for times in [8, 4] {
        for _ in 0..times {
            for event in [tcp(Kinds::NEW), ended(Cause::Deleted)] {
                top.tally.record(Record::Event(&event));
            }
        }
        top.picture.take(&mut top.tally, Duration::from_secs(2));
        top.picture.look(&mut top.losses, &top.fill);
        for event in [udp6(Kinds::NEW), udp6(Kinds::UPDATE), ended(Cause::ExpiredGc)] {
            top.tally.record(Record::Event(&event));
        }
        top.tally.record(Record::Expectation(&expectation(), 1));
    }
    top.picture.fill = Some((230, 262_144));
    (top, stats)
}

fn drawn(top: &Top, width: u16, height: u16) -> TestBackend {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| top.screen().draw(frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().clone()
}

fn lines(top: &Top, width: u16, height: u16) -> Vec<String> {
    let backend = drawn(top, width, height);
    let cells = backend.buffer().content().chunks(usize::from(width));
    let line = |cells: &[ratatui::buffer::Cell]| {
        cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned()
    };
    cells.map(line).collect()
}

fn type_keys(top: &mut Top, keys: &str) {
    for act in top.view.typed(keys.as_bytes()) {
        assert_eq!(act, Act::Reset);
        top.reset();
    }
}

/// What is where on a screen of the usual size.
#[test]
fn a_screen_tells_rates_totals_causes_and_who() {
    let (top, _) = busy();
    assert_eq!(
        lines(&top, 80, 14),
        [
            "flowlog top by eBPF (fentry), all network namespaces           0:00:04, every 2s",
            "              events       new    update   destroy    expect",
            "per second       6.0       2.5       0.5       2.5       0.5",
            "in all            28        13         1        13         1",
            "table      230 of 262144 entries, 0.1 % [                    ]",
            "ends       deleted 2.0/s 12  expired_gc 0.5/s 1",
            "lost       ebpf 0",
            " 1 Sources  2 Destinations  3 Ports  4 Namespaces  5 Processes      by events/s",
            "SOURCE                EVENTS/s    EVENTS     NEW/s DESTROY/s PACKETS/s   BYTES/s",
            "10.77.1.2                  4.5        25       2.0       2.5        25      2090",
            "fd77:1::2                  1.0         2       0.5         0         0         0",
            "",
            "",
            "q quit  ? help  1-5 Tab table  s sort  t totals  / filter  p pause  r reset",
        ]
    );
}

#[test]
fn each_table_has_its_rows() {
    let (mut top, _) = busy();
    for (keys, heading, row) in [
        ("2", "DESTINATION ", "10.77.1.1                                      4.5        25 "),
        ("3", "PORT ", "tcp/8080                                       4.5        25 "),
        ("\t", "NAMESPACE ", "4026532210(blue)                               5.5        27 "),
        ("\t", "DELETED BY ", r"1712 my\x20tool                                2.0        12 "),
    ] {
        type_keys(&mut top, keys);
        let lines = lines(&top, 110, 14);
        assert!(lines[8].starts_with(heading) && lines[9].starts_with(row), "{lines:#?}");
    }
    // The chosen one is shown inversely.
    let backend = drawn(&top, 110, 14);
    let is_chosen = |x: u16| backend.buffer()[(x, 7)].modifier.contains(Modifier::REVERSED);
    let tabs = " 1 Sources  2 Destinations  3 Ports  4 Namespaces  5 Processes";
    let place = tabs.find("5 P").unwrap() as u16;
    assert!(is_chosen(place) && !is_chosen(1));
}

#[test]
fn keys_sort_filter_pause_and_reset() {
    let (mut top, _) = busy();
    let rows = |top: &Top| -> Vec<String> {
        let lines = lines(top, 110, 14).split_off(9);
        let first = |line: &String| line.split(' ').next().unwrap_or_default().to_owned();
        lines.iter().map(first).take(2).collect()
    };
    // More events now than the first one, but no traffic.
    for _ in 0..100 {
        top.tally.record(Record::Event(&udp6(Kinds::NEW)));
    }
    assert_eq!(rows(&top), ["10.77.1.2", "fd77:1::2"], "not before the interval ends");
    type_keys(&mut top, "p");
    assert!(!top.end_interval());
    assert!(lines(&top, 80, 14)[0].contains(" paused 0:00:04"));
    type_keys(&mut top, "p");
    assert!(top.end_interval());
    assert_eq!(rows(&top), ["fd77:1::2", "10.77.1.2"]);
    type_keys(&mut top, "s");
    assert!(lines(&top, 110, 14)[7].ends_with("by packets/s"));
    assert_eq!(rows(&top), ["10.77.1.2", "fd77:1::2"]);
    type_keys(&mut top, "t");
    let totals = lines(&top, 110, 14);
    assert!(totals[7].ends_with("by packets") && totals[8].ends_with("PACKETS     BYTES"));
    assert!(totals[9].ends_with(" 14       140     11704"), "{totals:#?}");
    type_keys(&mut top, "/FD77");
    assert_eq!(lines(&top, 80, 14)[13], "filter: FD77_");
    assert_eq!(rows(&top), ["fd77:1::2", ""]);
    type_keys(&mut top, "\n");
    assert!(lines(&top, 80, 14)[13].starts_with("filter: FD77 (Esc takes it back)"));
    type_keys(&mut top, "\x1b");
    type_keys(&mut top, "r");
    assert_eq!(lines(&top, 80, 14)[8], "no events");
    assert!(lines(&top, 80, 14)[3].starts_with("in all             0 "));
}

#[test]
fn the_help_covers_the_screen() {
    let (mut top, _) = busy();
    type_keys(&mut top, "?");
    let help = lines(&top, 80, 24);
    assert_eq!(help[0], "flowlog top: keys (any key goes back)");
    for words in ["sort by events, packets or bytes", "r                     count anew", "others"]
    {
        assert!(help.iter().any(|line| line.contains(words)), "{help:#?}");
    }
    assert!(help.iter().all(|line| line.chars().count() < 80), "cut off: {help:#?}");
    type_keys(&mut top, "x");
    assert_eq!(lines(&top, 80, 24)[8].split(' ').next(), Some("SOURCE"));
}

#[test]
fn losses_are_red_and_a_full_table_too() {
    let (mut top, stats) = busy();
    let colours = |top: &Top, y: u16| -> Vec<Color> {
        let backend = drawn(top, 80, 14);
        [11, 12].map(|x| backend.buffer()[(x, y)].fg).to_vec()
    };
    assert_eq!(colours(&top, 6), [Color::Reset; 2]);
    stats.add(Counter::EbpfLostUpdate, 40);
    stats.add(Counter::EbpfMissed, 2);
    stats.use_crosscheck();
    top.end_interval();
    // Which lasted no time worth mentioning.
    top.picture.interval = Duration::from_secs(2);
    assert_eq!(lines(&top, 80, 14)[6], "lost       ebpf 21/s 42  netlink 0  both 0");
    assert_eq!(colours(&top, 6), [Color::Red; 2]);
    for (entries, colour, bar) in [
        (79_000, Color::Reset, "79.0 % [################    ]"),
        (80_000, Color::Yellow, "80.0 % [################    ]"),
        (95_000, Color::Red, "95.0 % [################### ]"),
        (100_000, Color::Red, "100.0 % [####################]"),
    ] {
        top.picture.fill = Some((entries, 100_000));
        assert_eq!(colours(&top, 4), [colour; 2]);
        assert!(lines(&top, 80, 14)[4].ends_with(bar), "{}", lines(&top, 80, 14)[4]);
    }
}

#[test]
fn netlink_says_what_it_cannot_tell() {
    let (mut top, _) = top(false);
    let mut event = tcp(Kinds::NEW);
    event.flow.netns = None;
    top.tally.record(Record::Event(&event));
    top.end_interval();
    let screen = lines(&top, 80, 14);
    assert!(screen[0].starts_with("flowlog top over netlink, this network namespace "));
    assert_eq!(screen[4], "table      the kernel does not track connections in this namespace");
    assert_eq!(screen[5], "ends       netlink does not tell why flows end");
    assert_eq!(screen[6], "lost       netlink 0");
    assert!(screen[9].starts_with("10.77.1.2 "), "{screen:#?}");
    for (key, words) in [("4", "one network namespace only"), ("5", "not tell who deletes flows")] {
        type_keys(&mut top, key);
        assert!(lines(&top, 80, 14)[8].contains(words));
    }
}

/// Rather fewer numbers than a name that nobody knows.
#[test]
fn long_names_have_room() {
    let (mut top, _) = top(true);
    let mut event = tcp(Kinds::NEW);
    event.flow.orig.family = crate::flow::Family::V6;
    event.flow.orig.src = [0x21; 16];
    top.tally.record(Record::Event(&event));
    top.end_interval();
    let screen = lines(&top, 80, 14);
    assert!(screen[9].starts_with("2121:2121:2121:2121:2121:2121:2121:2121 "), "{screen:#?}");
    assert!(screen[8].ends_with(" EVENTS/s    EVENTS PACKETS/s   BYTES/s"), "{screen:#?}");
}

/// What matters most is there on the smallest screen, and nothing panics.
#[test]
fn small_screens_have_less() {
    let (mut top, _) = busy();
    assert_eq!(
        lines(&top, 40, 5),
        [
            "table      230 of 262144 entries, 0.1 %",
            "lost       ebpf 0",
            " 1 Sources  2 Destinations  3 Ports  4 N",
            "SOURCE                EVENTS/s    EVENTS",
            "10.77.1.2                  4.5        25",
        ]
    );
    assert_eq!(lines(&top, 27, 1), ["lost       ebpf 0"]);
    assert_eq!(lines(&top, 27, 3)[1], "SOURCE             EVENTS/s");
    type_keys(&mut top, "?");
    for (width, height) in [(1, 1), (2, 40), (200, 2), (12, 12), (500, 200)] {
        drawn(&top, width, height);
        type_keys(&mut top, "x");
        drawn(&top, width, height);
        type_keys(&mut top, "5?");
    }
}

#[test]
fn what_gave_way_is_among_the_others() {
    let (mut top, _) = top(true);
    let mut event = tcp(Kinds::NEW);
    for number in 0..5000_u32 {
        event.flow.orig.src[1..4].copy_from_slice(&number.to_be_bytes()[1..]);
        top.tally.record(Record::Event(&event));
    }
    top.end_interval();
    type_keys(&mut top, "t");
    let screen = lines(&top, 110, 12);
    assert_eq!(screen.iter().filter(|line| line.starts_with("10.")).count(), 1, "{screen:#?}");
    let others = screen.iter().find(|line| line.starts_with("others ")).unwrap();
    // Rows and others are all there was, and new rows say that they may be incomplete.
    assert_eq!(others.split_whitespace().nth(2), Some("904"));
    let partial = top.picture.table(key::Table::Sources).rows.iter().filter(|row| row.partial);
    assert_eq!(partial.count(), 904);
    type_keys(&mut top, "/10.0.19.135\n");
    assert_eq!(lines(&top, 110, 12)[9].split_whitespace().nth(2), Some("1+"));
}

#[test]
fn as_text_it_has_all_tables() {
    let (mut top, stats) = busy();
    top.about.every = None;
    top.view.totals = true;
    stats.add(Counter::EbpfLostNew, 10);
    top.picture.look(&mut top.losses, &top.fill);
    let text = once::text(&top.screen(), 80, Paint(false));
    let expected = "\
flowlog top by eBPF (fentry), all network namespaces                   in 4.000s
              events       new    update   destroy    expect
per second       6.0       2.5       0.5       2.5       0.5
in all            28        13         1        13         1
table      the kernel does not track connections in this namespace
ends       deleted 2.0/s 12  expired_gc 0.5/s 1
lost       ebpf 5.0/s 10

Sources
SOURCE                EVENTS/s    EVENTS       NEW   DESTROY   PACKETS     BYTES
10.77.1.2                  4.5        25        12        13       130     10868
fd77:1::2                  1.0         2         1         0         0         0

Destinations
DESTINATION           EVENTS/s    EVENTS       NEW   DESTROY   PACKETS     BYTES
10.77.1.1                  4.5        25        12        13       130     10868
fd77:2::2                  1.0         2         1         0         0         0

Ports
PORT                  EVENTS/s    EVENTS       NEW   DESTROY   PACKETS     BYTES
tcp/8080                   4.5        25        12        13       130     10868
udp/9053                   1.0         2         1         0         0         0

Namespaces
NAMESPACE             EVENTS/s    EVENTS       NEW   DESTROY   PACKETS     BYTES
4026532210(blue)           5.5        27        13        13       130     10868

Processes
DELETED BY            EVENTS/s    EVENTS       NEW   DESTROY   PACKETS     BYTES
1712 my\\x20tool            2.0        12         0        12       120     10032
";
    assert_eq!(text, expected);
    let red = once::text(&top.screen(), 80, Paint(true));
    let lost = "lost      \x1b[1m\x1b[31m ebpf 5.0/s 10\x1b[0m\n";
    assert!(red.contains(lost) && red.matches('\x1b').count() == 3, "{red}");
}

/// Tells so many events, then waits.
struct Scripted(Vec<Event>);

impl Capture for Scripted {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, _: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let messages = self.0.len();
        for event in std::mem::take(&mut self.0) {
            sink.record(Record::Event(&event));
        }
        Ok(Progress { messages, drained: Drained::Dry })
    }

    fn queue_events(&self) -> usize {
        1000
    }

    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        sink.record(Record::Event(&ended(Cause::Other)));
        Ok(())
    }
}

/// All of the time is one interval, and what comes at the end belongs to it.
#[test]
fn one_picture_is_of_all_there_was() {
    let (mut top, _) = top(true);
    let mut capture = Scripted(vec![tcp(Kinds::NEW), udp6(Kinds::NEW)]);
    let interrupt = Interrupt::block().unwrap();
    let lasting = Duration::from_millis(50);
    top.watch(&mut capture, Some(lasting), &interrupt, None).unwrap();
    assert_eq!(top.picture.events.total, 0, "no picture before the end");
    top.finish(&mut capture).unwrap();
    assert_eq!((top.picture.events.total, top.picture.events.recent()), (3, 3));
    assert!(top.picture.interval >= lasting && top.picture.lasting == top.picture.interval);
}

#[test]
fn a_screen_needs_a_terminal() {
    let refused = usable(&options()).unwrap_err();
    // Unless the tests run on one.
    assert!(io::stdout().is_terminal() || refused.contains("give --once"), "{refused}");
    assert!(usable(&Options { once: true, ..options() }).is_ok());
}
