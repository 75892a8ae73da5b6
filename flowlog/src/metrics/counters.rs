//! Counters of the daemon → metrics. The match is exhaustive, so that there is
//! no counter without one.

use super::family::Family;
use super::page::Page;
use crate::log;
use crate::stats::{Check, CheckKind, Counter, Instance, Measure, Readings};

/// The metric of a counter, and the values of its labels.
pub fn metric(counter: Counter) -> (Family, &'static [&'static str]) {
    match counter {
        Counter::NetlinkMessages => (Family::NetlinkMessages, &[]),
        Counter::NetlinkLost => (Family::CaptureLostEvents, &["netlink", "unknown"]),
        Counter::NetlinkOverruns => (Family::NetlinkOverruns, &[]),
        Counter::NetlinkMalformed => (Family::MalformedMessages, &["netlink"]),
        Counter::NetlinkIgnored => (Family::NetlinkIgnored, &[]),
        Counter::NetlinkDumps => (Family::TableDumps, &[]),
        Counter::NetlinkDumpErrors => (Family::TableDumpErrors, &[]),
        Counter::EbpfRecords => (Family::EbpfRecords, &[]),
        Counter::EbpfLostNew => (Family::CaptureLostEvents, &["ebpf", "new"]),
        Counter::EbpfLostUpdate => (Family::CaptureLostEvents, &["ebpf", "update"]),
        Counter::EbpfLostDestroy => (Family::CaptureLostEvents, &["ebpf", "destroy"]),
        Counter::EbpfLostExpect => (Family::CaptureLostEvents, &["ebpf", "expect"]),
        Counter::EbpfMissed => (Family::CaptureLostEvents, &["ebpf", "unknown"]),
        Counter::EbpfMalformed => (Family::MalformedMessages, &["ebpf"]),
        Counter::EbpfFaults => (Family::EbpfFaults, &[]),
        Counter::EbpfLostNotices => (Family::EbpfLostNotices, &[]),
        Counter::EbpfFilteredNetns => (Family::ExcludedEvents, &["ebpf", "netns"]),
        Counter::EbpfFilteredFlows => (Family::ExcludedEvents, &["ebpf", "filter"]),
        Counter::EbpfFilteredKinds => (Family::ExcludedEvents, &["ebpf", "kind"]),
        Counter::CrosscheckLost => (Family::CrosscheckLostEvents, &[]),
        Counter::CrosscheckElsewhere => (Family::CrosscheckElsewhereEvents, &[]),
        Counter::FlowsFiltered => (Family::ExcludedEvents, &["nfct", "filter"]),
        Counter::FlowsSelected => (Family::SelectedEvents, &[]),
        Counter::FlowsTableFull => (Family::RefusedFlows, &[]),
        Counter::FlowsVanished => (Family::VanishedFlows, &[]),
        Counter::FilterSelected => (Family::FilterEvaluations, &["selected"]),
        Counter::FilterRefused => (Family::FilterEvaluations, &["refused"]),
        Counter::FilterOverflows => (Family::FilterEvaluations, &["overflow"]),
        Counter::FilterDivisionsByZero => (Family::FilterEvaluations, &["division_by_zero"]),
    }
}

/// The metric of what a sink counts.
pub fn of_sink(measure: Measure) -> Family {
    match measure {
        Measure::Spooled => Family::SpooledRecords,
        Measure::Records => Family::WrittenRecords,
        Measure::Bytes => Family::WrittenBytes,
        Measure::Errors => Family::SinkErrors,
        Measure::Reconnects => Family::Reconnects,
        Measure::Repeated => Family::RepeatedRecords,
        Measure::Known => Family::DuplicateRecords,
        Measure::Lost => Family::SinkLostRecords,
        Measure::Dropped => Family::DroppedRecords,
        Measure::Refused => Family::RefusedRecords,
        Measure::Unsure => Family::UnsureRecords,
        Measure::Replaced => Family::ReplacedFiles,
        Measure::SetAside => Family::SetAsideFiles,
        Measure::LossReports => Family::SinkLossReports,
    }
}

