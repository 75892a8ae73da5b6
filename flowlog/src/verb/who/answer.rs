//! Records → the connections that they tell of, and what can be said where there
//! are none.

use std::collections::BTreeSet;
use std::path::PathBuf;

use hashbrown::HashMap;

use super::asked::{Answers, Loss, Missing};
use super::cover::{self, Archive, Extent, Unknown};
use super::question::{Ends, Question};
use super::record::Record;
use super::times::{AHEAD, Span};
use crate::event::Kinds;
use crate::flow::{Flow, Tuple};

/// A connection that was alive at the time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Connection {
    /// All that is known of it, by its last record.
    pub(super) record: Record,
    /// Its ends that have the address.
    pub(super) ends: Ends,
    /// Its records.
    pub(super) records: usize,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Answer {
    /// By their start, those first of which none is known.
    pub(super) connections: Vec<Connection>,
    /// Losses in that time.
    pub(super) losses: Vec<Loss>,
    /// What archives do not have of that time.
    pub(super) missing: Vec<Missing>,
    /// What archives that have ends only do not have of later times: a flow that was
    /// alive may have ended then.
    pub(super) missing_later: Vec<Missing>,
    /// Parts of the time that archives do not cover.
    pub(super) unknown: Vec<Unknown>,
    /// Later times that archives which have ends only do not cover.
    pub(super) unknown_later: Vec<Unknown>,
    /// No archive covers any part of the time.
    pub(super) is_unknown: bool,
    /// How many archives there are.
    pub(super) archives: usize,
    /// Of what time there are records at all.
    pub(super) known: Vec<Span>,
    /// The same of each archive, without the pauses in it.
    pub(super) extents: Vec<Extent>,
    /// What could not be asked, and why.
    pub(super) problems: Vec<String>,
    /// There are more, for which there was no room.
    pub(super) more: bool,
    /// Archives without checksums, of which a changed byte is not noticed.
    pub(super) unverified: Vec<PathBuf>,
    /// Databases whose check took too long: an index that is damaged may hide a connection.
    pub(super) unchecked: Vec<PathBuf>,
}

/// How sure an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// These connections, and no others.
    Found,
    /// There was none.
    Nothing,
    /// Not known: archives know nothing of that time or of a part of it, records of
    /// it were lost, or archives could not be read.
    Incomplete,
}

impl Answer {
    /// The answer to `question`.
    pub(super) fn new(question: &Question, answers: Answers<'_>, problems: Vec<String>) -> Self {
        let Answers {
            records,
            mut losses,
            covered,
            mut missing,
            mut unverified,
            mut unchecked,
            ..
        } = answers;
        missing.sort();
        missing.dedup();
        let span = question.span;
        let archives = cover::archives(covered, span);
        let ends_only = |of: &String| archives.get(of).is_none_or(Archive::has_ends_only);
        let later = |one: &Missing| one.gap.since() > span.last && ends_only(&one.of);
        let missing_later = missing.iter().filter(|missing| later(missing)).cloned().collect();
        missing.retain(|Missing { gap, .. }| gap.since() <= span.last && gap.until() >= span.first);
        unverified.sort();
        unchecked.sort();
        losses.sort();
        // Two archives may have it.
        losses.dedup();
        let all = || archives.values();
        let unknown: Vec<_> = all().map(|archive| archive.unknown(span)).collect();
        Self {
            connections: connections(question, records),
            losses,
            missing,
            missing_later,
            is_unknown: unknown
                .iter()
                .all(|unknown| matches!(&unknown[..], [one] if one.span == span)),
            unknown: unknown.into_iter().flatten().collect(),
            unknown_later: all().flat_map(|archive| archive.unknown_later(span)).collect(),
            archives: archives.len(),
            known: cover::together(all().flat_map(Archive::known).copied().collect()),
            extents: all().filter_map(Archive::extent).collect(),
            problems,
            more: false,
            unverified,
            unchecked,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let is_missing = !self.losses.is_empty() || !self.missing.is_empty();
        let is_unread = !self.problems.is_empty() || self.more;
        let is_unknown = self.is_unknown || !self.unknown.is_empty();
        // An index that is damaged hides some, and shows others.
        let is_unchecked = !self.unchecked.is_empty();
        let is_hidden = is_unchecked || self.connections.is_empty() && self.may_have_ended_later();
        if is_unknown || is_hidden || is_unread || is_missing {
            Verdict::Incomplete
        } else if self.connections.is_empty() {
            Verdict::Nothing
        } else {
            Verdict::Found
        }
    }

    /// One of that time may have ended when archives that have ends only lack records.
    fn may_have_ended_later(&self) -> bool {
        !self.missing_later.is_empty() || !self.unknown_later.is_empty()
    }
}

/// What tells connections of the same time apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    orig: Tuple,
    zone: u16,
    netns: u32,
}

impl Key {
    fn new(flow: &Flow) -> Self {
        let netns = flow.netns.map_or(0, |netns| netns.inum);
        Self { orig: flow.orig, zone: flow.zone, netns }
    }
}

