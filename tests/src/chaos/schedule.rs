//! Which fault happens to what, when and for how long. A seed decides all of it beforehand, so the
//! same seed has the same schedule, whatever the machine does meanwhile.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The reader of a pipe or socket reads nothing for a while.
    StallReader,
    /// The reader has read everything and goes away; another one comes.
    KillReader,
    /// The reader goes away with what it has not read.
    DropReader,
    /// A server stands still (SIGSTOP).
    StopServer,
    /// A server is killed, and started again.
    KillServer,
    /// Something else listens in the place of a server, and answers with garbage.
    Garbage,
    /// A disk is full, and then has room again.
    FullDisk,
    /// An output is removed.
    RemoveFile,
    /// The directory of an output is removed.
    RemoveDirectory,
    /// An output is replaced by another file, without a signal.
    ReplaceFile,
    /// Files and the database are renamed, and HUP is sent to the daemon.
    Rotate,
    /// HUP alone.
    Hangup,
    /// The daemon stands still for a second.
    StopSelf,
    /// The name servers answer nothing, and HUP has names looked up meanwhile.
    SilentNames,
    /// The wall clock steps, and back.
    ClockStep,
    /// Dumps of the kernel's table fail with ENOBUFS.
    FailDumps,
    /// A sync of a file fails with EIO.
    FailSync,
    /// A namespace is removed and made anew.
    RemakeNamespace,
    /// The daemon is ended by TERM, whatever else is wrong just then, and started again.
    Restart,
}

/// What a kind can happen to, and for how long, in milliseconds.
struct Shape {
    name: &'static str,
    targets: &'static [&'static str],
    length: Range<u64>,
}

/// What concerns the whole daemon.
const DAEMON: &[&str] = &["flowlog"];

impl Kind {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::StallReader,
        Self::KillReader,
        Self::DropReader,
        Self::StopServer,
        Self::KillServer,
        Self::Garbage,
        Self::FullDisk,
        Self::RemoveFile,
        Self::RemoveDirectory,
        Self::ReplaceFile,
        Self::Rotate,
        Self::Hangup,
        Self::StopSelf,
        Self::SilentNames,
        Self::ClockStep,
        Self::FailDumps,
        Self::FailSync,
        Self::RemakeNamespace,
        Self::Restart,
    ];

    const fn shape(self) -> Shape {
        const READERS: &[&str] = &["pipe", "junix", "jtcp", "sdgram", "stcp", "ipfix"];
        const STALLED: &[&str] = &["pipe", "junix", "jtcp", "sdgram", "stcp", "ipfix", "sudp"];
        const FILES: &[&str] = &["emu", "jfile"];
        let (name, targets, length): (_, &[&str], _) = match self {
            Self::StallReader => ("stall-reader", STALLED, 1500..9000),
            Self::KillReader => ("kill-reader", READERS, 300..6000),
            Self::DropReader => ("drop-reader", READERS, 300..4000),
            Self::StopServer => ("stop-server", &["pg", "nats", "ch", "kafka"], 2000..12_000),
            Self::KillServer => ("kill-server", &["pg", "nats", "ch", "kafka"], 500..8000),
            Self::Garbage => ("garbage", &["pg", "nats", "ch"], 1500..6000),
            Self::FullDisk => ("full-disk", &["logs", "db", "spool", "archive"], 1500..8000),
            Self::RemoveFile => ("remove-file", &["emu", "jfile", "sqlite"], 10..11),
            Self::RemoveDirectory => ("remove-directory", &["emu", "archive", "spool"], 500..3000),
            Self::ReplaceFile => ("replace-file", FILES, 10..11),
            Self::Rotate => ("rotate", DAEMON, 10..11),
            Self::Hangup => ("hangup", DAEMON, 10..11),
            Self::StopSelf => ("stop-self", DAEMON, 900..1100),
            Self::SilentNames => ("silent-names", &["names"], 3000..12_000),
            Self::ClockStep => ("clock-step", &["clock"], 3000..12_000),
            Self::FailDumps => ("fail-dumps", &["hash"], 2000..4000),
            Self::FailSync => ("fail-sync", &["emu"], 500..1500),
            Self::RemakeNamespace => ("remake-namespace", &["inner"], 100..2000),
            Self::Restart => ("restart", DAEMON, 10..11),
        };
        Shape { name, targets, length }
    }

    /// Its name, for `--faults`.
    pub fn name(self) -> &'static str {
        self.shape().name
    }

    /// What it can happen to.
    pub fn targets(self) -> &'static [&'static str] {
        self.shape().targets
    }

    /// Which of the stacks suffer when it happens to this target; none: all of them.
    pub fn victims(self, target: &'static str) -> &'static [&'static str] {
        match target {
            "logs" => &["emu", "jfile"],
            "db" => &["sqlite"],
            "archive" => &["parquet"],
            "spool" => &["parquet", "pg", "nats", "ch", "ipfix", "kafka"],
            "names" => &["jtcp", "sudp", "stcp"],
            "clock" | "flowlog" => &[],
            _ => {
                let is_target = |kind: &&Self| kind.targets().contains(&target);
                let shape = Self::ALL.iter().find(is_target).map(|kind| kind.targets());
                let all = shape.unwrap_or_default();
                let at = all.iter().position(|other| *other == target);
                at.map_or(&[], |at| &all[at..=at])
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).with_context(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("no fault is called {name:?}; there are {}", names.join(", "))
        })
    }
}

