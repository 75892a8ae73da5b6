//! An event as a JSON object: the members of `flowlog watch -o json`, and what
//! only a trace knows. What is not known is left out.

use serde_json::{Map, Value, json};

use super::life::State;
use super::told::{Subject, Told};
use crate::event::Event;
use crate::flow::Flow;
use crate::verb::list::json as list;
use crate::verb::watch::json as watch;

/// The object of an event.
pub(super) fn object(told: &Told<'_>) -> Value {
    let mut object = match told.subject {
        Subject::Flow(event) => flow(told, event),
        Subject::Expectation(expectation) => {
            match watch::expectation(expectation, told.at, told.netns.as_ref()) {
                Value::Object(object) => object,
                _ => Map::new(),
            }
        }
    };
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    if let Some(reason) = told.reason {
        put("cause", json!(reason.name()));
    }
    if let Some(hook) = told.hook {
        put("hook", json!(hook));
    }
    if let Some(error) = told.error {
        put("errno", json!(error));
    }
    if let Some(portid) = told.portid {
        put("portid", json!(portid));
    }
    let place = told.place;
    put("cpu", json!(place.cpu));
    put("context", json!(told.context().name()));
    if let Some(task) = &place.task {
        let comm = String::from_utf8_lossy(task.comm.as_bytes());
        put("task", json!({ "pid": task.pid, "tid": place.tid, "comm": comm }));
    }
    put("function", json!(place.function));
    put("callers", json!(told.chain.callers()));
    Value::Object(object)
}

fn flow(told: &Told<'_>, event: &Event) -> Map<String, Value> {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("event", json!(told.kind.name()));
    put("time", watch::time(told.at));
    if let Some(number) = told.known.flow {
        put("flow", json!(number));
    }
    if let Some((before, since)) = told.known.before {
        put("since", json!(since));
        put("before", state(before));
    }
    if let Some(after) = told.after() {
        put("after", state(after));
    }
    let changes = told.changes();
    if !changes.is_empty() {
        put("changed", json!(changes));
    }
    // The namespace has a name.
    let entry = Flow { netns: None, ..event.flow.clone() };
    if let Value::Object(entry) = list::object(&entry) {
        object.extend(entry);
    }
    if let Some(stop) = event.flow.stop {
        object.insert("stop".to_owned(), watch::time(stop));
    }
    watch::place(&mut object, told.netns.as_ref());
    object
}

fn state(state: State) -> Value {
    json!({ "state": state.state, "status": state.bits() })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Example, sample};
    use super::*;
    use crate::event::Kinds;
    use crate::flow::Status;
    use crate::verb::trace::kind::{Kind, Reason, Refusal};
    use crate::verb::watch::tests::{expectation, tcp, udp6};

    #[test]
    fn a_change_tells_what_was_before() {
        let event = udp6(Kinds::UPDATE);
        let before = State { state: "UNREPLIED", status: Status::CONFIRMED };
        let example = Example {
            kind: Kind::Update,
            before: Some((before, 1_500)),
            changes: 1 << 3,
            function: "ctnetlink_conntrack_event",
            callers: &["nf_confirm"],
            ..Example::of(&event)
        };
        assert_eq!(
            sample(&example, object).to_string(),
            concat!(
                r#"{"event":"update","time":"2023-11-14T22:13:20.123456789Z","flow":1,"#,
                r#""since":1500,"before":{"state":"UNREPLIED","status":["confirmed"]},"#,
                r#""after":{"state":"REPLIED","status":["seen_reply"]},"changed":["reply"],"#,
                r#""family":"ipv6","protocol":{"name":"udp","number":17},"timeout":30,"#,
                r#""orig":{"src":"fd77:1::2","dst":"fd77:2::2","sport":40006,"dport":9053},"#,
                r#""reply":{"src":"fd77:2::2","dst":"fd77:1::2","sport":9053,"dport":40006},"#,
                r#""status":["seen_reply"],"mark":0,"zone":0,"netns":4026532210,"#,
                r#""netns_name":"blue","cpu":1,"context":"task","#,
                r#""task":{"pid":1712,"tid":1713,"comm":"my tool"},"#,
                r#""function":"ctnetlink_conntrack_event","callers":["nf_confirm"]}"#
            )
        );
    }

    #[test]
    fn a_refusal_has_its_error_and_an_expectation_its_place() {
        let event = tcp(Kinds::empty());
        let example = Example {
            kind: Kind::Full,
            reason: Some(Reason::Refusal(Refusal::NoMemory)),
            error: Some(libc::ENOMEM),
            task: None,
            ..Example::of(&event)
        };
        let told = sample(&example, object);
        assert_eq!((&told["event"], &told["cause"]), (&json!("full"), &json!("no_memory")));
        assert_eq!((&told["errno"], &told["context"]), (&json!(12), &json!("unknown")));
        assert!(told.get("after").is_none() && told.get("task").is_none());
        let expected = expectation();
        let example =
            Example { kind: Kind::Expect, expectation: Some(&expected), ..Example::of(&event) };
        let told = sample(&example, object);
        assert_eq!((&told["event"], &told["action"]), (&json!("expect"), &json!("new")));
        assert_eq!((&told["cpu"], &told["netns_name"]), (&json!(1), &json!("blue")));
    }
}
