//! Closes the books of a run: lets everything settle, ends the daemon, reads what every sink has,
//! asks `flowlog who`, and judges.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::counters::account;
use super::faults::Happened;
use super::lab::{Lab, TERM, UDP_PORT};
use super::ledger::{Account, Made, Tally, tally};
use super::load::{Timeline, time_of};
use super::random::Random;
use super::received::Received;
use super::report::Report;
use super::schedule::Kind;
use super::stacks::{Source, Stack};
use super::verdict::{Promise, answers, books, during, median, memory, stands};
use super::who::{Answers, Question, ask, now};
use super::{DELIVERED, Options};

/// Flows that `who` is asked for, of each kind: any, and those that an archive lacks.
const SAMPLE: usize = 20;

/// What is read of one stack.
struct Book {
    stack: Stack,
    tally: Tally,
    received: Received,
}

/// Ends everything, and judges.
///
/// # Errors
/// A sink cannot be read.
pub(super) fn close(
    mut lab: Lab<'_>,
    options: &Options,
    happened: Vec<Happened>,
    warm: Duration,
    say: &mut dyn FnMut(String),
) -> Result<Report> {
    let samples = lab.probe.samples()?;
    say("all faults are over; waiting until everything is delivered".to_owned());
    lab.load.pause();
    if lab.has_daemon() {
        lab.wait_idle(DELIVERED)?;
        lab.stop()?;
    }
    let accepted = lab.accepted()?;
    let drops = udp_drops(&lab)?;
    let main = Made { flows: lab.load.made(), optional: Default::default() };
    let inner = lab.inner.as_ref().map(|inner| inner.made.clone()).unwrap_or_default();
    let timeline = lab.load.finish()?;
    let began = now().saturating_sub(lab.now());
    say("reading what every sink has".to_owned());
    let mut all = Vec::new();
    for stack in &options.stacks {
        let mut received =
            received(&mut lab, stack).with_context(|| format!("reading {}", stack.name))?;
        let made = if stack.source == Source::Inner { &inner } else { &main };
        let records = received.read()?;
        let tally = tally(stack.source, made, records, &received.abandoned);
        all.push(Book { stack: *stack, tally, received });
    }
    let accounts: Vec<_> = all.iter().map(|book| closed(book, &all, &lab)).collect();
    let inner_timeline = lab.inner.as_ref().map(|inner| inner.timeline.clone()).unwrap_or_default();
    let times = |book: &Book| {
        let is_inner = book.stack.source == Source::Inner;
        let timeline = if is_inner { &inner_timeline } else { &timeline };
        let flows = book.tally.missing.iter().map(|flow| time_of(timeline, *flow));
        (account(&book.stack), flows.collect())
    };
    let missing: BTreeMap<_, Vec<_>> = all.iter().map(times).collect();
    say("asking flowlog who".to_owned());
    let mut questions = Questions::new(options.seed, main.flows, &timeline, began, &happened);
    let (asked, denied) = questions.ask(&all, &lab)?;
    let mut promises = vec![
        books(&accounts, &missing, &happened),
        denied,
        memory(&samples, warm),
        terms(&lab),
        answers(&samples, &happened),
        stands(&samples, &happened),
        others(&lab, &happened),
        harness(&happened, u64::from(main.flows), accepted, drops),
    ];
    promises.push(strange(&all));
    let (dumps, syncs) = lab.shim.failed()?;
    let mut notes = vec![
        format!(
            "{dumps} dumps and {syncs} syncs were made to fail; {} look-ups of names",
            lab.names.asked()
        ),
        asked,
        memory_note(&samples),
    ];
    notes.extend(kernel_losses(&samples, &happened));
    notes.extend(lab.ended.terms.iter().map(|(at, took)| {
        format!("TERM at {:.1} s ended it in {:.1} s", at.as_secs_f64(), took.as_secs_f64())
    }));
    let rate = f64::from(main.flows) / options.time.as_secs_f64();
    let Options { seed, time, .. } = *options;
    Ok(Report { seed, time, flows: main.flows, rate, accounts, happened, promises, notes })
}

/// What a stack has.
fn received(lab: &mut Lab<'_>, stack: &Stack) -> Result<Received> {
    let directory = lab.directory.clone();
    match stack.name {
        "sqlite" => lab.database.databases(&directory),
        "parquet" => lab.archive.archives(&directory),
        name => {
            if let Some(file) = lab.files.remove(name) {
                let (received, broken) = file.finish()?;
                broken.into_iter().for_each(|what| lab.breaks(what));
                return Ok(received);
            }
            match lab.peers.remove(name) {
                Some(peer) => peer.finish(),
                None => lab.servers.received(name, &directory),
            }
        }
    }
}

