//! One network namespace, gone when its guard is dropped: commands and threads run in it, its
//! sysctls are set, and its conntrack table is counted, emptied or asked to let go what expired.

use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::poll;

/// A network namespace with a name of its own and `lo` up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace; `role` is part of its name, so that `ip netns` can be read.
    ///
    /// # Errors
    /// `ip` is missing or the caller may not make namespaces.
    pub fn new(role: &str) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        Self::called(&format!("flowlog-{}-{number}-{role}", std::process::id()))
    }

    /// Makes a namespace of just this name, for a guest, where nobody else makes any.
    ///
    /// # Errors
    /// As [`Namespace::new`], or there is one of that name.
    pub fn called(name: &str) -> Result<Self> {
        let name = name.to_owned();
        output(Command::new("ip").args(["netns", "add", &name]), "")?;
        let namespace = Self { name };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The name that `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it, as `--netns` takes it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Its inode number, by which the kernel and `NETNS=` name it.
    ///
    /// # Errors
    /// It is gone.
    pub fn inode(&self) -> Result<u64> {
        Ok(fs::metadata(self.path())?.ino())
    }

    /// A command that will run in this namespace. The process keeps the id of the child, because
    /// `nsenter` replaces itself.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command.arg("--").arg(program);
        command
    }

    /// Runs a command line (words parted by blanks) here and returns its standard output.
    ///
    /// # Errors
    /// The command cannot be run or fails; with what it said.
    pub fn run(&self, command_line: &str) -> Result<String> {
        let mut words = command_line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        output(self.command(program).args(words), "")
    }

    /// Runs `ip` here, one command a line.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub fn ip(&self, batch: &str) -> Result<()> {
        output(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), batch).map(drop)
    }

    /// Loads an nftables ruleset here.
    ///
    /// # Errors
    /// As [`Namespace::run`].
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        output(self.command("nft").args(["-f", "-"]), ruleset).map(drop)
    }

    /// Runs `work` on a thread of its own that has entered this namespace. What the thread opens
    /// (sockets) stays in the namespace and may be used anywhere afterwards.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` failed.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&self.path(), work)
    }

    /// Reads a sysctl of this namespace, such as `net/netfilter/nf_conntrack_acct`.
    ///
    /// # Errors
    /// There is no such sysctl.
    pub fn sysctl(&self, key: &str) -> Result<String> {
        let path = format!("/proc/sys/{key}");
        self.enter(|| Ok(fs::read_to_string(&path).with_context(|| path.clone())?.trim().into()))
    }

    /// Bytes that have come over its loopback so far, in both directions, with all headers.
    ///
    /// # Errors
    /// /proc has no such device.
    pub fn loopback_bytes(&self) -> Result<u64> {
        let table = self.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"));
        Ok(line.context("no loopback")?.split_whitespace().next().context("no number")?.parse()?)
    }

    /// Sets sysctls of this namespace.
    ///
    /// # Errors
    /// One does not exist or refuses its value.
    pub fn set_sysctls<V: Display + Sync>(&self, sysctls: &[(&str, V)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in sysctls {
                let path = format!("/proc/sys/{key}");
                fs::write(&path, value.to_string()).with_context(|| format!("{path}={value}"))?;
            }
            Ok(())
        })
    }

    /// How many flows the table holds, those included that have expired but were not yet collected.
    ///
    /// # Errors
    /// conntrack is not in this kernel.
    pub fn conntrack_count(&self) -> Result<u64> {
        Ok(self.sysctl("net/netfilter/nf_conntrack_count")?.parse()?)
    }

    /// Ends all flows at once; each gives its destroy event.
    ///
    /// # Errors
    /// The `conntrack` tool is missing or failed.
    pub fn flush_conntrack(&self) -> Result<()> {
        self.run("conntrack -F").map(drop)
    }

    /// Waits until all flows have ended by their own timeouts. The kernel collects expired flows
    /// lazily, up to a minute late, but a dump of the table takes them out at once.
    ///
    /// # Errors
    /// Flows are left after [`poll::PATIENCE`].
    pub fn expire_conntrack(&self) -> Result<()> {
        poll::until("the flows to expire", || {
            self.run("conntrack -L")?;
            Ok((self.conntrack_count()? == 0).then_some(()))
        })
    }
}

/// Runs `work` on a thread of its own that has entered the namespace of this file, see
/// [`Namespace::enter`].
///
/// # Errors
/// As there.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let enter_and_work = || {
        let file = File::open(path)?;
        setns(file, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("setns {}", path.display()))?;
        work()
    };
    thread::scope(|scope| scope.spawn(enter_and_work).join())
        .map_err(|_panic| anyhow!("a thread in {} panicked, see above", path.display()))?
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the next namespace has another name.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Runs a command to its end with `input` and returns what it printed.
fn output(command: &mut Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).with_context(|| format!("{command:?}"))?;
    }
    let done = child.wait_with_output()?;
    if !done.status.success() {
        bail!("{command:?}: {}: {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8(done.stdout)?)
}
