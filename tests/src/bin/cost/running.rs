//! A logger at work, or somebody who looks on.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::poll;
use tests::process::Guarded;
use tests::terminal::Terminal;
use tests::top;

use crate::{LIMIT, TICK};

/// What is started.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    Nobody,
    Listener,
    /// Keys of `[ct1]`.
    Ulogd(&'static str),
    Flowlog(&'static str),
    /// Arguments of `flowlog watch`, whose lines go to a file.
    Watch(&'static str),
    /// Arguments of `flowlog top`, on a pseudo-terminal.
    Top(&'static str),
}

const ROOMY: &str = "netlink_socket_buffer_size=134217728\nnetlink_socket_buffer_maxsize=134217728";
/// The terminal: rows and columns.
const SCREEN: (u16, u16) = (50, 160);

pub(crate) enum Running {
    Nobody,
    Listener(Guarded),
    Daemon(Box<Daemon>),
    Watch(Guarded, TempDir),
    Top(Box<Terminal>),
}

impl Running {
    pub(crate) fn start(single: &SingleNs, start: Start) -> Result<Self> {
        let namespace = single.namespace();
        let daemon = |program, keys: &str| -> Result<Self> {
            let mask = if keys.contains("event_mask") { "" } else { "event_mask=5" };
            let text = config(&format!("{keys}\n{mask}\n{ROOMY}"), "");
            let launch = Launch::new(program, namespace, &text)?.as_configured();
            Ok(Self::Daemon(Box::new(launch.start()?)))
        };
        match start {
            Start::Nobody => Ok(Self::Nobody),
            Start::Listener => {
                let mut command = namespace.command("conntrack");
                command.args(["-E", "-e", "NEW,DESTROY", "-b", "134217728"]);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                let process = Guarded::spawn(&mut command)?;
                std::thread::sleep(Duration::from_secs(1));
                Ok(Self::Listener(process))
            }
            Start::Ulogd(keys) => daemon(Program::Ulogd, keys),
            Start::Flowlog(keys) => daemon(Program::Flowlog, keys),
            Start::Watch(args) => Self::watch(single, args),
            Start::Top(args) => Ok(Self::Top(Box::new(top::start(namespace, args, SCREEN)?))),
        }
    }

    fn watch(single: &SingleNs, args: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = single.namespace().command(Program::Flowlog.path()?);
        command.arg("watch").args(args.split_whitespace());
        command.stdout(File::create(dir.path().join("flows.log"))?);
        command.stderr(File::create(dir.path().join("stderr"))?);
        let process = Guarded::spawn(&mut command)?;
        poll::until("the watch to listen", || {
            let said = fs::read_to_string(dir.path().join("stderr"))?;
            Ok(said.contains("flowlog watches ").then_some(()))
        })?;
        Ok(Self::Watch(process, dir))
    }

    fn process(&self) -> Option<&Guarded> {
        match self {
            Self::Nobody => None,
            Self::Listener(process) | Self::Watch(process, _) => Some(process),
            Self::Daemon(daemon) => Some(&daemon.process),
            Self::Top(terminal) => Some(&terminal.process),
        }
    }

    fn file(&self) -> Option<std::path::PathBuf> {
        match self {
            Self::Nobody | Self::Listener(_) | Self::Top(_) => None,
            Self::Daemon(daemon) => Some(daemon.path("flows.log")),
            Self::Watch(_, dir) => Some(dir.path().join("flows.log")),
        }
    }

    /// Bytes that it has written.
    fn written(&self) -> u64 {
        self.file().and_then(|file| fs::metadata(file).ok()).map_or(0, |file| file.len())
    }

    /// Instructions of its own so far, in user space.
    pub(crate) fn user(&self) -> Result<u64> {
        let Some(process) = self.process() else { return Ok(0) };
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid()))?;
        let after_name = stat.rsplit_once(") ").context("no name in stat")?.1;
        let utime = after_name.split(' ').nth(11).context("no utime in stat")?;
        Ok(utime.parse::<u64>()? * TICK)
    }

    /// Instructions that its threads have run, in user space and in the kernel: exact, by the
    /// scheduler's own clock.
    pub(crate) fn ran(&self) -> Result<u64> {
        let Some(process) = self.process() else { return Ok(0) };
        let mut ran = 0;
        for task in fs::read_dir(format!("/proc/{}/task", process.pid()))? {
            let stat = fs::read_to_string(task?.path().join("schedstat"))?;
            ran += stat.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
        }
        Ok(ran)
    }

    /// Waits until nothing is written any more.
    pub(crate) fn settle(&self) -> Result<()> {
        let begin = Instant::now();
        let mut last = self.written();
        let mut quiet = 0;
        while quiet < 5 {
            std::thread::sleep(Duration::from_millis(300));
            let now = self.written();
            quiet = if now == last { quiet + 1 } else { 0 };
            last = now;
            ensure!(begin.elapsed() < LIMIT, "still writing after {LIMIT:?}");
        }
        Ok(())
    }

    /// Ends it; returns the lines that it has written, or the events that it has counted.
    pub(crate) fn stop(self) -> Result<u64> {
        if let Self::Top(terminal) = &self {
            let counted = top::numbers(&terminal.rows(), "events", "in all")?;
            return Ok(counted["events"] as u64);
        }
        let (Some(file), Some(process)) = (self.file(), self.process()) else { return Ok(0) };
        process.signal(Signal::SIGTERM)?;
        // The file goes with the directory, so it is counted before.
        std::thread::sleep(Duration::from_secs(3));
        let lines = Command::new("wc").arg("-l").arg(file).output()?;
        let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
        Ok(lines.split_whitespace().next().context("wc says nothing")?.parse()?)
    }
}
