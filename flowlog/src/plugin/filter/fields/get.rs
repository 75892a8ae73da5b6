//! How a field is taken out of an event; absent where nobody knows it.

use super::Direction;
use crate::event::{End, Kinds};
use crate::flow::{Counters, Family, Flow, Netns, names};
use crate::plugin::filter::value::{EXPECTATION, FLOW, Value};
use crate::plugin::json::full::KINDS;
use crate::plugin::{Body, Item};

pub(super) fn text(text: &'static str) -> Value<'static> {
    Value::Text(text.as_bytes())
}

/// Counters of bytes may be larger in theory.
pub(super) fn int(number: u64) -> Value<'static> {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn time(nanoseconds: u64) -> Value<'static> {
    Value::Nanoseconds(i64::try_from(nanoseconds).unwrap_or(i64::MAX))
}

pub(super) fn flow<'a>(item: &Item<'a>) -> Option<&'a Flow> {
    match item.body {
        Body::Flow { flow, .. } => Some(flow),
        Body::Expectation(_) | Body::Lost(_) => None,
    }
}

/// Start and end of a flow.
pub(super) fn times(item: &Item<'_>) -> [Option<u64>; 2] {
    match item.body {
        Body::Flow { start, end, .. } => [start, end],
        Body::Expectation(_) | Body::Lost(_) => [None; 2],
    }
}

pub(super) fn how<'a>(item: &Item<'a>) -> Option<&'a End> {
    match item.body {
        Body::Flow { how, .. } => how,
        Body::Expectation(_) | Body::Lost(_) => None,
    }
}

pub(super) fn zone(item: &Item<'_>) -> Option<u16> {
    match item.body {
        Body::Flow { flow, .. } => Some(flow.zone),
        Body::Expectation(expectation) => Some(expectation.zone),
        Body::Lost(_) => None,
    }
}

pub(super) fn helper<'a>(item: &Item<'a>) -> Option<Value<'a>> {
    let name = match item.body {
        Body::Flow { flow, .. } => flow.helper.as_ref(),
        Body::Expectation(expectation) => expectation.helper.as_ref(),
        Body::Lost(_) => None,
    };
    name.map(|name| Value::Text(name.as_bytes()))
}

pub(super) fn netns(item: &Item<'_>) -> Option<Netns> {
    match item.body {
        Body::Flow { flow, .. } => flow.netns,
        Body::Expectation(expectation) => expectation.netns,
        Body::Lost(_) => None,
    }
}

pub(super) fn counters(item: &Item<'_>) -> Option<[Counters; 2]> {
    flow(item)?.counters
}

/// What both directions have together.
pub(super) fn sum(item: &Item<'_>, of: fn(&Counters) -> u64) -> Option<Value<'static>> {
    let [sent, answered] = counters(item)?;
    Some(int(of(&sent).saturating_add(of(&answered))))
}

pub(super) fn type_of(item: &Item<'_>) -> Option<Value<'static>> {
    match item.body {
        Body::Flow { .. } => Some(text(FLOW)),
        Body::Expectation(_) => Some(text(EXPECTATION)),
        Body::Lost(_) => None,
    }
}

pub(super) fn kind(tag: Kinds) -> Option<Value<'static>> {
    KINDS.iter().find(|(kind, _)| tag.contains(*kind)).map(|(_, name)| text(name))
}

pub(super) fn action(item: &Item<'_>) -> Option<Value<'static>> {
    match item.body {
        Body::Expectation(expectation) => Some(text(expectation.action.name())),
        Body::Flow { .. } | Body::Lost(_) => None,
    }
}

pub(super) fn family(item: &Item<'_>) -> Option<Family> {
    Some(Direction::Orig.of(item)?.family)
}

pub(super) fn state(item: &Item<'_>) -> Option<Value<'static>> {
    let flow = flow(item)?;
    names::state(flow.orig.proto, flow.l4_state?).map(text)
}

pub(super) fn duration(item: &Item<'_>) -> Option<Value<'static>> {
    let [start, end] = times(item);
    Some(time(end?.saturating_sub(start?)))
}

pub(super) fn witness(item: &Item<'_>) -> Option<Value<'static>> {
    match item.body {
        Body::Flow { witness, .. } => witness.name().map(text),
        Body::Expectation(_) | Body::Lost(_) => None,
    }
}
