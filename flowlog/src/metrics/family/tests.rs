use std::collections::HashSet;

use super::*;

const MANUAL: &str = include_str!("../../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../../conf/grafana-dashboard.json");
const RULES: &str = include_str!("../../../../conf/prometheus-rules.yml");
const RULE_TESTS: &str = include_str!("../../../../tests/data/prometheus-rules.test.yml");

/// What names of metrics begin with.
const PREFIXES: [&str; 2] = ["flowlog_", "process_"];

#[test]
fn names_are_as_prometheus_wants_them() {
    let mut seen = HashSet::new();
    for Definition { name, kind, labels, help } in DEFINITIONS {
        assert!(seen.insert(name), "{name} twice");
        let good = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(PREFIXES.iter().any(|prefix| name.starts_with(prefix)) && good(name), "{name}");
        assert!(labels.iter().all(|label| good(label)), "{name}: {labels:?}");
        assert_eq!(name.ends_with("_total"), kind == Type::Counter, "{name}");
        assert!(help.ends_with('.') && !help.contains(['|', '\n', '\\']), "{name}: {help}");
        // The page writes histograms without labels.
        assert!(kind != Type::Histogram || labels.is_empty(), "{name}");
    }
}

/// What looks like a metric.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| {
        let is = |prefix: &&str| word.starts_with(*prefix) && word.len() > prefix.len();
        PREFIXES.iter().any(is)
    })
}

/// The metric of a sample.
fn find(name: &str) -> Option<&'static Definition> {
    const ALL: &[Definition] = &DEFINITIONS;
    ALL.iter().find(|Definition { name: family, kind, .. }| match kind {
        Type::Histogram => {
            let suffix = name.strip_prefix(family);
            suffix.is_some_and(|s| s.is_empty() || Type::SUFFIXES.contains(&s))
        }
        Type::Counter | Type::Gauge => name == *family,
    })
}

/// Rows of the tables in docs/metrics.md: name, type, labels, meaning.
#[test]
fn the_manual_has_each_metric_as_it_is() {
    let is_row = |line: &&str| {
        PREFIXES.iter().any(|prefix| line.starts_with(&format!("| `{prefix}")))
            && line.split('|').count() == 6
    };
    let rows: Vec<&str> = MANUAL.lines().filter(is_row).collect();
    let expected: Vec<String> = DEFINITIONS
        .iter()
        .map(|Definition { name, kind, labels, help }| {
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
    assert_eq!(names(MANUAL).find(|name| find(name).is_none()), None);
}

/// The part of the manual below a heading.
fn section(heading: &str) -> &'static str {
    let (_, behind) = MANUAL.split_once(&format!("\n## {heading}\n")).unwrap();
    behind.split("\n## ").next().unwrap()
}

/// First cells of the rows of a table.
fn first_cells(text: &str) -> Vec<&str> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    cells.collect()
}

/// A query of the dashboard and, for a panel, its legend.
fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut queries);
    assert!(queries.len() > 30, "{queries:?}");
    queries
}

fn collect(value: &serde_json::Value, queries: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for key in ["expr", "query"] {
                if let Some(text) = map.get(key).and_then(serde_json::Value::as_str)
                    && text != "prometheus"
                {
                    let legend = map.get("legendFormat").and_then(serde_json::Value::as_str);
                    queries.push((text.to_owned(), legend.unwrap_or_default().to_owned()));
                }
            }
            map.values().for_each(|value| collect(value, queries));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| collect(v, queries)),
        _ => {}
    }
}

/// The dashboard asks for nothing that does not exist, and its legends name no other labels.
#[test]
fn the_dashboard_knows_only_these() {
    for (query, legend) in queries() {
        assert!(names(&query).count() > 0, "{query}");
        let mut labels = vec!["instance", "le"];
        for name in names(&query) {
            let definition = find(name).unwrap_or_else(|| panic!("{name} in {query}"));
            labels.extend(definition.labels);
        }
        for part in legend.split("{{").skip(1) {
            let label = part.split("}}").next().unwrap();
            assert!(labels.contains(&label), "no label {label} in {query}");
        }
    }
}

