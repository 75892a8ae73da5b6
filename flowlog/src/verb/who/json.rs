//! An answer as one JSON object:
//!
//! | member | what |
//! |---|---|
//! | `question` | `address`, `port`, `protocol` (number), `from`, `to`, as far as they were asked for |
//! | `verdict` | `found`, `nothing`, `no_data`, `incomplete` |
//! | `connections` | each with the members of a flow in docs/flow.schema.json, `end`, and `matched`: which of `orig_src`, `orig_dst`, `reply_src`, `reply_dst` |
//! | `lost` | losses in that time: `time`, `source`, `events` |
//! | `missing` | records that archives do not have of that time: `reason` (`lost`, `dropped`, `refused`, `unsure`), `from`, `to`, `records` (null: not known), `source`: what lost them, where it is known, `archive` |
//! | `missing_later` | the same of later times, where archives have ends only: connections of that time may have ended then |
//! | `unknown` | parts of that time that an archive does not cover: `from`, `to`, `archive` |
//! | `unknown_later` | later times that an archive which has ends only does not cover, `to` absent: all times from then on |
//! | `known` | of which times the archives are: `from`, `to` |
//! | `archives` | the same of each archive, without the pauses in it: `archive`, `from`, `to` |
//! | `problems` | what could not be read, and why |
//! | `more` | there are more connections than the limit |
//! | `unverified` | archives of which a changed byte is not noticed |
//! | `unchecked` | databases whose check took too long: a damaged index may hide a connection |

use std::borrow::Cow;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::answer::{Answer, Connection, Verdict};
use super::asked::{Loss, Missing};
use super::cover::{Extent, Unknown};
use super::question::{Ends, Question};
use super::record::Record;
use super::text::is_unknown;
use super::times::Span;
use crate::archive::coverage::Gap;
use crate::event::{End, Process};
use crate::verb::list::json as list;
use crate::verb::watch::json::time;

/// The object of an answer.
pub(super) fn object(question: &Question, answer: &Answer) -> Value {
    let Answer { connections, losses, missing, missing_later, unknown, known, .. } = answer;
    let Answer { unknown_later, problems, more, unverified, unchecked, .. } = answer;
    let verdict = match answer.verdict() {
        Verdict::Found => "found",
        Verdict::Nothing => "nothing",
        Verdict::Incomplete if connections.is_empty() && is_unknown(answer) => "no_data",
        Verdict::Incomplete => "incomplete",
    };
    let lost = losses.iter().map(|Loss { at, source, events }| {
        json!({ "time": time(*at), "source": source, "events": events })
    });
    json!({
        "question": asked(question),
        "verdict": verdict,
        "connections": connections.iter().map(connection).collect::<Vec<_>>(),
        "lost": lost.collect::<Vec<_>>(),
        "missing": missing.iter().map(self::missing).collect::<Vec<_>>(),
        "missing_later": missing_later.iter().map(self::missing).collect::<Vec<_>>(),
        "unknown": unknown.iter().map(self::unknown).collect::<Vec<_>>(),
        "unknown_later": unknown_later.iter().map(self::unknown).collect::<Vec<_>>(),
        "known": known.iter().map(span).collect::<Vec<_>>(),
        "archives": answer.extents.iter().map(extent).collect::<Vec<_>>(),
        "problems": problems,
        "more": more,
        "unverified": paths(unverified),
        "unchecked": paths(unchecked),
    })
}

fn paths(paths: &[PathBuf]) -> Vec<Cow<'_, str>> {
    paths.iter().map(|path| path.to_string_lossy()).collect()
}

fn missing(Missing { gap, archive, of: _ }: &Missing) -> Value {
    let Gap { reason, records, source, .. } = gap;
    let (since, until) = (time(gap.since()), time(gap.until()));
    let mut object = json!({
        "reason": reason.name(), "from": since, "to": until,
        "records": (*records > 0).then_some(records),
        "archive": archive.to_string_lossy(),
    });
    if !source.is_empty() {
        object["source"] = json!(source);
    }
    object
}

fn asked(Question { wanted, protocol, span }: &Question) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("address", json!(wanted.text()));
    if let Some(port) = wanted.port {
        put("port", json!(port));
    }
    if let Some(protocol) = protocol {
        put("protocol", json!(protocol));
    }
    if *span != Span::ALL {
        put("from", time(span.first));
        put("to", time(span.last));
    }
    object
}

fn unknown(Unknown { span, archive }: &Unknown) -> Value {
    let mut object = json!({ "from": time(span.first), "archive": archive.to_string_lossy() });
    if span.last != Span::ALL.last {
        object["to"] = time(span.last);
    }
    object
}

fn extent(Extent { span, archive }: &Extent) -> Value {
    json!({ "archive": archive.to_string_lossy(), "from": time(span.first), "to": time(span.last) })
}

/// Both belong to it.
fn span(Span { first, last }: &Span) -> Value {
    json!({ "from": time(*first), "to": time(*last) })
}

fn connection(connection: &Connection) -> Value {
    let Connection { record: Record { flow, end, how, witness, .. }, ends, records } = connection;
    let mut object = match list::object(flow) {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if let Some(end) = end {
        put("end", time(*end));
    }
    if let Some(End { cause, portid, process }) = how {
        put("cause", json!(cause.name()));
        if let Some(portid) = portid {
            put("portid", json!(portid));
        }
        if let Some(Process { pid, comm }) = process {
            let comm = String::from_utf8_lossy(comm.as_bytes());
            put("process", json!({ "pid": pid, "comm": comm }));
        }
    }
    if let Some(witness) = witness.name() {
        put("witness", json!(witness));
    }
    let names = Ends::NAMES.iter().filter(|(end, _)| ends.contains(*end)).map(|(_, name)| name);
    put("matched", json!(names.collect::<Vec<_>>()));
    put("records", json!(records));
    Value::Object(object)
}

#[cfg(test)]
mod tests;