/// The account of a stack. What the kernel lost is what the metrics say, or where the daemon could
/// not be asked at last, what the [LOST] lines of LOGEMU say, which never come twice.
fn closed(book: &Book, all: &[Book], lab: &Lab<'_>) -> Account {
    let Book { stack, tally, received } = book;
    let counters = &lab.ended.counters;
    let name = account(stack);
    let is_alike =
        |other: &&Book| other.stack.source == stack.source && other.stack.plugin == "LOGEMU";
    let alike = || all.iter().filter(is_alike);
    let most = |of: fn(&Received) -> u64| alike().map(|one| of(&one.received)).max();
    let lost = most(|received| received.lost).max(Some(counters.lost_by(stack.source)));
    let reports = most(|received| received.reports).max(Some(counters.reports_of(stack.source)));
    let (lost, reports) = (lost.unwrap_or_default(), reports.unwrap_or_default());
    // IPFIX tells of losses in options, which are no records.
    let told = if stack.plugin == "IPFIX" { reports } else { received.reports.min(reports) };
    Account {
        expected: tally.expected + reports,
        logged: tally.logged + told,
        counted: counters.sinks.get(&name).copied().unwrap_or_default(),
        kernel: match stack.source {
            Source::Events => (lost, lost),
            // Of a connection whose beginning or end was lost the rest is logged, if a dump finds it;
            // what is lost while a namespace is new may be of a flow that need not be logged.
            Source::Connections | Source::Inner => (0, lost),
        },
        abandoned: tally.abandoned,
        allowed: lab.allowed.get(stack.name).copied().unwrap_or_default(),
        again: if stack.has_id { 0 } else { tally.again },
        twice: tally.twice,
        strange: tally.strangers + received.strange,
        name,
    }
}

/// What must not be there.
fn strange(all: &[Book]) -> Promise {
    let mut broken = Vec::new();
    for Book { stack, received, .. } in all {
        for sample in &received.samples {
            broken.push(format!("{}: {sample}", stack.name));
        }
        let is_file = ["emu", "jfile", "inner", "hash"].contains(&stack.name);
        if is_file && received.torn > 0 {
            broken.push(format!("{}: {} files end with half a record", stack.name, received.torn));
        }
    }
    Promise { name: "no sink has what nobody wrote", broken }
}

fn terms(lab: &Lab<'_>) -> Promise {
    let late = lab.ended.terms.iter().filter(|(_, took)| *took > TERM);
    let tell = |(at, took): &(Duration, Duration)| {
        format!("at {:.1} s it took {:.1} s", at.as_secs_f64(), took.as_secs_f64())
    };
    Promise { name: "TERM ends the daemon within 8 s", broken: late.map(tell).collect() }
}

fn others(lab: &Lab<'_>, happened: &[Happened]) -> Promise {
    let tell = |one: &super::lab::Broken| {
        let at = one.at.as_secs_f64();
        format!("{at:.1} s: {}; then: {}", one.what, during(happened, one.at, one.at))
    };
    let mut broken: Vec<_> = lab.broken.iter().map(tell).collect();
    for at in &lab.ended.without_totals {
        let at = at.as_secs_f64();
        broken.push(format!(
            "{at:.1} s: the daemon ended without totals, so the books are not whole"
        ));
    }
    Promise { name: "the daemon runs, reads all events, and leaves what was removed", broken }
}

/// Datagrams that found no room at their reader.
fn udp_drops(lab: &Lab<'_>) -> Result<u64> {
    let has_reader = lab.peers.contains_key("sudp");
    if has_reader { super::peer::udp_drops(lab.namespace, UDP_PORT) } else { Ok(0) }
}

/// What the run rests on.
fn harness(happened: &[Happened], made: u64, accepted: u64, drops: u64) -> Promise {
    let mut broken = Vec::new();
    if made != accepted {
        broken.push(format!("{made} flows were sent, conntrack has accepted {accepted}"));
    }
    if drops > 0 {
        broken.push(format!("{drops} datagrams found no room at their reader"));
    }
    // That the daemon did not start again is its own fault.
    for one in happened.iter().filter(|one| one.fault.kind != Kind::Restart) {
        if let Some(why) = &one.failed {
            broken.push(format!("{} {}: {why}", one.fault.kind, one.fault.target));
        }
    }
    Promise { name: "the harness did what it meant to", broken }
}

