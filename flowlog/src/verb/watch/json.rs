//! An event as a JSON object: as an entry of `flowlog list`, and what it is the
//! event of. What is not known is left out.

use serde_json::{Map, Value, json};

use super::line::{deleted_by, tag_names};
use super::names::Named;
use super::view::Shown;
use crate::event::{End, Expectation, Kinds, Lost, Witness};
use crate::flow::Flow;
use crate::plugin::clock::rfc3339;
use crate::verb::list::json as list;

/// The object of an event.
pub(super) fn event(shown: &Shown<'_>) -> Value {
    let Shown { tag, event, start, netns } = shown;
    let mut object = front(*tag, event.at);
    // The start may be known better, and the namespace by its name.
    let flow = Flow { start: *start, netns: None, ..event.flow.clone() };
    if let Value::Object(flow) = list::object(&flow) {
        object.extend(flow);
    }
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if let Some(stop) = event.flow.stop {
        put("stop", time(stop));
    }
    if let Some(duration) = shown.duration() {
        put("duration", json!(duration));
    }
    if let Some(end) = &event.end {
        let End { cause, portid, process: _ } = end;
        put("cause", json!(cause.name()));
        if let Some(portid) = portid {
            put("portid", json!(portid));
        }
        if let Some(process) = deleted_by(end) {
            put("pid", json!(process.pid));
            put("comm", json!(String::from_utf8_lossy(process.comm.as_bytes())));
        }
    }
    match event.witness {
        Witness::Healed => {
            put("healed", json!(true));
        }
        Witness::Single | Witness::Both | Witness::Ebpf => {}
    }
    place(&mut object, netns.as_ref());
    Value::Object(object)
}

/// The object of an expectation.
pub(in crate::verb) fn expectation(
    expectation: &Expectation,
    at: u64,
    netns: Option<&Named>,
) -> Value {
    let Expectation { action, tuple, master, zone, helper, netns: _ } = expectation;
    let mut object = front(Kinds::EXPECT, at);
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("action", json!(action.name()));
    put("expected", list::direction(tuple));
    put("master", list::direction(master));
    put("zone", json!(zone));
    if let Some(helper) = helper {
        put("helper", json!(String::from_utf8_lossy(helper.as_bytes())));
    }
    place(&mut object, netns);
    Value::Object(object)
}

/// The object of a loss.
pub(in crate::verb) fn loss(lost: Lost) -> Value {
    let Lost { source, events, at, .. } = lost;
    json!({ "event": "lost", "time": time(at), "events": events, "source": source })
}

fn front(tag: Kinds, at: u64) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("event".to_owned(), json!(tag_names(tag).to_ascii_lowercase()));
    object.insert("time".to_owned(), time(at));
    object
}

/// As in records of the sink JSON.
pub(in crate::verb) fn time(nanoseconds: u64) -> Value {
    let mut text = Vec::new();
    rfc3339(nanoseconds, 9, &mut text);
    json!(String::from_utf8_lossy(&text))
}

pub(in crate::verb) fn place(object: &mut Map<String, Value>, netns: Option<&Named>) {
    let Some(Named { inum, name }) = netns else { return };
    object.insert("netns".to_owned(), json!(inum));
    if let Some(name) = name {
        object.insert("netns_name".to_owned(), json!(**name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AT, as_shown, ended, named, udp6};
    use super::*;
    use crate::event::Cause;

    #[test]
    fn an_end_tells_all() {
        let mut event = ended(Cause::Deleted);
        event.kinds |= Kinds::GC;
        event.witness = Witness::Healed;
        let shown = Shown { tag: Kinds::DESTROY | Kinds::GC, ..as_shown(&event) };
        assert_eq!(
            super::event(&shown).to_string(),
            concat!(
                r#"{"event":"destroy|gc","time":"2023-11-14T22:13:20.123456789Z","family":"ipv4","#,
                r#""protocol":{"name":"tcp","number":6},"state":"CLOSE","orig":{"#,
                r#""src":"10.77.1.2","dst":"10.77.1.1","sport":40003,"dport":8080,"packets":6,"#,
                r#""bytes":420},"reply":{"src":"10.77.2.2","dst":"10.77.2.1","sport":9000,"#,
                r#""dport":40003,"packets":4,"bytes":416},"status":["seen_reply","assured"],"#,
                r#""mark":0,"zone":0,"start":"2023-11-14T22:12:18.623456789Z","duration":61500000000,"#,
                r#""cause":"deleted","portid":99,"pid":1712,"comm":"my tool","healed":true,"#,
                r#""netns":4026532210,"netns_name":"blue"}"#
            )
        );
    }

    #[test]
    fn what_is_not_known_is_not_there() {
        let event = udp6(Kinds::UPDATE);
        let shown = Shown { netns: None, ..as_shown(&event) };
        assert_eq!(
            super::event(&shown).to_string(),
            concat!(
                r#"{"event":"update","time":"2023-11-14T22:13:20.123456789Z","family":"ipv6","#,
                r#""protocol":{"name":"udp","number":17},"timeout":30,"orig":{"#,
                r#""src":"fd77:1::2","dst":"fd77:2::2","sport":40006,"dport":9053},"reply":{"#,
                r#""src":"fd77:2::2","dst":"fd77:1::2","sport":9053,"dport":40006},"#,
                r#""status":["seen_reply"],"mark":0,"zone":0}"#
            )
        );
    }

    #[test]
    fn expectations_and_losses() {
        let expected = super::super::tests::expectation();
        assert_eq!(
            expectation(&expected, AT, Some(&named())).to_string(),
            concat!(
                r#"{"event":"expect","time":"2023-11-14T22:13:20.123456789Z","action":"new","expected":{"#,
                r#""src":"10.77.1.2","dst":"10.77.2.2","sport":0,"dport":33033},"master":{"#,
                r#""src":"10.77.1.2","dst":"10.77.2.2","sport":40010,"dport":21},"zone":0,"#,
                r#""helper":"ftp","netns":4026532210,"netns_name":"blue"}"#
            )
        );
        let lost = Lost::noticed("ebpf", 5, AT);
        assert_eq!(
            loss(lost).to_string(),
            r#"{"event":"lost","time":"2023-11-14T22:13:20.123456789Z","events":5,"source":"ebpf"}"#
        );
    }
}
