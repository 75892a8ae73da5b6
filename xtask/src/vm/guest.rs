//! A guest, from the command that it runs to how that ended: what `cargo xtask vm` does, for other
//! verbs as well.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::console::Ending;
use super::{initramfs, qemu, vmlinux};
use crate::interrupt;

/// Room for what comes back from a guest, in bytes. The file has holes where nothing was written.
const DISK: u64 = 1 << 30;

/// What runs where.
#[derive(Debug)]
pub(crate) struct Guest<'g> {
    /// The directory of a kernel, as [`super::kernel::provide`] gives it.
    pub(crate) kernel: &'g Path,
    /// What it runs on.
    pub(crate) machine: Machine,
    /// Its files are put into the guest's /host, where the command starts; programs bring the
    /// libraries that they need.
    pub(crate) directory: Option<&'g Path>,
    /// The command and its arguments.
    pub(crate) command: &'g [String],
    /// Gets the files that the command leaves in the guest's /out.
    pub(crate) out: Option<&'g Path>,
    /// How long boot and command may take.
    pub(crate) limit: Duration,
}

/// The hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// How many processors.
    pub(crate) processors: u32,
    /// In MiB. What the guest has of files is in memory too.
    pub(crate) memory: u32,
    /// Whether its clock counts instructions, one a nanosecond, so that a difference of two times
    /// is the same whatever else the host does. Only for one processor.
    pub(crate) exact: bool,
}

impl Default for Machine {
    /// Two processors, so that what runs side by side on hosts does here. An eighth of the memory
    /// is enough for the kernel and the programs.
    fn default() -> Self {
        Self { processors: 2, memory: 768, exact: false }
    }
}

impl Guest<'_> {
    /// Boots the guest and waits for its end. What the command writes goes to `output` as it
    /// comes.
    ///
    /// # Errors
    /// The guest cannot be made, its files do not come back whole, or somebody wants an end.
    pub(crate) fn run(&self, output: impl Write + Send) -> Result<Ending> {
        let work = tempfile::Builder::new().prefix("flowlog-vm-").tempdir()?;
        let in_work = |name| work.path().join(name);
        let initrd = in_work("initrd");
        initramfs::write(&initrd, self.kernel, self.directory, self.command)
            .context("cannot make the initramfs")?;
        let disk = self.out.map(|_| in_work("disk"));
        if let Some(disk) = &disk {
            File::create(disk)?.set_len(DISK)?;
        }
        interrupt::check()?;
        let boot = qemu::Boot {
            machine: self.machine,
            kernel: &self.kernel.join(vmlinux::NAME),
            initrd: &initrd,
            disk: disk.as_deref(),
            console: &in_work("console"),
            errors: &in_work("errors"),
            limit: self.limit,
        };
        let ending = qemu::run(&boot, output)?;
        if let (Ending::Exit(_), Some(disk), Some(out)) = (&ending, &disk, self.out) {
            unpack(disk, out).context("the guest's /out did not come back whole")?;
        }
        Ok(ending)
    }
}

/// Unpacks the archive that the guest has written onto its disk.
fn unpack(disk: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut command = Command::new("tar");
    // In the guest everything belongs to root; here it shall belong to the caller.
    command
        .args(["--extract", "--no-same-owner", "--no-overwrite-dir", "--file"])
        .arg(disk)
        .arg("-C")
        .arg(into);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    ensure!(status.context("cannot run tar")?.success(), "tar cannot unpack it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::process::Command;

    use super::{DISK, unpack};

    #[test]
    fn files_come_back_from_a_disk_larger_than_they_are() {
        let place = tempfile::tempdir().unwrap();
        let path = |name| place.path().join(name);
        fs::create_dir_all(path("from/sub")).unwrap();
        fs::write(path("from/sub/a"), "1234").unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(path("disk")).arg("-C").arg(path("from")).arg(".");
        assert!(tar.status().unwrap().success());
        let disk = OpenOptions::new().write(true).open(path("disk")).unwrap();
        disk.set_len(DISK).unwrap();
        unpack(&path("disk"), &path("to/new")).unwrap();
        assert_eq!(fs::read_to_string(path("to/new/sub/a")).unwrap(), "1234");
    }
}
