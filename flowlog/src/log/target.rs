//! What messages are written to: the syslog daemon, standard output or standard
//! error, or a file. Each write returns soon, also where nobody reads and where a
//! disk is full: the message is then tried again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::write;

use super::devlog::{self, DevLog};
use super::file::LogFile;
use super::level;
use super::queue::Message;
use crate::zone;

/// Milliseconds that a write waits for a reader before it is tried anew.
const SOON: u16 = 500;
/// Facility daemon of syslog(3).
const FACILITY: u8 = 3;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is written.
    Done,
    /// It can never be written.
    Lost,
    /// The reader does not read; try again at once, as the write has waited.
    Full,
    /// There is nothing to write to now; try again in a while.
    Away,
}

/// Whether a descriptor can be written to, or fails at once, within a moment.
pub(super) fn is_writable_soon(descriptor: BorrowedFd<'_>) -> bool {
    is_writable(descriptor, SOON)
}

fn is_writable(descriptor: BorrowedFd<'_>, milliseconds: u16) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::POLLOUT)];
    // Interrupted, it is asked again by the next try.
    matches!(poll(&mut polled, PollTimeout::from(milliseconds)), Ok(1..))
}

/// One of them.
#[derive(Debug)]
pub(super) enum Target {
    Syslog(Syslog),
    Stream(Stream),
    File(LogFile),
}

impl Target {
    /// Writes a message whose first `done` bytes are written already.
    pub(super) fn write(&mut self, message: &Message, done: &mut usize) -> Outcome {
        match self {
            Self::Syslog(syslog) => syslog.write(message, done),
            Self::Stream(stream) => stream.write(message, done),
            Self::File(file) => file.write(message, done),
        }
    }

    /// Opens a file anew.
    pub(super) fn reopen(&mut self) {
        if let Self::File(file) = self {
            file.reopen();
        }
    }

    /// Opens a file anew that was removed or replaced.
    pub(super) fn look(&mut self) {
        if let Self::File(file) = self {
            file.look();
        }
    }

    /// Standard error is no longer there.
    pub(super) fn detach(&mut self) {
        if let Self::Syslog(syslog) = self {
            syslog.stderr = None;
        }
    }

    /// What the target itself has to say, to be written to it.
    pub(super) fn remark(&mut self) -> Option<String> {
        match self {
            Self::Syslog(syslog) => syslog.remark.take(),
            Self::Stream(_) => None,
            Self::File(file) => file.remark(),
        }
    }
}

/// The syslog daemon, and standard error where there is none.
#[derive(Debug)]
pub(super) struct Syslog {
    devlog: DevLog,
    /// Absent when the daemon has left its terminal.
    stderr: Option<Stream>,
    away: bool,
    remark: Option<String>,
}

impl Syslog {
    pub(super) fn new(path: &Path) -> Self {
        let stderr = Some(Stream::stderr());
        Self { devlog: DevLog::new(path), stderr, away: false, remark: None }
    }

    /// The one of this host.
    pub(super) fn of_host() -> Self {
        Self::new(Path::new(devlog::PATH))
    }

    fn write(&mut self, message: &Message, done: &mut usize) -> Outcome {
        // Of a message that is half on standard error the rest goes there too.
        if *done == 0 {
            match self.devlog.send(&datagram(message)) {
                Ok(outcome) => {
                    self.away &= outcome != Outcome::Done;
                    return outcome;
                }
                Err(error) => self.note_away(&error),
            }
        }
        match &mut self.stderr {
            Some(_) if message.on_stderr => Outcome::Done,
            Some(stderr) => stderr.write(message, done),
            None => Outcome::Away,
        }
    }

    fn note_away(&mut self, error: &io::Error) {
        if !self.away && self.stderr.is_some() {
            self.remark = Some(format!(
                "no syslog daemon takes messages at {}: {error}; they go to standard error until \
                 one does. Start one, or set logfile=\"stderr\"",
                devlog::PATH
            ));
        }
        self.away = true;
    }
}

