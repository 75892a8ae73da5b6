//! When a capture is checked and finished, with a capture that notes it down.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::capture::FlowKey;
use crate::config;
use crate::event::Lost;
use crate::stack::Stack;

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
}

impl Capture for Noted {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, _: usize, _: &mut dyn RecordSink) -> io::Result<Progress> {
        self.calls.borrow_mut().push(Call::Drain);
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
        sink.record(Record::Lost(Lost { source: "ebpf", events: 4, at: 0 }));
        Err(io::Error::from(io::ErrorKind::Other))
    }
}

/// A source whose stack writes to `file`.
fn source(file: &std::path::Path, due: Option<Instant>) -> (Source, Rc<RefCell<Vec<Call>>>) {
    let text = format!(
        "[global]\nstack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n[ct1]\n\
         hash_enable=0\n[emu1]\nfile=\"{}\"\n",
        file.display()
    );
    let config = config::parse(std::path::Path::new("u.conf"), &text).config.unwrap();
    let stats = Stats::default();
    let calls = Rc::new(RefCell::new(Vec::new()));
    let source = Source {
        id: "ct1".to_owned(),
        capture: Box::new(Noted { calls: Rc::clone(&calls), due }),
        nfct: Nfct::new(config.sources[0].nfct.clone(), stats.clone()),
        stacks: Stacks(vec![Stack::start(&config.stacks[0], "host", &stats).unwrap()]),
    };
    (source, calls)
}

#[test]
fn a_capture_is_checked_when_it_is_due() {
    let directory = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let (mut source, calls) = source(&directory.path().join("flow.log"), Some(now));
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
    let (source, calls) = source(&file, None);
    let mut engine = Engine {
        sources: vec![source],
        descriptors: Vec::new(),
        signals: Signals(Vec::new()),
        rest: Rest::default(),
        complaints: RateLimit::per_second(),
        stats: Stats::default(),
    };
    engine.shut_down().unwrap();
    assert_eq!(*calls.borrow(), [Call::Drain, Call::Finish, Call::Totals]);
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.ends_with("[LOST] EVENTS=4 SOURCE=ebpf \n"), "{written}");
}
