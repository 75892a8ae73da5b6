//! From the command line to the exit code: what a service manager, a ulogd2 init script and a
//! person with a wrong configuration meet.

use std::fs;
use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Finished, Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{self, ensure_equal, multiset, tagged};
use tests::poll;
use tests::process::Guarded;

use super::burst_lines;

const NEW: &str = "event_mask=1\nhash_enable=0";

/// CAP_NET_ADMIN, the bit of capabilities(7).
const NET_ADMIN: u64 = 1 << 12;

fn launch<'n>(single: &'n SingleNs, config: &str) -> Result<Launch<'n>> {
    Launch::new(Program::Flowlog, single.namespace(), config)
}

/// The line of Debian's unit for ulogd2: as the parent ends, the daemon listens.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_ulogd_command_line_works() -> Result<()> {
    let single = SingleNs::new()?;
    let args = ["--daemon", "--uid", "nobody", "--pidfile", "@DIR@/pid"];
    let parent = launch(&single, &config(NEW, "sync=1"))?.without_verb().args(&args).run()?;
    ensure!(parent.code == Some(0), "the parent ended with {:?}\n{}", parent.code, parent.stderr);
    let mut daemon = Guarded::adopt(&parent.text("pid"))?;
    udp_burst(&single, 4000, 0, 10)?;
    ensure!(daemon.status("Uid")?.starts_with("65534"), "uid {}", daemon.status("Uid")?);
    daemon.signal(Signal::SIGTERM)?;
    daemon.wait()?;
    let lines = multiset(lines::parse(&parent.text("flows.log"))?);
    ensure_equal("the daemon", &burst_lines("NEW", 4000, 0..10), &lines)
}

/// The parent of a daemon that cannot run says so, in its exit code too.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_parent_returns_the_real_exit_code() -> Result<()> {
    let single = SingleNs::new()?;
    let broken = config(NEW, "sync=1").replace("emu1:LOGEMU", "emu1:NOSUCH");
    let missing = config(NEW, "sync=1").replace("@DIR@/flows.log", "/nonexistent/dir/flows.log");
    let cases = [(broken, 2, "NOSUCH"), (missing, 1, "/nonexistent/dir/flows.log")];
    for (config, code, words) in cases {
        for args in [&["-d"][..], &[]] {
            let finished = launch(&single, &config)?.args(args).run()?;
            let told = finished.stderr.contains(words);
            let Finished { code: actual, stderr, .. } = &finished;
            ensure!(*actual == Some(code) && told, "{args:?}: {actual:?}, not {code}\n{stderr}");
        }
    }
    Ok(())
}

/// After `-u` nothing is left of root but CAP_NET_ADMIN, in any set.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn another_user_keeps_one_capability() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &config(NEW, "sync=1"))?.args(&["-u", "nobody"]).start()?;
    for (set, most) in [("CapEff", NET_ADMIN), ("CapPrm", NET_ADMIN), ("CapAmb", 0), ("CapInh", 0)]
    {
        let held = u64::from_str_radix(&daemon.process.status(set)?, 16)?;
        ensure!(held == most, "{set} is {held:#x}, not {most:#x}");
    }
    for ids in ["Uid", "Gid"] {
        let ids = daemon.process.status(ids)?;
        ensure!(ids.split_whitespace().all(|id| id == "65534"), "still {ids}");
    }
    ensure!(daemon.process.status("Groups")?.split_whitespace().all(|id| id == "65534"), "groups");
    // Log rotation still works: what flowlog made it can open again.
    fs::remove_file(daemon.path("flows.log"))?;
    daemon.process.signal(Signal::SIGHUP)?;
    poll::until("the new file", || Ok(daemon.path("flows.log").exists().then_some(())))?;
    udp_burst(&single, 4000, 0, 10)?;
    let lines = multiset(&daemon.stop()?.lines);
    ensure_equal("as nobody", &burst_lines("NEW", 4000, 0..10), &lines)
}

