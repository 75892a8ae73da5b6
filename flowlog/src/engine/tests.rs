//! When a capture is checked and finished, with a capture that notes it down.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::capture::FlowKey;
use crate::config;
use crate::event::{Kinds, Lost};
use crate::metrics::{Answer, Topic};
use crate::stack::Site;
use crate::stats::Measure;

mod losses;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Check,
    Drain,
    Finish,
    Totals,
}

/// Notes what is asked of it; its end tells a loss, and then fails.
struct Noted {
    calls: Rc<RefCell<Vec<Call>>>,
    due: Option<Instant>,
    /// How often it cannot be drained yet.
    failures: u32,
}

impl Capture for Noted {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, _: usize, _: &mut dyn RecordSink) -> io::Result<Progress> {
        self.calls.borrow_mut().push(Call::Drain);
        if let Some(left) = self.failures.checked_sub(1) {
            self.failures = left;
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        Ok(Progress { messages: 0, drained: Drained::Dry })
    }

    fn start_dump(&mut self, _: DumpKind) -> io::Result<()> {
        Ok(())
    }

    fn query(&mut self, _: Vec<FlowKey>) -> io::Result<()> {
        Ok(())
    }

    fn queue_events(&self) -> usize {
        1
    }

    fn check_due(&self) -> Option<Instant> {
        self.due
    }

    fn check(&mut self, now: Instant) {
        self.calls.borrow_mut().push(Call::Check);
        self.due = Some(now + Duration::from_secs(5));
    }

    fn before_totals(&mut self) {
        self.calls.borrow_mut().push(Call::Totals);
    }

    fn finish(&mut self, sink: &mut dyn RecordSink) -> io::Result<()> {
        self.calls.borrow_mut().push(Call::Finish);
        sink.record(Record::Lost(Lost::noticed("ebpf", 4, 0)));
        Err(io::Error::from(io::ErrorKind::Other))
    }
}

/// A source whose stack writes to `file`.
fn source(file: &std::path::Path, due: Option<Instant>) -> (Source, Stats, Rc<RefCell<Vec<Call>>>) {
    let sink = format!("ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n[emu1]\nfile={file:?}");
    source_with(&sink, due)
}

/// A source whose stack ends like this, with the section of its sink.
fn source_with(sink: &str, due: Option<Instant>) -> (Source, Stats, Rc<RefCell<Vec<Call>>>) {
    let (stack, section) = sink.split_once('\n').unwrap();
    let text = format!("[global]\nstack=ct1:NFCT,{stack}\n[ct1]\nhash_enable=0\n{section}\n");
    let config = config::parse(std::path::Path::new("u.conf"), &text).config.unwrap();
    let stats = Stats::default();
    let calls = Rc::new(RefCell::new(Vec::new()));
    let site = Site::of("host", &stats, None);
    let source = Source {
        id: "ct1".to_owned(),
        by: "by hand".to_owned(),
        table: TableFill::open(),
        capture: Box::new(Noted { calls: Rc::clone(&calls), due, failures: 0 }),
        nfct: Nfct::new(config.sources[0].nfct.clone(), stats.clone()),
        stacks: Stacks::start(&config, 0, site).unwrap(),
        place: None,
        activation: None,
        recovery: Recovery::default(),
    };
    (source, stats, calls)
}

fn engine(source: Source, stats: Stats) -> Engine {
    let sources = vec![source];
    Engine {
        monitor: Monitor::new(&sources, &stats, Instant::now()),
        sources,
        descriptors: Vec::new(),
        signals: Signals(Vec::new()),
        rest: Rest::default(),
        complaints: RateLimit::per_second(),
        stats,
        questions: None,
        watchdog: None,
        notifier: Notifier::default(),
    }
}

/// Asks the engine, and returns what it says.
fn ask(engine: &mut Engine, topic: Topic) -> Answer {
    let (answer, mut answered) = tokio::sync::oneshot::channel();
    engine.answer(Question { topic, answer });
    answered.try_recv().unwrap()
}

#[test]
fn a_capture_is_checked_when_it_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let (mut source, _, calls) = source(&directory.path().join("flow.log"), Some(now));
    assert_eq!(source.deadline(), Some(now));
    let mut complaints = RateLimit::per_second();
    source.tick(now, &mut complaints);
    source.tick(now, &mut complaints);
    assert_eq!(*calls.borrow(), [Call::Check]);
    assert_eq!(source.deadline(), Some(now + Duration::from_secs(5)));
}

