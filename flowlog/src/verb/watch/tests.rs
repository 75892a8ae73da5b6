//! Made-up events, which the tests of each format show; and the watch itself on
//! a made-up capture.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, raise};

use super::colour::Paint;
use super::names::Named;
use super::view::Shown;
use super::*;
use crate::capture::{Drained, RecordSink};
use crate::config::Attach;
use crate::event::{Cause, Comm, Event, ExpectAction, Expectation, Kinds, Lost, Process, Record};
use crate::flow::{Counters, Family, Flow, HelperName, Netns, Status, Tuple, proto};

/// 2023-11-14 22:13:20.123456789 UTC.
pub(in crate::verb) const AT: u64 = 1_700_000_000_123_456_789;
const NETNS: Netns = Netns { cookie: Some(1), inum: 4_026_532_210 };

pub(in crate::verb) fn named() -> Named {
    Named { inum: NETNS.inum, name: Some("blue".into()) }
}

/// As it is shown, with what it tells itself.
pub(super) fn as_shown(event: &Event) -> Shown<'_> {
    let netns = event.flow.netns.map(|_| named());
    Shown { tag: event.kinds, event, start: event.flow.start, netns }
}

fn tuple(protocol: u8, src: (&str, u16), dst: (&str, u16)) -> Tuple {
    let bytes = |text: &str| match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            (Family::V4, bytes)
        }
        std::net::IpAddr::V6(v6) => (Family::V6, v6.octets()),
    };
    let ((family, from), (_, to)) = (bytes(src.0), bytes(dst.0));
    Tuple { family, proto: protocol, src: from, dst: to, src_l4: src.1, dst_l4: dst.1 }
}

/// Of a connection that is translated at both ends.
pub(in crate::verb) fn tcp(kinds: Kinds) -> Event {
    let flow = Flow {
        orig: tuple(proto::TCP, ("10.77.1.2", 40003), ("10.77.1.1", 8080)),
        reply: tuple(proto::TCP, ("10.77.2.2", 9000), ("10.77.2.1", 40003)),
        l4_state: Some(1),
        timeout: Some(120),
        netns: Some(NETNS),
        ..Flow::default()
    };
    Event { kinds, at: AT, flow, transitions: Some(Kinds::empty()), ..Event::default() }
}

/// Its end, after a minute.
pub(in crate::verb) fn ended(cause: Cause) -> Event {
    let mut event = tcp(Kinds::DESTROY);
    event.flow.timeout = None;
    event.flow.l4_state = Some(8);
    event.flow.status = Status::SEEN_REPLY | Status::ASSURED;
    event.flow.start = Some(AT - 61_500_000_000);
    event.flow.counters =
        Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }]);
    let asked_for = matches!(cause, Cause::Deleted | Cause::Flushed);
    event.end = Some(crate::event::End {
        cause,
        portid: asked_for.then_some(99),
        process: Some(Process { pid: 1712, comm: Comm::new(b"my tool") }),
    });
    event
}

/// Of an answered question.
pub(in crate::verb) fn udp6(kinds: Kinds) -> Event {
    let orig = tuple(proto::UDP, ("fd77:1::2", 40006), ("fd77:2::2", 9053));
    let flow = Flow {
        orig,
        reply: orig.inverse(),
        status: Status::SEEN_REPLY,
        timeout: Some(30),
        netns: Some(NETNS),
        ..Flow::default()
    };
    Event { kinds, at: AT, flow, ..Event::default() }
}

/// A data connection of FTP.
pub(in crate::verb) fn expectation() -> Expectation {
    Expectation {
        action: ExpectAction::New,
        tuple: tuple(proto::TCP, ("10.77.1.2", 0), ("10.77.2.2", 33033)),
        master: tuple(proto::TCP, ("10.77.1.2", 40010), ("10.77.2.2", 21)),
        zone: 0,
        helper: Some(HelperName::new(b"ftp")),
        netns: Some(NETNS),
    }
}

fn options(selection: Selection) -> Options {
    Options {
        format: Format::Line,
        listening: listening(selection),
        color: When::Never,
        lasting: None,
        count: None,
        quiet: false,
    }
}

pub(in crate::verb) fn listening(selection: Selection) -> Listening {
    Listening {
        selection,
        netns: None,
        capture: CaptureChoice::Auto,
        attach: Attach::Auto,
        activate: false,
        ring_buffer: 1 << 20,
        netlink_buffer: (65536, 65536),
    }
}

fn all() -> Selection {
    Selection { kinds: Kinds::NEW | Kinds::DESTROY | Kinds::EXPECT, ..Selection::default() }
}

/// Drains that tell so many events each, a loss behind them, then nothing.
struct Scripted {
    drains: VecDeque<u64>,
    /// What happens in the first drain that finds nothing.
    idle: fn() -> io::Result<()>,
    idles: Cell<u32>,
    finished: bool,
}

impl Scripted {
    fn new(drains: &[u64], idle: fn() -> io::Result<()>) -> Self {
        Self {
            drains: drains.iter().copied().collect(),
            idle,
            idles: Cell::new(0),
            finished: false,
        }
    }
}

