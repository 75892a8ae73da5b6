//! The report of an audit as one JSON object:
//!
//! | member | what |
//! |---|---|
//! | `seconds` | how long the sources were compared |
//! | `netns` | inode number of the namespace that was checked |
//! | `method` | how eBPF was attached: `kprobe`, `fentry` |
//! | `paired` | events were matched by the entry itself, not by its tuple alone |
//! | `events` | by kind (`new`, `update`, `destroy`, `expect`) and in `sum`: the counts, named as [`Check::name`] does |
//! | `due` | by inode number of each namespace: netlink messages that the kernel should have sent there, `new`, `update`, `destroy` |
//! | `lag_us` | how much later the second source told an event, microseconds: `median`, `p99`, `max`; `null` if nothing was matched |
//! | `losses` | what each source lost by its own counters, by the counter's name |
//! | `lost` | the last events, [`MOST_LOST`](crate::capture::crosscheck::MOST_LOST) at most, that a source lost: `by` (`ebpf`, `netlink`, `both`), `kind`, `zone`, `protocol` (number) and `orig`, the original tuple as in `flowlog list -o json` |
//! | `fields` | in which fields the sources differed, and how often |
//! | `unexplained` | findings that no loss explains; with any the exit code is 1 |

use serde_json::{Map, Value, json};

use crate::capture::crosscheck::{Due, Lag, LostEvent, Report};
use crate::stats::{Check, CheckKind};
use crate::verb::list::json::direction;

/// The object of a report.
pub(super) fn object(report: &Report) -> Value {
    let Report { lasted, netns, method, paired, fields, lost, due, lag, stats: _ } = report;
    let lag = lag.map(|Lag { median, p99, max }| {
        let [median, p99, max] = [median, p99, max].map(|lag| lag.as_micros() as u64);
        json!({ "median": median, "p99": p99, "max": max })
    });
    let due: Map<String, Value> = due
        .iter()
        .map(|(inum, Due { new, update, destroy })| {
            (inum.to_string(), json!({ "new": new, "update": update, "destroy": destroy }))
        })
        .collect();
    let losses: Map<String, Value> =
        report.losses().map(|(name, count)| (name.to_owned(), json!(count))).collect();
    json!({
        "seconds": lasted.as_secs_f64(),
        "netns": netns,
        "method": method,
        "paired": paired,
        "events": events(report),
        "due": due,
        "lag_us": lag,
        "losses": losses,
        "lost": lost.iter().map(lost_event).collect::<Vec<_>>(),
        "fields": fields,
        "unexplained": report.unexplained(),
    })
}

fn lost_event(event: &LostEvent) -> Value {
    let LostEvent { by, kind, tuple, zone } = event;
    json!({
        "by": by.name(),
        "kind": kind.name(),
        "zone": zone,
        "protocol": tuple.proto,
        "orig": direction(tuple),
    })
}

fn events(report: &Report) -> Map<String, Value> {
    let counts = |count: &dyn Fn(Check) -> u64| -> Value {
        let counts = Check::ALL.map(|check| (check.name().to_owned(), json!(count(check))));
        Value::Object(counts.into_iter().collect())
    };
    let mut events = Map::new();
    for kind in CheckKind::ALL {
        events.insert(kind.name().to_owned(), counts(&|check| report.count(check, kind)));
    }
    events.insert("sum".to_owned(), counts(&|check| report.sum(check)));
    events
}

#[cfg(test)]
mod tests {
    use super::super::tests::{made_up, nothing};
    use super::*;

    #[test]
    fn every_count_stands_under_its_name() {
        let object = object(&made_up());
        assert_eq!(object["seconds"], json!(30.0));
        assert_eq!(
            (&object["netns"], &object["method"]),
            (&json!(4026531840u32), &json!("kprobe"))
        );
        assert_eq!(object["paired"], json!(true));
        assert_eq!(object["events"]["new"]["matched"], json!(1200));
        assert_eq!(object["events"]["sum"]["matched"], json!(1290));
        assert_eq!(object["events"]["destroy"]["only_ebpf_unexplained"], json!(2));
        assert_eq!(object["due"]["4026532210"], json!({ "new": 5, "update": 0, "destroy": 4 }));
        assert_eq!(object["lag_us"], json!({ "median": 12, "p99": 1500, "max": 80000 }));
        assert_eq!(object["losses"]["netlink.lost"], json!(12));
        assert_eq!(object["fields"], json!({ "status": 1 }));
        assert_eq!(object["unexplained"], json!(3));
        let orig = json!({ "src": "10.0.0.1", "dst": "10.0.0.2", "sport": 5, "dport": 53 });
        let lost = json!([{
            "by": "netlink", "kind": "destroy", "zone": 7, "protocol": 17, "orig": orig
        }]);
        assert_eq!(object["lost"], lost);
        let kinds = object["events"].as_object().unwrap();
        assert_eq!(kinds.len(), CheckKind::ALL.len() + 1);
        assert!(kinds.values().all(|counts| counts.as_object().unwrap().len() == Check::ALL.len()));
    }

    #[test]
    fn what_is_not_known_is_null() {
        let object = object(&nothing());
        assert_eq!((&object["lag_us"], &object["unexplained"]), (&Value::Null, &json!(0)));
    }
}
