//! The daemon's own messages: a target that does not take them stops nothing, and what it did not
//! take is counted. A failed start is in `logfile` too.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Finished, Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset};
use tests::metrics::{ADDRESS, get};
use tests::poll;
use tests::process::Guarded;

use super::burst_lines;

/// Requests for pages are not logged.
const NEW: &str = "event_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16";
/// Signals that are each answered by more than ten messages: more than the queue and any socket or
/// pipe hold.
const MANY: usize = 600;

/// The usual configuration with another `logfile`.
fn logging_to(target: &str) -> String {
    let text = config(NEW, "sync=1").replace("@DIR@/daemon.log", target);
    text.replace("[global]", &format!("[global]\nmetrics={ADDRESS}"))
}

fn launch<'n>(single: &'n SingleNs, config: &str) -> Result<Launch<'n>> {
    Launch::new(Program::Flowlog, single.namespace(), config)
}

/// A private /dev in which /dev/log is the file `devlog` of that directory, whether or not it
/// exists.
fn private_dev(launch: Launch<'_>) -> Launch<'_> {
    let script = format!(
        "mount -t tmpfs private /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c \
         1 9 && ln -s {}/devlog /dev/log && exec \"$@\"",
        launch.dir().display()
    );
    launch.wrapped_by(&["unshare", "--mount", "sh", "-c", &script, "sh"])
}

/// Has the daemon say more than anything holds: totals, again and again. Signals that come together
/// are one, so a pause is between them.
fn overflow(daemon: &Daemon) -> Result<()> {
    for _ in 0..MANY {
        daemon.process.signal(Signal::SIGUSR1)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends it, which must not take long, and returns what it left; every flow is logged. Until then
/// its pages are answered in time.
fn ended_in_time(single: &SingleNs, daemon: Daemon, flows: u32) -> Result<Finished> {
    for page in ["/healthz", "/metrics"] {
        let (status, body) = get(single.namespace(), ADDRESS, page)?;
        ensure!(!body.is_empty(), "{page}: {status}");
    }
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.stderr);
    ensure_equal("flows", &burst_lines("NEW", 4000, 0..flows), &multiset(&finished.lines))?;
    Ok(finished)
}

/// All that a datagram socket holds.
fn drain(socket: &UnixDatagram) -> Result<Vec<String>> {
    socket.set_nonblocking(true)?;
    let mut bytes = [0; 8192];
    let mut messages = Vec::new();
    while let Ok(length) = socket.recv(&mut bytes) {
        messages.push(String::from_utf8(bytes[..length].to_vec())?);
    }
    Ok(messages)
}

/// syslog: /dev/log is bound, and its owner does not read; then it does.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_syslog_daemon_that_does_not_read_stops_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single, &logging_to("syslog"))?;
    let socket = UnixDatagram::bind(launch.dir().join("devlog"))?;
    let daemon = private_dev(launch).start()?;
    for _ in 0..12 {
        daemon.process.signal(Signal::SIGHUP)?;
    }
    overflow(&daemon)?;
    udp_burst(&single, 4000, 0, 100)?;
    daemon.wait_lines("all flows", |lines| lines.len() == 100)?;
    let mut messages = Vec::new();
    poll::until("the report", || {
        messages.extend(drain(&socket)?);
        let reported = |message: &String| message.contains("messages were dropped here");
        Ok(messages.iter().any(reported).then_some(()))
    })?;
    let report = messages.iter().find(|m| m.contains("were dropped here")).context("no report")?;
    ensure!(report.starts_with("<28>"), "no warning of a daemon: {report}");
    let sender = format!(" flowlog[{}]: ", daemon.process.pid());
    ensure!(messages.iter().all(|m| m.contains(&sender)), "{messages:?}");
    let total = poll::until("a total", || {
        daemon.process.signal(Signal::SIGUSR1)?;
        let new = drain(&socket)?;
        Ok(new.into_iter().rfind(|m| m.contains("total log.dropped_messages: ")))
    })?;
    ensure!(!total.contains("log.dropped_messages: 0 "), "{total}");
    ended_in_time(&single, daemon, 100).map(drop)
}

/// The same until the end, which does not wait for it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_syslog_daemon_that_never_reads_does_not_delay_the_end() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single, &logging_to("syslog"))?;
    let _socket = UnixDatagram::bind(launch.dir().join("devlog"))?;
    let daemon = private_dev(launch).start()?;
    overflow(&daemon)?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("all flows", |lines| lines.len() == 10)?;
    let finished = ended_in_time(&single, daemon, 10)?;
    ensure!(finished.stderr.contains("messages could not be logged"), "{}", finished.stderr);
    Ok(())
}

