//! `cargo xtask vm`: a command on another kernel. A Debian cloud kernel is booted in QEMU with an
//! initramfs made here, the command runs in it as root, its output comes out here and its status
//! is that of the verb. Nothing of the host is touched, and root is not needed.
//!
//! [`kernel`] fetches a kernel by apt and [`vmlinux`] unpacks it; [`guest`] puts the rest
//! together: [`initramfs`] packs what the guest needs with [`cpio`], [`modules`] and [`init`],
//! [`qemu`] boots it, with its clock set by [`tsc`], and [`console`] tells how the guest ended.
//!
//! The processor is always emulated (TCG). /dev/kvm is no reason to use it: it can be there and
//! not be able to run Debian's kernels, and QEMU does not fall back once it has opened it.

mod console;
mod cpio;
mod guest;
mod init;
mod initramfs;
pub(crate) mod kernel;
mod modules;
mod qemu;
mod tsc;
mod vmlinux;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::value_parser;

pub(crate) use self::console::Ending;
pub(crate) use self::guest::{Guest, Machine};
use crate::run::duration;
use crate::say::note;
use crate::{interrupt, packages};

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
    /// A directory for the files that the command leaves in the guest's /out
    #[arg(long)]
    out: Option<PathBuf>,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = Machine::default().processors,
          value_parser = value_parser!(u32).range(1..=64), conflicts_with = "icount")]
    smp: u32,
    /// Memory of the guest, which its files are in too
    #[arg(long, value_name = "MIB", default_value_t = Machine::default().memory,
          value_parser = value_parser!(u32).range(128..))]
    memory: u32,
    /// Count instructions: the guest's clock advances one nanosecond with each, on one processor,
    /// so that times in it can be compared exactly
    #[arg(long)]
    icount: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs a command in a guest.
///
/// # Errors
/// The guest cannot be made, or somebody wants an end.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !packages::provide(&[packages::GUESTS, packages::LAB])? {
        return Ok(ExitCode::FAILURE);
    }
    // From here on there are files and processes to be removed.
    interrupt::watch()?;
    let processors = if args.icount { 1 } else { args.smp };
    let guest = Guest {
        kernel: &kernel::provide(&args.kernel)?,
        machine: Machine { processors, memory: args.memory, exact: args.icount },
        directory: args.dir.as_deref(),
        command: &args.command,
        out: args.out.as_deref(),
        limit: args.timeout,
    };
    let ending = guest.run(std::io::stdout())?;
    if let Some(words) = ending.words(guest.limit) {
        note!("{words}");
    }
    Ok(ExitCode::from(match ending {
        Ending::Exit(status) => status,
        Ending::TimedOut { .. } => TIMED_OUT,
        Ending::Died { .. } => DIED,
    }))
}

/// Two numbers with a dot between them, with `-rt` behind for a PREEMPT_RT kernel. What else could
/// be written here would end in file names and patterns.
pub(crate) fn series(text: &str) -> Result<String, String> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_suffix(kernel::RT).unwrap_or(text).split_once('.') {
        Some((major, minor)) if number(major) && number(minor) => Ok(text.to_owned()),
        _ => Err("expected a series such as 6.12, or 6.12-rt".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::series;

    #[test]
    fn a_series_is_two_numbers() {
        for right in ["6.12", "6.1-rt"] {
            assert_eq!(series(right).as_deref(), Ok(right));
        }
        for wrong in ["6", "6.", ".1", "6.1.0", "6.x", "../6.1", "", "-rt", "6.1-rt-rt", "6.1-"] {
            assert!(series(wrong).is_err(), "{wrong}");
        }
    }
}
