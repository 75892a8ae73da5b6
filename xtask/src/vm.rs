//! `cargo xtask vm`: a command on another kernel. A Debian cloud kernel is booted in QEMU with an
//! initramfs made here, the command runs in it as root, its output comes out here and its status
//! is that of the verb. Nothing of the host is touched, and root is not needed.
//!
//! [`programs`] sees to the host's programs, [`kernel`] fetches a kernel by apt and [`vmlinux`]
//! unpacks it; [`initramfs`] packs what the guest needs with [`cpio`], [`modules`] and [`init`];
//! [`qemu`] boots it and [`console`] tells how the guest ended.
//!
//! The processor is always emulated (TCG). /dev/kvm is no reason to use it: it can be there and
//! not be able to run Debian's kernels, and QEMU does not fall back once it has opened it.

mod console;
mod cpio;
mod init;
mod initramfs;
mod kernel;
mod modules;
mod programs;
mod qemu;
mod vmlinux;

use std::fmt::Display;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::interrupt;
use crate::run::duration;
use console::Ending;

/// The status of a command that did not end in time, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// The status if the guest ended before the command did.
const DIED: u8 = 125;

/// What `cargo xtask vm` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The exit status is the command's; 124 if it did not end in time, 125 if the guest ended before it.")]
pub(crate) struct Args {
    /// The series of the kernel: 5.10, 6.1, 6.12, or what Debian unstable has
    #[arg(long, value_name = "SERIES", value_parser = series)]
    kernel: String,
    /// How long boot and command may take, such as 90s or 5m
    #[arg(long, value_name = "TIME", default_value = "120s", value_parser = duration)]
    timeout: Duration,
    /// A directory whose files are put into the guest's /host, where the command starts;
    /// programs bring the libraries that they need
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs a command in a guest.
///
/// # Errors
/// The guest cannot be made, or somebody wants an end.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if cfg!(not(target_arch = "x86_64")) {
        bail!("the guest gets this host's programs, and its kernels are for x86-64 only");
    }
    if !programs::provide()? {
        return Ok(ExitCode::FAILURE);
    }
    // From here on there are files and processes to be removed.
    interrupt::watch()?;
    let kernel = kernel::provide(&args.kernel)?;
    interrupt::check()?;
    let work = tempfile::Builder::new().prefix("flowlog-vm-").tempdir()?;
    let initrd = work.path().join("initrd");
    initramfs::write(&initrd, &kernel, args.dir.as_deref(), &args.command)
        .context("cannot make the initramfs")?;
    interrupt::check()?;
    let guest = qemu::Guest {
        kernel: &kernel.join(vmlinux::NAME),
        initrd: &initrd,
        console: &work.path().join("console"),
        errors: &work.path().join("errors"),
        limit: args.timeout,
    };
    Ok(match qemu::run(&guest)? {
        Ending::Exit(status) => ExitCode::from(status),
        Ending::TimedOut { last_words } => {
            note(format_args!("{last_words}timed out after {} s", args.timeout.as_secs()));
            ExitCode::from(TIMED_OUT)
        }
        Ending::Died { last_words } => {
            note(format_args!("{last_words}the guest ended before the command did"));
            ExitCode::from(DIED)
        }
    })
}

/// Says something beside the command's output, which standard output belongs to.
fn note(words: impl Display) {
    // A reader that has gone away is no error.
    let _ = writeln!(std::io::stderr().lock(), "{words}");
}

/// Two numbers with a dot between them. What else could be written here would end in file names
/// and patterns.
fn series(text: &str) -> Result<String, String> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((major, minor)) if number(major) && number(minor) => Ok(text.to_owned()),
        _ => Err("expected a series such as 6.12".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!(series("6.12").as_deref(), Ok("6.12"));
        for wrong in ["6", "6.", ".1", "6.1.0", "6.x", "../6.1", ""] {
            assert!(series(wrong).is_err(), "{wrong}");
        }
    }
}
