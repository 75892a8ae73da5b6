//! The promises, whether each was kept, and which faults were on when one was not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counters::STANDS_STILL;
use super::faults::Happened;
use super::ledger::Account;
use super::probe::{PROMPT, Sample};
use super::schedule::Kind;

/// A promise, and what speaks against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// What is promised.
    pub name: &'static str,
    /// How it was broken; nothing: it was kept.
    pub broken: Vec<String>,
}

impl Promise {
    /// Whether it was kept.
    pub fn kept(&self) -> bool {
        self.broken.is_empty()
    }
}

/// How memory may grow: by a tenth; by half in a run that is too short to have filled each queue
/// and cache once.
const GROWTH: f64 = 1.1;
const GROWTH_AT_FIRST: f64 = 1.5;
/// From when on a run is long.
const LONG: Duration = Duration::from_mins(3);
/// Looks that a third must have before its median says something.
const LOOKS: usize = 5;
/// The most faults that are named: the last ones that were on.
const NAMED: usize = 8;
/// The most times of missing records that are named.
const SPANS: usize = 4;

/// The faults that were on in this span.
pub fn during(happened: &[Happened], from: Duration, to: Duration) -> String {
    named(happened.iter().filter(|one| one.was_on(from, to)))
}

fn named<'h>(happened: impl Iterator<Item = &'h Happened>) -> String {
    let name = |one: &Happened| {
        let to = one.ended.map_or("…".to_owned(), |ended| format!("{:.1}", ended.as_secs_f64()));
        let from = one.began.as_secs_f64();
        format!("{} {} ({from:.1}–{to} s)", one.fault.kind, one.fault.target)
    };
    let names: Vec<_> = happened.map(name).collect();
    match names.len() {
        0 => "no fault".to_owned(),
        all if all > NAMED => {
            format!("{} and {} others", names[all - NAMED..].join(", "), all - NAMED)
        }
        _ => names.join(", "),
    }
}

/// Every record is logged or counted as lost, and none is there twice. `missing`: when the flows
/// were made that lack one.
pub fn books(
    accounts: &[Account],
    missing: &BTreeMap<String, Vec<Duration>>,
    happened: &[Happened],
) -> Promise {
    let mut broken = Vec::new();
    for account in accounts {
        let faults = account.faults();
        if faults.is_empty() {
            continue;
        }
        broken.push(format!("{}: {}", account.name, faults.join("; ")));
        let flows = missing.get(&account.name).map(Vec::as_slice).unwrap_or_default();
        for (from, to, count) in spans(flows) {
            // What suffers by a fault of its own comes first.
            let sink = account.name.trim_end_matches('1');
            let is_own = |one: &&Happened| {
                let victims = one.fault.kind.victims(one.fault.target);
                one.was_on(from, to) && (victims.is_empty() || victims.contains(&sink))
            };
            broken.push(format!(
                "  {count} flows of {:.1}–{:.1} s lack a record; then: {}",
                from.as_secs_f64(),
                to.as_secs_f64(),
                named(happened.iter().filter(is_own))
            ));
        }
    }
    Promise { name: "made = logged + counted as lost, and nothing twice", broken }
}

/// The times in which flows are missing, those with the most first.
fn spans(flows: &[Duration]) -> Vec<(Duration, Duration, usize)> {
    /// Flows that are missing so close together have one cause.
    const CLOSE: Duration = Duration::from_secs(1);
    let mut spans: Vec<(Duration, Duration, usize)> = Vec::new();
    for &at in flows {
        match spans.last_mut() {
            Some((_, to, count)) if at <= *to + CLOSE => {
                *to = at;
                *count += 1;
            }
            _ => spans.push((at, at, 1)),
        }
    }
    spans.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    spans.truncate(SPANS);
    spans
}

/// Whether a look fell into a time in which no answer can be had: the daemon was stopped by the
/// harness, or is not there.
fn is_excused(sample: &Sample, happened: &[Happened]) -> bool {
    let stops = happened.iter().filter(|one| {
        matches!(
            one.fault.kind,
            Kind::StopSelf
                | Kind::Restart
                | Kind::KillReader
                | Kind::DropReader
                | Kind::RemoveFile
                | Kind::RemoveDirectory
        )
    });
    let took = sample.metrics.unwrap_or_default() + sample.health.unwrap_or_default();
    let (from, to) = (sample.at, sample.at + took);
    let brief = |one: &Happened| {
        // Readers and files: the daemon stands still at the beginning only.
        let is_long = matches!(one.fault.kind, Kind::StopSelf | Kind::Restart);
        let end = if is_long { one.ended.unwrap_or(Duration::MAX) } else { one.began };
        (one.began, end.saturating_add(Duration::from_millis(500)))
    };
    stops.map(brief).any(|(began, ended)| began <= to && ended >= from)
}

