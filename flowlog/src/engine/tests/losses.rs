//! Since when a loss is: by the last turn that read the source dry.

use serde_json::Value;

use super::*;

/// A source that was read dry, or is broken, loses 2 events. How long before it was noticed may
/// that be, by what stands in the log?
fn reaches_back(broken: bool) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flow.json");
    let sink = format!("json1:JSON\n[json1]\nfile={file:?}\nschema=full");
    let (mut source, stats, _) = source_with(&sink, None);
    if broken {
        source.capture = Box::new(Troubled);
    }
    let mut engine = engine(source, stats);
    engine.turn();
    let Source { nfct, stacks, .. } = &mut engine.sources[0];
    nfct.record(Record::Lost(Lost::noticed("netlink", 2, Moment::now().wall)), stacks);
    stacks.close();
    let text = std::fs::read_to_string(file).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    let time = |name: &str| -> jiff::Timestamp { line[name].as_str().unwrap().parse().unwrap() };
    assert_eq!(line["events"], 2);
    time("time").duration_since(time("since")).try_into().unwrap()
}

#[test]
fn a_loss_is_since_the_turn_that_read_the_source_dry() {
    // What is on its way then may be older.
    let back = reaches_back(false);
    assert!(back >= HOLD && back < HOLD + Duration::from_secs(30), "{back:?}");
    // It is not known to be whole: since it was opened, a moment ago.
    let back = reaches_back(true);
    assert!(back < HOLD, "{back:?}");
}
