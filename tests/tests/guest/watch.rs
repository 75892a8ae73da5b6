//! `flowlog watch` by eBPF: all namespaces by name, why flows end and who ends them, and what is
//! lost.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::burst::udp_burst;
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset};
use tests::namespace::Namespace;
use tests::process::Guarded;
use tests::traffic;
use tests::watch::{Conntrack, Watch};

use super::by_ebpf;

const FLOWS: u32 = 20;

fn ends(lines: &[String], words: &str) -> usize {
    lines.iter().filter(|line| line.contains(words)).count()
}

/// Runs `conntrack` in a namespace, and tells which process that was.
pub(crate) fn conntrack(namespace: &Namespace, args: &[&str]) -> Result<i32> {
    let mut command = namespace.command("conntrack");
    let mut process =
        Guarded::spawn(command.args(args).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let code = process.wait()?;
    ensure!(code == Some(0), "conntrack {args:?} ended with {code:?}");
    Ok(process.pid())
}

/// `netns=INODE(NAME)`
fn named(single: &SingleNs) -> Result<String> {
    let namespace = single.namespace();
    Ok(format!("netns={}({})", namespace.inode()?, namespace.name()))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn all_namespaces_causes_and_processes() -> Result<()> {
    by_ebpf(|| {
        // Nobody listens where the flows are; the second of them is new to the watch.
        let elsewhere = Namespace::new("elsewhere")?;
        let first = SingleNs::new()?;
        let watch = Watch::start(&elsewhere, "--capture ebpf")?;
        let second = SingleNs::new()?;
        for single in [&first, &second] {
            udp_burst(single, 4000, 0, FLOWS)?;
        }
        let deleter =
            conntrack(first.namespace(), &["-D", "-p", "udp", "--orig-port-src", "4000"])?;
        let flusher = conntrack(second.namespace(), &["-F"])?;
        let places = [named(&first)?, named(&second)?];
        watch
            .wait_lines("the ends", |lines| ends(lines, "[DESTROY] udp ") >= 2 * FLOWS as usize)?;
        let watched = watch.end(Signal::SIGINT)?;
        for (place, cause, pid) in
            [(&places[0], "deleted", deleter), (&places[1], "flushed", flusher)]
        {
            let begun = watched.with(&["[NEW]     udp  198.18.0.1:4000 → ", place]);
            ensure!(begun.len() == FLOWS as usize, "{place}: {watched:#?}");
            let why = format!(" cause={cause} pid={pid} comm=conntrack {place}");
            let ended = watched.with(&["[DESTROY] udp  198.18.0.1:4000 → ", " duration=", &why]);
            ensure!(ended.len() == FLOWS as usize, "{why}: {watched:#?}");
        }
        ensure!(watched.summary()?[2] == 0, "{}", watched.stderr);
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn only_what_is_wanted() -> Result<()> {
    by_ebpf(|| {
        let (here, other) = (SingleNs::new()?, SingleNs::new()?);
        let own = format!("--netns {} --attach kprobe -o json", here.namespace().name());
        let by_cause = Watch::start(here.namespace(), &format!("{own} --cause flushed,reset"))?;
        let by_port = Watch::start(
            other.namespace(),
            &format!("{own} --event new --port 4001 --count {FLOWS}"),
        )?;
        for port in [4000, 4001] {
            udp_burst(&here, port, 0, FLOWS + 1)?;
        }
        udp_burst(&other, 4001, 0, FLOWS)?;
        conntrack(here.namespace(), &["-D", "-p", "udp", "--orig-port-src", "4000"])?;
        conntrack(here.namespace(), &["-F"])?;
        conntrack(other.namespace(), &["-F"])?;
        let inode = here.namespace().inode()?;
        // It has ended by itself.
        let watched = by_port.wait()?;
        ensure!(watched.lines.len() == FLOWS as usize, "{watched:#?}");
        by_cause.wait_lines("the ends", |lines| lines.len() > FLOWS as usize)?;
        let by_cause = by_cause.end(Signal::SIGTERM)?;
        ensure!(by_cause.lines.len() == FLOWS as usize + 1, "{by_cause:#?}");
        // What was deleted is filtered here, all of the other namespace by the programs.
        ensure!(by_cause.summary()?[1] > u64::from(FLOWS), "{}", by_cause.stderr);
        for (watched, name) in [(&watched, "new"), (&by_cause, "destroy")] {
            for line in &watched.lines {
                let event: Value = serde_json::from_str(line).context(line.clone())?;
                let right = event["event"] == name
                    && event["netns"] == inode
                    && event["netns_name"] == here.namespace().name()
                    && event["orig"]["sport"] == 4001;
                ensure!(right && (name == "new" || event["cause"] == "flushed"), "{line}");
            }
        }
        Ok(())
    })
}

/// What conntrack shows of the router, eBPF shows in the same words: also by which socket the ends
/// were asked for. The name of the process is known even if it has gone, and conntrack may be too
/// late for that. Only the time that a deleted flow had left is not known.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn as_conntrack_shows_them() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        lab.set_flow_timeout(1000)?;
        let args = "--capture ebpf --netns self -o extended --event new,update,destroy";
        let watch = Watch::start(lab.router(), args)?;
        let conntrack = Conntrack::start(lab.router())?;
        let flows = traffic::mix(&lab, 45_000)?;
        lab.router().flush_conntrack()?;
        let complete = |lines: &[String]| ends(lines, "[DESTROY]") >= flows.len();
        watch.wait_lines("the ends", complete)?;
        let theirs = conntrack.end(complete)?;
        let ours = watch.end(Signal::SIGTERM)?;
        let netns = format!("netns={}({})]", lab.router().inode()?, lab.router().name());
        let stranger = ours.lines.iter().find(|line| !line.ends_with(&netns));
        ensure!(stranger.is_none(), "not {netns}: {stranger:?}");
        let bare = |line: &String| {
            let line = line.split(" [cause=").next().unwrap_or_default();
            without_timeout(line.split(" [netns=").next().unwrap_or_default())
        };
        let named = ends(&ours.lines, " [USERSPACE] portid=");
        ensure!(named == ends(&ours.lines, " progname=conntrack [cause=flushed "), "{ours:#?}");
        let theirs = multiset(theirs.iter().map(|line| without_timeout(line)));
        ensure!(theirs.keys().any(|line| line.contains(" [USERSPACE] portid=")), "{theirs:#?}");
        ensure_equal("conntrack -E", &theirs, &multiset(ours.lines.iter().map(bare)))
    })
}

/// The time left is looked at twice, and may be cut to seconds differently.
fn without_timeout(line: &str) -> String {
    let line = line.split(" progname=").next().unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    // Tag, family and its number, protocol and its number.
    let timeout = words.get(5).is_some_and(|word| word.parse::<u32>().is_ok());
    let rest = &words[words.len().min(if timeout { 6 } else { 5 })..];
    [&words[..words.len().min(5)], rest].concat().join(" ")
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_is_lost_is_told() -> Result<()> {
    const MANY: u32 = 2000;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let args = "--capture ebpf --netns self --event new --ring-buffer-size 65536";
        let watch = Watch::start(single.namespace(), args)?;
        watch.process.freeze()?;
        udp_burst(&single, 4000, 0, MANY)?;
        watch.process.thaw()?;
        watch.wait_lines("a loss", |lines| ends(lines, "[LOST]") > 0)?;
        let watched = watch.end(Signal::SIGTERM)?;
        let [shown, _, lost] = watched.summary()?;
        ensure!(lost > 0 && lost == watched.lost(), "{lost} lost: {watched:#?}");
        ensure!(shown + lost == u64::from(MANY), "{shown} shown, {lost} lost, {MANY} made");
        Ok(())
    })
}

/// Both are listened to, and what they tell is shown once.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_both() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let watch = Watch::start(single.namespace(), "--capture both --event new,destroy")?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        conntrack(single.namespace(), &["-F"])?;
        watch.wait_lines("the ends", |lines| ends(lines, "[DESTROY]") >= FLOWS as usize)?;
        let watched = watch.end(Signal::SIGINT)?;
        let right = ["[NEW]", "[DESTROY]"].map(|tag| ends(&watched.lines, tag) as u32);
        ensure!(right == [FLOWS, FLOWS] && ends(&watched.lines, "healed") == 0, "{watched:#?}");
        Ok(())
    })
}
