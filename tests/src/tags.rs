//! Which flows of the mix have lines with which tag, and how often: what a mask of events is
//! checked against.

use anyhow::{Result, ensure};

use crate::lines::{Line, ensure_equal, multiset, tagged, uncounted};
use crate::traffic::{Flow, Reach};

/// Which flows have lines with a tag.
pub type Which = fn(&Flow) -> bool;

/// All.
pub const ALL: Which = |_| true;
/// Those with packets in both directions.
pub const REPLIED: Which = |flow| flow.reach >= Reach::Replied;
/// Those that were established.
pub const ASSURED: Which = |flow| flow.reach == Reach::Assured;
/// Those that a helper looks at.
pub const HELPED: Which = |flow| flow.helper;
/// The others.
pub const UNHELPED: Which = |flow| !flow.helper;

/// How often such a flow has such a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Often {
    /// At the transition, or once in the life of a flow anyway.
    Once,
    /// With each message that shows the state: at least once.
    Repeatedly,
}

/// A tag, and whose lines have it.
pub type Tagged = (&'static str, Which, Often);

/// Checks that the flows have lines with just these tags.
///
/// # Errors
/// A line is missing, or there is one too many.
pub fn ensure_tagged(
    what: &str,
    lines: &[Line],
    flows: &[Flow],
    expected: &[Tagged],
) -> Result<()> {
    for (tag, which, often) in expected {
        ensure_one(what, lines, tag, flows.iter().filter(|flow| which(flow)), *often)?;
    }
    let stranger = lines.iter().find(|line| expected.iter().all(|(tag, ..)| *tag != line.tag()));
    ensure!(stranger.is_none(), "{what}: {stranger:?}");
    Ok(())
}

/// Checks that just these flows have lines with this tag. Counters are those of no packet, except
/// at the end.
fn ensure_one<'a>(
    what: &str,
    lines: &[Line],
    tag: &str,
    flows: impl Iterator<Item = &'a Flow>,
    often: Often,
) -> Result<()> {
    let expected = multiset(flows.map(|flow| flow.line(tag)));
    let found = tagged(lines, tag);
    let mut actual = if tag == "DESTROY" { uncounted(found) } else { multiset(found) };
    if often == Often::Repeatedly {
        // Equal lines of distinct flows (ICMP of one kind) stay as many as there are flows.
        for (text, count) in &mut actual {
            *count = (*count).min(expected.get(text).copied().unwrap_or(1));
        }
    }
    ensure_equal(&format!("{what} [{tag}]"), &expected, &actual)
}