/// The connections that were alive in the time of the question.
fn connections(question: &Question, mut records: Vec<Record>) -> Vec<Connection> {
    records.sort_by_key(|record| record.id);
    // What was delivered twice, or is in two archives.
    records.dedup_by_key(|record| record.id);
    let mut lives = Lives::default();
    for mut record in records {
        if record.kinds.contains(Kinds::NEW) {
            record.flow.start.get_or_insert(record.id.time);
        }
        lives.push(record);
    }
    let mut found: Vec<Connection> = lives
        .all
        .into_iter()
        .filter(|life| life.was_alive(question.span))
        .map(|Life { record, records, .. }| Connection {
            ends: question.ends(&record.flow),
            record,
            records,
        })
        .collect();
    found.sort_by_key(|connection| (connection.record.flow.start, connection.record.id));
    found
}

/// A connection, as far as its records tell.
struct Life {
    /// What the last one told, and what others knew that it did not.
    record: Record,
    records: usize,
    /// It had ended by then, though nobody told its end: another one has the
    /// tuple.
    ended_by: Option<u64>,
}

impl Life {
    fn was_alive(&self, span: Span) -> bool {
        let Record { flow, end, id, .. } = &self.record;
        let told = end.or_else(|| self.record.is_end().then_some(id.time));
        let end = told.or(self.ended_by);
        flow.start.is_none_or(|start| start <= span.last) && end.is_none_or(|end| end >= span.first)
    }
}

/// Connections, of which each tuple has one at a time.
#[derive(Default)]
struct Lives {
    all: Vec<Life>,
    /// Those whose end has not been told.
    open: HashMap<Key, usize>,
    /// By their start, where it is known.
    begun: HashMap<(Key, u64), usize>,
}

impl Lives {
    /// Takes the records in their order.
    fn push(&mut self, record: Record) {
        let key = Key::new(&record.flow);
        let open = self.open.get(&key).copied();
        if let Some(place) = self.life_of(key, &record) {
            if record.is_end() && open == Some(place) {
                self.open.remove(&key);
            }
            self.join(key, place, record);
            return;
        }
        if let Some(life) = open.and_then(|place| self.all.get_mut(place)) {
            life.ended_by = Some(record.flow.start.unwrap_or(record.id.time));
        }
        let place = self.all.len();
        if record.is_end() {
            self.open.remove(&key);
        } else {
            self.open.insert(key, place);
        }
        if let Some(start) = record.flow.start {
            self.begun.insert((key, start), place);
        }
        self.all.push(Life { record, records: 1, ended_by: None });
    }

    /// That which the record goes on to tell of: it has the start, or may have it.
    fn life_of(&self, key: Key, record: &Record) -> Option<usize> {
        let of_start = record.flow.start.and_then(|start| self.begun.get(&(key, start)));
        let is_new = record.kinds.contains(Kinds::NEW);
        let open = self.open.get(&key).filter(|_| !is_new);
        let places = of_start.into_iter().chain(open).copied();
        let one = |place: &usize| {
            let before = &self.all.get(*place)?.record;
            (!before.is_end() && are_one(before, record)).then_some(())
        };
        places.into_iter().find(|place| one(place).is_some())
    }

    fn join(&mut self, key: Key, place: usize, record: Record) {
        let Some(life) = self.all.get_mut(place) else { return };
        life.records += 1;
        let before = std::mem::replace(&mut life.record, record);
        complete(&mut life.record, before);
        if let Some(start) = life.record.flow.start {
            self.begun.insert((key, start), place);
        }
    }
}

/// What is known of both is the same.
fn are_one(before: &Record, after: &Record) -> bool {
    let same =
        |one: Option<u64>, other: Option<u64>| one.is_none() || other.is_none() || one == other;
    let [one, other] = [&before.flow, &after.flow];
    same(one.id.map(u64::from), other.id.map(u64::from)) && may_have_one_start(before, after)
}

fn may_have_one_start(before: &Record, after: &Record) -> bool {
    let Some(start) = after.flow.start else { return true };
    // Without timestamps of the kernel a start is that of the record that told it.
    let told = before.kinds.contains(Kinds::NEW).then_some(before.id.time);
    match before.flow.start {
        Some(known) if Some(known) != told => known == start,
        // What was told before the start was told of another one.
        _ => start <= before.id.time.saturating_add(AHEAD),
    }
}

/// What an older record knew and the newer one does not.
fn complete(record: &mut Record, before: Record) {
    let Flow { start, counters, id, l4_state, helper, labels, master, netns, .. } = before.flow;
    let flow = &mut record.flow;
    flow.start = flow.start.into_iter().chain(start).min();
    flow.counters = flow.counters.or(counters);
    flow.id = flow.id.or(id);
    flow.l4_state = flow.l4_state.or(l4_state);
    flow.helper = flow.helper.or(helper);
    flow.labels = flow.labels.or(labels);
    flow.master = flow.master.or(master);
    flow.netns = flow.netns.or(netns);
}

/// Sums of losses by source.
pub(super) fn lost(losses: &[Loss]) -> Vec<(&str, u64)> {
    let sources: BTreeSet<&str> = losses.iter().map(|loss| loss.source.as_str()).collect();
    let sum = |source: &str| {
        let of = losses.iter().filter(|loss| loss.source == source);
        of.map(|loss| loss.events).fold(0, u64::saturating_add)
    };
    sources.into_iter().map(|source| (source, sum(source))).collect()
}

#[cfg(test)]
mod tests;
