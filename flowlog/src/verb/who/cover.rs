//! Which times archives cover, and which they do not. Each archive is judged by itself:
//! what another one covers may be of another host, of other connections, or filtered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::asked::Covered;
use super::times::Span;

/// What one sink has written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    /// Where it is.
    place: PathBuf,
    /// The times that it covers, in order.
    known: Vec<Span>,
    /// A connection that was alive at the time of the question has a record of its beginning.
    has_beginnings: bool,
}

/// A time that an archive does not cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    pub(super) span: Span,
    /// Where the archive is.
    pub(super) archive: PathBuf,
}

/// The time that an archive is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// From the first moment that it covers to the last one, whatever is between them.
    pub(super) span: Span,
    /// Where the archive is.
    pub(super) archive: PathBuf,
}

/// The archives by their names, from what their files and databases state.
pub(super) fn archives(covered: Vec<Covered>, asked: Span) -> BTreeMap<String, Archive> {
    let mut parts: BTreeMap<String, Vec<Covered>> = BTreeMap::new();
    for one in covered {
        parts.entry(one.archive.clone()).or_default().push(one);
    }
    parts.into_iter().map(|(name, parts)| (name, Archive::new(&parts, asked))).collect()
}

impl Archive {
    fn new(parts: &[Covered], asked: Span) -> Self {
        let spans = || parts.iter().filter_map(|part| Some((part.span?, part.beginnings)));
        // One that was alive then may have begun at any time before.
        let mut before = spans().filter(|(span, _)| span.first <= asked.last).peekable();
        Self {
            place: parts.iter().map(|part| part.place.clone()).min().unwrap_or_default(),
            known: together(spans().map(|(span, _)| span).collect()),
            has_beginnings: before.peek().is_some() && before.all(|(_, beginnings)| beginnings),
        }
    }

    /// Records of connections may be of their ends alone.
    pub(super) fn has_ends_only(&self) -> bool {
        !self.has_beginnings
    }

    /// The times that it covers.
    pub(super) fn known(&self) -> &[Span] {
        &self.known
    }

    /// The time that it is of, if it covers any.
    pub(super) fn extent(&self) -> Option<Extent> {
        let (first, last) = (self.known.first()?.first, self.known.last()?.last);
        Some(Extent { span: Span { first, last }, archive: self.place.clone() })
    }

    /// What is asked of it: a question without a time is about the time that it is of.
    fn part_of(&self, asked: Span) -> Span {
        let own = || self.extent().map(|extent| extent.span);
        if asked == Span::ALL { own().unwrap_or(asked) } else { asked }
    }

    /// Parts of the time of the question that it does not cover.
    pub(super) fn unknown(&self, asked: Span) -> Vec<Unknown> {
        self.each(gaps(self.part_of(asked), &self.known))
    }

    /// Later times that it does not cover, where it has ends only: a connection that was alive
    /// may have ended then, or lives.
    pub(super) fn unknown_later(&self, asked: Span) -> Vec<Unknown> {
        let last = self.part_of(asked).last;
        if self.has_beginnings || last >= Span::ALL.last {
            return Vec::new();
        }
        let later = Span { first: last + 1, last: Span::ALL.last };
        self.each(gaps(later, &self.known))
    }

    fn each(&self, spans: Vec<Span>) -> Vec<Unknown> {
        let of = |span| Unknown { span, archive: self.place.clone() };
        spans.into_iter().map(of).collect()
    }
}

/// The same times, each once and in order.
pub(super) fn together(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| span.first);
    let mut all: Vec<Span> = Vec::new();
    for span in spans {
        match all.last_mut() {
            Some(last) if span.first <= last.last.saturating_add(1) => {
                last.last = last.last.max(span.last);
            }
            _ => all.push(span),
        }
    }
    all
}

