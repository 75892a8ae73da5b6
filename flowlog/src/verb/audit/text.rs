//! The report of an audit as text: a table of counts, what each source lost,
//! and a verdict in the last line.

use std::fmt::Write as _;

use crate::capture::crosscheck::{Due, Lag, LostEvent, Report};
use crate::flow::names::protocol;
use crate::stats::{Check, CheckKind};
use crate::verb::list::extended::address;

/// Lost events that are shown; `--json` has more of them.
const SHOWN: usize = 10;

/// Counts that are shown even if they are zero.
const ALWAYS: [Check; 4] = [Check::Ebpf, Check::Netlink, Check::Due, Check::Matched];

/// The report.
pub(super) fn report(report: &Report) -> String {
    let mut text = heading(report);
    text += &table(report);
    text += &explanations(report);
    text += &delivery(report);
    text += &elsewhere(report);
    if let Some(Lag { median, p99, max }) = report.lag {
        let _ = writeln!(
            text,
            "The second source was later by {median:?} in the middle, {p99:?} for 99 of 100, \
             {max:?} at most."
        );
    }
    text += &lost(report);
    text += &list("Lost by its own counters", report.losses());
    text += &list("Fields that differ", report.fields.iter().map(|(name, count)| (*name, *count)));
    text + &verdict(report) + "\n"
}

fn heading(report: &Report) -> String {
    let by = if report.paired { "entry and id" } else { "tuple and zone" };
    format!(
        "eBPF ({}) and netlink, compared for {:.1} s in network namespace {}, matched by \
         {by}.\n\n",
        report.method,
        report.lasted.as_secs_f64(),
        report.netns
    )
}

/// A row for each count that is not zero, a column for each kind.
fn table(report: &Report) -> String {
    let mut text = format!("{:<24}", "");
    for name in CheckKind::ALL.map(CheckKind::name).into_iter().chain(["sum"]) {
        let _ = write!(text, " {name:>10}");
    }
    text.push('\n');
    for check in shown(report) {
        let _ = write!(text, "{:<24}", check.name());
        for kind in CheckKind::ALL {
            match report.count(check, kind) {
                // Nobody calls ctnetlink for them.
                0 if check == Check::Due && kind == CheckKind::Expect => text += "          -",
                count => {
                    let _ = write!(text, " {count:>10}");
                }
            }
        }
        let _ = writeln!(text, " {:>10}", report.sum(check));
    }
    text + "\n"
}

fn shown(report: &Report) -> impl Iterator<Item = Check> + '_ {
    Check::ALL.into_iter().filter(|check| ALWAYS.contains(check) || report.sum(*check) > 0)
}

