//! A made-up report, and how an audit ends.

use std::cell::Cell;
use std::collections::BTreeMap;

use nix::sys::signal::{Signal, raise};

use super::*;
use crate::capture::crosscheck::{Due, Lag, Loser, LostEvent};
use crate::flow::{Family, Tuple};
use crate::stats::{Check, CheckKind, Counter};

/// A report of a busy namespace beside another one.
pub(super) fn made_up() -> Report {
    use CheckKind::{Destroy, Expect, New, Update};
    let stats = Stats::default();
    for (check, counts) in [
        (Check::Ebpf, [1200, 21, 85, 1]),
        (Check::Netlink, [1200, 20, 80, 0]),
        (Check::Due, [1204, 25, 83, 0]),
        (Check::Matched, [1200, 10, 80, 0]),
        (Check::Differing, [1, 0, 0, 0]),
        (Check::OnlyEbpf, [0, 0, 5, 0]),
        (Check::OnlyEbpfUnexplained, [0, 0, 2, 0]),
        (Check::OnlyNetlink, [0, 10, 0, 0]),
        (Check::Silent, [0, 0, 0, 1]),
    ] {
        for (kind, count) in [New, Update, Destroy, Expect].into_iter().zip(counts) {
            stats.add_check(check, kind, count);
        }
    }
    stats.add(Counter::NetlinkLost, 12);
    let us = Duration::from_micros;
    Report {
        lasted: Duration::from_secs(30),
        netns: 4_026_531_840,
        method: "kprobe",
        paired: true,
        fields: BTreeMap::from([("status", 1)]),
        lost: vec![LostEvent { by: Loser::Netlink, kind: Destroy, tuple: tuple(), zone: 7 }],
        due: BTreeMap::from([
            (4_026_531_840, Due { new: 1204, update: 25, destroy: 83 }),
            (4_026_532_210, Due { new: 5, update: 0, destroy: 4 }),
        ]),
        lag: Some(Lag { median: us(12), p99: us(1500), max: us(80_000) }),
        stats,
    }
}

fn tuple() -> Tuple {
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    src[..4].copy_from_slice(&[10, 0, 0, 1]);
    dst[..4].copy_from_slice(&[10, 0, 0, 2]);
    Tuple { family: Family::V4, proto: 17, src, dst, src_l4: 5, dst_l4: 53 }
}

/// A report of nothing at all.
pub(super) fn nothing() -> Report {
    Report {
        lasted: Duration::from_secs(1),
        netns: 1,
        method: "fentry",
        paired: false,
        fields: BTreeMap::new(),
        lost: Vec::new(),
        due: BTreeMap::new(),
        lag: None,
        stats: Stats::default(),
    }
}

/// Counts what is asked of it; `at` the step of this number it does something.
struct Counted<F> {
    steps: Cell<u32>,
    finished: bool,
    at: u32,
    does: F,
}

impl<F: FnMut() -> io::Result<()>> Auditable for Counted<F> {
    fn step(&mut self, wait: Duration) -> io::Result<()> {
        assert!(!self.finished && !wait.is_zero() && wait <= STEP);
        self.steps.set(self.steps.get() + 1);
        std::thread::sleep(wait.min(Duration::from_millis(1)));
        if self.steps.get() == self.at { (self.does)() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.finished = true;
        Ok(())
    }

    fn report(&self) -> Report {
        nothing()
    }
}

/// An audit of so many milliseconds, with what happens at the third step;
/// returns whether it came to a report, and the steps taken.
fn audit(ms: u64, does: impl FnMut() -> io::Result<()>) -> (bool, u32) {
    let mut audited = Counted { steps: Cell::new(0), finished: false, at: 3, does };
    let interrupt = Interrupt::block().unwrap();
    let lasting = Duration::from_millis(ms);
    let report = watch(&mut audited, lasting, None, interrupt, None::<Progress<io::Sink>>);
    assert_eq!(audited.finished, report.is_ok());
    (report.is_ok(), audited.steps.get())
}

#[test]
fn it_ends_when_the_time_is_over() {
    let (ended, steps) = audit(30, || Ok(()));
    assert!(ended && (1..=30).contains(&steps), "{steps}");
}

#[test]
fn a_signal_ends_it_early_with_a_report() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        assert_eq!(audit(3_600_000, || Ok(raise(signal)?)), (true, 3));
    }
}

#[test]
fn a_source_that_cannot_go_on_ends_it() {
    assert_eq!(audit(3_600_000, || Err(io::ErrorKind::Other.into())), (false, 3));
}

#[test]
fn what_is_unexplained_fails() {
    assert_eq!(exit_code(&made_up()), ExitCode::from(1));
    assert_eq!(exit_code(&nothing()), ExitCode::SUCCESS);
}