/// One source, two files: the same lines in both.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn two_stacks_share_a_source() -> Result<()> {
    let single = SingleNs::new()?;
    let config = config("event_mask=5\nhash_enable=0", "sync=1").replace(
        "[ct1]",
        "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n\
         [emu2]\nfile=\"@DIR@/more.log\"\nsync=0\n[ct1]",
    );
    let daemon = launch(&single, &config)?.start()?;
    let sockets = daemon.process.netlink_sockets(single.namespace())?;
    let listening = sockets.iter().filter(|socket| socket.groups != 0).count();
    ensure!(listening == 1, "{listening} event sockets for one source");
    udp_burst(&single, 4000, 0, 100)?;
    single.namespace().flush_conntrack()?;
    let finished = daemon.stop()?;
    ensure!(tagged(&finished.lines, "NEW").len() == 100, "{} lines", finished.lines.len());
    ensure!(tagged(&finished.lines, "DESTROY").len() == 100, "{} lines", finished.lines.len());
    let more = multiset(lines::parse(&finished.text("more.log"))?);
    ensure_equal("the second file", &multiset(&finished.lines), &more)
}

/// From outside, by option and by key.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn another_namespace() -> Result<()> {
    let single = SingleNs::new()?;
    let path = single.namespace().path().display().to_string();
    let by_key = format!("{NEW}\nnetwork_namespace_path=\"{path}\"");
    let by_option =
        launch(&single, &config(NEW, "sync=1"))?.outside().args(&["--netns", &path]).start()?;
    let by_key = launch(&single, &config(&by_key, "sync=1"))?.outside().start()?;
    udp_burst(&single, 4000, 0, 10)?;
    for (what, daemon) in [("--netns", by_option), ("network_namespace_path", by_key)] {
        let lines = multiset(&daemon.stop()?.lines);
        ensure_equal(what, &burst_lines("NEW", 4000, 0..10), &lines)?;
    }
    Ok(())
}

/// A pidfile whose process lives stops a second daemon; one left by a crash does not.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn one_daemon_for_a_pidfile() -> Result<()> {
    let single = SingleNs::new()?;
    let dir = tempfile::tempdir()?;
    let pidfile = dir.path().join("pid").display().to_string();
    let start = || launch(&single, &config(NEW, "sync=1"))?.args(&["-p", &pidfile]).start();
    let mut first = start()?;
    let second = launch(&single, &config(NEW, "sync=1"))?.args(&["-p", &pidfile]).run()?;
    ensure!(second.code == Some(1), "the second ended with {:?}", second.code);
    ensure!(second.stderr.contains(&first.process.pid().to_string()), "{}", second.stderr);
    first.process.signal(Signal::SIGKILL)?;
    first.process.wait()?;
    ensure!(fs::exists(&pidfile)?, "who removed the pidfile?");
    let third = start()?;
    ensure!(fs::read_to_string(&pidfile)? == format!("{}\n", third.process.pid()), "stale");
    third.stop().map(drop)
}

/// Every fault at once, each with its file and line.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn refusals_name_every_line() -> Result<()> {
    let single = SingleNs::new()?;
    let ct = "event_mask=banana\naccept_src_filter=10.0.0.1\naccept_proto_filter=nosuch";
    let text = config(ct, "sync=1");
    let finished = launch(&single, &text)?.run()?;
    ensure!(finished.code == Some(2), "exit {:?}\n{}", finished.code, finished.stderr);
    let file = finished.path("ulogd.conf");
    for word in ["banana", "10.0.0.1", "nosuch"] {
        let line = text.lines().position(|line| line.contains(word)).unwrap_or_default() + 1;
        let place = format!("{}:{line}: ", file.display());
        let told = finished.stderr.lines().any(|l| l.contains(&place) && l.contains(word));
        ensure!(told, "no `{place}… {word}` in\n{}", finished.stderr);
    }
    Ok(())
}

