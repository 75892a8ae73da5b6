//! An answer as lines: a heading, a line for each connection as `flowlog watch`
//! writes it, with both times before and what matched behind, and what is to be
//! known of the answer.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::answer::{Answer, Connection, lost};
use super::asked::Missing;
use super::cover::{Extent, Unknown};
use super::question::{Ends, Question};
use super::record::Record;
use super::times::Span;
use crate::archive::coverage::{Gap, Reason};
use crate::flow::names::protocol;
use crate::flow::{Counters, Flow};
use crate::verb::live::text::Text;
use crate::verb::watch::line::{self, Seconds, Why, surroundings, translation};

/// Losses, times and others that are listed one by one; `--json` has all of them.
const MOST: usize = 10;
/// What is not known of times.
const UNKNOWN: &str = "?";

/// The answer.
pub(super) fn answer(question: &Question, answer: &Answer, zone: &TimeZone) -> String {
    let mut text = heading(question, zone);
    for connection in &answer.connections {
        text += &Text::string(|line| self::connection(connection, zone, line));
        text.push('\n');
    }
    text += &verdict(answer);
    losses(answer, zone, &mut text);
    missing(question, answer, zone, &mut text);
    unknown(answer, zone, &mut text);
    extents(question, answer, zone, &mut text);
    unknown_later(answer, zone, &mut text);
    unchecked(answer, &mut text);
    unverified(answer, &mut text);
    text
}

fn heading(question: &Question, zone: &TimeZone) -> String {
    let Question { wanted, protocol: number, span } = question;
    let mut text = wanted.to_string();
    if let Some(number) = number {
        let name = protocol(*number).map_or_else(|| number.to_string(), str::to_owned);
        let _ = write!(text, ", {name}");
    }
    if *span == Span::ALL {
        text += ", at any time";
    } else {
        let _ = write!(text, ", {}", times(*span, zone));
    }
    text + ":\n"
}

/// `2026-11-20 14:05:00.000 to 2026-11-20 14:05:59.999 +01:00`, and on a day when
/// clocks are set `2026-10-25 00:00:00.000 +02:00 to 2026-10-25 23:59:59.999 +01:00`.
fn times(Span { first, last }: Span, zone: &TimeZone) -> String {
    let [begin, end] = [first, last].map(|at| offset(at, zone));
    let begin = if begin == end { String::new() } else { format!(" {begin}") };
    format!("{}{begin} to {} {end}", moment(first, zone), moment(last, zone))
}

/// The same of a connection, whose start or end may not be known.
fn life(start: Option<u64>, end: Option<u64>, zone: &TimeZone) -> String {
    let one = |at: u64| format!("{} {}", moment(at, zone), offset(at, zone));
    match (start, end) {
        (Some(first), Some(last)) => times(Span { first, last }, zone),
        (Some(start), None) => format!("{} to {UNKNOWN:<23}", one(start)),
        (None, Some(end)) => format!("{UNKNOWN:<23} to {}", one(end)),
        (None, None) => format!("{UNKNOWN:<23} to {UNKNOWN:<23}"),
    }
}

fn offset(at: u64, zone: &TimeZone) -> String {
    local(at, zone).strftime("%:z").to_string()
}

fn local(at: u64, zone: &TimeZone) -> jiff::Zoned {
    Timestamp::from_nanosecond(at.into()).unwrap_or_default().to_zoned(zone.clone())
}