fn memory_note(samples: &[super::probe::Sample]) -> String {
    let sizes: Vec<_> = samples.iter().map(|one| one.memory).filter(|size| *size > 0).collect();
    let part = sizes.len().div_ceil(12);
    let middles: Vec<_> =
        sizes.chunks(part.max(1)).map(|part| median(part).div_ceil(1024).to_string()).collect();
    format!("resident memory, medians of twelfths of the time: {} MiB", middles.join(", "))
}

/// When the kernel lost events, since nobody read them: that is counted, and yet a sign of a daemon
/// that stood still.
fn kernel_losses(samples: &[super::probe::Sample], happened: &[Happened]) -> Vec<String> {
    let lost = |one: &super::probe::Sample| one.counters.lost.values().sum::<u64>();
    let samples: Vec<_> = samples.iter().filter(|one| one.counters.is_whole()).collect();
    let pairs = samples.windows(2).filter_map(|pair| {
        let more = lost(pair[1]).checked_sub(lost(pair[0]))?;
        (more > 0).then(|| (pair[0].at, pair[1].at, more))
    });
    let mut notes: Vec<_> = pairs.collect();
    notes.sort_by_key(|(.., more)| std::cmp::Reverse(*more));
    notes.truncate(6);
    let tell = |(from, to, more): (Duration, Duration, u64)| {
        format!(
            "the kernel lost {more} events from {:.1} to {:.1} s; then: {}",
            from.as_secs_f64(),
            to.as_secs_f64(),
            during(happened, from, to)
        )
    };
    notes.into_iter().map(tell).collect()
}

/// The questions to `who`.
struct Questions<'q> {
    random: Random,
    flows: u32,
    timeline: &'q Timeline,
    /// When the traffic began, since the epoch.
    began: Duration,
    happened: &'q [Happened],
}

impl<'q> Questions<'q> {
    fn new(
        seed: u64,
        flows: u32,
        timeline: &'q Timeline,
        began: Duration,
        happened: &'q [Happened],
    ) -> Self {
        Self { random: Random::new(seed ^ 0x77_686f), flows, timeline, began, happened }
    }

    /// Of any flows, and of those that this archive lacks: once for all times, and where the clock
    /// was right for the second in which they were made.
    fn of(&mut self, missing: &[u32]) -> Vec<Question> {
        let mut flows = Vec::new();
        for _ in 0..SAMPLE {
            flows.push(self.random.below(u64::from(self.flows)) as u32);
            flows.extend(self.random.pick(missing));
        }
        let right = |flow: u32| {
            let at = time_of(self.timeline, flow);
            let second = Duration::from_secs(1);
            let steps = self.happened.iter().filter(|one| one.fault.kind == Kind::ClockStep);
            let wrong =
                steps.into_iter().any(|one| one.was_on(at.saturating_sub(second), at + second));
            (!wrong).then_some(self.began + at)
        };
        let both = |flow: &u32| {
            let flow = *flow;
            let logged = missing.binary_search(&flow).is_err();
            let at = right(flow).map(|at| Question { flow, at: Some(at), logged });
            std::iter::once(Question { flow, at: None, logged }).chain(at)
        };
        flows.iter().flat_map(both).collect()
    }

    /// Asks each archive, and says how it went.
    fn ask(&mut self, all: &[Book], lab: &Lab<'_>) -> Result<(String, Promise)> {
        let mut broken = Vec::new();
        let mut sum = Answers::default();
        for book in all {
            let archives: Vec<&Path> = match book.stack.name {
                "sqlite" => lab.database.directories(),
                "parquet" => lab.archive.directories(),
                _ => continue,
            };
            let questions = self.of(&book.tally.missing);
            let answers = ask(&questions, &archives)?;
            sum.found += answers.found;
            sum.incomplete += answers.incomplete;
            sum.reasons.extend(answers.reasons);
            let tell = |(flow, wrong): &(u32, String)| {
                let at = time_of(self.timeline, *flow);
                let then = during(self.happened, at, at);
                format!(
                    "{}: {wrong}; made at {:.1} s, then: {then}",
                    book.stack.name,
                    at.as_secs_f64()
                )
            };
            broken.extend(answers.wrong.iter().map(tell));
        }
        let note = format!(
            "flowlog who: {} found, {} incomplete, {} wrong; it says: {}",
            sum.found,
            sum.incomplete,
            broken.len(),
            Vec::from_iter(sum.reasons).join(" / ")
        );
        Ok((note, Promise { name: "flowlog who never denies a flow that was made", broken }))
    }
}