/// `flowlog check`: ready, not ready (nothing tracks), not even a configuration.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn check_tells_what_is_missing() -> Result<()> {
    let good = config(NEW, "sync=1").replace("@DIR@", "/tmp");
    let bad = good.replace("event_mask=1", "evnt_mask=1");
    let tracked = SingleNs::new()?;
    let untracked = SingleNs::untracked()?;
    let cases = [
        (&tracked, &good, 0, ""),
        (&untracked, &good, 1, "activate=1"),
        (&tracked, &bad, 2, "event_mask"),
    ];
    for (single, config, code, words) in cases {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(&file, config)?;
        let check = |args: &[&str]| -> Result<Output> {
            let mut command = single.namespace().command(Program::Flowlog.path()?);
            Ok(command.args(["check", "-c"]).arg(file.path()).args(args).output()?)
        };
        let output = check(&[])?;
        let said = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(code), "{}, not {code}\n{said}", output.status);
        ensure!(said.contains(words), "no {words:?} in\n{said}");
        let json = check(&["--json"])?;
        ensure!(json.status.code() == Some(code), "--json: {}, not {code}", json.status);
        serde_json::from_slice::<serde_json::Value>(&json.stdout)?;
    }
    Ok(())
}

/// Debian's own file with one of its stacks switched on: every line is judged, none is refused,
/// and what belongs to databases is not shown.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn check_judges_ulogd_conf_line_by_line() -> Result<()> {
    const STACK: &str = "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU";
    let text = fs::read_to_string("/etc/ulogd.conf")?;
    let number = text.lines().position(|line| line == format!("#{STACK}"));
    let number = number.context("/etc/ulogd.conf is not Debian's")? + 1;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, text.replacen(&format!("#{STACK}"), STACK, 1))?;
    let single = SingleNs::new()?;
    let mut command = single.namespace().command(Program::Flowlog.path()?);
    let output = command.args(["check", "-c"]).arg(file.path()).output()?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() != Some(2), "{}\n{said}", output.status);
    let shown = file.path().display();
    for line in [
        format!("{shown}:{number}: taken    {STACK}: events (new, destroy), a flow's beginning"),
        "unread   [mysql1]: the stack that names it is commented out\n".to_owned(),
        "unread   pass\n".to_owned(),
    ] {
        ensure!(said.contains(&line), "no {line:?} in\n{said}");
    }
    ensure!(text.contains("changeme") && !said.contains("changeme"), "{said}");
    let judged = said.lines().filter(|line| line.starts_with(&*shown.to_string())).count();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    ensure!(judged == lines.count() + 1, "{judged} lines are judged\n{said}");
    Ok(())
}

/// A configuration as ulogd2 users have it, unchanged: files at their usual places (a private
/// mount hides the host's), messages to syslog.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_unchanged_ulogd_conf_runs() -> Result<()> {
    const CONFIG: &str = r#"
[global]
logfile="syslog"
loglevel=3
# Custom stack for logging connections metadata.
stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU
[ct1]
event_mask=0x00000001
hash_enable=0
[emu1]
file="/var/log/ulog/syslogemu.log"
sync=1"#;
    let single = SingleNs::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, CONFIG)?;
    let script = "mount -t tmpfs private /var/log && mkdir /var/log/ulog && exec \"$@\"";
    let mut command = single.namespace().command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]);
    command.arg(Program::Flowlog.path()?).arg("-c").arg(file.path());
    // Other tests run beside it, whose flows it would see by eBPF.
    command.args(["--capture", "netlink"]);
    let mut daemon = Guarded::spawn(&mut command)?;
    poll::until("flowlog to listen", || {
        let ended = daemon.ended()?;
        ensure!(ended.is_none(), "it ended with {ended:?}");
        let sockets = daemon.netlink_sockets(single.namespace())?;
        Ok(sockets.iter().any(|socket| socket.groups == 1).then_some(()))
    })?;
    udp_burst(&single, 4000, 0, 10)?;
    let log = format!("/proc/{}/root/var/log/ulog/syslogemu.log", daemon.pid());
    poll::until("the lines", || {
        let lines = lines::parse(&fs::read_to_string(&log)?)?;
        Ok((multiset(lines) == burst_lines("NEW", 4000, 0..10)).then_some(()))
    })?;
    daemon.signal(Signal::SIGTERM)?;
    let code = daemon.wait()?;
    ensure!(code == Some(0), "exit {code:?}");
    Ok(())
}