/// `<PRI>Nov  2 22:46:30 flowlog[pid]: text`, as syslog(3) writes it.
fn datagram(message: &Message) -> Vec<u8> {
    let priority = FACILITY << 3 | level::severity(message.level);
    let (time, _) = zone::local().civil(message.at.as_second());
    let time = time.strftime("%b %e %T");
    let pid = std::process::id();
    format!("<{priority}>{time} flowlog[{pid}]: {}", message.text).into_bytes()
}

/// `Sat Nov 21 22:45:05 2026 <5> text`, as ulogd2 writes it.
pub(super) fn dated(message: &Message) -> Vec<u8> {
    let (time, _) = zone::local().civil(message.at.as_second());
    let time = time.strftime("%a %b %e %T %Y");
    format!("{time} <{}> {}\n", message.level, message.text).into_bytes()
}

/// Standard output or standard error. Its flags are shared with other programs,
/// so it is not set to non-blocking; a write waits until poll(2) says that there
/// is room for a line.
#[derive(Debug)]
pub(super) struct Stream {
    number: Standard,
    form: Form,
}

#[derive(Clone, Copy, Debug)]
enum Standard {
    Output,
    Error,
}

/// How lines on a stream look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// With time and level.
    Dated,
    /// The text alone.
    Plain,
    /// `<4>text`, sd-daemon(3): journald adds the time.
    Journal,
}

impl Stream {
    pub(super) fn stdout() -> Self {
        Self { form: form_on(io::stdout().as_fd()), number: Standard::Output }
    }

    pub(super) fn stderr() -> Self {
        Self { form: form_on(io::stderr().as_fd()), number: Standard::Error }
    }

    /// Standard error of a program that is about to fail: the text alone.
    pub(super) fn plain() -> Self {
        Self { form: Form::Plain, number: Standard::Error }
    }

    pub(super) fn is_stderr(&self) -> bool {
        matches!(self.number, Standard::Error)
    }

    fn write(&self, message: &Message, done: &mut usize) -> Outcome {
        let line = line(self.form, message);
        let outcome = match self.number {
            Standard::Output => append(io::stdout().as_fd(), &line, done),
            Standard::Error => append(io::stderr().as_fd(), &line, done),
        };
        // A reader that has gone does not come back.
        if outcome == Outcome::Away && !is_file(self.number) { Outcome::Lost } else { outcome }
    }
}

/// Writes a line to standard error, if that takes it at once.
pub(super) fn say(text: &str) {
    if is_writable(io::stderr().as_fd(), 0) {
        // There is no other place.
        let _ = write(io::stderr(), format!("{text}\n").as_bytes());
    }
}

/// Whether a stream is a file, whose disk may have room again.
fn is_file(number: Standard) -> bool {
    let stat = match number {
        Standard::Output => fstat(io::stdout()),
        Standard::Error => fstat(io::stderr()),
    };
    stat.is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)
}

fn line(form: Form, message: &Message) -> Vec<u8> {
    match form {
        Form::Dated => dated(message),
        Form::Plain => format!("{}\n", message.text).into_bytes(),
        Form::Journal => {
            format!("<{}>{}\n", level::severity(message.level), message.text).into_bytes()
        }
    }
}

/// [`Form::Journal`] if `$JOURNAL_STREAM` names this descriptor: it is passed on
/// to programs whose output goes elsewhere.
fn form_on(descriptor: BorrowedFd<'_>) -> Form {
    let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let is_journal = fstat(descriptor).is_ok_and(|stat| names(&journal, stat.st_dev, stat.st_ino));
    if is_journal { Form::Journal } else { Form::Dated }
}

/// Whether `DEVICE:INODE` is these.
fn names(journal: &str, device: u64, inode: u64) -> bool {
    journal.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// Appends what is left of `line` without waiting long for a reader.
pub(super) fn append(descriptor: BorrowedFd<'_>, line: &[u8], done: &mut usize) -> Outcome {
    while *done < line.len() {
        if !is_writable_soon(descriptor) {
            return Outcome::Full;
        }
        match write(descriptor, &line[*done..]) {
            Ok(count) => *done += count,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Outcome::Full,
            Err(_) => return Outcome::Away,
        }
    }
    Outcome::Done
}

#[cfg(test)]
mod tests;
