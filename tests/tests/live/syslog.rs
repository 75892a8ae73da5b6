//! SYSLOG: the bytes that ulogd2 has libc send, and a real rsyslogd that is started anew.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{Multiset, ensure_equal, multiset, totals};
use tests::namespace::Namespace;
use tests::poll;
use tests::process::Guarded;

use super::burst_lines;

fn config(syslog: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n{ROOMY}\
         [sys1]\n{syslog}\n"
    )
}

/// Gives a program a /dev of its own whose `log` is this socket, and no other way to a syslog.
fn with_dev_log(launch: Launch<'_>) -> Result<(Launch<'_>, UnixDatagram)> {
    let path = launch.dir().join("log");
    let listener = UnixDatagram::bind(&path)?;
    listener.set_read_timeout(Some(poll::PATIENCE))?;
    let script = format!(
        "mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3 && ln -s {} /dev/log && \
         exec \"$@\"",
        path.display()
    );
    Ok((launch.wrapped_by(&["unshare", "-m", "sh", "-c", &script, "sh"]), listener))
}

/// A message without its time and the name and number of its sender.
fn anonymous(message: &str) -> Result<String> {
    let (priority, rest) = message.split_once('>').context("no priority")?;
    let (time, rest) = rest.split_at_checked(16).context("no time")?;
    let form = time.bytes().enumerate().all(|(at, byte)| match at {
        3 | 6 | 15 => byte == b' ',
        9 | 12 => byte == b':',
        _ => byte.is_ascii_alphanumeric() || byte == b' ',
    });
    ensure!(form, "{time:?} is no time");
    let (sender, text) = rest.split_once(": ").context("no sender")?;
    let (_, number) = sender.split_once('[').context("no number")?;
    ensure!(number.strip_suffix(']').is_some_and(|n| n.parse::<u32>().is_ok()), "{sender:?}");
    Ok(format!("{priority}> : {text}"))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_messages_as_ulogd() -> Result<()> {
    const FLOWS: u32 = 20;
    let single = SingleNs::new()?;
    for keys in ["", "facility=LOG_LOCAL3\nlevel=LOG_INFO", "facility=LOG_DAEMON"] {
        let text = config(keys);
        let start = |program| -> Result<(Daemon, UnixDatagram)> {
            let launch = Launch::new(program, single.namespace(), &text)?;
            let (launch, listener) = with_dev_log(launch)?;
            Ok((launch.start()?, listener))
        };
        let both = [start(Program::Ulogd)?, start(Program::Flowlog)?];
        udp_burst(&single, 4000, 0, FLOWS)?;
        let mut sets = Vec::new();
        for (daemon, listener) in both {
            let mut messages = Vec::new();
            while messages.len() < FLOWS as usize {
                let mut message = [0; 2048];
                let length = listener.recv(&mut message)?;
                messages.push(anonymous(&String::from_utf8_lossy(&message[..length]))?);
            }
            daemon.stop()?;
            sets.push(multiset(messages));
        }
        ensure_equal(keys, &sets[0], &sets[1])?;
        single.namespace().flush_conntrack()?;
    }
    Ok(())
}

/// A rsyslogd of its own: own files, own sockets, on no other way than these.
struct Rsyslogd<'n> {
    namespace: &'n Namespace,
    dir: &'n Path,
    process: Option<Guarded>,
}

impl<'n> Rsyslogd<'n> {
    fn new(namespace: &'n Namespace, dir: &'n Path) -> Result<Self> {
        let place = dir.display();
        let config = format!(
            "global(workDirectory=\"{place}\")\n\
             module(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             module(load=\"imtcp\")\n\
             module(load=\"imudp\")\n\
             input(type=\"imuxsock\" Socket=\"{place}/log\")\n\
             input(type=\"imtcp\" port=\"5514\" address=\"127.0.0.1\")\n\
             input(type=\"imudp\" port=\"5514\" address=\"127.0.0.1\")\n\
             template(name=\"raw\" type=\"string\" string=\"%programname% %rawmsg-after-pri%\\n\")\n\
             action(type=\"omfile\" file=\"{place}/messages\" template=\"raw\")\n"
        );
        std::fs::write(dir.join("rsyslog.conf"), config)?;
        let mut rsyslogd = Self { namespace, dir, process: None };
        rsyslogd.start()?;
        Ok(rsyslogd)
    }