/// No /dev/log: standard error, syslog as soon as it is there, and back.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn without_a_syslog_daemon_messages_go_to_standard_error() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = private_dev(launch(&single, &logging_to("syslog"))?).start()?;
    poll::until("a message on standard error", || {
        let stderr = daemon.text("stderr");
        Ok((stderr.contains(" <5> flowlog ") && stderr.contains("no syslog daemon")).then_some(()))
    })?;
    let socket = UnixDatagram::bind(daemon.path("devlog"))?;
    daemon.process.signal(Signal::SIGHUP)?;
    poll::until("a message to syslog", || {
        let messages = drain(&socket)?;
        Ok(messages.iter().any(|m| m.starts_with("<29>") && m.contains("signal")).then_some(()))
    })?;
    ensure!(!daemon.text("stderr").contains("signal received"), "{}", daemon.text("stderr"));
    drop(socket);
    fs::remove_file(daemon.path("devlog"))?;
    daemon.process.signal(Signal::SIGHUP)?;
    poll::until("the next on standard error", || {
        Ok(daemon.text("stderr").contains("signal received").then_some(()))
    })?;
    let finished = ended_in_time(&single, daemon, 0)?;
    ensure!(finished.stderr.contains("Terminal signal received"), "{}", finished.stderr);
    Ok(())
}

fn fifo(path: &Path) -> Result<()> {
    Ok(mkfifo(path, Mode::from_bits_truncate(0o600))?)
}

fn read_without_waiting(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    Ok(options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?)
}

/// A FIFO as logfile: without reader, with one that does not read, and with one that does.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_fifo_that_is_not_read_stops_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single, &logging_to("@DIR@/fifo"))?;
    fifo(&launch.dir().join("fifo"))?;
    let daemon = launch.start()?;
    poll::until("the remark", || {
        Ok(daemon.text("stderr").contains("has no reader").then_some(()))
    })?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("flows without a reader", |lines| lines.len() == 10)?;
    let mut reader = read_without_waiting(&daemon.path("fifo"))?;
    overflow(&daemon)?;
    udp_burst(&single, 4000, 10, 10)?;
    daemon.wait_lines("flows with a reader that does not read", |lines| lines.len() == 20)?;
    let mut text = Vec::new();
    poll::until("the messages since the start, and the report", || {
        let mut bytes = [0; 65536];
        if let Ok(length) = reader.read(&mut bytes) {
            text.extend_from_slice(&bytes[..length]);
        }
        let text = String::from_utf8_lossy(&text);
        let whole =
            text.contains("runs over netlink") && text.contains("messages were dropped here");
        Ok(whole.then_some(()))
    })?;
    ended_in_time(&single, daemon, 20).map(drop)
}

/// A full disk as logfile.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_full_disk_below_the_log_stops_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &logging_to("/dev/full"))?.start()?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("all flows", |lines| lines.len() == 10)?;
    let finished = ended_in_time(&single, daemon, 10)?;
    ensure!(finished.stderr.contains("messages could not be logged"), "{}", finished.stderr);
    Ok(())
}

/// Standard error or standard output is a pipe that is not read.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_pipe_that_is_not_read_stops_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    for (stream, number) in [("stderr", 2), ("stdout", 1)] {
        single.namespace().flush_conntrack()?;
        let launch = launch(&single, &logging_to(stream))?;
        let path = launch.dir().join("pipe");
        fifo(&path)?;
        let _reader = read_without_waiting(&path)?;
        let script = format!("exec \"$@\" {number}> {}", path.display());
        let daemon = launch.wrapped_by(&["sh", "-c", &script, "sh"]).start()?;
        overflow(&daemon)?;
        udp_burst(&single, 4000, 0, 10)?;
        daemon.wait_lines("all flows", |lines| lines.len() == 10).context(stream)?;
        ended_in_time(&single, daemon, 10).context(stream)?;
    }
    Ok(())
}

/// A log file that is removed is noticed and made anew, without HUP.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_removed_log_is_made_anew() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &logging_to("@DIR@/daemon.log"))?.start()?;
    daemon.wait_log("runs over netlink")?;
    fs::remove_file(daemon.path("daemon.log"))?;
    poll::until("a new log", || {
        daemon.process.signal(Signal::SIGUSR1)?;
        Ok(daemon.log().contains("was removed; it is opened anew").then_some(()))
    })?;
    ended_in_time(&single, daemon, 0).map(drop)
}

