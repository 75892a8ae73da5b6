//! A process that does not outlive its guard, and what /proc tells about it: processor time,
//! memory, and its netlink sockets with their groups and drops.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::namespace::Namespace;
use crate::poll;

/// `NETLINK_NETFILTER` of linux/netlink.h.
const NETLINK_NETFILTER: &str = "12";

/// How long a process may take to end before it counts as hung. The kernel waits for all processors
/// before a kprobe is gone, one probe after another: an emulated PREEMPT_RT kernel took 81 s for those
/// of twelve sources.
const END: Duration =
    if cfg!(feature = "guest") { Duration::from_secs(300) } else { poll::PATIENCE };

/// A process that is killed when this is dropped: a child, or a daemon known by its id alone.
#[derive(Debug)]
pub struct Guarded {
    pid: Pid,
    child: Option<Child>,
    ended: bool,
}

impl Guarded {
    /// Starts a child.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self { pid, child: Some(child), ended: false })
    }

    /// Guards a daemon that left its parent, given the number from its pidfile.
    ///
    /// # Errors
    /// The number is none.
    pub fn adopt(pidfile: &str) -> Result<Self> {
        let number: i32 = pidfile.trim().parse().with_context(|| format!("pid {pidfile:?}"))?;
        Ok(Self { pid: Pid::from_raw(number), child: None, ended: false })
    }

    /// The process id.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// The process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid, signal).with_context(|| format!("{signal} to {}", self.pid))
    }

    /// Stops the process and waits until it stands still, so that nothing is read any more.
    ///
    /// # Errors
    /// The process is gone.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        poll::until("the process to stop", || {
            Ok(self.status("State")?.starts_with('T').then_some(()))
        })
    }

    /// Lets a frozen process go on.
    ///
    /// # Errors
    /// The process is gone.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// The exit code if it has ended: 128 + signal if one killed it, none for an adopted process,
    /// whose code only its real parent learns.
    ///
    /// # Errors
    /// The process cannot be asked.
    pub fn ended(&mut self) -> Result<Option<Option<i32>>> {
        let Some(child) = &mut self.child else {
            // A zombie that init has not yet collected has ended too.
            let gone = !self.status("State").is_ok_and(|state| !state.starts_with('Z'));
            self.ended |= gone;
            return Ok(gone.then_some(None));
        };
        let status = child.try_wait()?;
        self.ended |= status.is_some();
        Ok(status.map(|status| Some(exit_code(status))))
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// It does not end within [`poll::PATIENCE`], in a guest within five minutes.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        let what = format!("process {} to end", self.pid);
        poll::within(END, &what, || self.ended())
    }

    /// A field of /proc/PID/status, such as `CapEff` or `VmHWM`.
    ///
    /// # Errors
    /// The process is gone or there is no such field.
    pub fn status(&self, field: &str) -> Result<String> {
        let path = format!("/proc/{}/status", self.pid);
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {field} in {path}"))?.trim().to_owned())
    }

    /// The most memory that was ever resident, in KiB.
    ///
    /// # Errors
    /// The process is gone.
    pub fn peak_memory(&self) -> Result<u64> {
        kibibytes(&self.status("VmHWM")?)
    }

    /// The memory that is resident now, in KiB.
    ///
    /// # Errors
    /// The process is gone.
    pub fn memory(&self) -> Result<u64> {
        kibibytes(&self.status("VmRSS")?)
    }

    /// Processor time so far, user and system, all threads; in steps of the clock tick (10 ms).
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        ticks(self.pid(), 2)
    }

    /// The netfilter netlink sockets that this process holds in `namespace`.
    ///
    /// # Errors
    /// The process is gone.
    pub fn netlink_sockets(&self, namespace: &Namespace) -> Result<Vec<NetlinkSocket>> {
        let mut own = Vec::new();
        for fd in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            // A descriptor may be closed while the directory is read.
            if let Ok(target) = fs::read_link(fd?.path()) {
                own.push(target.to_string_lossy().into_owned());
            }
        }
        let table = namespace.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/netlink")?))?;
        let is_own = |inode: &str| own.contains(&format!("socket:[{inode}]"));
        let mut sockets = Vec::new();
        for line in table.lines().skip(1) {
            let words: Vec<_> = line.split_whitespace().collect();
            let [_, protocol, _, groups, queued, _, _, _, drops, inode] = words[..] else {
                bail!("/proc/net/netlink has {} columns, not 10", words.len());
            };
            if protocol == NETLINK_NETFILTER && is_own(inode) {
                sockets.push(NetlinkSocket {
                    groups: u32::from_str_radix(groups, 16)?,
                    queued: queued.parse()?,
                    drops: drops.parse()?,
                });
            }
        }
        Ok(sockets)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.signal(Signal::SIGKILL);
            if let Some(child) = &mut self.child {
                let _ = child.wait();
            }
        }
    }
}

/// A netfilter netlink socket, from /proc/net/netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetlinkSocket {
    /// The groups joined, bit n for group n + 1.
    pub groups: u32,
    /// Bytes of kernel memory that wait to be read.
    pub queued: u64,
    /// Messages that found the buffer full.
    pub drops: u64,
}

/// Processor time of a process so far, with that of its children that have ended.
///
/// # Errors
/// The process is gone.
pub fn cpu_time_with_children(pid: i32) -> Result<Duration> {
    ticks(pid, 4)
}

/// The sum of the first so many of utime, stime, cutime and cstime.
fn ticks(pid: i32, numbers: usize) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program name may hold blanks; after its bracket, utime is word 12.
    let words = stat.rsplit_once(") ").context("a strange /proc/PID/stat")?.1;
    let ticks = words.split(' ').skip(11).take(numbers).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
    Ok(Duration::from_millis(ticks * 1000 / u64::try_from(per_second)?))
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn kibibytes(field: &str) -> Result<u64> {
    Ok(field.trim_end_matches(" kB").parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_and_ended() -> Result<()> {
        let busy = "while :; do :; done";
        let process = Guarded::spawn(Command::new("sh").args(["-c", busy]))?;
        poll::until("processor time", || {
            Ok((process.cpu_time()? >= Duration::from_millis(20)).then_some(()))
        })?;
        assert!(process.memory()? > 0 && process.memory()? <= process.peak_memory()?);
        process.freeze()?;
        let pid = process.pid();
        drop(process);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        Ok(())
    }
}
