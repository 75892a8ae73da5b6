//! A Debian 12 to install things in: the system that `cargo xtask test` keeps, under a layer that
//! takes what is written and is gone with its guard.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

/// Puts the layer over the system `$1`, in a mount namespace of its own, and becomes a process
/// that lives there. Overlay wants its layer elsewhere than what is below it: in memory.
const LAYER: &str = r#"
mount -t tmpfs -o mode=755 layer /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work" root /mnt/root
mount -t proc proc /mnt/root/proc
mount -t tmpfs -o mode=755 run /mnt/root/run
mount -t tmpfs -o mode=1777 tmp /mnt/root/tmp
touch /mnt/root/run/here
exec chroot /mnt/root sleep infinity
"#;

/// A system that is running, but for its init.
#[derive(Debug)]
pub struct Debian {
    /// Lives in it, and it in this.
    holder: Guarded,
}

impl Debian {
    /// As Debian installs it.
    ///
    /// # Errors
    /// It was not made, or overlays cannot be had.
    pub fn new() -> Result<Self> {
        let system = made("FLOWLOG_DEBIAN")?;
        let mut command = Command::new("setpriv");
        // A test that is killed leaves nothing behind.
        command.args(["--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", LAYER, "sh"]);
        let mut holder = Guarded::spawn(command.arg(system))?;
        let here = format!("/proc/{}/root/run/here", holder.pid());
        poll::until("a Debian", || {
            let ended = holder.ended()?;
            ensure!(ended.is_none(), "the layer cannot be mounted: {ended:?}");
            Ok(Path::new(&here).exists().then_some(()))
        })?;
        Ok(Self { holder })
    }

    /// With the package, as dpkg installs it.
    ///
    /// # Errors
    /// As [`Debian::new`] and [`Debian::install`].
    pub fn with_package() -> Result<Self> {
        let debian = Self::new()?;
        debian.install()?;
        Ok(debian)
    }

    /// Installs the package.
    ///
    /// # Errors
    /// dpkg fails.
    pub fn install(&self) -> Result<()> {
        fs::copy(made("FLOWLOG_DEB")?, self.path("/run/flowlog.deb"))?;
        self.run("dpkg --install /run/flowlog.deb").map(drop)
    }

    /// A file of it, as this process can open it.
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{file}", self.holder.pid()))
    }

    /// The text of a file of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn text(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.path(file)).with_context(|| file.to_owned())
    }

    /// A command that will run in it, in the network of the caller.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter(Command::new("nsenter"));
        command.arg(program);
        command
    }

    /// A command that will run in it, in this network.
    pub fn command_in(&self, network: &Namespace, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter(network.command("nsenter"));
        command.arg(program);
        command
    }

    /// The process that lives in it.
    pub(crate) fn pid(&self) -> i32 {
        self.holder.pid()
    }

    fn enter(&self, mut nsenter: Command) -> Command {
        let pid = self.holder.pid();
        nsenter.arg(format!("--target={pid}")).args(["--mount", "--root"]);
        // `/` would be that of the caller, outside.
        nsenter.arg(format!("--wd=/proc/{pid}/root")).arg("--");
        nsenter.env_clear().env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
        nsenter.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        nsenter
    }

    /// Runs a script in it and returns all that it says.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        let (ok, said) = self.try_run(script)?;
        ensure!(ok, "`{script}` failed in Debian:\n{said}");
        Ok(said)
    }

    /// Whether a script succeeds in it, and all that it says.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn try_run(&self, script: &str) -> Result<(bool, String)> {
        output(&mut self.enter(Command::new("nsenter")), script)
    }
}

/// Whether a script succeeds behind a command that runs another, and all that it says.
pub(crate) fn output(command: &mut Command, script: &str) -> Result<(bool, String)> {
    let output = command.args(["sh", "-ec", &format!("exec 2>&1\n{script}")]).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// What `cargo xtask test` has made and names in the environment.
///
/// # Errors
/// It has not.
pub fn made(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable).map(PathBuf::from);
    path.with_context(|| format!("{variable} is not set; these tests run by `cargo xtask test`"))
}
