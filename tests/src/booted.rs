//! systemd as init of a [`Debian`], in namespaces: what it starts it really sandboxes and watches.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::{Debian, output};
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

/// A group of processes of its own below that of the caller, `$1`, as the root of those that systemd
/// makes; then the namespaces.
const GROUP: &str = r#"
mkdir /mnt/cgroup
mount -t cgroup2 cgroup /mnt/cgroup
group=/mnt/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/$1
mkdir "$group"
ln -sfn "$group" /mnt/group
echo $$ > "$group/cgroup.procs"
exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child sh -ec "$2"
"#;
/// systemd gets no device of this host, and none of its sysctls but those of the network.
const INIT: &str = r#"
cd /mnt/root
mkdir /mnt/dev
mount -t tmpfs -o mode=755 devices /mnt/dev
for name in null zero full random urandom tty; do cp -a dev/$name /mnt/dev/; done
ln -s pts/ptmx /mnt/dev/ptmx
mount --bind /mnt/dev dev
umount proc
mount -t proc proc proc
mkdir /mnt/net
mount --bind proc/sys/net /mnt/net
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind /mnt/net proc/sys/net
mount -t sysfs -o ro sys sys
mount -t cgroup2 cgroup sys/fs/cgroup
ln -sfn /dev/null etc/systemd/system/getty.target
export container=flowlog-test
exec chroot . /lib/systemd/systemd --log-target=journal --show-status=no
"#;
/// Its end is seen when the group is empty, and can be removed.
const REMOVE: &str = r#"find "$(readlink /mnt/group)" -depth -type d -exec rmdir {} +"#;

/// A Debian whose systemd runs.
#[derive(Debug)]
pub struct Booted<'d> {
    debian: &'d Debian,
    /// Ends it with its own end.
    parent: Option<Guarded>,
    /// systemd itself.
    init: i32,
}

impl<'d> Booted<'d> {
    /// Boots, in a network.
    ///
    /// # Errors
    /// It does not come up.
    pub fn new(debian: &'d Debian, network: &Namespace) -> Result<Self> {
        let group = format!("flowlog-test-{}-{}", std::process::id(), debian.pid());
        let mut command = network.command("setpriv");
        command.args(["--pdeathsig", "KILL", "nsenter"]);
        command.arg(format!("--target={}", debian.pid())).args(["--mount", "--", "sh", "-ec"]);
        let mut parent = Guarded::spawn(command.args([GROUP, "sh", &group, INIT]))?;
        let children = format!("/proc/{0}/task/{0}/children", parent.pid());
        let init = poll::until("systemd", || {
            let ended = parent.ended()?;
            ensure!(ended.is_none(), "it ended with {ended:?}");
            let Ok(pid) = fs::read_to_string(&children)?.trim().parse::<i32>() else {
                return Ok(None);
            };
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Ok((name.trim() == "systemd").then_some(pid))
        })?;
        let booted = Self { debian, parent: Some(parent), init };
        poll::until("all units", || {
            let (_, state) = booted.try_run("systemctl is-system-running")?;
            Ok(["running", "degraded"].contains(&state.trim()).then_some(()))
        })?;
        Ok(booted)
    }

    /// Runs a script in it and returns all that it says.
    ///
    /// # Errors
    /// It fails; with what it said.
    pub fn run(&self, script: &str) -> Result<String> {
        let (ok, said) = self.try_run(script)?;
        ensure!(ok, "`{script}` failed under systemd:\n{said}");
        Ok(said)
    }

    /// Whether a script succeeds in it, and all that it says.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn try_run(&self, script: &str) -> Result<(bool, String)> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--root"]);
        command.arg(format!("--wd=/proc/{}/root", self.init)).arg("--");
        output(&mut command, script)
    }

    /// A property of a unit, as `systemctl show` tells it.
    ///
    /// # Errors
    /// systemd does not answer.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        Ok(self.run(&format!("systemctl show --value -p {name} {unit}"))?.trim().to_owned())
    }

    /// A field of the status of a unit's main process, in /proc.
    ///
    /// # Errors
    /// There is no such process.
    pub fn status(&self, unit: &str, field: &str) -> Result<String> {
        let pid = self.property(unit, "MainPID")?;
        let status = self.run(&format!("cat /proc/{pid}/status"))?;
        let found = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        Ok(found.with_context(|| format!("no {field} of {pid}"))?.trim().to_owned())
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        drop(self.parent.take());
        let mut remove = Command::new("nsenter");
        remove.arg(format!("--target={}", self.debian.pid())).args(["--mount", "--"]);
        remove.args(["sh", "-c", REMOVE]);
        // What cannot be removed is empty, and does no harm.
        let _ = poll::until("the end of systemd", || {
            Ok(remove.output()?.status.success().then_some(()))
        });
    }
}