/// /metrics and /healthz answer within a second.
pub fn answers(samples: &[Sample], happened: &[Happened]) -> Promise {
    let words = |took: Option<Duration>| {
        took.map_or("nothing".to_owned(), |took| format!("{:.2} s", took.as_secs_f64()))
    };
    let is_late = |took: Option<Duration>| took.is_none_or(|took| took > PROMPT);
    let broken = looks(samples, happened, |one| {
        let late = is_late(one.metrics) || is_late(one.health);
        late.then(|| format!("/metrics {}, /healthz {}", words(one.metrics), words(one.health)))
    });
    Promise { name: "/metrics and /healthz answer within 1 s", broken }
}

/// The thread that reads events waits for nobody: it has answered.
pub fn stands(samples: &[Sample], happened: &[Happened]) -> Promise {
    let broken = looks(samples, happened, |one| {
        let words = one.words.lines().next()?;
        let time = words.strip_prefix(STANDS_STILL)?.split(' ').next()?.parse();
        if time.is_ok_and(|time| Duration::from_millis(time) < STILL) {
            return None;
        }
        let place = one.place.as_deref().unwrap_or("an unknown place");
        Some(format!("{words}; it is in {place}"))
    });
    Promise { name: "the thread that reads events stands still for nobody", broken }
}

/// The times in which looks found something, with what the last of each found.
fn looks(
    samples: &[Sample],
    happened: &[Happened],
    find: impl Fn(&Sample) -> Option<String>,
) -> Vec<String> {
    /// Looks so close together have one cause.
    const CLOSE: Duration = Duration::from_secs(6);
    let mut found: Vec<(Duration, Duration, String)> = Vec::new();
    for sample in samples.iter().filter(|sample| !is_excused(sample, happened)) {
        let Some(words) = find(sample) else { continue };
        match found.last_mut() {
            Some((_, to, last)) if sample.at <= *to + CLOSE => (*to, *last) = (sample.at, words),
            _ => found.push((sample.at, sample.at, words)),
        }
    }
    let tell = |(from, to, words): &(Duration, Duration, String)| {
        let then = during(happened, *from, *to);
        format!("{:.1}–{:.1} s: {words}; then: {then}", from.as_secs_f64(), to.as_secs_f64())
    };
    found.iter().map(tell).collect()
}

/// A busy machine may have a thread wait for its turn for so long.
const STILL: Duration = Duration::from_secs(2);

/// Memory does not grow: the median of the last third against that of the first, after `warm`, of
/// the first daemon.
pub fn memory(samples: &[Sample], warm: Duration) -> Promise {
    let first = samples.first().map(|one| one.pid);
    let samples = samples.iter().filter(|one| Some(one.pid) == first);
    let warm = samples.clone().filter(|one| one.at >= warm && one.memory > 0);
    let end = samples.clone().map(|one| one.at).max().unwrap_or_default();
    let warm: Vec<_> = warm.map(|one| one.memory).collect();
    let (name, growth) = if end < LONG {
        ("resident memory grows by less than half in a short run", GROWTH_AT_FIRST)
    } else {
        ("resident memory is flat within 10 %", GROWTH)
    };
    let third = warm.len() / 3;
    let mut broken = Vec::new();
    if third < LOOKS {
        broken.push(format!("{} looks are too few to say", warm.len()));
    } else {
        let (first, last) = (median(&warm[..third]), median(&warm[warm.len() - third..]));
        if last as f64 > first as f64 * growth {
            broken.push(format!("{first} KiB in the first third, {last} KiB in the last"));
        }
    }
    Promise { name, broken }
}