fn moment(at: u64, zone: &TimeZone) -> String {
    local(at, zone).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

fn connection(connection: &Connection, zone: &TimeZone, line: &mut Text) {
    let Connection { record, ends, records: _ } = connection;
    let Record { flow, end, how, .. } = record;
    let _ = write!(line, "{} ", life(flow.start, *end, zone));
    line::connection(flow, line);
    if let Some([orig, reply]) = flow.counters {
        let Counters { packets, bytes } = orig;
        line.number(" packets=", packets);
        line.number("/", reply.packets);
        line.number(" bytes=", bytes);
        line.number("/", reply.bytes);
    }
    if let (Some(start), Some(end)) = (flow.start, *end) {
        line.push_str(" duration=");
        Seconds(end.saturating_sub(start)).push(line);
    }
    if let Some(how) = how {
        line.push(b' ');
        Why(how).push(line);
    }
    if let Some(netns) = flow.netns {
        line.number(" netns=", netns.inum.into());
    }
    surroundings(flow.zone, flow.mark, flow.helper.as_ref(), line);
    line.push_str(" matched=");
    line.push_str(&matched(flow, *ends).join(","));
}

/// The ends by the words of the line: those of both tuples are one where NAT has
/// changed nothing.
fn matched(flow: &Flow, ends: Ends) -> Vec<&'static str> {
    let changed: Vec<&str> = translation(flow).map(|(name, _)| name.trim()).collect();
    let all = [
        ("src", Ends::ORIG_SRC, Ends::REPLY_DST, "snat="),
        ("dst", Ends::ORIG_DST, Ends::REPLY_SRC, "dnat="),
    ];
    let mut words = Vec::new();
    for (before, orig, reply, after) in all {
        let translated = changed.contains(&after);
        if ends.contains(orig) || ends.contains(reply) && !translated {
            words.push(before);
        }
        if ends.contains(reply) && translated {
            words.push(after.trim_end_matches('='));
        }
    }
    words
}

fn verdict(answer: &Answer) -> String {
    let count = answer.connections.len();
    let mut text = match count {
        0 if is_unknown(answer) => return "No data for that time.\n".to_owned(),
        0 => "Nothing found".to_owned(),
        1 => "1 connection".to_owned(),
        _ => format!("{count} connections"),
    };
    text += if answer.more { ", and more: narrow the time, or raise --limit.\n" } else { ".\n" };
    text
}

/// Nothing is known of any part of that time.
pub(super) fn is_unknown(answer: &Answer) -> bool {
    answer.known.is_empty() || answer.is_unknown
}

fn losses(answer: &Answer, zone: &TimeZone, text: &mut String) {
    for (source, events) in lost(&answer.losses) {
        let _ = writeln!(
            text,
            "Lost in that time: {events} events by {source}; what they told is not in the answer."
        );
    }
    for loss in answer.losses.iter().take(MOST) {
        let at = format!("{} {}", moment(loss.at, zone), offset(loss.at, zone));
        let _ = writeln!(text, "  {at} {} events lost by {}", loss.events, loss.source);
    }
    if let Some(others @ 1..) = answer.losses.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {others} others");
    }
}

/// What archives do not have.
fn missing(question: &Question, answer: &Answer, zone: &TimeZone, text: &mut String) {
    let Span { first, last } = question.span;
    // Of those of the kernel that were noticed in that time there is a line already.
    let is_told = |gap: &Gap| {
        let has_line = answer.losses.iter().any(|loss| loss.source == gap.source);
        has_line && (first..=last).contains(&gap.until())
    };
    let missing: Vec<_> = answer.missing.iter().filter(|one| !is_told(&one.gap)).collect();
    for Missing { gap, archive, .. } in missing.iter().take(MOST) {
        let Gap { reason, records, .. } = gap;
        let what = match reason {
            Reason::Lost => "were lost before they came to",
            Reason::Dropped => "found no room in the spool, and are not in",
            Reason::Refused => "could not be written to",
            Reason::Unsure => "may be missing in",
        };
        let span = times(Span { first: gap.since(), last: gap.until() }, zone);
        let archive = archive.display();
        let records = count(*records);
        let _ = writeln!(text, "Incomplete: {records} of {span} {what} {archive}.");
    }
    if let Some(others @ 1..) = missing.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {others} others");
    }
    let later = || answer.missing_later.iter().map(|missing| &missing.gap);
    let ends = later().map(Gap::since).min().zip(later().map(Gap::until).max());
    if let Some((first, last)) = ends {
        let known = later().all(|gap| gap.records > 0);
        let records = later().map(|gap| gap.records).fold(0, u64::saturating_add);
        let records = count(if known { records } else { 0 });
        let span = times(Span { first, last }, zone);
        let _ = writeln!(
            text,
            "Later {records} were lost, of {span}: a connection that ended then is not in \
             the answer."
        );
    }
}