/// A fault that will happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// When, from the start of the traffic.
    pub at: Duration,
    /// For how long.
    pub length: Duration,
    /// What.
    pub kind: Kind,
    /// To what.
    pub target: &'static str,
    /// What else is random in it.
    pub detail: u64,
}

/// Between two faults, in milliseconds.
const GAP: Range<u64> = 200..2200;
/// A target has so long to recover before the next fault happens to it.
const REST: Duration = Duration::from_millis(1500);
/// Between two restarts, which take some seconds each.
const RESTART: Duration = Duration::from_secs(12);
/// Files are rotated at least so often, in any case: what they hold is counted then.
const ROTATION: Duration = Duration::from_secs(15);

/// The faults of this seed within `span`: of these kinds, to these of the sinks.
pub fn plan(seed: u64, span: &Range<Duration>, kinds: &[Kind], sinks: &[&str]) -> Vec<Planned> {
    let mut random = Random::new(seed);
    let mut plan: Vec<Planned> = Vec::new();
    let mut at = span.start;
    let mut rotated = span.start;
    // Before it one daemon runs all along, whose memory can be looked at.
    let mut may_restart = span.start + (span.end.saturating_sub(span.start)) * 2 / 3;
    loop {
        at += Duration::from_millis(GAP.start + random.below(GAP.end - GAP.start));
        if at >= span.end {
            break;
        }
        if at >= rotated + ROTATION {
            rotated = at;
            let length = Duration::from_millis(10);
            let detail = random.next();
            plan.push(Planned { at, length, kind: Kind::Rotate, target: "flowlog", detail });
            continue;
        }
        // As many numbers are taken whether the target is free or not.
        let kind = random.pick(kinds).copied();
        let (target, length, detail) = (random.next(), random.next(), random.next());
        let Some(kind) = kind else { continue };
        let shape = kind.shape();
        let there: Vec<_> = shape.targets.iter().filter(|to| is_there(kind, to, sinks)).collect();
        let Some(&&target) = Random::new(target).pick(&there) else { continue };
        let range = shape.length.end - shape.length.start;
        let length = Duration::from_millis(shape.length.start + length % range);
        let is_busy = plan.iter().any(|other| {
            let same = other.target == target && other.kind != Kind::Rotate;
            same && other.at + other.length + REST > at
        });
        let is_early = kind == Kind::Restart && at < may_restart;
        if !is_busy && !is_early && at + length < span.end {
            if kind == Kind::Restart {
                may_restart = at + RESTART;
            }
            plan.push(Planned { at, length, kind, target, detail });
        }
    }
    plan
}

/// Whether it can happen, with these sinks.
fn is_there(kind: Kind, target: &'static str, sinks: &[&str]) -> bool {
    let victims = kind.victims(target);
    victims.is_empty() || victims.iter().any(|victim| sinks.contains(victim))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Range<Duration> = Duration::from_secs(10)..Duration::from_secs(610);
    const SINKS: &[&str] = &["emu", "pipe", "pg", "parquet", "hash", "inner", "jtcp"];

    #[test]
    fn the_same_seed_has_the_same_schedule() {
        let first = plan(7, &SPAN, &Kind::ALL, SINKS);
        assert_eq!(first, plan(7, &SPAN, &Kind::ALL, SINKS));
        assert_ne!(first, plan(8, &SPAN, &Kind::ALL, SINKS));
        assert!(first.len() > 200, "{}", first.len());
    }

    #[test]
    fn faults_stay_in_their_time_and_no_target_has_two() {
        let plan = plan(3, &SPAN, &Kind::ALL, SINKS);
        for (number, fault) in plan.iter().enumerate() {
            assert!(SPAN.contains(&fault.at) && SPAN.contains(&(fault.at + fault.length)));
            let earlier = plan[..number].iter().filter(|other| other.target == fault.target);
            let both = |other: &&Planned| other.kind != Kind::Rotate && fault.kind != Kind::Rotate;
            for other in earlier.filter(both) {
                assert!(other.at + other.length < fault.at, "{other:?} {fault:?}");
            }
        }
    }

    #[test]
    fn each_kind_happens_to_what_is_there_only() {
        let plan = plan(1, &SPAN, &Kind::ALL, SINKS);
        for kind in Kind::ALL {
            assert!(plan.iter().any(|fault| fault.kind == kind), "no {kind} in ten minutes");
        }
        assert!(plan.iter().all(|fault| !["nats", "junix", "db"].contains(&fault.target)));
        let only = super::plan(1, &SPAN, &[Kind::Garbage], SINKS);
        assert!(only.iter().all(|fault| [Kind::Garbage, Kind::Rotate].contains(&fault.kind)));
    }

    #[test]
    fn restarts_are_rare_and_late() {
        let plan = plan(5, &SPAN, &[Kind::Restart, Kind::Hangup], SINKS);
        let restarts = plan.iter().filter(|fault| fault.kind == Kind::Restart);
        let restarts: Vec<_> = restarts.map(|fault| fault.at).collect();
        assert!(restarts.len() > 5 && restarts[0] >= Duration::from_secs(410), "{restarts:?}");
        assert!(restarts.windows(2).all(|pair| pair[1] - pair[0] >= RESTART), "{restarts:?}");
    }

    #[test]
    fn names_are_understood() -> Result<()> {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse::<Kind>()?, kind);
            assert!(!kind.targets().is_empty());
        }
        assert!("earthquake".parse::<Kind>().is_err());
        assert_eq!(Kind::FullDisk.victims("logs"), ["emu", "jfile"]);
        assert_eq!(Kind::StallReader.victims("pipe"), ["pipe"]);
        Ok(())
    }
}
