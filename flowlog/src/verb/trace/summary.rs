//! What was shown, counted by kind, cause and function, and what was lost by
//! name.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::told::Told;
use crate::capture::ebpf::witness::Losses;

/// Counts of all events that were shown.
#[derive(Debug, Default)]
pub(super) struct Summary {
    kinds: BTreeMap<&'static str, u64>,
    causes: BTreeMap<&'static str, u64>,
    functions: BTreeMap<&'static str, u64>,
    pub(super) losses: Losses,
}

impl Summary {
    /// Counts an event.
    pub(super) fn add(&mut self, told: &Told<'_>) {
        *self.kinds.entry(told.kind.name()).or_default() += 1;
        *self.functions.entry(told.place.function).or_default() += 1;
        if let Some(reason) = told.reason {
            *self.causes.entry(reason.name()).or_default() += 1;
        }
    }

    /// As text: a line for each number.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (title, counts) in self.parts().into_iter().filter(|(_, counts)| !counts.is_empty()) {
            let _ = writeln!(text, "{title}");
            for (name, count) in descending(&counts) {
                let _ = writeln!(text, "{count:>10} {name}");
            }
        }
        text.truncate(text.trim_end().len());
        text
    }

    /// As an object.
    pub(super) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("event".to_owned(), json!("summary"));
        for (title, counts) in self.parts() {
            object.insert(title.to_owned(), json!(counts));
        }
        Value::Object(object)
    }

    fn parts(&self) -> [(&'static str, BTreeMap<&'static str, u64>); 4] {
        [
            ("events", self.kinds.clone()),
            ("causes", self.causes.clone()),
            ("functions", self.functions.clone()),
            ("lost", named(&self.losses)),
        ]
    }
}

/// What was lost, by name; nothing of what was not.
pub(super) fn named(losses: &Losses) -> BTreeMap<&'static str, u64> {
    // Taken apart, so that nobody forgets a new field.
    let Losses { new, update, destroy, expect, refused, notices, missed, faults, malformed } =
        *losses;
    let all = [
        ("new", new),
        ("update", update),
        ("destroy", destroy),
        ("expect", expect),
        ("refused", refused),
        ("notices", notices),
        ("missed", missed),
        ("faults", faults),
        ("malformed", malformed),
    ];
    all.into_iter().filter(|(_, lost)| *lost > 0).collect()
}

fn descending<'a>(counts: &'a BTreeMap<&'static str, u64>) -> Vec<(&'a str, u64)> {
    let mut counts: Vec<_> = counts.iter().map(|(name, count)| (*name, *count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Example, sample};
    use super::*;
    use crate::event::{Cause, Kinds};
    use crate::verb::trace::kind::{Kind, Reason};
    use crate::verb::watch::tests::tcp;

    fn summary() -> Summary {
        let mut summary = Summary::default();
        let event = tcp(Kinds::NEW);
        let new = Example { function: "insert", ..Example::of(&event) };
        let reason = Some(Reason::End(Cause::Flushed));
        let end =
            Example { kind: Kind::Destroy, reason, function: "delete", ..Example::of(&event) };
        sample(&new, |told| summary.add(told));
        sample(&end, |told| summary.add(told));
        sample(&end, |told| summary.add(told));
        summary.losses.refused = 4;
        summary
    }

    #[test]
    fn the_most_frequent_comes_first() {
        assert_eq!(
            summary().text(),
            "events\n         2 destroy\n         1 new\ncauses\n         2 flushed\nfunctions\n         \
             2 delete\n         1 insert\nlost\n         4 refused"
        );
    }

    #[test]
    fn what_there_is_none_of_has_no_title() {
        assert_eq!(Summary::default().text(), "");
    }

    #[test]
    fn scripts_get_an_object() {
        assert_eq!(
            summary().object().to_string(),
            concat!(
                r#"{"event":"summary","events":{"destroy":2,"new":1},"causes":{"flushed":2},"#,
                r#""functions":{"delete":2,"insert":1},"lost":{"refused":4}}"#
            )
        );
    }
}