    fn start(&mut self) -> Result<()> {
        let mut command: Command = self.namespace.command("/usr/sbin/rsyslogd");
        command.arg("-n").arg("-f").arg(self.dir.join("rsyslog.conf"));
        command.arg("-i").arg(self.dir.join("rsyslog.pid"));
        self.process = Some(Guarded::spawn(&mut command).context("apt-get install rsyslog")?);
        poll::until("rsyslogd to listen", || {
            Ok((self.dir.join("log").exists() && self.dir.join("rsyslog.pid").exists())
                .then_some(()))
        })
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.signal(Signal::SIGTERM)?;
        process.wait().map(|_| ())
    }

    /// The lines that have come, without what stands before them.
    fn lines(&self) -> Multiset {
        let text = std::fs::read_to_string(self.dir.join("messages")).unwrap_or_default();
        let line = |line: &str| Some(line[line.find("[NEW] ")?..].to_owned());
        multiset(text.lines().filter(|line| line.starts_with("flowlog ")).filter_map(line))
    }

    fn wait(&self, flows: u32) -> Result<()> {
        poll::until("all lines", || Ok((self.lines().len() >= flows as usize).then_some(())))
            .with_context(|| format!("{} of {flows}", self.lines().len()))
    }
}

/// What flowlog and its peers on this host say to each other is none of the flows.
pub(super) const UNTRACKED: &str = "
table inet untracked {
    chain sent {
        type filter hook output priority raw;
        oifname lo ip daddr 127.0.0.0/8 notrack
        oifname lo ip6 daddr ::1 notrack
    }
    chain received {
        type filter hook prerouting priority raw;
        iifname lo ip daddr 127.0.0.0/8 notrack
        iifname lo ip6 daddr ::1 notrack
    }
}
";

/// Before, while it is away, and after.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn rsyslogd_that_restarts_gets_every_line() -> Result<()> {
    // A UDP socket has room for 166 such messages; what is more is lost there, and nobody knows.
    let servers =
        [("unix:@RSYSLOG@/log", 500), ("tcp://127.0.0.1:5514", 500), ("udp://localhost:5514", 60)];
    for (server, away) in servers {
        let all = 200 + away;
        let single = SingleNs::new()?;
        let dir = tempfile::Builder::new().prefix("flowlog-rsyslog-").tempdir()?;
        single.namespace().nft(UNTRACKED)?;
        let mut rsyslogd = Rsyslogd::new(single.namespace(), dir.path())?;
        let server = server.replace("@RSYSLOG@", &dir.path().to_string_lossy());
        let text = config(&format!("server=\"{server}\""));
        let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
        udp_burst(&single, 4000, 0, 100)?;
        rsyslogd.wait(100)?;
        rsyslogd.stop()?;
        udp_burst(&single, 4000, 100, away)?;
        daemon.wait_log("cannot be reached")?;
        rsyslogd.start()?;
        rsyslogd.wait(100 + away).with_context(|| server.clone())?;
        udp_burst(&single, 4000, 100 + away, 100)?;
        rsyslogd.wait(all).with_context(|| server.clone())?;
        let finished = daemon.stop()?;
        ensure_equal(&server, &burst_lines("NEW", 4000, 0..all), &rsyslogd.lines())?;
        let totals = totals(&finished.log);
        for (name, value) in [("syslog.messages", all.into()), ("syslog.lost_messages", 0)] {
            ensure!(totals.get(name) == Some(&value), "{server}: {name}: {totals:?}");
        }
        ensure!(totals.get("syslog.reconnects").is_some_and(|n| *n > 0), "{server}: {totals:?}");
        rsyslogd.stop()?;
    }
    Ok(())
}