/// The parts of `span` that are not in `known`.
fn gaps(span: Span, known: &[Span]) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut from = Some(span.first);
    for Span { first, last } in known.iter().filter(|known| known.last >= span.first) {
        let Some(begin) = from.filter(|begin| *begin <= span.last) else { break };
        if *first > span.last {
            break;
        }
        if *first > begin {
            gaps.push(Span { first: begin, last: first - 1 });
        }
        from = last.checked_add(1);
    }
    if let Some(first) = from.filter(|from| *from <= span.last) {
        gaps.push(Span { first, last: span.last });
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_what_an_archive_does_not_cover() {
        let span = |first, last| Span { first, last };
        let known = together(vec![span(30, 39), span(10, 15), span(16, 19), span(12, 13)]);
        assert_eq!(known, [span(10, 19), span(30, 39)]);
        for (asked, expected) in [
            (span(12, 19), vec![]),
            (span(5, 5), vec![span(5, 5)]),
            (span(5, 12), vec![span(5, 9)]),
            (span(15, 35), vec![span(20, 29)]),
            (span(0, 50), vec![span(0, 9), span(20, 29), span(40, 50)]),
            (span(40, 50), vec![span(40, 50)]),
            (span(25, 27), vec![span(25, 27)]),
            (Span::ALL, vec![span(0, 9), span(20, 29), span(40, Span::ALL.last)]),
        ] {
            assert_eq!(gaps(asked, &known), expected, "{asked:?}");
        }
        assert_eq!(gaps(Span::ALL, &[]), [Span::ALL]);
        assert_eq!(gaps(span(1, u64::MAX), &[span(0, u64::MAX)]), []);
    }

    #[test]
    fn no_archive_excuses_another() {
        let span = |first, last| Span { first, last };
        let part = |archive: &str, span, beginnings| Covered {
            archive: archive.to_owned(),
            place: archive.into(),
            span,
            beginnings,
        };
        let asked = span(20, 29);
        let parts = vec![
            part("a", Some(span(30, 39)), true),
            part("a", Some(span(0, 29)), true),
            part("b", Some(span(0, 24)), true),
            part("b", Some(span(30, 50)), false),
            part("c", Some(span(0, 49)), true),
            part("c", Some(span(0, 10)), false),
            part("d", None, true),
        ];
        let archives = archives(parts, asked);
        let of = |name: &str, spans: &[Span]| -> Vec<Unknown> {
            spans.iter().map(|span| Unknown { span: *span, archive: name.into() }).collect()
        };
        let end = Span::ALL.last;
        for (name, unknown, later) in [
            ("a", &[][..], &[][..]),
            // Another configuration from 30 on does not matter.
            ("b", &[span(25, 29)], &[]),
            // What began before 10 is recorded at its end.
            ("c", &[], &[span(50, end)]),
            ("d", &[asked], &[span(30, end)]),
        ] {
            let archive = &archives[name];
            assert_eq!(archive.unknown(asked), of(name, unknown), "{name}");
            assert_eq!(archive.unknown_later(asked), of(name, later), "{name}");
        }
    }

    /// Of the time between two runs, and of what ended after the last one, an archive knows
    /// nothing, whether a time was asked for or not.
    #[test]
    fn a_question_without_a_time_is_about_the_time_of_each_archive() {
        let span = |first, last| Span { first, last };
        let part = |archive: &str, span, beginnings| Covered {
            archive: archive.to_owned(),
            place: archive.into(),
            span,
            beginnings,
        };
        let parts = vec![
            part("whole", Some(span(10, 20)), true),
            part("whole", Some(span(21, 30)), true),
            part("hole", Some(span(10, 20)), true),
            part("hole", Some(span(25, 30)), true),
            part("ends", Some(span(10, 20)), true),
            part("ends", Some(span(25, 30)), false),
            part("ever", Some(span(10, Span::ALL.last)), false),
            part("none", None, true),
        ];
        let archives = archives(parts, Span::ALL);
        let between = [span(21, 24)];
        let from_then_on = [span(31, Span::ALL.last)];
        for (name, extent, unknown, later) in [
            ("whole", Some(span(10, 30)), &[][..], &[][..]),
            ("hole", Some(span(10, 30)), &between, &[]),
            ("ends", Some(span(10, 30)), &between, &from_then_on),
            ("ever", Some(span(10, Span::ALL.last)), &[], &[]),
            ("none", None, &[Span::ALL], &[]),
        ] {
            let archive = &archives[name];
            let spans = |all: Vec<Unknown>| all.iter().map(|one| one.span).collect::<Vec<_>>();
            assert_eq!(archive.extent().map(|extent| extent.span), extent, "{name}");
            assert_eq!(spans(archive.unknown(Span::ALL)), unknown, "{name}");
            assert_eq!(spans(archive.unknown_later(Span::ALL)), later, "{name}");
        }
    }
}
