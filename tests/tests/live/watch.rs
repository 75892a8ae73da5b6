//! `flowlog watch` over netlink: what it shows of known traffic, beside `conntrack -E`, to slow
//! readers and to none.

use std::io::pipe;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::burst::udp_burst;
use tests::daemon::Program;
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset};
use tests::packet::protocol;
use tests::traffic::{self, Flow};
use tests::watch::{Conntrack, Watch};

/// A buffer in which no test's events are lost.
const ROOMY: &str = "--capture netlink --netlink-buffer-size 8388608";
/// One that holds some hundred events.
const TINY: &str = "--capture netlink --netlink-buffer-size 65536";

fn ends(lines: &[String], tag: &str) -> usize {
    lines.iter().filter(|line| line.contains(tag)).count()
}

/// `SOURCE → DESTINATION` of a flow with ports.
fn ports(flow: &Flow) -> Option<String> {
    let [tcp, udp] = [protocol::TCP, protocol::UDP].map(|number| flow.orig.protocol == number);
    let end = |address, port| std::net::SocketAddr::new(address, port);
    let (source, destination) = flow.orig.detail;
    (tcp || udp).then(|| {
        let (from, to) = (end(flow.orig.source, source), end(flow.orig.destination, destination));
        format!("{}  {from} → {to} ", if tcp { "tcp" } else { "udp" })
    })
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_flow_has_its_lines() -> Result<()> {
    let lab = Lab::new()?;
    let watch = Watch::start(lab.router(), ROOMY)?;
    let flows = traffic::mix(&lab, 41_000)?;
    lab.router().expire_conntrack()?;
    watch.wait_lines("the ends", |lines| ends(lines, "[DESTROY]") >= flows.len())?;
    let watched = watch.end(Signal::SIGINT)?;
    for flow in flows.iter().filter(|flow| ports(flow).is_some()) {
        let words = ports(flow).unwrap_or_default();
        for tag in ["[NEW]     ", "[DESTROY] "] {
            let lines = watched.with(&[tag, &words]);
            ensure!(lines.len() == 1, "{} × {tag}{words}: {:#?}", lines.len(), watched.lines);
            let masqueraded = flow.reply.destination != flow.orig.source;
            let redirected = flow.reply.source != flow.orig.destination;
            ensure!(lines[0].contains(" snat=") == masqueraded, "{}", lines[0]);
            ensure!(lines[0].contains(" dnat=10.77.2.2:9000") == redirected, "{}", lines[0]);
            let ended = lines[0].contains(" packets=") && lines[0].contains(" duration=");
            ensure!(ended == tag.contains("DESTROY"), "{}", lines[0]);
        }
    }
    ensure!(watched.with(&["[UPDATE]  tcp ", " ESTABLISHED"]).len() > 2, "{:#?}", watched.lines);
    let pings = watched.with(&["[NEW]     icmp 10.77.1.2 → 10.77.2.2 type=8 code=5 id="]);
    ensure!(pings.len() == 1 && !pings[0].contains("nat="), "{pings:?}");
    let expected = watched.with(&["[EXPECT]  tcp  10.77.1.2:* → ", ":21 ", "helper=ftp"]);
    ensure!(!expected.is_empty(), "no expectation: {:#?}", watched.lines);
    // Nothing that netlink does not know; and the words about that are said once.
    ensure!(watched.with(&["cause="]).len() + watched.with(&["netns="]).len() == 0);
    ensure!(watched.stderr.matches("netlink tells no causes").count() == 1, "{}", watched.stderr);
    ensure!(watched.summary()? == [watched.lines.len() as u64, 0, 0], "{}", watched.stderr);
    Ok(())
}

/// The same events in the same words; conntrack knows who asked for an end, which is told by eBPF
/// here only, and flowlog knows how long a flow was.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn as_conntrack_shows_them() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    let watch =
        Watch::start(lab.router(), &format!("{ROOMY} -o extended --event new,update,destroy"))?;
    let conntrack = Conntrack::start(lab.router())?;
    let flows = traffic::mix(&lab, 42_000)?;
    lab.router().flush_conntrack()?;
    let complete = |lines: &[String]| ends(lines, "[DESTROY]") >= flows.len();
    watch.wait_lines("the ends", complete)?;
    let theirs = conntrack.end(complete)?;
    let ours = watch.end(Signal::SIGTERM)?;
    let before = |line: &String, words| line.split(words).next().unwrap_or_default().to_owned();
    let theirs = multiset(theirs.iter().map(|line| before(line, " [USERSPACE]")));
    let bare = multiset(ours.lines.iter().map(|line| before(line, " [duration=")));
    ensure!(theirs.keys().any(|line| line.contains(" zone=7")), "no zone: {theirs:#?}");
    ensure!(theirs.keys().any(|line| line.contains(" mark=42")), "no mark: {theirs:#?}");
    ensure_equal("conntrack -E", &theirs, &bare)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn as_json() -> Result<()> {
    let lab = Lab::new()?;
    let watch = Watch::start(lab.router(), &format!("{ROOMY} -o json --proto udp,tcp"))?;
    let flows = traffic::mix(&lab, 43_000)?;
    let flows: Vec<_> = flows.iter().filter(|flow| ports(flow).is_some()).collect();
    lab.router().flush_conntrack()?;
    watch.wait_lines("the ends", |lines| ends(lines, r#""destroy""#) >= flows.len())?;
    let watched = watch.end(Signal::SIGINT)?;
    let parse = |line: &String| serde_json::from_str(line).with_context(|| line.clone());
    let events: Vec<Value> = watched.lines.iter().map(parse).collect::<Result<_>>()?;
    let named = |name| events.iter().filter(|event| event["event"] == name).collect::<Vec<_>>();
    for name in ["new", "destroy"] {
        let found = named(name);
        let found = found.iter().map(|event| {
            let orig = &event["orig"];
            let text = |key: &str| orig[key].as_str().unwrap_or_default();
            format!("{} {} {} {}", text("src"), orig["sport"], text("dst"), orig["dport"])
        });
        let expected = flows.iter().map(|flow| {
            let (source, destination) = flow.orig.detail;
            format!("{} {source} {} {destination}", flow.orig.source, flow.orig.destination)
        });
        ensure_equal(name, &multiset(expected), &multiset(found))?;
    }
    for event in named("destroy") {
        let whole = event["duration"].is_u64() && event["orig"]["packets"].is_u64();
        ensure!(whole && event["start"].is_string(), "{event}");
    }
    ensure!(named("expect").iter().any(|event| event["helper"] == "ftp"), "{events:#?}");
    Ok(())
}

/// Two ends of many events; then it ends by itself.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn only_what_is_wanted() -> Result<()> {
    let lab = Lab::new()?;
    let filter = "--event new --port 9,21 --src 10.77.1.0/24 --dst 10.77.2.2 --proto udp,tcp";
    let until = Watch::start(lab.router(), &format!("{ROOMY} {filter} --count 2 --color always"))?;
    let watch = Watch::start(lab.router(), &format!("{ROOMY} {filter}"))?;
    traffic::mix(&lab, 44_000)?;
    let watched = until.wait()?;
    ensure!(watched.lines.len() == 2 && watched.summary()?[0] == 2, "{watched:#?}");
    ensure!(watched.with(&["\x1b[32m[NEW]    \x1b[0m "]).len() == 2, "{watched:#?}");
    watch.wait_lines("FTP", |lines| lines.iter().any(|line| line.contains(":21 ")))?;
    let watched = watch.end(Signal::SIGINT)?;
    let right = |line: &&String| {
        line.contains("10.77.2.2:9 ") || line.contains("10.77.2.2:21 ") && !line.contains('\x1b')
    };
    // Port 9 is asked over UDP and TCP.
    let stranger = watched.lines.iter().find(|line| !right(line));
    ensure!(stranger.is_none() && watched.lines.len() == 3, "{watched:#?}");
    ensure!(watched.summary()?[1] > 0, "nothing was filtered here: {}", watched.stderr);
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_is_lost_is_told() -> Result<()> {
    const FLOWS: u32 = 3000;
    let single = SingleNs::new()?;
    let watch = Watch::start(single.namespace(), &format!("{TINY} --event new"))?;
    watch.process.freeze()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    watch.process.thaw()?;
    watch.wait_lines("a loss", |lines| ends(lines, "[LOST]") > 0)?;
    let watched = watch.end(Signal::SIGTERM)?;
    let [shown, filtered, lost] = watched.summary()?;
    ensure!(lost > 0 && lost == watched.lost() && filtered == 0, "{watched:#?}");
    ensure!(shown + lost == u64::from(FLOWS), "{shown} shown, {lost} lost, {FLOWS} made");
    ensure!(watched.with(&["[NEW]"]).len() as u64 == shown, "{shown} shown");
    Ok(())
}

/// A reader that stands still makes it lose events, not grow or hang.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_reader_that_stands_still() -> Result<()> {
    const FLOWS: u32 = 20_000;
    let single = SingleNs::new()?;
    let (reader, writer) = pipe()?;
    let args = format!("{TINY} --event new");
    let watch = Watch::start_on(single.namespace(), &args, Stdio::from(writer))?;
    let before = watch.process.memory()?;
    for round in 0..4 {
        udp_burst(&single, 4000, round * FLOWS / 4, FLOWS / 4)?;
    }
    let after = watch.process.peak_memory()?;
    ensure!(after < before + 8192, "{before} KiB before, {after} KiB after");
    let watched = watch.end(Signal::SIGINT)?;
    drop(reader);
    let [shown, _, lost] = watched.summary()?;
    ensure!(lost > u64::from(FLOWS / 2), "{}", watched.stderr);
    ensure!(shown + lost == u64::from(FLOWS), "{shown} shown, {lost} lost, {FLOWS} made");
    Ok(())
}

/// As with `head`: no event need come for it to be seen.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_closed_pipe_ends_it_in_silence() -> Result<()> {
    let single = SingleNs::new()?;
    let (reader, writer) = pipe()?;
    let watch = Watch::start_on(single.namespace(), "--capture netlink", Stdio::from(writer))?;
    drop(reader);
    let watched = watch.wait()?;
    ensure!(!watched.stderr.contains("shown") && !watched.stderr.contains("pipe"), "{watched:#?}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn usage_and_silence() -> Result<()> {
    let flowlog = |args: &str| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(Program::Flowlog.path()?);
        let done = command.arg("watch").args(args.split(' ')).output()?;
        Ok((done.status.code(), String::from_utf8(done.stderr)?))
    };
    for (args, words) in [
        ("--capture netlink --cause deleted", "leave out --capture"),
        ("--capture netlink --netns all", "set netns=self"),
        ("--event new --cause deleted", "add destroy"),
        ("--event begin", "write new, update, destroy"),
    ] {
        let (code, stderr) = flowlog(args)?;
        ensure!(code == Some(2) && stderr.contains(words), "{args}: {code:?} {stderr}");
    }
    let (code, stderr) = flowlog("--capture netlink --netns /nonexistent --for 1s")?;
    ensure!(code == Some(1) && stderr.contains("ip netns list"), "{code:?} {stderr}");
    let single = SingleNs::new()?;
    let path = single.namespace().path();
    let (code, stderr) =
        flowlog(&format!("-q --capture netlink --for 100ms --netns {}", path.display()))?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?} {stderr}");
    Ok(())
}

/// `--netns` takes it there, whatever namespace it is started in.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn in_another_namespace() -> Result<()> {
    let [here, there] = [SingleNs::new()?, SingleNs::new()?];
    let args = format!("--capture netlink --event new --netns {}", there.namespace().name());
    let watch = Watch::start(here.namespace(), &args)?;
    udp_burst(&here, 4000, 0, 5)?;
    udp_burst(&there, 4001, 0, 7)?;
    let lines = watch.wait_lines("the flows there", |lines| lines.len() >= 7)?;
    ensure!(lines.len() == 7 && lines.iter().all(|line| line.contains(":4001 ")), "{lines:#?}");
    ensure!(watch.end(Signal::SIGINT)?.summary()? == [7, 0, 0]);
    Ok(())
}
