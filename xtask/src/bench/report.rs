//! The measurements as Markdown: a table of the listeners, one of the memory, one of the replay,
//! and the targets with what was reached.

use std::fmt::Write as _;

use super::Measured;
use super::listener::{Buffers, Listener, Told};
use super::load::{Case, Run};

/// Processor time per event, as a part of ulogd2's.
const CPU: f64 = 0.25;
/// Events per second of the replay, on one core.
const REPLAY: f64 = 3e6;
/// Resident memory with `hash_enable=0`, MiB.
const RESIDENT: f64 = 16.0;
/// Memory of a live flow with `hash_enable=1`, bytes.
const PER_FLOW: f64 = 160.0;

/// One listener of one case, each number the median of its runs.
struct Row {
    listener: Listener,
    buffers: Buffers,
    beside: bool,
    lines: f64,
    lost: f64,
    /// The most that any run lost.
    worst: u64,
    told: Told,
    slowdown: f64,
    per_made: f64,
    per_seen: f64,
    peak: f64,
}

/// The report.
pub(super) fn markdown(measured: &Measured, machine: &str) -> String {
    let alone = measured.cases.iter().find(|(case, _)| case.listeners.is_empty());
    let generator = alone.map_or(0.0, |(_, runs)| generator(runs));
    let rows = rows(measured, generator);
    let sections = [
        format!("Machine: {machine}.\n"),
        listeners(measured, &rows, generator),
        memory(measured),
        replay(measured),
        targets(measured, &rows),
    ];
    sections.join("\n")
}

fn rows(measured: &Measured, generator_alone: f64) -> Vec<Row> {
    let mut rows = Vec::new();
    for (case, runs) in &measured.cases {
        for index in 0..case.listeners.len() {
            rows.push(row(case, runs, index, measured.flows.into(), generator_alone));
        }
    }
    rows
}

fn row(case: &Case, runs: &[Run], index: usize, flows: u64, generator_alone: f64) -> Row {
    let listener = case.listeners[index];
    let of = |number: &dyn Fn(&super::listener::Outcome) -> f64| {
        median(runs.iter().map(|run| number(&run.outcomes[index])))
    };
    let made = 2 * flows;
    let expected = if listener.hash() { flows } else { made };
    let lost = |lines: u64| expected.saturating_sub(lines);
    let per = |cpu: std::time::Duration, events: u64| cpu.as_secs_f64() * 1e6 / events as f64;
    let worst = runs.iter().map(|run| lost(run.outcomes[index].lines)).max().unwrap_or(0);
    let told = runs.iter().map(|run| run.outcomes[index].told);
    Row {
        listener,
        buffers: case.buffers,
        beside: case.listeners.len() > 1,
        lines: of(&|outcome| outcome.lines as f64),
        lost: of(&|outcome| lost(outcome.lines) as f64),
        worst,
        told: told.max_by_key(|told| matches!(told, Told::Some)).unwrap_or(Told::Nothing),
        slowdown: generator(runs) / generator_alone,
        per_made: of(&|outcome| per(outcome.cpu, made)),
        per_seen: of(&|outcome| per(outcome.cpu, made.saturating_sub(outcome.dropped).max(1))),
        peak: of(&|outcome| outcome.peak as f64 / 1024.0),
    }
    .with_numbers_told(runs, index)
}

impl Row {
    /// Where losses are told as numbers: their median.
    fn with_numbers_told(mut self, runs: &[Run], index: usize) -> Self {
        let numbers = runs.iter().filter_map(|run| match run.outcomes[index].told {
            Told::Number(number) => Some(number as f64),
            Told::Nothing | Told::Some => None,
        });
        if matches!(self.told, Told::Number(_)) {
            self.told = Told::Number(median(numbers) as u64);
        }
        self
    }

    fn is(&self, listener: Listener, buffers: Buffers) -> bool {
        self.listener == listener && self.buffers == buffers && !self.beside
    }
}

fn listeners(measured: &Measured, rows: &[Row], generator: f64) -> String {
    let Measured { flows, rounds, .. } = measured;
    let mut text = format!(
        "{flows} new UDP flows from one sending thread, then `conntrack -F`: {} events. Each \
         listener in a fresh namespace, {rounds} × in turn, the median of each number. \
         With nobody listening the flows take {generator:.2} s.\n\n\
         | listener | buffer | lines | lost | it says | CPU µs per event made | per event seen \
         | slowdown | peak RSS MiB |\n|---|---|--:|--:|---|--:|--:|--:|--:|\n",
        2 * u64::from(*flows)
    );
    for row in rows {
        let said = match row.told {
            Told::Nothing => "nothing".to_owned(),
            Told::Some => "loss, no number".to_owned(),
            Told::Number(number) => format!("{number} lost"),
        };
        let beside = if row.beside { " (both at once)" } else { "" };
        let _infallible = writeln!(
            text,
            "| {}{beside} | {} | {:.0} | {:.0} | {said} | {:.2} | {:.2} | {:.2}× | {:.1} |",
            row.listener.name(),
            row.buffers.name(),
            row.lines,
            row.lost,
            row.per_made,
            row.per_seen,
            row.slowdown,
            row.peak,
        );
    }
    text.push_str(
        "\nLines: one for each event, with hash_enable=1 one for each flow. Events seen: all that \
         the kernel could hand over. CPU: of the process, user and system. Slowdown: time to make \
         the flows against nobody listening. Default buffers: ulogd2 and conntrack take the \
         kernel's, flowlog a 64th of the memory up to 64 MiB, and it may grow. The -b of conntrack \
         1.4.7 does not reach the socket that it listens on.\n",
    );
    text
}