#[tokio::test]
async fn at_the_end_all_is_drained_then_finished_then_summed_up() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flow.log");
    let (source, stats, calls) = source(&file, None);
    let mut engine = engine(source, stats);
    engine.shut_down();
    assert_eq!(*calls.borrow(), [Call::Drain, Call::Drain, Call::Finish, Call::Totals]);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.ends_with("[LOST] EVENTS=4 SOURCE=ebpf \n"), "{written}");
}

#[test]
fn a_scrape_shows_the_source_and_what_it_handed_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flow.log");
    let (mut source, stats, calls) = source(&file, None);
    let mut feed = Feed { nfct: &mut source.nfct, stacks: &mut source.stacks };
    let event = Event { kinds: Kinds::NEW, ..Event::default() };
    for _ in 0..3 {
        feed.record(Record::Event(&event));
    }
    feed.record(Record::Lost(Lost::noticed("ebpf", 4, 0)));
    let mut engine = engine(source, stats);
    let Answer::Page(page) = ask(&mut engine, Topic::Metrics) else { panic!() };
    assert_eq!(*calls.borrow(), [Call::Totals], "computed counters come first");
    for line in [
        "flowlog_health 0".to_owned(),
        "flowlog_source_info{source=\"ct1\",capture=\"by hand\"} 1".to_owned(),
        "flowlog_events_total{source=\"ct1\",kind=\"new\",cause=\"none\"} 3".to_owned(),
        "flowlog_events_total{source=\"ct1\",kind=\"destroy\",cause=\"unreported\"} 0".to_owned(),
        "flowlog_lost_events_total{source=\"ct1\"} 4".to_owned(),
        "flowlog_loss_reports_total{source=\"ct1\"} 1".to_owned(),
        "flowlog_sink_stalled_seconds{source=\"ct1\",stack=\"1\",sink=\"emu1\",plugin=\"logemu\"} 0"
            .to_owned(),
        "flowlog_sink_failing{source=\"ct1\",stack=\"1\",sink=\"emu1\",plugin=\"logemu\"} 0"
            .to_owned(),
        format!(
            "flowlog_sink_info{{source=\"ct1\",stack=\"1\",sink=\"emu1\",plugin=\"logemu\",\
             destination=\"{}\"}} 1",
            file.display()
        ),
    ] {
        assert!(page.lines().any(|l| l == line), "no {line} in\n{page}");
    }
    assert!(!page.contains("flowlog_live_flows"), "there is no table");
    let waiting = page.lines().find(|l| l.starts_with("flowlog_sink_buffer_bytes{")).unwrap();
    assert!(!waiting.ends_with(" 0"), "{waiting}");
}

/// What /healthz says; empty: all is well.
fn health(engine: &mut Engine) -> String {
    match ask(engine, Topic::Health) {
        Answer::Unfit(why) => why,
        healthy => {
            assert_eq!(healthy, Answer::Fit("ok\n".to_owned()));
            String::new()
        }
    }
}

/// Hands an event to the stacks.
fn event(engine: &mut Engine) {
    let Source { nfct, stacks, .. } = &mut engine.sources[0];
    let event = Event { kinds: Kinds::NEW, ..Event::default() };
    nfct.record(Record::Event(&event), stacks);
    stacks.flush();
}

#[test]
fn health_names_the_file_that_cannot_be_written() {
    let (source, stats, _) = source(std::path::Path::new("/dev/full"), None);
    let mut engine = engine(source, stats);
    assert_eq!(health(&mut engine), "");
    event(&mut engine);
    let why = health(&mut engine);
    assert!(why.starts_with("ct1/1/emu1:LOGEMU: /dev/full cannot be written: "), "{why}");
    assert!(why.ends_with("; make room or move the file and send SIGHUP\n"), "{why}");
    assert_eq!(why.lines().count(), 1, "{why}");
}

#[test]
fn health_names_the_peer_that_cannot_be_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peer");
    let sink = format!("json1:JSON\n[json1]\nmode=unix\nfile={path:?}\nschema=full");
    let (source, stats, _) = source_with(&sink, None);
    let (instance, output) = source.stacks.each_sink().next().unwrap();
    assert_eq!((instance.stack, instance.sink.as_str()), (1, "json1"));
    assert_eq!(output.to_string(), path.display().to_string());
    let mut engine = engine(source, stats);
    event(&mut engine);
    let why = health(&mut engine);
    let begin = format!("ct1/1/json1:JSON: {} cannot be reached: ", path.display());
    assert!(why.starts_with(&begin), "{why}");
    assert!(!why.contains(": 0 of ") && why.contains("start what listens there"), "{why}");
}

