//! Going to the background. The parent waits until the daemon runs, and exits
//! with its code, so that the caller sees a start that failed. It does not wait
//! for ever, and says what the daemon is doing when a start takes long.
#![expect(unsafe_code, reason = "fork has no safe form")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{
    ForkResult, Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid,
};

use crate::log;

/// How often the parent says what it waits for.
const REPORT: Duration = Duration::from_secs(10);
/// How long the parent waits for the daemon to run; as systemd does.
const LIMIT: Duration = Duration::from_secs(90);
/// How long a daemon may take to end: after a failed start, and after a signal.
const END: Duration = Duration::from_secs(5);
/// What the daemon writes when it runs.
const READY: u8 = 0;

/// Who goes on after [`fork_to_background`].
pub enum Role {
    /// The process that was started: exit with this code.
    Parent(ExitCode),
    /// The daemon.
    Daemon(Readiness),
}

/// What a daemon does while it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// The log, the user and the pidfile.
    Log = 1,
    /// Outputs, spool and sources.
    Outputs,
    /// The flows that exist.
    Table,
    /// The last steps.
    Privileges,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Log, Self::Outputs, Self::Table, Self::Privileges];

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| *stage as u8 == byte)
    }

    /// In words, behind "it is".
    fn words(self) -> &'static str {
        match self {
            Self::Log => "opening logfile and pidfile, or looking the user up",
            Self::Outputs => "opening the outputs, the spool and the sources",
            Self::Table => "reading the connections that exist",
            Self::Privileges => "giving up privileges",
        }
    }
}

/// Reports to the waiting parent how the start goes. Dropped before
/// [`Readiness::ready`] it reports failure.
pub struct Readiness(File);

/// Forks. Call before there are threads.
///
/// # Errors
/// The kernel has no resources for another process.
pub fn fork_to_background() -> io::Result<Role> {
    let (reader, writer) = pipe()?;
    // SAFETY: the process has one thread yet, so the child finds no lock held
    // by a thread that does not exist there.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            Ok(Role::Parent(wait_for(child, File::from(reader), LIMIT, REPORT)?))
        }
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            Ok(Role::Daemon(Readiness(File::from(writer))))
        }
    }
}

/// Waits until the daemon runs or has failed; after `limit` it is ended.
fn wait_for(
    child: Pid,
    mut reader: File,
    limit: Duration,
    report: Duration,
) -> io::Result<ExitCode> {
    let start = Instant::now();
    let mut stage = Stage::Log;
    let mut due = report;
    while start.elapsed() < limit {
        let wait = due.min(limit).saturating_sub(start.elapsed());
        if !is_readable(&reader, wait)? {
            if start.elapsed() >= due {
                let seconds = start.elapsed().as_secs();
                let words = stage.words();
                log::say(&format!("flowlog: not started after {seconds} s: it is {words}"));
                due += report;
            }
            continue;
        }
        let mut byte = [READY];
        match reader.read(&mut byte)? {
            0 => return Ok(exit_code(end_of(child, END))),
            _ if byte == [READY] => return Ok(ExitCode::SUCCESS),
            _ => stage = Stage::of(byte[0]).unwrap_or(stage),
        }
    }
    log::say(&format!(
        "flowlog: not started within {} s, and ended now: it was {}; look for a disk or file system \
         that does not answer",
        limit.as_secs(),
        stage.words()
    ));
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // One that has ended needs none.
        let _ = kill(child, signal);
        if end_of(child, END).is_some() {
            break;
        }
    }
    Ok(ExitCode::FAILURE)
}

fn is_readable(reader: &File, wait: Duration) -> io::Result<bool> {
    // Rounded up, so that the time is over afterwards.
    let wait = PollTimeout::try_from(wait + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], wait) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// How the daemon ended, if it does so in time.
fn end_of(child: Pid, limit: Duration) -> Option<WaitStatus> {
    let start = Instant::now();
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if start.elapsed() < limit => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return None,
            Ok(status) => return Some(status),
        }
    }
}

fn exit_code(end: Option<WaitStatus>) -> ExitCode {
    match end {
        Some(WaitStatus::Exited(_, code @ 1..=255)) => ExitCode::from(code as u8),
        _ => ExitCode::FAILURE,
    }
}

impl Readiness {
    /// Reports what the daemon does now.
    pub fn at(&mut self, stage: Stage) {
        // A parent that was ended needs to know nothing.
        let _ = self.0.write_all(&[stage as u8]);
    }

    /// The daemon runs: leaves the terminal and the directory, and releases
    /// the parent.
    ///
    /// # Errors
    /// /dev/null cannot be opened.
    pub fn ready(mut self) -> io::Result<()> {
        chdir("/")?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(null.as_fd())?;
        dup2_stdout(null.as_fd())?;
        dup2_stderr(null.as_fd())?;
        self.0.write_all(&[READY])
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// What the parent of a child that does this exits with, and the child.
    #[expect(
        clippy::zombie_processes,
        reason = "the parent under test waits for it, by its number"
    )]
    fn parent_of(script: &str, bytes: &[u8], keep: bool) -> (String, Pid) {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let (reader, writer) = pipe().unwrap();
        let mut writer = File::from(writer);
        writer.write_all(bytes).unwrap();
        let kept = keep.then_some(writer);
        let pid = Pid::from_raw(child.id() as i32);
        let limit = Duration::from_millis(300);
        let code = wait_for(pid, File::from(reader), limit, Duration::from_millis(100)).unwrap();
        drop(kept);
        (format!("{code:?}"), pid)
    }

    fn code(code: u8) -> String {
        format!("{:?}", ExitCode::from(code))
    }

    #[test]
    fn a_daemon_that_fails_has_its_code_returned() {
        assert_eq!(parent_of("exit 2", &[Stage::Outputs as u8], false).0, code(2));
        assert_eq!(parent_of("kill -9 $$", &[], false).0, code(1));
    }

    #[test]
    fn a_daemon_that_runs_is_a_success() {
        let bytes = [Stage::Log as u8, Stage::Table as u8, READY];
        let (ended, pid) = parent_of("exit 0", &bytes, true);
        assert_eq!(ended, code(0));
        waitpid(pid, None).unwrap();
    }

    #[test]
    fn a_daemon_that_does_not_start_in_time_is_ended() {
        let start = Instant::now();
        let (ended, pid) = parent_of("exec sleep 60", &[Stage::Outputs as u8], true);
        assert_eq!(ended, code(1));
        assert!(start.elapsed() < END, "it took {:?}", start.elapsed());
        assert!(kill(pid, None).is_err(), "it lives");
    }
}