/// The values of the labels that all metrics of a sink have; `stack` is its number as text.
pub fn labels<'a>(instance: &'a Instance, stack: &'a str) -> [&'a str; 4] {
    [&instance.source, stack, &instance.sink, instance.plugin.name()]
}

/// Adds every counter that is in use, and what the cross-check counts.
pub fn add(stats: &Readings, page: &mut Page) {
    for counter in Counter::ALL.into_iter().filter(|counter| stats.uses(*counter)) {
        let (family, labels) = metric(counter);
        page.add(family, labels, stats.get(counter));
    }
    for (instance, counted) in stats.sinks() {
        let stack = instance.stack.to_string();
        for measure in instance.plugin.measures() {
            page.add(of_sink(measure), &labels(&instance, &stack), counted.get(measure));
        }
    }
    page.add(Family::DroppedMessages, &[], log::dropped());
    if stats.uses_crosscheck() {
        for check in Check::ALL {
            for kind in CheckKind::ALL {
                let labels = [check.name(), kind.name()];
                page.add(Family::CrosscheckEvents, &labels, stats.check(check, kind));
            }
        }
        page.add_histogram(Family::CrosscheckLag, &stats.lag().buckets(), stats.lag().sum());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::*;
    use crate::stats::Stats;

    #[test]
    fn each_counter_has_a_sample_of_its_own() {
        let mut seen = HashSet::new();
        for counter in Counter::ALL {
            let (family, labels) = metric(counter);
            assert!(seen.insert((family as usize, labels)), "{}", counter.name());
            assert_eq!(labels.len(), family.definition().labels.len(), "{}", counter.name());
        }
    }

    #[test]
    fn what_is_not_in_use_is_not_shown() {
        let page = |stats: &Stats| {
            let mut page = Page::default();
            add(stats, &mut page);
            page.finish()
        };
        let stats = Stats::default();
        stats.add(Counter::EbpfLostNew, 4);
        stats.add(Counter::NetlinkLost, 2);
        stats.add_check(Check::Matched, CheckKind::New, 5);
        stats.add_lag(Duration::from_micros(1500));
        let alone = page(&stats);
        let lost = "flowlog_capture_lost_events_total{capture=";
        assert!(alone.contains(&format!("{lost}\"netlink\",kind=\"unknown\"}} 2\n")), "{alone}");
        assert!(!alone.contains("ebpf") && !alone.contains("crosscheck"), "{alone}");
        assert!(!alone.contains("json") && !alone.contains("syslog"), "{alone}");
        assert!(!alone.contains("flowlog_filter_evaluations"), "{alone}");
        assert!(alone.contains("flowlog_log_dropped_messages_total "), "{alone}");
        stats.use_ebpf();
        stats.use_crosscheck();
        stats.use_filter();
        let both = page(&stats);
        for line in [
            format!("{lost}\"ebpf\",kind=\"new\"}} 4\n"),
            "flowlog_crosscheck_events_total{check=\"matched\",kind=\"new\"} 5\n".to_owned(),
            "flowlog_crosscheck_lag_seconds_bucket{le=\"0.001\"} 0\n".to_owned(),
            "flowlog_crosscheck_lag_seconds_bucket{le=\"0.0025\"} 1\n".to_owned(),
            "flowlog_crosscheck_lag_seconds_bucket{le=\"+Inf\"} 1\n".to_owned(),
            "flowlog_crosscheck_lag_seconds_sum 0.0015\n".to_owned(),
            "flowlog_crosscheck_lag_seconds_count 1\n".to_owned(),
        ] {
            assert!(both.contains(&line), "no {line} in {both}");
        }
        let samples = both.lines().filter(|line| !line.starts_with('#'));
        let distinct: HashSet<_> = samples.clone().collect();
        assert_eq!(distinct.len(), samples.count());
        let lag = stats.lag().buckets().len() + 2;
        let checks = Check::ALL.len() * CheckKind::ALL.len();
        // And the messages that were dropped, which are no counter of these.
        assert_eq!(distinct.len(), Counter::ALL.len() + checks + lag + 1);
    }
}