/// A sink counts a loss, wherever it does, and the monitor has it everywhere.
#[test]
fn a_loss_of_a_sink_is_in_health_and_then_in_its_own_output() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flow.log");
    let (source, stats, _) = source(&file, None);
    let mut engine = engine(source, stats.clone());
    let (_, sink) = stats.sinks().remove(0);
    sink.add(Measure::Lost, 3);
    let why = health(&mut engine);
    assert!(why.starts_with("ct1/1/emu1:LOGEMU: 3 lines lost because "), "{why}");
    assert!(why.contains("in the last 5 minutes") && why.contains("buffer_max_bytes"), "{why}");
    let due = engine.monitor.due();
    engine.monitor.tick(due, &mut engine.sources);
    assert_eq!(sink.get(Measure::LossReports), 0, "more may be lost yet");
    engine.monitor.tick(due + Duration::from_secs(5), &mut engine.sources);
    engine.monitor.tick(due + Duration::from_secs(9), &mut engine.sources);
    engine.sources[0].stacks.flush();
    assert_eq!(sink.get(Measure::LossReports), 1);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.ends_with("[LOST] EVENTS=3 SOURCE=output \n"), "{written}");
    assert_eq!(written.lines().count(), 1);
    let Answer::Page(page) = ask(&mut engine, Topic::Metrics) else { panic!() };
    assert!(page.contains("\nflowlog_health 0\n"), "{page}");
    assert!(page.contains("\nflowlog_lost_events_total{source=\"ct1\"} 0\n"), "{page}");
}

#[test]
fn lost_events_of_a_source_and_its_trouble_are_in_health() {
    let directory = tempfile::tempdir().unwrap();
    let (mut source, stats, _) = source(&directory.path().join("flow.log"), None);
    source.capture = Box::new(Troubled);
    let mut engine = engine(source, stats);
    let Source { nfct, stacks, .. } = &mut engine.sources[0];
    nfct.record(Record::Lost(Lost::noticed("netlink", 12, 0)), stacks);
    nfct.record(Record::Lost(Lost::noticed("netns", 1, 0)), stacks);
    let why = health(&mut engine);
    let lines: Vec<_> = why.lines().collect();
    assert_eq!(lines[0], "ct1: the namespace is gone");
    assert!(
        lines[1].starts_with("ct1: 12 events lost in the last 5 minutes by netlink; "),
        "{why}"
    );
    assert!(lines[2].contains("netns was made anew"), "{why}");
    assert_eq!(lines.len(), 3, "{why}");
}

/// A capture that sees nothing, and says why.
struct Troubled;

impl Capture for Troubled {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, _: usize, _: &mut dyn RecordSink) -> io::Result<Progress> {
        Ok(Progress { messages: 0, drained: Drained::Later })
    }

    fn queue_events(&self) -> usize {
        1
    }

    fn health(&self) -> Option<String> {
        Some("the namespace is gone".to_owned())
    }
}

#[test]
fn a_capture_that_fails_is_named_and_drained_again() {
    let directory = tempfile::tempdir().unwrap();
    let (mut source, stats, calls) = source(&directory.path().join("flow.log"), None);
    let failing = Noted { calls: Rc::clone(&calls), due: None, failures: 1 };
    source.capture = Box::new(failing);
    let mut engine = engine(source, stats);
    assert!(!engine.turn());
    let why = health(&mut engine);
    assert!(why.starts_with("ct1: events cannot be read: No buffer space"), "{why}");
    let due = engine.deadline().unwrap();
    assert!(due <= Instant::now() + Duration::from_secs(1));
    engine.turn();
    assert_eq!(*calls.borrow(), [Call::Drain], "not at once");
    let begin = Instant::now();
    while calls.borrow().len() < 2 && begin.elapsed() < Duration::from_secs(3) {
        // Another deadline, such as that of the file, may come before.
        let due = engine.deadline().unwrap();
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        engine.turn();
    }
    assert_eq!(*calls.borrow(), [Call::Drain, Call::Drain]);
    assert_eq!(ask(&mut engine, Topic::Health), Answer::Fit("ok\n".to_owned()));
}