/// The middle one.
pub fn median(numbers: &[u64]) -> u64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::counters::{Counters, Sink};
    use crate::chaos::schedule::Planned;

    const SECOND: Duration = Duration::from_secs(1);

    fn fault(kind: Kind, target: &'static str, began: u32, ended: u32) -> Happened {
        let (began, ended) = (SECOND * began, SECOND * ended);
        let fault = Planned { at: began, length: ended - began, kind, target, detail: 0 };
        Happened { fault, began, ended: Some(ended), failed: None }
    }

    fn look(at: u32, metrics: Option<Duration>, memory: u64) -> Sample {
        Sample {
            at: SECOND * at,
            metrics,
            health: Some(SECOND / 100),
            words: "ok".to_owned(),
            pid: 1,
            place: Some("pipe_write".to_owned()),
            memory,
            counters: Counters::default(),
        }
    }

    #[test]
    fn a_forged_missing_record_breaks_the_promise_and_names_the_fault() {
        let whole =
            Account { name: "pipe1".to_owned(), expected: 20, logged: 20, ..Account::default() };
        let happened = [
            fault(Kind::StallReader, "pipe", 2, 4),
            fault(Kind::StallReader, "junix", 2, 4),
            fault(Kind::KillReader, "pipe", 8, 9),
        ];
        let judge = |account: &Account, flows: &[Duration]| {
            let missing = BTreeMap::from([("pipe1".to_owned(), flows.to_vec())]);
            books(std::slice::from_ref(account), &missing, &happened)
        };
        assert!(judge(&whole, &[]).kept());
        let forged = Account { logged: 19, ..whole.clone() };
        let promise = judge(&forged, &[SECOND * 3]);
        assert!(!promise.kept());
        assert_eq!(promise.broken[0], "pipe1: 1 records are missing and not counted");
        assert!(promise.broken[1].contains("stall-reader pipe (2.0–4.0 s)"), "{promise:?}");
        assert!(!promise.broken[1].contains("junix") && !promise.broken[1].contains("kill-reader"));
        let counted = Account { counted: Sink { lost: 1, ..Sink::default() }, ..forged };
        assert!(judge(&counted, &[SECOND * 3]).kept());
    }

    #[test]
    fn a_late_answer_breaks_the_promise_unless_the_harness_stopped_the_daemon() {
        let quick = Some(SECOND / 50);
        let samples = [look(1, quick, 1), look(2, Some(SECOND * 2), 1), look(20, None, 1)];
        let stop = |began| [fault(Kind::StopSelf, "flowlog", began, began + 1)];
        assert!(answers(&samples[..1], &[]).kept());
        assert_eq!(answers(&samples, &[]).broken.len(), 2);
        assert_eq!(answers(&samples, &stop(2)).broken.len(), 1);
        let other = [fault(Kind::StallReader, "pipe", 15, 25)];
        assert!(answers(&samples, &other).broken[1].contains("stall-reader pipe"));
    }

    #[test]
    fn a_thread_that_stands_still_is_told_with_the_fault() {
        let still = |milliseconds: u32| Sample {
            words: format!("{STANDS_STILL}{milliseconds} ms\n"),
            ..look(12, Some(SECOND / 50), 1)
        };
        let silent = [fault(Kind::SilentNames, "names", 10, 14)];
        let promise = stands(&[look(5, None, 1), still(700), still(2700)], &silent);
        assert_eq!(promise.broken.len(), 1);
        assert!(
            promise.broken[0].contains("2700 ms; it is in pipe_write; then: silent-names names"),
            "{promise:?}"
        );
        let stopped = [fault(Kind::StopSelf, "flowlog", 11, 12)];
        assert!(stands(&[still(2700)], &stopped).kept());
        assert!(stands(&[still(700)], &silent).kept());
    }

    #[test]
    fn memory_that_grows_is_told() {
        let looks = |seconds: u32, growth: u64| -> Vec<_> {
            (0..seconds).map(|at| look(at, None, 10_000 + growth * u64::from(at))).collect()
        };
        for (seconds, little, much) in [(60, 60, 400), (200, 0, 15)] {
            assert!(memory(&looks(seconds, little), SECOND * 10).kept());
            assert!(!memory(&looks(seconds, much), SECOND * 10).kept());
        }
        assert!(!memory(&looks(60, 0), SECOND * 55).kept());
    }

    #[test]
    fn what_is_missing_is_told_by_its_time() {
        let flows = [1, 1, 2, 16, 16, 16, 16].map(|second| SECOND * second);
        let spans = spans(&flows);
        assert_eq!(spans, [(SECOND * 16, SECOND * 16, 4), (SECOND, SECOND * 2, 3)]);
    }
}
