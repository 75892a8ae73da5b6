//! QEMU: a guest's life as one child process, which never outlives its maker.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::console::{Ending, last_words, status};
use super::guest::Machine;
use super::tsc;
use crate::interrupt;

/// The kernel's command line: a panic ends the guest at once, and what takes long under emulation
/// or waits for devices that are not there is left out.
const KERNEL: &str = "console=ttyS0 quiet loglevel=4 panic=-1 reboot=t nokaslr mitigations=off \
                      random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests";

/// The guest's time stamp counter where it counts instructions, one a nanosecond, in kHz.
const INSTRUCTIONS: u64 = 1_000_000;

/// What to boot, the files it may write, and how long it may take.
#[derive(Debug)]
pub(super) struct Boot<'p> {
    pub(super) machine: Machine,
    pub(super) kernel: &'p Path,
    pub(super) initrd: &'p Path,
    /// A raw image.
    pub(super) disk: Option<&'p Path>,
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
pub(super) fn run(boot: &Boot<'_>, output: impl Write + Send) -> Result<Ending> {
    let mut process = Process(command(boot)?.spawn().context("cannot run QEMU")?);
    let pipe = process.0.stdout.take();
    let ended = thread::scope(|scope| {
        scope.spawn(move || pipe.map(|pipe| pass_on(pipe, output)));
        let ended = process.wait(boot.limit);
        // Its end of the pipe must be closed before the other thread can end.
        drop(process);
        ended
    })?;
    interrupt::check()?;
    let read = |file| fs::read(file).map(|text| String::from_utf8_lossy(&text).into_owned());
    let console = read(boot.console).unwrap_or_default();
    Ok(match (ended, status(&console)) {
        (Some(end), Some(status)) if end.success() => Ending::Exit(status),
        (None, _) => Ending::TimedOut { last_words: last_words(&console) },
        (Some(_), _) => {
            let errors = read(boot.errors).unwrap_or_default();
            Ending::Died { last_words: last_words(&console) + &errors }
        }
    })
}

fn command(boot: &Boot<'_>) -> Result<Command> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    command.args(["-nic", "none", "-machine", "q35", "-cpu", "max"]);
    let Machine { processors, memory, exact } = boot.machine;
    command.arg("-smp").arg(processors.to_string()).arg("-m").arg(memory.to_string());
    if exact {
        command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
    } else {
        // With a thread for each processor, QEMU 7.2 now and then runs half of an instruction that
        // the guest's kernel is replacing, and the guest panics. One thread is no slower here.
        command.args(["-accel", "tcg,thread=single"]);
    }
    // In an option's value a comma is written twice.
    let value = |path: &Path| path.display().to_string().replace(',', ",,");
    if let Some(disk) = boot.disk {
        let drive = format!("if=none,id=disk,format=raw,cache=unsafe,file={}", value(disk));
        command.arg("-drive").arg(drive).args(["-device", "virtio-blk-pci,drive=disk"]);
    }
    command.arg("-chardev").arg(format!("file,id=console,path={}", value(boot.console)));
    command.args(["-serial", "chardev:console"]);
    command.args(["-chardev", "file,id=output,path=/dev/stdout", "-serial", "chardev:output"]);
    command.arg("-kernel").arg(boot.kernel).arg("-initrd").arg(boot.initrd);
    let kilohertz = if exact { INSTRUCTIONS } else { tsc::kilohertz() };
    command.arg("-append").arg(format!("{KERNEL} tsc_early_khz={kilohertz}"));
    let errors = fs::File::create(boot.errors)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    // A maker that is killed can no longer end its boot.
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
    Ok(command)
}

/// Passes bytes on as they come, to the end: a guest must not wait for a reader who has gone.
fn pass_on(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 1 << 14];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
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
