//! Each cause of a flow's end, made to happen and named by `extras=1`. What has expired is found
//! by the garbage collector, which takes up to a minute to come by, or by whoever looks up a flow
//! in the same place of the table before: hence the order.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use socket2::{Domain, Socket, Type};
use tests::burst::{destination, udp_burst};
use tests::daemon::Daemon;
use tests::lab::SingleNs;
use tests::lines::{Line, ensure_equal, multiset};
use tests::namespace::Namespace;
use tests::poll;
use tests::process::Guarded;

use super::kernel::Sysctl;
use super::{by_ebpf, extra, lines_of, lines_so_far, start, stop};

/// Longer than the collector takes from one scan to the next.
pub(crate) const COLLECTION: Duration = Duration::from_secs(100);
/// Flows of each kind.
const FLOWS: usize = 20;
/// Entries that the table may hold when flows shall be dropped early.
const CROWD: u32 = 256;
/// As few buckets as there can be: the kernel looks for a victim in eight of them.
const BUCKETS: u32 = 512;

/// The second shows what a mask without ends makes of them; the third must tell the same as the
/// first.
const SOURCES: [&str; 3] = [
    "event_mask=0x85\nattach=fentry",
    "event_mask=0x80\nattach=fentry",
    "event_mask=0x85\nattach=kprobe",
];

/// A daemon, and the namespace whose flows it shall name.
struct Observed<'d> {
    daemon: &'d Daemon,
    netns: String,
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn each_is_named() -> Result<()> {
    by_ebpf(|| {
        // Nobody listens where the flows are.
        let elsewhere = Namespace::new("elsewhere")?;
        let single = SingleNs::new()?;
        let daemon = start(&elsewhere, "capture=ebpf\nhash_enable=0", &SOURCES, "extras=1")?;
        let observed = Observed::new(&daemon, single.namespace())?;
        by_process(&observed, &single, "deleted", &["-D", "-p", "udp", "--orig-port-src", "4000"])?;
        by_process(&observed, &single, "flushed", &["-F"])?;
        dropped_early_and_netns_gone(&daemon)?;
        single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 1)])?;
        udp_burst(&single, 4001, 0, FLOWS as u32)?;
        reset(&observed, &single)?;
        reopened(&observed, &single)?;
        collected(&observed, 4001)?;
        // The collector has just been there, so it will not be the one who finds these.
        udp_burst(&single, 4002, 0, FLOWS as u32)?;
        sleep(Duration::from_secs(2));
        single.namespace().run("conntrack -L")?;
        observed.wait_ends("expired_lookup", 4002, FLOWS)?;
        let finished = stop(daemon)?;
        let by = |source| Ok::<_, Error>(multiset(lines_of(&finished, source)?));
        ensure_equal("by kprobes", &by(1)?, &by(3)?)?;
        let by_collector = lines_of(&finished, 2)?;
        ensure!(!by_collector.is_empty(), "event_mask=0x80 logged nothing");
        let is_right = |line: &Line| line.tag() == "GC" && cause(line) == "expired_gc";
        ensure!(by_collector.iter().all(is_right), "event_mask=0x80: {by_collector:#?}");
        Ok(())
    })
}

impl<'d> Observed<'d> {
    fn new(daemon: &'d Daemon, namespace: &Namespace) -> Result<Self> {
        Ok(Self { daemon, netns: namespace.inode()?.to_string() })
    }

    /// The lines so far of the flows from this port, with a tag that begins so.
    fn lines(&self, tag: &str, port: u16) -> Result<Vec<Line>> {
        let from = format!(" SPT={port} ");
        let mut lines = lines_so_far(self.daemon, 1)?;
        lines.retain(|line| {
            let ours = extra(line, "NETNS") == Some(&self.netns);
            let orig = line.text.split(", REPLY:").next().unwrap_or_default();
            ours && line.tag().starts_with(tag) && orig.contains(&from)
        });
        Ok(lines)
    }

    /// Waits until so many flows from this port have ended, each with this cause.
    fn wait_ends(&self, wanted: &str, port: u16, flows: usize) -> Result<Vec<Line>> {
        let lines = self.wait(wanted, port, flows, poll::PATIENCE)?;
        let stranger = lines.iter().find(|line| cause(line) != wanted || line.tag() != "DESTROY");
        ensure!(stranger.is_none() && lines.len() == flows, "no {wanted}: {stranger:?}");
        Ok(lines)
    }

    fn wait(&self, what: &str, port: u16, flows: usize, time: Duration) -> Result<Vec<Line>> {
        let enough = || Ok(Some(self.lines("DESTROY", port)?).filter(|l| l.len() >= flows));
        poll::within(time, what, enough)
            .with_context(|| format!("{:?}", self.lines("DESTROY", port)))
    }
}