impl Capture for Scripted {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, _: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let Some(events) = self.drains.pop_front() else {
            self.idles.set(self.idles.get() + 1);
            if self.idles.get() == 1 {
                (self.idle)()?;
            }
            return Ok(Progress { messages: 0, drained: Drained::Dry });
        };
        for _ in 0..events {
            sink.record(Record::Event(&tcp(Kinds::NEW)));
        }
        sink.record(Record::Event(&tcp(Kinds::UPDATE)));
        sink.record(Record::Expectation(&expectation(), AT));
        sink.record(Record::Lost(Lost::noticed("ebpf", 3, AT)));
        Ok(Progress { messages: events as usize + 2, drained: Drained::More })
    }

    fn queue_events(&self) -> usize {
        1000
    }

    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        self.finished = true;
        sink.record(Record::Event(&ended(Cause::Other)));
        Ok(())
    }
}

/// Watches a made-up capture to its end; returns why it ended, the lines, and
/// the summary.
fn watched(options: &Options, capture: &mut Scripted) -> (End, Vec<String>, String) {
    let (mut reader, writer) = io::pipe().unwrap();
    let stdout = writer.try_clone().unwrap();
    let mut view = View::new(options, Paint(false), Output::new(writer).unwrap());
    let interrupt = Interrupt::block().unwrap();
    let end = watch(capture, &mut view, stdout.as_fd(), options.lasting, None, &interrupt).unwrap();
    drop(interrupt);
    finish(capture, &mut view, end).unwrap();
    view.lines.close(AT_EXIT);
    let summary = summary(&view, &Stats::default());
    drop((view, stdout));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (end, text.lines().map(str::to_owned).collect(), summary)
}

#[test]
fn a_signal_ends_it_with_all_that_has_happened() {
    for signal in [|| Ok(raise(Signal::SIGINT)?), || Ok(raise(Signal::SIGTERM)?)] {
        let mut capture = Scripted::new(&[2, 1], signal);
        let (end, lines, summary) = watched(&options(all()), &mut capture);
        assert!(end == End::Asked && capture.finished);
        let tags: Vec<_> = lines.iter().map(|line| line[13..].split(']').next().unwrap()).collect();
        let expected = ["[NEW", "[NEW", "[EXPECT", "[LOST", "[NEW", "[EXPECT", "[LOST", "[DESTROY"];
        assert_eq!(tags, expected);
        assert_eq!(summary, "flowlog: 6 events have been shown, 2 filtered, 6 lost.");
    }
}

#[test]
fn it_ends_after_so_many_events() {
    let wanted = Options { count: Some(2), ..options(all()) };
    let mut capture = Scripted::new(&[5, 5], || Ok(()));
    let (end, lines, summary) = watched(&wanted, &mut capture);
    assert!(end == End::Enough && capture.finished && capture.idles.get() == 0);
    assert_eq!(lines.len(), 2);
    assert_eq!(summary, "flowlog: 2 events have been shown, 0 filtered, 0 lost.");
}

#[test]
fn it_ends_when_the_time_is_over() {
    let wanted = Options { lasting: Some(Duration::from_millis(30)), ..options(all()) };
    let mut capture = Scripted::new(&[], || Ok(()));
    let (end, lines, _) = watched(&wanted, &mut capture);
    assert_eq!((end, lines.len()), (End::Asked, 1));
}

#[test]
fn nobody_reads_the_output() {
    let (reader, writer) = io::pipe().unwrap();
    let stdout = writer.try_clone().unwrap();
    let mut view = View::new(&options(all()), Paint(false), Output::new(writer).unwrap());
    let interrupt = Interrupt::block().unwrap();
    drop(reader);
    let mut capture = Scripted::new(&[], || panic!("nothing has to be read"));
    let end = watch(&mut capture, &mut view, stdout.as_fd(), None, None, &interrupt).unwrap();
    assert_eq!(end, End::Unread);
}

/// Drains go on while there is room, and then wait for the signal that ends it.
#[test]
fn a_reader_that_is_slow_makes_nothing_grow() {
    let (_reader, writer) = io::pipe().unwrap();
    let stdout = writer.try_clone().unwrap();
    let mut view = View::new(&options(all()), Paint(false), Output::new(writer).unwrap());
    let interrupt = Interrupt::block().unwrap();
    let mut capture = Scripted::new(&[4096; 64], || panic!("read dry"));
    let lasting = Some(Duration::from_millis(300));
    let end = watch(&mut capture, &mut view, stdout.as_fd(), lasting, None, &interrupt).unwrap();
    assert!(end == End::Asked && view.lines.output.is_behind());
    assert!(capture.drains.len() > 60, "{} drains are left", capture.drains.len());
    view.lines.close(Duration::ZERO);
    let events = (64 - capture.drains.len() as u64) * 4097;
    assert_eq!((view.lines.shown(), view.lines.lost), (0, events + 3 * events / 4097));
}
