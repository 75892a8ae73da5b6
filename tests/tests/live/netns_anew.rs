//! A source that names its network namespace (`netns=NAME`), and that namespace removed and made
//! anew: the new one is entered where the rights are there, and otherwise named as trouble.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::daemon::{Daemon, Launch, Program, config};
use tests::metrics::{ADDRESS, get};
use tests::namespace::Namespace;
use tests::poll;

const RULES: &str =
    "table inet f {\nchain o {\ntype filter hook output priority 0\nct state new counter\n}\n}\n";

/// What is promised: noticed within 2 s. The rest is for a busy machine.
const NOTICED: Duration = Duration::from_secs(4);

fn ip_netns(verb: &str, name: &str) -> Result<()> {
    let status = Command::new("ip").args(["netns", verb, name]).status()?;
    ensure!(status.success(), "ip netns {verb} {name}: {status}");
    Ok(())
}

/// Has the kernel track what is sent, and sends a datagram to this port.
fn send_to(namespace: &Namespace, port: u16) -> Result<()> {
    namespace.enter(|| {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", ("127.0.0.1", port))?;
        Ok(())
    })
}

fn make(namespace: &Namespace) -> Result<()> {
    namespace.ip("link set lo up")?;
    namespace.nft(RULES)
}

struct Case {
    /// That of the daemon.
    home: Namespace,
    watched: Namespace,
    daemon: Daemon,
}

impl Case {
    fn start(keys: &str, wrapper: &[&str], args: &[&str]) -> Result<Self> {
        let home = Namespace::new("home")?;
        let watched = Namespace::new("watched")?;
        make(&watched)?;
        let keys = format!("capture=netlink\nnetns={}\nevent_mask=5\n{keys}", watched.name());
        let global = "[global]\nmetrics=127.0.0.1:9470\nstack=ct1:NFCT,json1:JSON";
        let text = config(&keys, "sync=1").replace("[global]", global);
        let text = text + "[json1]\nfile=\"@DIR@/flows.json\"\nsync=1\n";
        let launch = Launch::new(Program::Flowlog, &home, &text)?.as_configured();
        let daemon = launch.wrapped_by(wrapper).args(args).start()?;
        Ok(Self { home, watched, daemon })
    }

    fn health(&self) -> Result<(String, String)> {
        get(&self.home, ADDRESS, "/healthz")
    }

    /// Waits until /healthz says this.
    fn wait_health(&self, words: &str) -> Result<String> {
        poll::within(NOTICED, words, || {
            let (_, body) = self.health()?;
            Ok(body.contains(words).then_some(body))
        })
    }

    fn wait_for(&self, words: &str) -> Result<()> {
        let lines = self.daemon.wait_lines(words, |lines| lines.iter().any(|line| line.has(words)));
        lines.map(drop).with_context(|| self.daemon.log())
    }