/// Each metric is on the dashboard, or the manual says why not; none is both.
#[test]
fn each_metric_is_on_the_dashboard_or_named_as_not_shown() {
    let queries = queries();
    let used: HashSet<_> = queries.iter().flat_map(|(query, _)| names(query)).collect();
    let used: HashSet<_> = used.into_iter().map(|name| find(name).unwrap().name).collect();
    let hidden = first_cells(section("Not on the dashboard"));
    for Definition { name, .. } in DEFINITIONS {
        let (shown, hidden) = (used.contains(name), hidden.contains(&name));
        assert!(shown != hidden, "{name}: on the dashboard {shown}, named as not shown {hidden}");
    }
}

/// The alerts of a file of rules or of tests: what stands behind `key`.
fn alerts<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

/// Rules, manual and tests have the same alerts, and each rule has what an operator needs.
#[test]
fn each_alert_is_explained_and_tested() {
    let rules = alerts(RULES, "- alert:");
    assert!(rules.len() > 12, "{rules:?}");
    assert_eq!(rules, first_cells(section("Alerts")), "rules and docs/metrics.md");
    let tested: HashSet<_> = alerts(RULE_TESTS, "- name:").into_iter().collect();
    for rule in &rules {
        assert!(tested.contains(rule), "tests/data/prometheus-rules.test.yml lacks {rule}");
    }
    for text in RULES.split("- alert:").skip(1) {
        for key in ["expr:", "severity:", "summary:", "description:"] {
            assert_eq!(text.matches(key).count(), 1, "{key} of {text}");
        }
    }
}

/// `increase()` does not see what was counted before the first scrape: such rules see it by a second
/// condition.
#[test]
fn rules_see_what_was_counted_before_the_first_scrape() {
    let mut counted = 0;
    for expression in alerts(RULES, "expr:") {
        let Some((_, rest)) = expression.split_once("increase(") else { continue };
        let (series, rest) = rest.split_once('[').unwrap();
        let (window, _) = rest.split_once(']').unwrap();
        let wanted = format!(
            "increase({series}[{window}]) > 0 or \
             {series} > (last_over_time({series}[1d] offset {window}) or {series} * 0)"
        );
        assert_eq!(expression, wanted);
        counted += 1;
    }
    assert!(counted > 10, "{counted}");
}

/// Rules ask for nothing that does not exist: no name, and no label in their words.
#[test]
fn rules_know_only_these() {
    for rule in RULES.split("- alert:").skip(1) {
        let expression = rule.lines().find_map(|line| line.trim().strip_prefix("expr:")).unwrap();
        let mut labels = vec!["instance", "job"];
        for name in names(expression) {
            let definition = find(name).unwrap_or_else(|| panic!("{name} in {expression}"));
            labels.extend(definition.labels);
        }
        for part in rule.split("$labels.").skip(1) {
            let label: String =
                part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            assert!(labels.contains(&label.as_str()), "no label {label} in {rule}");
        }
    }
    assert_eq!(names(RULES).find(|name| find(name).is_none()), None);
}

/// What is a loss has a rule that asks for it.
#[test]
fn each_loss_has_an_alert() {
    use crate::metrics::counters::of_sink;
    use crate::stats::Measure;

    let asked: HashSet<_> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr:"))
        .flat_map(names)
        .collect();
    let sinks = Measure::WARNED.into_iter().chain([Measure::Replaced, Measure::SetAside]);
    for family in sinks.map(of_sink).chain([
        Family::LostEvents,
        Family::MalformedMessages,
        Family::RefusedFlows,
        Family::Health,
        Family::SinkFailing,
        Family::SinkStalled,
    ]) {
        let name = family.definition().name;
        assert!(asked.contains(name), "no alert asks for {name}");
    }
}