fn memory(measured: &Measured) -> String {
    let mut text = format!(
        "Memory with {} live flows, hash_enable=1:\n\n\
         | listener | RSS at start MiB | RSS with the flows MiB | bytes per live flow |\n\
         |---|--:|--:|--:|\n",
        measured.flows
    );
    for one in &measured.memory {
        let mebibytes = |kibibytes: u64| kibibytes as f64 / 1024.0;
        let _infallible = writeln!(
            text,
            "| {} | {:.1} | {:.1} | {:.0} |",
            one.listener.name(),
            mebibytes(one.before),
            mebibytes(one.after),
            one.bytes
        );
    }
    text
}

fn replay(measured: &Measured) -> String {
    let mut text = "Replay of recorded messages to lines in a file, no kernel, one core:\n\n\
         | mode | events per second | allocations | in events |\n|---|--:|--:|--:|\n"
        .to_owned();
    let replay = &measured.replay;
    for (name, rate) in [("hash_enable=0", replay.per_event), ("hash_enable=1", replay.per_flow)] {
        let _infallible = writeln!(
            text,
            "| {name} | {:.2} million | {} | {} |",
            rate.events_per_second / 1e6,
            rate.allocations,
            rate.events
        );
    }
    text
}

fn targets(measured: &Measured, rows: &[Row]) -> String {
    let flowlog = |row: &&Row| matches!(row.listener, Listener::Flowlog { .. });
    let ulogd = |row: &&Row| matches!(row.listener, Listener::Ulogd { .. });
    let worst = |rows: Vec<&Row>| rows.iter().map(|row| row.worst).max().unwrap_or(0);
    let lost = worst(rows.iter().filter(flowlog).collect());
    let theirs = worst(rows.iter().filter(ulogd).collect());
    let mut targets = vec![(
        "no event lost where ulogd2 loses".to_owned(),
        format!("{lost} in the worst run; ulogd2 {theirs}"),
        lost == 0,
    )];
    targets.extend([false, true].map(|hash| cpu_target(rows, hash)));
    let replay = &measured.replay;
    targets.push(at_least("replay, million events/s", replay.per_event.events_per_second, REPLAY));
    targets.push((
        "allocations in steady state: 0".to_owned(),
        format!("{}", replay.per_event.allocations + replay.per_flow.allocations),
        replay.per_event.allocations + replay.per_flow.allocations == 0,
    ));
    let plain = rows.iter().filter(|row| row.listener == Listener::Flowlog { hash: false });
    let peak = plain.map(|row| row.peak).fold(0.0, f64::max);
    targets.push(at_most("RSS with hash_enable=0, MiB", peak, RESIDENT));
    let live = measured.memory.iter().find(|one| one.listener == Listener::Flowlog { hash: true });
    let live = live.map_or(f64::NAN, |one| one.bytes);
    targets.push(at_most("bytes per live flow, live", live, PER_FLOW));
    targets.push(at_most("bytes per live flow, replay", replay.bytes_per_flow, PER_FLOW));
    let mut text = "| target | measured | reached |\n|---|---|---|\n".to_owned();
    for (target, measured, reached) in targets {
        let reached = if reached { "yes" } else { "**no**" };
        let _infallible = writeln!(text, "| {target} | {measured} | {reached} |");
    }
    text
}

/// Processor time per event seen against ulogd2, at either buffer.
fn cpu_target(rows: &[Row], hash: bool) -> (String, String, bool) {
    let ratios: Vec<_> = [Buffers::Default, Buffers::Large]
        .into_iter()
        .map(|buffers| {
            let per_seen = |listener| {
                let row = rows.iter().find(|row| row.is(listener, buffers));
                row.map_or(f64::NAN, |row| row.per_seen)
            };
            let ratio = per_seen(Listener::Flowlog { hash }) / per_seen(Listener::Ulogd { hash });
            (buffers, ratio)
        })
        .collect();
    let words: Vec<_> =
        ratios.iter().map(|(buffers, ratio)| format!("{ratio:.2} ({})", buffers.name())).collect();
    (
        format!("CPU per event ≤ {CPU} of ulogd2's, hash_enable={}", u8::from(hash)),
        words.join(", "),
        ratios.iter().all(|(_, ratio)| *ratio <= CPU),
    )
}

fn at_most(what: &str, value: f64, limit: f64) -> (String, String, bool) {
    (format!("{what} ≤ {limit}"), format!("{value:.1}"), value <= limit)
}

fn at_least(what: &str, value: f64, limit: f64) -> (String, String, bool) {
    let million = |number: f64| number / 1e6;
    (format!("{what} ≥ {}", million(limit)), format!("{:.2}", million(value)), value >= limit)
}

/// Seconds that the flows took to be made.
fn generator(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.generator.as_secs_f64()))
}

/// The one in the middle; of an even number the mean of both.
fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<_> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.as_slice() {
        [] => f64::NAN,
        all if all.len() % 2 == 1 => all[middle],
        all => f64::midpoint(all[middle - 1], all[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::{at_least, at_most, median};

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn a_number_that_is_missing_reaches_no_target() {
        assert!(!at_most("x", f64::NAN, 1.0).2 && !at_least("x", f64::NAN, 1.0).2);
        assert!(at_most("x", 1.0, 1.0).2 && at_least("x", 3e6, 3e6).2);
    }
}