/// So many records; 0: not known.
fn count(records: u64) -> String {
    match records {
        0 => "an unknown number of records".to_owned(),
        known => format!("{known} records"),
    }
}

fn unknown(answer: &Answer, zone: &TimeZone, text: &mut String) {
    for Unknown { span, archive } in answer.unknown.iter().take(MOST) {
        let archive = archive.display();
        let _ = match answer.archives {
            // Without a time it is said of all archives: `extents`.
            1 if *span == Span::ALL => Ok(()),
            _ if *span == Span::ALL => writeln!(text, "{archive} covers no time."),
            1 => writeln!(text, "No archive knows what happened {}.", times(*span, zone)),
            _ => writeln!(text, "{archive} does not cover {}.", times(*span, zone)),
        };
    }
    if let Some(others @ 1..) = answer.unknown.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {others} others");
    }
}

/// Of which times archives are: where the question is about no other time, or about one that they
/// do not cover.
fn extents(question: &Question, answer: &Answer, zone: &TimeZone, text: &mut String) {
    let is_any_time = question.span == Span::ALL;
    if answer.unknown.is_empty() && !answer.is_unknown && !is_any_time {
        return;
    }
    let (Some(first), Some(last)) = (answer.known.first(), answer.known.last()) else {
        text.push_str("No archive says of which time it is.\n");
        return;
    };
    let all = Span { first: first.first, last: last.last };
    if !is_any_time || answer.extents.iter().all(|extent| extent.span == all) {
        let _ = writeln!(text, "Archives are of {}.", times(all, zone));
        return;
    }
    // Each was asked for its own time only.
    for Extent { span, archive } in answer.extents.iter().take(MOST) {
        let _ = writeln!(text, "{} is of {}.", archive.display(), times(*span, zone));
    }
    if let Some(others @ 1..) = answer.extents.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {others} others");
    }
}

/// Where nothing was found: later times that archives which have ends only do not cover.
fn unknown_later(answer: &Answer, zone: &TimeZone, text: &mut String) {
    if !answer.connections.is_empty() || is_unknown(answer) {
        return;
    }
    for Unknown { span, archive } in answer.unknown_later.iter().take(MOST) {
        let (archive, Span { first, last }) = (archive.display(), *span);
        let _ = write!(text, "Incomplete: {archive} has the ends of connections alone, and ");
        let _ = if last == Span::ALL.last {
            let end = format!("{} {}", moment(first, zone), offset(first, zone));
            writeln!(
                text,
                "covers no time from {end} on: a connection that ended later, or lives, is not \
                 in the answer."
            )
        } else {
            let times = times(*span, zone);
            writeln!(
                text,
                "does not cover {times}: a connection that ended then is not in the answer."
            )
        };
    }
    if let Some(others @ 1..) = answer.unknown_later.len().checked_sub(MOST) {
        let _ = writeln!(text, "  and {others} others");
    }
}

/// Databases whose check took too long.
fn unchecked(answer: &Answer, text: &mut String) {
    for path in &answer.unchecked {
        let path = path.display();
        let _ = writeln!(
            text,
            "Incomplete: {path} was not checked, as that takes longer than {} s; a damaged index \
             would hide a connection. Ask again with --verify.",
            super::CHECK.as_secs()
        );
    }
}

/// Archives of which a changed byte is not noticed.
fn unverified(answer: &Answer, text: &mut String) {
    let Some((first, others)) = answer.unverified.split_first() else { return };
    let _ = write!(text, "Not verified, as it has no checksums: {}", first.display());
    text.push_str(&match others.len() {
        0 => ".\n".to_owned(),
        count => format!(", and {count} others.\n"),
    });
}

#[cfg(test)]
pub(super) mod tests;
