//! Several archives of the same connections, each with its own selection and with times that
//! it does not cover: nothing that was made is denied, and what is known is not called unknown.

use proptest::prelude::*;

use super::property::{cases, tuple};
use super::*;

/// A connection.
#[derive(Clone, Debug)]
struct Life {
    flow: Flow,
    begin: u64,
    end: u64,
}

impl Life {
    fn was_alive(&self, span: Span) -> bool {
        self.begin <= span.last && self.end >= span.first
    }
}

/// What an archive is: which connections it gets, and which times it covers, with whether
/// beginnings were recorded then.
#[derive(Clone, Debug)]
struct Kept {
    protocol: Option<u8>,
    covered: Vec<(Span, bool)>,
    is_database: bool,
}

impl Kept {
    fn takes(&self, life: &Life) -> bool {
        self.protocol.is_none_or(|protocol| protocol == life.flow.orig.proto)
    }

    fn at(&self, moment: u64) -> Option<bool> {
        let part = |(span, _): &&(Span, bool)| (span.first..=span.last).contains(&moment);
        self.covered.iter().find(part).map(|(_, beginnings)| *beginnings)
    }

    /// Its records that are of this part of the time.
    fn records(&self, lives: &[Life], Span { first, last }: Span) -> Vec<Made> {
        let mut made = Vec::new();
        for life in lives.iter().filter(|life| self.takes(life)) {
            if self.at(life.begin) == Some(true) {
                made.push(begun(life.flow.clone(), life.begin));
            }
            if self.at(life.end).is_some() {
                made.push(ended(life.flow.clone(), life.begin, life.end));
            }
        }
        made.retain(|made| (first..=last).contains(&made.at()));
        made.sort_by_key(Made::at);
        made
    }

    fn write(&self, place: &Place, number: usize, lives: &[Life]) -> Vec<PathBuf> {
        let origin = |beginnings| Origin { sink: format!("sink{number}"), beginnings };
        if self.is_database {
            let runs: Vec<_> =
                self.covered.iter().map(|(span, known)| (origin(*known), *span)).collect();
            let made = self.records(lives, Span::ALL);
            return vec![place.sqlite_from(&runs, &format!("{number}.db"), &made)];
        }
        let parts = self.covered.iter().enumerate().map(|(part, (span, beginnings))| {
            let name = format!("{number}-{part}.parquet");
            let made = self.records(lives, *span);
            let times = (span.first, span.last + 1);
            place.parquet_from(&origin(*beginnings), &name, &made, SMALL, times)
        });
        parts.collect()
    }

    /// Whether all of that time is covered, moment by moment.
    fn covers(&self, span: Span) -> bool {
        let ends = self.covered.iter().flat_map(|(span, _)| [span.first, span.last]);
        let beside = ends.flat_map(|end| [end.saturating_sub(1), end, end.saturating_add(1)]);
        let inside = beside.filter(|moment| (span.first..=span.last).contains(moment));
        inside.chain([span.first, span.last]).all(|moment| self.at(moment).is_some())
    }

    /// All that was alive at that time has a record of its beginning, as far as it began while
    /// anything was recorded.
    fn has_beginnings(&self, span: Span) -> bool {
        let mut before = self.covered.iter().filter(|(part, _)| part.first <= span.last).peekable();
        before.peek().is_some() && before.all(|(_, beginnings)| *beginnings)
    }

    fn covers_later(&self, span: Span) -> bool {
        let last = Span::ALL.last;
        span.last >= last || self.covers(Span { first: span.last + 1, last })
    }

    /// The time that a question is about: without a time it is that of the archive.
    fn part_of(&self, asked: Span) -> Span {
        match (self.covered.first(), self.covered.last()) {
            (Some((first, _)), Some((last, _))) if asked == Span::ALL => {
                Span { first: first.first, last: last.last }
            }
            _ => asked,
        }
    }
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let life = (tuple(), 0..90_u64, 0..60_u64).prop_map(|(flow, start, length)| Life {
        flow,
        begin: at(start),
        end: at(start + length) + 7,
    });
    prop::collection::vec(life, 0..30).prop_map(|all| {
        let mut lives: Vec<Life> = Vec::new();
        for life in all {
            let is_beside = |other: &Life| {
                other.flow.orig != life.flow.orig
                    || other.end < life.begin
                    || life.end < other.begin
            };
            if lives.iter().all(is_beside) {
                lives.push(life);
            }
        }
        lives
    })
}

/// Parts with pauses between them, or without; the last one may go on for ever.
fn kept() -> impl Strategy<Value = Kept> {
    let pause = prop_oneof![2 => Just(0_u64), 1 => 1..20_u64];
    let part = (pause, 1..80_u64, prop_oneof![4 => Just(true), 1 => Just(false)]);
    let protocol = prop_oneof![2 => Just(None), 1 => Just(Some(proto::TCP))];
    let ends_only = prop_oneof![Just(true), Just(false)];
    let parts = prop::collection::vec(part, 0..4);
    (protocol, parts, ends_only, any::<bool>(), any::<bool>()).prop_map(
        |(protocol, parts, ends_only, for_ever, is_database)| {
            let mut covered = Vec::new();
            let mut from = 0;
            for (pause, length, beginnings) in parts {
                let first = from + pause;
                from = first + length;
                let span = Span { first: at(first), last: at(from) - 1 };
                covered.push((span, beginnings && !ends_only));
            }
            if let Some((last, _)) = covered.last_mut().filter(|_| for_ever) {
                last.last = Span::ALL.last;
            }
            Kept { protocol, covered, is_database }
        },
    )
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_connection_that_was_made_is_denied(
        lives in lives(),
        archives in prop::collection::vec(kept(), 1..4),
        mut questions in prop::collection::vec(property::asked(), 8),
        without_time in property::asked(),
    ) {
        questions.push(Question { span: Span::ALL, ..without_time });
        let place = Place::new();
        let each = archives.iter().enumerate();
        let paths: Vec<_> =
            each.flat_map(|(number, kept)| kept.write(&place, number, &lives)).collect();
        // An archive without a file is not there.
        let archives: Vec<_> =
            archives.iter().filter(|kept| kept.is_database || !kept.covered.is_empty()).collect();
        prop_assume!(!paths.is_empty());
        for question in questions {
            let answer = ask_at(&paths, question);
            prop_assert_eq!(&answer.problems, &Vec::<String>::new());
            let part = |kept: &Kept| kept.part_of(question.span);
            let is_covered = archives.iter().all(|kept| kept.covers(part(kept)));
            let is_whole = |kept: &&&Kept| {
                kept.has_beginnings(part(kept)) || kept.covers_later(part(kept))
            };
            let expected = match (is_covered, answer.connections.is_empty()) {
                (false, _) => Verdict::Incomplete,
                (true, false) => Verdict::Found,
                (true, true) if archives.iter().filter(is_whole).count() < archives.len() => {
                    Verdict::Incomplete
                }
                (true, true) => Verdict::Nothing,
            };
            prop_assert_eq!(answer.verdict(), expected, "{:?}", question);
            if answer.verdict() != Verdict::Nothing {
                continue;
            }
            for life in &lives {
                let is_asked = !question.ends(&life.flow).is_empty();
                // What began while nothing was recorded may end while nothing is.
                let denied = archives.iter().find(|kept| {
                    let span = part(kept);
                    let is_known = !kept.has_beginnings(span) || kept.at(life.begin).is_some();
                    kept.takes(life) && life.was_alive(span) && is_known
                });
                prop_assert!(!is_asked || denied.is_none(), "{:?} by {:?}", life, denied);
            }
        }
    }
}
