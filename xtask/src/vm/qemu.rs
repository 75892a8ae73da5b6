//! QEMU: a guest's life as one child process, which never outlives its maker.

use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::console::{Ending, last_words, status};
use crate::interrupt;

/// The guest's memory in MiB. An eighth is enough for the kernel and the programs; the rest is for
/// the command's files, which are in memory too.
const MEMORY: &str = "768";
/// Processors. Two, so that what runs side by side on hosts does here.
const PROCESSORS: &str = "2";
/// The kernel's command line: a panic ends the guest at once, and what takes long under emulation
/// or waits for devices that are not there is left out.
const KERNEL: &str = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t nokaslr mitigations=off \
                      random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests";

/// What to boot, the files it may write, and how long it may take.
#[derive(Debug)]
pub(super) struct Guest<'p> {
    pub(super) kernel: &'p Path,
    pub(super) initrd: &'p Path,
    /// Gets the first serial port's output.
    pub(super) console: &'p Path,
    /// Gets what QEMU complains of.
    pub(super) errors: &'p Path,
    pub(super) limit: Duration,
}

/// Boots a guest, passes its output on and waits for its end.
///
/// # Errors
/// QEMU cannot be run, or somebody wants an end.
pub(super) fn run(guest: &Guest<'_>) -> Result<Ending> {
    let begin = Instant::now();
    let mut process = Process(command(guest)?.spawn().context("cannot run QEMU")?);
    let output = process.0.stdout.take();
    let printer = thread::spawn(move || output.map(pass_on));
    let ended = process.wait(guest.limit.saturating_sub(begin.elapsed()))?;
    // Its end of the pipe must be closed before the printer can end.
    drop(process);
    let _ = printer.join();
    interrupt::check()?;
    let read = |file| fs::read(file).map(|text| String::from_utf8_lossy(&text).into_owned());
    let console = read(guest.console).unwrap_or_default();
    Ok(match (ended, status(&console)) {
        (Some(end), Some(status)) if end.success() => Ending::Exit(status),
        (None, _) => Ending::TimedOut { last_words: last_words(&console) },
        (Some(_), _) => {
            let errors = read(guest.errors).unwrap_or_default();
            Ending::Died { last_words: last_words(&console) + &errors }
        }
    })
}

fn command(guest: &Guest<'_>) -> Result<Command> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-nic", "none", "-machine", "q35", "-accel", "tcg,thread=multi"]);
    command.args(["-cpu", "max", "-smp", PROCESSORS, "-m", MEMORY]);
    // In an option's value a comma is written twice.
    let console = guest.console.display().to_string().replace(',', ",,");
    command.arg("-chardev").arg(format!("file,id=console,path={console}"));
    command.args(["-serial", "chardev:console"]);
    command.args(["-chardev", "file,id=output,path=/dev/stdout", "-serial", "chardev:output"]);
    command.arg("-kernel").arg(guest.kernel).arg("-initrd").arg(guest.initrd);
    command.args(["-append", KERNEL]);
    let errors = fs::File::create(guest.errors)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    // A maker that is killed can no longer end its guest.
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    Ok(command)
}

/// Passes bytes on as they come, to the end: a guest must not wait for a reader who has gone.
fn pass_on(mut from: impl Read) {
    let mut buffer = [0; 1 << 14];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut stdout = std::io::stdout().lock();
        let _ = stdout.write_all(&buffer[..length]).and_then(|()| stdout.flush());
    }
}

/// A child that is ended when this goes.
struct Process(Child);

impl Process {
    /// How it ended, or nothing if it is still there when the time is over or somebody wants an
    /// end.
    fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let begin = Instant::now();
        loop {
            let ended = self.0.try_wait().context("cannot wait for QEMU")?;
            if ended.is_some() || interrupt::asked() || begin.elapsed() >= limit {
                return Ok(ended);
            }
            interrupt::pause(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not there any more is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