    fn anew(&self) -> Result<()> {
        ip_netns("del", self.watched.name())?;
        ip_netns("add", self.watched.name())?;
        make(&self.watched)
    }
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn one_made_anew_is_entered_and_the_flows_of_the_old_one_end() -> Result<()> {
    for activate in ["", "activate=1"] {
        let case = Case::start(&format!("hash_enable=1\n{activate}"), &[], &[])?;
        send_to(&case.watched, 7001)?;
        // The table knows it once its event is read; the end then has its start.
        poll::until("the flow to be kept", || {
            let (_, page) = get(&case.home, ADDRESS, "/metrics")?;
            Ok(page
                .lines()
                .any(|line| line.ends_with("live_flows{source=\"ct1\"} 1"))
                .then_some(()))
        })?;
        case.anew()?;
        poll::within(NOTICED, "the new one", || {
            Ok(case.daemon.log().contains("was made anew and has been entered").then_some(()))
        })
        .with_context(|| case.daemon.log())?;
        case.wait_for("DPT=7001 ")?;
        case.wait_for("SOURCE=netns")?;
        send_to(&case.watched, 7002)?;
        case.watched.flush_conntrack()?;
        case.wait_for("DPT=7002 ")?;
        // The loss is named for some minutes, the namespace no more.
        let (_, body) = case.health()?;
        ensure!(!body.contains("network namespace"), "{body}");
        ensure!(body.contains("netns was made anew") && !body.contains("buffer"), "{body}");
        let finished = case.daemon.stop()?;
        ensure!(finished.code == Some(0), "{:?}", finished.code);
        // Each was made once, and its end is there once, here as in the other stack; what the
        // namespace took with it is a loss.
        let json = finished.text("flows.json");
        for port in [7001, 7002] {
            let line = format!("DPT={port} ");
            let lines = finished.lines.iter().filter(|one| one.has(&line)).count();
            let object = format!("\"orig.l4.dport\": {port},");
            let objects = json.lines().filter(|one| one.contains(&object)).count();
            ensure!((lines, objects) == (1, 1), "{port}: {:?}\n{json}", finished.lines);
        }
        ensure!(json.contains("\"lost.source\": \"netns\""), "no loss: {json}");
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn one_that_is_removed_is_named_until_it_is_back() -> Result<()> {
    let case = Case::start("hash_enable=0", &[], &[])?;
    ensure!(case.health()?.0 == "HTTP/1.1 200 OK");
    ip_netns("del", case.watched.name())?;
    let body = case.wait_health("was removed")?;
    ensure!(body.starts_with("ct1: network namespace") && body.lines().count() == 1, "{body}");
    ip_netns("add", case.watched.name())?;
    make(&case.watched)?;
    poll::within(NOTICED, "the namespace to be entered", || {
        Ok((!case.health()?.1.contains("network namespace")).then_some(()))
    })?;
    send_to(&case.watched, 7003)?;
    case.wait_for("DPT=7003 ")
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn without_the_rights_the_remedy_is_named() -> Result<()> {
    let case = Case::start("hash_enable=0", &[], &["-u", "nobody"])?;
    case.daemon.wait_log("without CAP_SYS_ADMIN from now on")?;
    case.anew()?;
    let body = case.wait_health("cannot be entered")?;
    ensure!(body.contains("without -u") && body.contains("CAP_SYS_ADMIN"), "{body}");
    ensure!(body.lines().count() == 1, "{body}");
    case.daemon.wait_log("was made anew and cannot be entered")?;
    let finished = case.daemon.stop()?;
    ensure!(finished.code == Some(0), "{:?}", finished.code);
    Ok(())
}

/// What shows events without a log ends: it would go on showing nothing.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_verb_that_shows_events_ends_with_its_namespace() -> Result<()> {
    for words in [&["watch"][..], &["top", "--once", "--for", "60s"]] {
        for anew in [false, true] {
            let home = Namespace::new("home")?;
            let watched = Namespace::new("watched")?;
            make(&watched)?;
            let mut command = home.command(Program::Flowlog.path()?);
            command.args(words).args(["--capture", "netlink", "--netns", watched.name()]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
            let mut said = child.stderr.take().map(BufReader::new).context("no stderr")?;
            let mut listens = String::new();
            while !listens.contains("flowlog watches ") && !listens.contains("flowlog top listens ")
            {
                ensure!(said.read_line(&mut listens)? > 0, "it ended: {listens}");
            }
            ip_netns("del", watched.name())?;
            if anew {
                ip_netns("add", watched.name())?;
            }
            let status = poll::within(NOTICED, "its end", || Ok(child.try_wait()?));
            let status = status.or_else(|error| {
                child.kill()?;
                Err(error)
            })?;
            if !anew {
                // The lab removes it in the end.
                ip_netns("add", watched.name())?;
            }
            let mut rest = String::new();
            said.read_to_string(&mut rest)?;
            ensure!(status.code() == Some(1), "{words:?}: {status}: {rest}");
            let what = ["was removed", "was made anew"].iter().any(|what| rest.contains(what));
            ensure!(what && rest.contains(watched.name()), "{words:?}: {rest}");
        }
    }
    Ok(())
}
