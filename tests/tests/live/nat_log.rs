//! docs/nat-logging.md: its configuration logs, and its commands say who had a public port, of
//! clients that shared one, after each other and at the same time.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use tests::daemon::{Daemon, Launch, Program};
use tests::lab::Lab;
use tests::page::Page;

/// The clients, both behind [`PUBLIC`].
pub(super) const FIRST: &str = "10.77.1.2";
pub(super) const SECOND: &str = "10.77.1.4";
pub(super) const SERVER: &str = "10.77.2.2";
pub(super) const PUBLIC: &str = "203.0.113.7";
pub(super) const PORT: u16 = 40_001;
/// Far from UTC, and by no whole hour.
const ZONE: &str = "Asia/Kathmandu";
/// Longer than a second, so that times in the log differ.
const WHILE: Duration = Duration::from_millis(1200);

pub(super) const TRANSLATION: &str = "
table ip nat_log {
    chain to_outside {
        type nat hook postrouting priority srcnat - 1;
        ip saddr 10.77.1.0/24 tcp dport { 9000, 9002 } snat to 203.0.113.7
    }
}
";

/// What the commands of the page are run on.
struct Log<'l> {
    page: Page,
    lab: &'l Lab,
    daemon: Daemon,
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_page_says_who_had_the_port() -> Result<()> {
    let lab = Lab::new()?;
    lab.client().ip(&format!("addr add {SECOND}/24 dev eth0"))?;
    lab.router().nft(TRANSLATION)?;
    let log = Log::start(&lab)?;
    let servers: Vec<TcpListener> = lab.server().enter(|| {
        [9000, 9002]
            .map(|port| Ok(TcpListener::bind(address(SERVER, port)?)?))
            .into_iter()
            .collect::<Result<Vec<_>>>()
    })?;

    let before = log.moment()?;
    let first = connect(&lab, FIRST, 9000, &servers[0])?;
    let during_first = log.moment()?;
    end(&lab, first, FIRST)?;
    let between = log.moment()?;
    log.rotate()?;
    let second = connect(&lab, SECOND, 9000, &servers[0])?;
    let other = connect(&lab, FIRST, 9002, &servers[1])?;
    let during_both = log.moment()?;
    end(&lab, second, SECOND)?;
    let during_other = log.moment()?;
    log.wait_ends(2)?;

    let [a, b, c] = [(FIRST, 9000), (SECOND, 9000), (FIRST, 9002)];
    for (moment, ended, alive) in [
        (&before, &[][..], &[][..]),
        (&during_first, &[a], &[]),
        (&between, &[], &[]),
        (&during_both, &[b], &[c]),
        (&during_other, &[], &[c]),
    ] {
        let found = log.ask("awk", moment)?;
        let line = |(host, port): &(&str, u16)| {
            format!("SRC={host} SPT={PORT} to DST={SERVER} DPT={port}, from ")
        };
        ensure_lines("awk", moment, &found, &[ended, alive].concat(), line)?;
        let open = found.lines().filter(|line| line.ends_with(" to later")).count();
        ensure!(open == alive.len(), "{open} live at {moment}: {found}");
        let record = |(host, port): &(&str, u16)| {
            format!(r#"{{"host":"{host}","port":{PORT},"to":"{SERVER}","dport":{port},"start":""#)
        };
        ensure_lines("jq", moment, &log.ask(".kinds", moment)?, ended, record)?;
        ensure_lines("list", moment, &log.ask("flowlog list", moment)?, alive, record)?;
    }
    let all = log.ask("grep", &during_both)?;
    ensure!(all.lines().count() == 5, "not three beginnings and two ends: {all}");
    drop(other);
    let finished = log.daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    Ok(())
}

impl<'l> Log<'l> {
    /// Starts flowlog on the configuration of the page, with its files elsewhere.
    fn start(lab: &'l Lab) -> Result<Self> {
        let page = Page::read("nat-logging.md")?;
        let config = page.block("ini", "[ct1]")?;
        let config = config
            .replace("/var/log/flowlog", "@DIR@")
            .replace("\"syslog\"", "\"@DIR@/daemon.log\"");
        let launch = Launch::new(Program::Flowlog, lab.router(), &config)?;
        let daemon = launch.time_zone(ZONE).start()?;
        Ok(Self { page, lab, daemon })
    }

    /// A second, local time, in which nothing begins or ends.
    fn moment(&self) -> Result<String> {
        sleep(WHILE);
        let date = Command::new("date").arg("+%F %T").env("TZ", ZONE).output()?;
        sleep(WHILE);
        Ok(String::from_utf8(date.stdout)?.trim().to_owned())
    }

    /// Moves and packs the files as logrotate would.
    fn rotate(&self) -> Result<()> {
        let dir = self.daemon.path("");
        let rotate = |name: &str| -> Result<()> {
            let (from, to) = (dir.join(name), dir.join(format!("{name}.1")));
            Ok(std::fs::rename(from, to)?)
        };
        ["flowlog.log", "flowlog.json"].into_iter().try_for_each(rotate)?;
        self.daemon.process.signal(Signal::SIGHUP)?;
        tests::poll::until("new files", || {
            let there = ["flowlog.log", "flowlog.json"].map(|name| dir.join(name).exists());
            Ok((there == [true, true]).then_some(()))
        })?;
        self.run("gzip flowlog.log.1 flowlog.json.1").map(drop)
    }

    /// Waits until both files tell of so many ends.
    fn wait_ends(&self, ends: usize) -> Result<()> {
        let told = |file: &str, words: &str| -> Result<usize> {
            let all = self.run(&format!("zcat -f {file}*"))?;
            Ok(all.lines().filter(|line| line.contains(words) && line.contains(PUBLIC)).count())
        };
        tests::poll::until("the ends", || {
            let told = [told("flowlog.log", "[DESTROY]")?, told("flowlog.json", r#""destroy""#)?];
            Ok((told == [ends, ends]).then_some(()))
        })
    }

    /// Runs the command of the page that has `words`, of this moment.
    fn ask(&self, words: &str, moment: &str) -> Result<String> {
        let command = self.page.block("sh", words)?.replace("/var/log/flowlog/", "");
        self.run(&format!("ip={PUBLIC} port={PORT} at='{moment}'\n{command}"))
    }

    /// Runs a script where the log is, on the router, with flowlog at hand.
    fn run(&self, script: &str) -> Result<String> {
        let flowlog = Program::Flowlog.path()?;
        let flowlog = flowlog.parent().context("flowlog is nowhere")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.lab.router().command("sh");
        command.args(["-ec", script]).current_dir(self.daemon.path(""));
        command.env("TZ", ZONE).env("PATH", format!("{}:{path}", flowlog.display()));
        let done = command.output()?;
        let stderr = String::from_utf8_lossy(&done.stderr);
        // A list says how long it is.
        let complaints = stderr.lines().filter(|line| !line.ends_with("have been shown."));
        ensure!(done.status.success() && complaints.count() == 0, "{script}\n{stderr}");
        Ok(String::from_utf8(done.stdout)?)
    }
}

/// Fails unless there is a line for each answer, which begins as `line` has it.
fn ensure_lines(
    what: &str,
    moment: &str,
    found: &str,
    expected: &[(&str, u16)],
    line: impl Fn(&(&str, u16)) -> String,
) -> Result<()> {
    let missing = expected
        .iter()
        .map(line)
        .find(|line| found.lines().filter(|found| found.starts_with(line)).count() != 1);
    ensure!(missing.is_none(), "{what} at {moment}: not once {missing:?} in\n{found}");
    ensure!(found.lines().count() == expected.len(), "{what} at {moment}: too much\n{found}");
    Ok(())
}

pub(super) fn address(host: &str, port: u16) -> Result<SocketAddr> {
    Ok(SocketAddr::new(host.parse()?, port))
}

/// A connection from [`PORT`] of a client.
pub(super) fn connect(
    lab: &Lab,
    host: &str,
    port: u16,
    server: &TcpListener,
) -> Result<(TcpStream, TcpStream)> {
    let client = lab.client().enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&address(host, PORT)?.into())?;
        socket
            .connect(&address(SERVER, port)?.into())
            .with_context(|| format!("{host} to {port}"))?;
        Ok(TcpStream::from(socket))
    })?;
    let (served, from) = server.accept()?;
    ensure!(from == address(PUBLIC, PORT)?, "{host} came as {from}");
    Ok((client, served))
}

/// Closes a connection, and has its entry go at once.
pub(super) fn end(lab: &Lab, ends: (TcpStream, TcpStream), host: &str) -> Result<()> {
    // By a reset, so that the port is free again.
    for end in [&ends.0, &ends.1] {
        socket2::SockRef::from(end).set_linger(Some(Duration::ZERO))?;
    }
    drop(ends);
    let mine = format!("conntrack -D -p tcp -s {host} --orig-port-dst 9000");
    lab.router().run(&mine).map(drop)
}
