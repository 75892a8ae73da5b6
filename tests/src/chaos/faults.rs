//! The faults as they happen: what begins them, and what ends them.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use super::lab::Lab;
use super::schedule::{Kind, Planned};

/// A fault that has happened.
#[derive(Clone, Debug)]
pub struct Happened {
    /// What was planned.
    pub fault: Planned,
    /// When it began, from the start of the traffic.
    pub began: Duration,
    /// When it had ended.
    pub ended: Option<Duration>,
    /// Why it could not be made, or not be ended.
    pub failed: Option<String>,
}

impl Happened {
    /// Whether it was on at some time of this span, or had just ended.
    pub fn was_on(&self, from: Duration, to: Duration) -> bool {
        /// Its consequences go on for so long.
        const AFTER: Duration = Duration::from_secs(3);
        self.began <= to && self.ended.is_none_or(|ended| ended + AFTER >= from)
    }
}

/// An error in one line, which is not too long.
pub(super) fn brief(error: &anyhow::Error) -> String {
    /// Characters.
    const LONG: usize = 300;
    let text = format!("{error:#}");
    let lines =
        text.lines().map(str::trim).filter(|line| line.len() > 2 && !line.contains(" (0 lines)"));
    lines.collect::<Vec<_>>().join(" / ").chars().take(LONG).collect()
}

impl Lab<'_> {
    /// Begins a fault.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn begin(&mut self, fault: &Planned) -> Result<()> {
        let Planned { kind, target, detail, .. } = *fault;
        match kind {
            Kind::StallReader => self.peer(target)?.stall(true),
            Kind::KillReader => self.reader_leaves(target, false),
            Kind::DropReader => {
                self.peer(target)?.stall(true)?;
                sleep(Duration::from_millis(150));
                self.reader_leaves(target, true)
            }
            Kind::StopServer => self.servers.freeze(target, true),
            Kind::KillServer => self.servers.kill(target),
            Kind::Garbage => self.servers.impersonate(target, detail),
            Kind::FullDisk => self.while_frozen(|lab| lab.disk(target)?.fill()),
            Kind::RemoveFile if target == "sqlite" => {
                // What is written until the removal is noticed.
                self.allow("sqlite", 3);
                self.while_frozen(|lab| lab.database.remove_database())
            }
            Kind::RemoveFile => self.file(target)?.remove(),
            Kind::RemoveDirectory => self.while_frozen(|lab| match target {
                "archive" => lab.archive.remove_directory(),
                "spool" => Ok(std::fs::remove_dir_all(lab.spool())?),
                _ => lab.file(target)?.remove_directory(),
            }),
            Kind::ReplaceFile => self.file(target)?.replace(),
            Kind::Rotate => self.rotate(),
            Kind::Hangup => self.signal(Signal::SIGHUP),
            Kind::StopSelf => self.freeze(true),
            Kind::SilentNames => {
                self.names.silence(true);
                self.signal(Signal::SIGHUP)
            }
            Kind::ClockStep => {
                const STEPS: [i64; 4] = [3600, -3600, 2 * 86_400, -86_400];
                self.shim.step_clock(STEPS[(detail % 4) as usize])
            }
            Kind::FailDumps => self.shim.fail_dumps(1 + (detail % 3) as u32),
            Kind::FailSync => self.shim.fail_syncs(1),
            Kind::RemakeNamespace => self.remove_namespace(),
            Kind::Restart => self.restart(),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// What it has stopped does not start again.
    pub(super) fn end(&mut self, fault: &Planned) -> Result<()> {
        let target = fault.target;
        match fault.kind {
            Kind::StallReader => self.peer(target)?.stall(false),
            Kind::KillReader | Kind::DropReader => {
                let namespace = self.namespace;
                self.peer(target)?.come_back(namespace)
            }
            Kind::StopServer => self.servers.freeze(target, false),
            Kind::KillServer => self.servers.revive(target),
            Kind::Garbage => self.servers.unmask(target),
            Kind::FullDisk => self.disk(target)?.free(),
            Kind::RemoveDirectory => match target {
                "archive" => self.archive.make_directory(),
                "spool" => Ok(std::fs::create_dir_all(self.spool())?),
                _ => self.file(target)?.make_directory(),
            },
            Kind::StopSelf => self.freeze(false),
            Kind::SilentNames => {
                self.names.silence(false);
                Ok(())
            }
            Kind::ClockStep => self.shim.step_clock(0),
            Kind::FailDumps => self.shim.fail_dumps(0),
            Kind::FailSync => self.shim.fail_syncs(0),
            Kind::RemakeNamespace => self.inner.as_mut().context("no inner namespace")?.make_anew(),
            Kind::RemoveFile | Kind::ReplaceFile | Kind::Rotate | Kind::Hangup | Kind::Restart => {
                Ok(())
            }
        }
    }

    fn peer(&self, target: &str) -> Result<&super::peer::Peer> {
        self.peers.get(target).with_context(|| format!("{target} has no reader"))
    }

    fn file(&mut self, target: &str) -> Result<&mut super::file::LogFile> {
        self.files.get_mut(target).with_context(|| format!("{target} is no file"))
    }

    fn disk(&self, target: &str) -> Result<&super::disk::Disk> {
        self.disks.get(target).with_context(|| format!("{target} is no disk"))
    }

    fn spool(&self) -> std::path::PathBuf {
        self.directory.join("spool").join("live")
    }

    fn reader_leaves(&mut self, target: &'static str, with_unread: bool) -> Result<()> {
        self.while_frozen(|lab| lab.peer(target)?.leave(with_unread))
    }

    fn rotate(&mut self) -> Result<()> {
        for name in ["emu", "jfile", "hash", "inner"] {
            if let Some(file) = self.files.get_mut(name) {
                file.rotate()?;
            }
        }
        self.database.rotate()?;
        self.signal(Signal::SIGHUP)
    }

    /// Removes the inner namespace. flowlog keeps what has happened in it before.
    fn remove_namespace(&mut self) -> Result<()> {
        self.inner.as_mut().context("no inner namespace")?.remove();
        Ok(())
    }

    /// Ends the daemon, whatever else is wrong, and starts another one.
    fn restart(&mut self) -> Result<()> {
        self.stop()?;
        // Without the directory of an output it refuses to start, and says so.
        for file in self.files.values() {
            file.make_directory()?;
        }
        let started = self.start();
        if let Err(error) = &started {
            self.breaks(format!("the daemon does not start again: {}", brief(error)));
        }
        started
    }
}
