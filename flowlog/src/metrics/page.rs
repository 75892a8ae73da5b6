//! The page in Prometheus's text format, version 0.0.4: samples of a family
//! stand together behind its HELP and TYPE, whatever the order of adding.

use std::fmt::{Display, Write as _};

use super::family::{DEFINITIONS, Family};
use crate::stats::Bucket;

/// What the page is, for whoever gets it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page in the making.
#[derive(Debug)]
pub struct Page([String; DEFINITIONS.len()]);

impl Default for Page {
    fn default() -> Self {
        Self([const { String::new() }; DEFINITIONS.len()])
    }
}

impl Page {
    /// Adds a sample; `labels` are the values of the family's labels, in their
    /// order.
    pub fn add(&mut self, family: Family, labels: &[&str], value: impl Display) {
        let definition = family.definition();
        debug_assert_eq!(labels.len(), definition.labels.len(), "{}", definition.name);
        let text = &mut self.0[family as usize];
        text.push_str(definition.name);
        for (place, (name, value)) in definition.labels.iter().zip(labels).enumerate() {
            text.push(if place == 0 { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            escape(value, text);
            text.push('"');
        }
        if !definition.labels.is_empty() {
            text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(text, " {value}");
    }

    /// Adds a histogram, whose family has no labels.
    pub fn add_histogram(&mut self, family: Family, buckets: &[Bucket], sum: f64) {
        let name = family.definition().name;
        let text = &mut self.0[family as usize];
        // Writing to a string cannot fail.
        for Bucket { bound, count } in buckets {
            let bound = bound.map_or("+Inf".to_owned(), |bound| bound.to_string());
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let all = buckets.last().map_or(0, |last| last.count);
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {all}");
    }

    /// The whole page.
    pub fn finish(self) -> String {
        let mut page = String::with_capacity(16 << 10);
        for (definition, samples) in DEFINITIONS.iter().zip(&self.0) {
            if samples.is_empty() {
                continue;
            }
            let (name, kind) = (definition.name, definition.kind.name());
            let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} {kind}", definition.help);
            page.push_str(samples);
        }
        page
    }
}

fn escape(value: &str, text: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_stands_together_behind_its_help() {
        let mut page = Page::default();
        page.add(Family::LiveFlows, &["ct1"], 3);
        page.add(Family::FilterEvaluations, &["refused"], 7);
        page.add(Family::LiveFlows, &["ct2"], 4);
        let expected = "\
            # HELP flowlog_filter_evaluations_total Evaluations of a FILTER: selected and refused events, \
            and those passed on without a result.\n\
            # TYPE flowlog_filter_evaluations_total counter\n\
            flowlog_filter_evaluations_total{result=\"refused\"} 7\n\
            # HELP flowlog_live_flows Flows that are kept, with hash_enable=1.\n\
            # TYPE flowlog_live_flows gauge\n\
            flowlog_live_flows{source=\"ct1\"} 3\n\
            flowlog_live_flows{source=\"ct2\"} 4\n";
        assert_eq!(page.finish(), expected);
        assert_eq!(Page::default().finish(), "");
    }

    #[test]
    fn values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.add(Family::BufferBytes, &["a\"b", "1", "/x\\y\nz ä", "json"], 1);
        let line = "flowlog_sink_buffer_bytes{source=\"a\\\"b\",stack=\"1\",sink=\"/x\\\\y\\nz ä\",\
                    plugin=\"json\"} 1\n";
        assert!(page.finish().ends_with(line));
    }

    #[test]
    fn seconds_are_no_floats_in_disguise() {
        let mut page = Page::default();
        page.add(Family::ProcessCpu, &[], 0.000_012);
        page.add(Family::ProcessStartTime, &[], 1_700_000_000.25);
        let page = page.finish();
        assert!(page.contains("process_cpu_seconds_total 0.000012\n"), "{page}");
        assert!(page.contains("process_start_time_seconds 1700000000.25\n"), "{page}");
    }
}