fn cause(line: &Line) -> &str {
    extra(line, "CAUSE").unwrap_or_default()
}

/// `conntrack` removes them, and is named.
fn by_process(observed: &Observed, single: &SingleNs, cause: &str, args: &[&str]) -> Result<()> {
    udp_burst(single, 4000, 0, FLOWS as u32)?;
    let before = observed.lines("DESTROY", 4000)?.len();
    let mut command = single.namespace().command("conntrack");
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    let mut conntrack = Guarded::spawn(&mut command)?;
    let code = conntrack.wait()?;
    ensure!(code == Some(0), "conntrack {args:?} ended with {code:?}");
    let ends = observed.wait(cause, 4000, before + FLOWS, poll::PATIENCE)?;
    let pid = conntrack.pid().to_string();
    for line in &ends[before..] {
        let portid = extra(line, "PORTID").unwrap_or("0");
        let named = extra(line, "PID") == Some(&pid) && extra(line, "COMM") == Some("conntrack");
        ensure!(self::cause(line) == cause && line.tag() == "DESTROY", "not {cause}: {line}");
        ensure!(named && portid != "0", "not by process {pid}: {line}");
    }
    Ok(())
}

/// More flows than the table may hold; then their namespace goes with those that are left.
fn dropped_early_and_netns_gone(daemon: &Daemon) -> Result<()> {
    let crowded = SingleNs::new()?;
    let observed = Observed::new(daemon, crowded.namespace())?;
    let _buckets = Sysctl::set("net/netfilter/nf_conntrack_buckets", BUCKETS)?;
    let _max = Sysctl::set("net/netfilter/nf_conntrack_max", CROWD)?;
    crowded.namespace().enter(|| {
        let socket = UdpSocket::bind("198.18.0.1:4000")?;
        for number in 0..2 * CROWD {
            // Refused where no victim is found.
            let _ = socket.send_to(b"x", destination(number));
        }
        Ok(())
    })?;
    let left = usize::try_from(crowded.namespace().conntrack_count()?)?;
    let dropped = poll::until("as many lines as flows", || {
        let ended = observed.lines("DESTROY", 4000)?;
        let consistent = observed.lines("NEW", 4000)?.len() == ended.len() + left;
        // Lines are written one after the other: those of beginnings alone may fit too.
        Ok(Some(ended).filter(|ended| consistent && !ended.is_empty()))
    })?;
    let stranger = dropped.iter().find(|line| cause(line) != "early_drop");
    ensure!(stranger.is_none(), "{} ended, {stranger:?}", dropped.len());
    drop(crowded);
    let ends = observed.wait("netns_gone", 4000, dropped.len() + left, poll::PATIENCE)?;
    let gone = ends.iter().filter(|line| cause(line) == "netns_gone").count();
    ensure!(gone == left, "{gone} of {left} flows went with their namespace: {:?}", ends.last());
    Ok(())
}

/// A closed port answers.
fn reset(observed: &Observed, single: &SingleNs) -> Result<()> {
    single.namespace().enter(|| match connect(4005, 7) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        other => bail!("a closed port answered {other:?}"),
    })?;
    observed.wait_ends("reset", 4005, 1).map(drop)
}

/// An aborted connection is opened anew from the same port.
fn reopened(observed: &Observed, single: &SingleNs) -> Result<()> {
    let _second = single.namespace().enter(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000))?;
        let first = connect(4006, 9000)?;
        let (mut served, _from) = listener.accept()?;
        // Closing sends a reset.
        first.set_linger(Some(Duration::ZERO))?;
        drop(first);
        let aborted = served.read(&mut [0]);
        ensure!(aborted.is_err(), "not aborted: {aborted:?}");
        Ok(connect(4006, 9000)?)
    })?;
    observed.wait_ends("tcp_reopened", 4006, 1).map(drop)
}

pub(crate) fn connect(from: u16, to: u16) -> std::io::Result<Socket> {
    let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&local(from))?;
    socket.connect(&local(to))?;
    Ok(socket)
}

/// All expire; somebody may have come by before the collector at one or the other.
fn collected(observed: &Observed, port: u16) -> Result<()> {
    let ends = observed.wait("expired_gc", port, FLOWS, COLLECTION)?;
    let by_collector = ends.iter().filter(|line| cause(line) == "expired_gc").count();
    ensure!(ends.len() == FLOWS && by_collector > FLOWS / 2, "{ends:#?}");
    for line in &ends {
        let tag = match cause(line) {
            "expired_gc" => "DESTROY|GC",
            "expired_lookup" => "DESTROY",
            other => bail!("they expired, but: {other}, {line}"),
        };
        ensure!(line.tag() == tag, "not [{tag}]: {line}");
    }
    Ok(())
}
