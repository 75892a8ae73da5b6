//! Events that a source handed to its stacks, by tag and cause. Plain numbers in
//! a table: the hot path adds one, and nothing is looked up.

use crate::event::{Cause, Kinds};
use crate::plugin::{Body, Item};

/// Tags: each set of kinds.
const TAGS: usize = 1 << 8;
/// Causes, and none at the first place.
const CAUSES: usize = Cause::ALL.len() + 1;
/// Kinds that end a flow.
const ENDS: Kinds = Kinds::DESTROY.union(Kinds::GC);

// Each tag has its place.
const _: () = assert!((Kinds::all().bits() as usize) < TAGS);

/// The counts.
#[derive(Clone, Debug)]
pub struct Handed {
    events: Box<[[u64; CAUSES]; TAGS]>,
    losses: u64,
}

impl Default for Handed {
    fn default() -> Self {
        Self { events: Box::new([[0; CAUSES]; TAGS]), losses: 0 }
    }
}

impl Handed {
    /// Counts an item.
    #[inline]
    pub fn count(&mut self, item: &Item<'_>) {
        let cause = match item.body {
            Body::Flow { how: Some(how), .. } => how.cause as usize + 1,
            Body::Flow { how: None, .. } | Body::Expectation(_) => 0,
            Body::Lost(_) => {
                self.losses += 1;
                return;
            }
        };
        self.events[item.tag.bits() as usize % TAGS][cause] += 1;
    }

    /// Reports of losses.
    pub fn losses(&self) -> u64 {
        self.losses
    }

    /// Each tag and cause that has been counted, and those that may be expected
    /// with `mask`: a tag as it stands in its line, in lower case; a cause as
    /// with `CAUSE=`, `unreported` where an end has none, `none` where there is no
    /// end.
    pub fn each(&self, mask: Kinds) -> impl Iterator<Item = (String, &'static str, u64)> + '_ {
        self.events.iter().enumerate().flat_map(move |(bits, causes)| {
            let tag = Kinds::from_bits_truncate(bits as u32);
            let single = bits.is_power_of_two() && mask.contains(tag);
            let ends = tag.intersects(ENDS);
            causes.iter().enumerate().filter_map(move |(cause, count)| {
                let expected = single && (cause == 0 || ends);
                let cause = match cause.checked_sub(1) {
                    Some(index) => Cause::ALL[index].name(),
                    None if ends => "unreported",
                    None => "none",
                };
                (*count > 0 || expected).then(|| (name(tag), cause, *count))
            })
        })
    }
}

/// A tag as in a line: `confirmed|assured`.
fn name(tag: Kinds) -> String {
    let names = Kinds::NAMES.into_iter().filter(|(kind, _)| tag.contains(*kind));
    names.map(|(_, name)| name.to_ascii_lowercase()).collect::<Vec<_>>().join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{End, Lost, Witness};
    use crate::flow::Flow;

    fn count(handed: &mut Handed, tag: Kinds, cause: Option<Cause>) {
        let flow = Flow::default();
        let how = cause.map(|cause| End { cause, portid: None, process: None });
        let body = Body::Flow {
            flow: &flow,
            start: None,
            end: None,
            how: how.as_ref(),
            counted: false,
            witness: Witness::Single,
        };
        handed.count(&Item { tag, at: 0, body });
    }

    #[test]
    fn events_are_counted_by_tag_and_cause() {
        let mut handed = Handed::default();
        count(&mut handed, Kinds::NEW, None);
        count(&mut handed, Kinds::NEW, None);
        count(&mut handed, Kinds::DESTROY, None);
        count(&mut handed, Kinds::DESTROY | Kinds::GC, Some(Cause::ExpiredGc));
        count(&mut handed, Kinds::ASSURED | Kinds::CONFIRMED, None);
        let lost = Body::Lost(Lost::noticed("ebpf", 7, 0));
        handed.count(&Item { tag: Kinds::empty(), at: 0, body: lost });
        let all: Vec<_> = handed.each(Kinds::empty()).collect();
        let expected = [
            ("new", "none", 2),
            ("destroy", "unreported", 1),
            ("confirmed|assured", "none", 1),
            ("destroy|gc", "expired_gc", 1),
        ];
        assert_eq!(all, expected.map(|(tag, cause, n)| (tag.to_owned(), cause, n)));
        assert_eq!(handed.losses(), 1);
    }

    #[test]
    fn what_may_come_is_shown_as_zero() {
        let all: Vec<_> = Handed::default().each(Kinds::NEW | Kinds::DESTROY).collect();
        assert_eq!(all.len(), 1 + CAUSES, "{all:?}");
        assert!(all.contains(&("destroy".to_owned(), "early_drop", 0)));
    }
}
