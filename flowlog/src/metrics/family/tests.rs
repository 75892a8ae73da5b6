use std::collections::HashSet;

use super::*;

#[test]
fn names_are_as_prometheus_wants_them() {
    let mut seen = HashSet::new();
    for Definition { name, kind, labels, help, .. } in DEFINITIONS {
        assert!(seen.insert(name), "{name} twice");
        let good = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(name.starts_with("flowlog_") && good(name), "{name}");
        assert!(labels.iter().all(|label| good(label)), "{name}: {labels:?}");
        assert_eq!(name.ends_with("_total"), kind == Type::Counter, "{name}");
        assert!(help.ends_with('.') && !help.contains(['|', '\n', '\\']), "{name}: {help}");
    }
}

/// What looks like a metric.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("flowlog_"))
}

fn exists(name: &str) -> bool {
    DEFINITIONS.iter().any(|definition| definition.name == name)
}

/// Rows of the tables in docs/metrics.md: name, type, labels, meaning.
#[test]
fn the_manual_has_each_metric_as_it_is() {
    let manual = include_str!("../../../../docs/metrics.md");
    let is_row = |line: &&str| line.starts_with("| `flowlog_") && line.split('|').count() == 6;
    let rows: Vec<&str> = manual.lines().filter(is_row).collect();
    let expected: Vec<String> = DEFINITIONS
        .iter()
        .map(|Definition { name, kind, labels, help, .. }| {
            let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            format!("| `{name}` | {} | {labels} | {help} |", kind.name())
        })
        .collect();
    let text = expected.join("\n");
    for row in &expected {
        assert!(rows.contains(&row.as_str()), "no row\n{row}\nin docs/metrics.md; all:\n{text}");
    }
    assert_eq!(rows.len(), expected.len(), "docs/metrics.md has rows of no metric");
    assert_eq!(names(manual).find(|name| !exists(name)), None);
}

/// The dashboard asks for nothing that does not exist.
#[test]
fn the_dashboard_knows_only_these() {
    let text = include_str!("../../../../conf/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut expressions = Vec::new();
    collect(&dashboard, &mut expressions);
    assert!(expressions.len() > 8, "{expressions:?}");
    let mut used = HashSet::new();
    for expression in &expressions {
        assert!(names(expression).count() > 0, "{expression}");
        for name in names(expression) {
            assert!(exists(name), "{name} in {expression}");
            used.insert(name.to_owned());
        }
    }
    for needed in ["flowlog_events_total", "flowlog_lost_events_total", "flowlog_sink_buffer_bytes"]
    {
        assert!(used.contains(needed), "{needed} is not shown");
    }
}

fn collect(value: &serde_json::Value, expressions: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => map.iter().for_each(|(key, value)| match value {
            serde_json::Value::String(text) if matches!(key.as_str(), "expr" | "query") => {
                if text.contains("flowlog") {
                    expressions.push(text.clone());
                }
            }
            _ => collect(value, expressions),
        }),
        serde_json::Value::Array(list) => list.iter().for_each(|v| collect(v, expressions)),
        _ => {}
    }
}