/// What stops a start is in the log too, in the background as well.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_failed_start_is_in_the_log_too() -> Result<()> {
    let single = SingleNs::new()?;
    let good = config(NEW, "sync=1");
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("pid");
    let holder = lock(&path)?;
    let (pidfile, pid) = (path.to_string_lossy(), holder.pid().to_string());
    let elsewhere = good.replace("@DIR@/flows.log", "/nonexistent/flows.log");
    let cases: [(String, &[&str], i32, &str); 6] = [
        (good.replace("event_mask=1", "event_mask=banana"), &[], 2, "banana"),
        (good.replace("emu1:LOGEMU", "emu1:NOSUCH"), &[], 2, "NOSUCH"),
        (elsewhere, &[], 1, "/nonexistent/flows.log"),
        (good.clone(), &["-u", "no-such-user"], 1, "unknown user no-such-user"),
        (good.clone(), &["-p", &pidfile], 1, &pid),
        (good.clone(), &["--netns", "/nonexistent/netns"], 1, "/nonexistent/netns"),
    ];
    for (config, args, code, words) in cases {
        for background in [&[][..], &["-d"]] {
            let args = [args, background].concat();
            let finished = launch(&single, &config)?.args(&args).run()?;
            let Finished { code: actual, stderr, log, .. } = &finished;
            ensure!(*actual == Some(code), "{args:?}: {actual:?}, not {code}\n{stderr}");
            let lines = stderr.lines().filter(|line| line.contains(words)).count();
            ensure!(lines == 1, "{args:?}: {words:?} stands {lines} times on\n{stderr}");
            // What is awaited first is said before.
            let line = log.lines().rfind(|line| line.contains(words));
            let line = line.with_context(|| format!("{args:?}: no {words:?} in the log\n{log}"))?;
            ensure!(line.contains(" <7> "), "{args:?}: no error: {line}");
        }
    }
    Ok(())
}

/// A process that holds a pidfile, as a daemon does.
fn lock(path: &Path) -> Result<Guarded> {
    const SCRIPT: &str = "import fcntl, sys, time\n\
                          file = open(sys.argv[1], 'w')\n\
                          fcntl.lockf(file, fcntl.LOCK_EX)\n\
                          file.write('locked')\n\
                          file.flush()\n\
                          time.sleep(600)";
    let process = Guarded::spawn(Command::new("python3").args(["-c", SCRIPT]).arg(path))?;
    poll::until("the lock", || {
        Ok((fs::read_to_string(path).unwrap_or_default() == "locked").then_some(()))
    })?;
    Ok(process)
}

/// Names of levels, by file and by option; a warning is one.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn levels_have_names() -> Result<()> {
    let single = SingleNs::new()?;
    let text = config(&format!("{NEW}\nevnt_mask=1"), "sync=1");
    let cases = [
        ("warning", None, true),
        ("error", None, false),
        ("error", Some("6"), true),
        ("3", Some("fatal"), false),
    ];
    for (level, option, shown) in cases {
        let text = text.replace("loglevel=3", &format!("loglevel={level}"));
        let args: Vec<_> = option.iter().flat_map(|option| ["-l", option]).collect();
        let finished = launch(&single, &text)?.args(&args).start()?.stop()?;
        let warned = finished.log.lines().any(|l| l.contains(" <6> ") && l.contains("evnt_mask"));
        ensure!(warned == shown, "{level} {option:?}:\n{}", finished.log);
        ensure!(!finished.log.contains("<5>"), "{level} {option:?}:\n{}", finished.log);
    }
    Ok(())
}

/// Under systemd messages on standard error have the prefix that journald takes as their priority;
/// with the same environment elsewhere they have not.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn messages_to_the_journal_have_a_priority() -> Result<()> {
    const JOURNAL: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i \"$0\"); exec \"$@\"";
    let single = SingleNs::new()?;
    let text = logging_to("stderr").replace("event_mask=1", "event_mask=1\nevnt_mask=1");
    let journal = launch(&single, &text)?;
    let stderr = journal.dir().join("stderr").display().to_string();
    let finished = journal.wrapped_by(&["sh", "-c", JOURNAL, &stderr]).start()?.stop()?;
    let warned = finished.stderr.lines().any(|l| l.starts_with("<4>") && l.contains("evnt_mask"));
    ensure!(warned, "{}", finished.stderr);
    ensure!(finished.stderr.lines().all(|line| line.starts_with('<')), "{}", finished.stderr);
    let other = launch(&single, &text)?.environment("JOURNAL_STREAM", "9:4711");
    let finished = other.start()?.stop()?;
    ensure!(finished.stderr.contains(" <6> "), "{}", finished.stderr);
    Ok(())
}

/// The threads beside the one that reads events keep no right of root.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn no_other_thread_keeps_a_capability() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, &config(NEW, "sync=1"))?.args(&["-u", "nobody", "-v"]).start()?;
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", daemon.process.pid()))? {
        let path = task?.path();
        let status = fs::read_to_string(path.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(":\t"));
            line.with_context(|| format!("no {name}"))
        };
        let name = field("Name")?.to_owned();
        ensure!(field("Uid")?.starts_with("65534\t65534"), "{name} is not nobody");
        let first = path.ends_with(daemon.process.pid().to_string());
        for set in ["CapEff", "CapPrm", "CapInh"] {
            let held = u64::from_str_radix(field(set)?, 16)?;
            ensure!(held == 0 || first, "{name} has {set} {held:#x}");
        }
        threads.push(name);
    }
    for name in ["log", "log copy", "zone", "heap"] {
        ensure!(threads.iter().any(|thread| thread == name), "no {name} in {threads:?}");
    }
    Ok(())
}