/// What the rows mean that are not always there.
fn explanations(report: &Report) -> String {
    let mut text = String::new();
    for check in shown(report) {
        if let Some(meaning) = meaning(check) {
            let _ = writeln!(text, "{}: {meaning}", check.name());
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn meaning(check: Check) -> Option<&'static str> {
    Some(match check {
        Check::Ebpf | Check::Netlink | Check::Due | Check::Matched => return None,
        Check::Differing => "told by both, but not the same",
        Check::OnlyEbpf => "told by eBPF only, although a netlink message was due",
        Check::OnlyEbpfUnexplained => "of these, what netlink's own loss counter does not explain",
        Check::OnlyNetlink => "told by netlink only",
        Check::OnlyNetlinkUnexplained => "of these, what eBPF's own loss counters do not explain",
        Check::Healed => "of these, what a daemon would have logged from netlink",
        Check::Silent => "told by eBPF only, as netlink by its nature tells nothing of it",
        Check::Redelivered => "told by netlink once more, as another listener had asked for it",
        Check::Unchecked => {
            "not compared: too many waited already, or a source was far behind; raise --max-pending"
        }
        Check::Boundary => "at the beginning or the end, where one source was not listened to",
        Check::Unseen => "told by neither; only its message was seen to be due",
        Check::UnseenUnexplained => "of these, what the loss counters of both do not explain",
    })
}

/// What netlink should have delivered of each group, and did not.
fn delivery(report: &Report) -> String {
    let Some(due) = report.due.get(&report.netns) else { return String::new() };
    let Due { new, update, destroy } = *due;
    let groups =
        [(CheckKind::New, new), (CheckKind::Update, update), (CheckKind::Destroy, destroy)];
    let groups = groups.map(|(kind, due)| {
        let lost = due.saturating_sub(report.count(Check::Netlink, kind));
        format!("{lost} of {due} {}", kind.name())
    });
    format!("Netlink lost {} messages.\n", groups.join(", "))
}

/// Namespaces that netlink was not listened to in.
fn elsewhere(report: &Report) -> String {
    let mut text = String::new();
    for (inum, Due { new, update, destroy }) in &report.due {
        if *inum != report.netns {
            let _ = writeln!(
                text,
                "Not checked: {new} new, {update} update, {destroy} destroy messages in network \
                 namespace {inum}."
            );
        }
    }
    text
}

/// The last events that were lost.
fn lost(report: &Report) -> String {
    let mut text = String::new();
    for LostEvent { by, kind, tuple, zone } in report.lost.iter().rev().take(SHOWN).rev() {
        let [src, dst] = [tuple.src, tuple.dst].map(|bytes| address(tuple.family, &bytes));
        let protocol = protocol(tuple.proto).map_or(tuple.proto.to_string(), str::to_owned);
        let _ = write!(text, "Lost by {}: {} of {protocol} ", by.name(), kind.name());
        let _ = write!(text, "{src} {} > {dst} {}", tuple.src_l4, tuple.dst_l4);
        let _ = if *zone == 0 { writeln!(text, ".") } else { writeln!(text, ", zone {zone}.") };
    }
    text
}

/// `TITLE: NAME N, NAME N.`, of what is not zero.
fn list(title: &str, counts: impl Iterator<Item = (&'static str, u64)>) -> String {
    let counts: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    format!("{title}: {counts}.\n")
}

fn verdict(report: &Report) -> String {
    match report.unexplained() {
        0 if report.sum(Check::Ebpf) + report.sum(Check::Netlink) == 0 => {
            "nothing unexplained, as nothing happened: make connections meanwhile, and see with \
             `flowlog check` that the kernel tracks them"
                .to_owned()
        }
        0 => "nothing unexplained".to_owned(),
        count => format!(
            "{count} finding{} unexplained; look at differing and …_unexplained above, compare \
             again with a larger --window-ms, and report what stays, with the output of --json",
            if count == 1 { "" } else { "s" }
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{made_up, nothing};
    use super::*;

    #[test]
    fn the_report_tells_all_that_is_not_zero() {
        let expected = "\
eBPF (kprobe) and netlink, compared for 30.0 s in network namespace 4026531840, matched by entry \
and id.

                                new     update    destroy     expect        sum
ebpf                           1200         21         85          1       1307
netlink                        1200         20         80          0       1300
due                            1204         25         83          -       1312
matched                        1200         10         80          0       1290
differing                         1          0          0          0          1
only_ebpf                         0          0          5          0          5
only_ebpf_unexplained             0          0          2          0          2
only_netlink                      0         10          0          0         10
silent                            0          0          0          1          1

differing: told by both, but not the same
only_ebpf: told by eBPF only, although a netlink message was due
only_ebpf_unexplained: of these, what netlink's own loss counter does not explain
only_netlink: told by netlink only
silent: told by eBPF only, as netlink by its nature tells nothing of it

Netlink lost 4 of 1204 new, 5 of 25 update, 3 of 83 destroy messages.
Not checked: 5 new, 0 update, 4 destroy messages in network namespace 4026532210.
The second source was later by 12µs in the middle, 1.5ms for 99 of 100, 80ms at most.
Lost by netlink: destroy of udp 10.0.0.1 5 > 10.0.0.2 53, zone 7.
Lost by its own counters: netlink.lost 12.
Fields that differ: status 1.
3 findings unexplained; look at differing and …_unexplained above, compare again with a larger \
--window-ms, and report what stays, with the output of --json
";
        assert_eq!(report(&made_up()), expected);
    }

    #[test]
    fn nothing_is_said_of_what_is_zero() {
        let text = report(&nothing());
        assert_eq!(text.lines().filter(|line| line.starts_with("only_")).count(), 0, "{text}");
        assert!(text.contains("matched by tuple and zone.\n"), "{text}");
        assert!(text.contains("\nmatched                           0"), "{text}");
        assert!(text.contains("Lost by its own counters: none.\nFields that differ: none.\n"));
        assert!(text.lines().last().unwrap().starts_with("nothing unexplained, as nothing"));
    }

    #[test]
    fn the_last_line_is_the_verdict() {
        let seen = nothing();
        seen.stats.add_check(Check::Ebpf, CheckKind::New, 1);
        assert!(report(&seen).ends_with("\nnothing unexplained\n"));
        seen.stats.add_check(Check::OnlyNetlinkUnexplained, CheckKind::New, 1);
        assert!(report(&seen).lines().last().unwrap().starts_with("1 finding unexplained; "));
    }

    #[test]
    fn every_count_is_shown_and_has_a_meaning() {
        let all = nothing();
        for check in Check::ALL {
            all.stats.add_check(check, CheckKind::Expect, 7);
        }
        let text = report(&all);
        for check in Check::ALL {
            let row = |line: &&str| line.split(' ').next() == Some(check.name());
            assert!(text.lines().find(row).unwrap().ends_with(" 7"), "{}", check.name());
            assert!(ALWAYS.contains(&check) || meaning(check).is_some(), "{}", check.name());
        }
    }
}
