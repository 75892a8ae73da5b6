//! The daemon's own messages: to syslog, standard output or a file, with
//! ulogd2's levels (1 debug, 3 info, 5 notice, 7 error, 8 fatal).

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::CStr;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use jiff::Zoned;
use nix::syslog::{Facility, LogFlags, Severity, openlog, syslog};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use crate::config::LogTarget;

/// Tracing target of messages of level 5 that warn of nothing.
pub const NOTICE: &str = "flowlog::notice";

/// Logs a notice: level 5, shown by default.
macro_rules! notice {
    ($($message:tt)*) => { tracing::info!(target: $crate::log::NOTICE, $($message)*) };
}
pub(crate) use notice;

/// Messages that wait at most.
const MOST_HELD: usize = 100;
/// What syslog shows before each message.
const IDENT: &CStr = c"flowlog";

static OUTPUT: OnceLock<Mutex<Output>> = OnceLock::new();

/// Where messages go.
struct Output {
    target: Target,
    /// Least severe level shown.
    level: u8,
    /// Copy messages to standard error.
    verbose: bool,
    /// Messages that wait, while they would spoil a screen.
    held: Option<Waiting>,
}

enum Target {
    Syslog,
    Stdout,
    Stderr,
    File(std::path::PathBuf, File),
}

/// Sends messages of `level` and graver to `target`, and with `verbose` to
/// standard error too. Called once.
///
/// # Errors
/// The log file cannot be opened; the message names it.
pub fn start(target: &LogTarget, level: u8, verbose: bool) -> anyhow::Result<()> {
    let target = match target {
        LogTarget::Syslog => {
            // Fails only on an ident that cannot be kept, which ours can.
            let _ = openlog(Some(IDENT), LogFlags::LOG_PID, Facility::LOG_DAEMON);
            Target::Syslog
        }
        LogTarget::Stdout => Target::Stdout,
        LogTarget::Stderr => Target::Stderr,
        LogTarget::File(path) => Target::File(
            path.clone(),
            open(path).map_err(|error| {
                anyhow::anyhow!(
                    "can't open logfile '{}': {error}; name another file with `logfile=`",
                    path.display()
                )
            })?,
        ),
    };
    let output = Mutex::new(Output { target, level, verbose, held: None });
    if OUTPUT.set(output).is_ok() {
        let subscriber = tracing_subscriber::registry().with(Messages);
        // A second subscriber exists only in tests, which then keep theirs.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    Ok(())
}

/// Stops copying to standard error, which a daemon no longer has.
pub fn detach() {
    with_output(|output| output.verbose = false);
}

/// Opens the log file anew; the old one stays in use if that fails.
pub fn reopen() {
    let failed = with_output(|output| {
        let Target::File(path, file) = &mut output.target else { return None };
        match open(path) {
            Ok(new) => {
                *file = new;
                None
            }
            Err(error) => Some(format!("can't reopen logfile '{}': {error}", path.display())),
        }
    });
    if let Some(Some(failed)) = failed {
        tracing::warn!("{failed}; the old one stays in use");
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Messages that wait, the last of them, and how many there were before.
#[derive(Debug, Default)]
struct Waiting {
    last: VecDeque<(u8, String)>,
    left_out: u64,
}

impl Waiting {
    fn push(&mut self, level: u8, text: &str) {
        if self.last.len() >= MOST_HELD {
            self.last.pop_front();
            self.left_out += 1;
        }
        self.last.push_back((level, text.to_owned()));
    }
}

/// While it lives messages wait; they are written when it goes.
#[derive(Debug)]
pub(crate) struct Held(());

/// Keeps messages from a terminal on which there is a screen.
pub(crate) fn hold() -> Held {
    with_output(|output| output.held = Some(Waiting::default()));
    Held(())
}

/// The last message that waits.
pub(crate) fn last_held() -> Option<String> {
    with_output(|output| output.held.as_ref()?.last.back().map(|(_, text)| text.clone()))?
}

impl Drop for Held {
    fn drop(&mut self) {
        with_output(|output| {
            let Waiting { last, left_out } = output.held.take().unwrap_or_default();
            if left_out > 0 {
                output.write(5, &format!("{left_out} messages before these are left out"));
            }
            for (level, text) in last {
                output.write(level, &text);
            }
        });
    }
}

fn with_output<T>(f: impl FnOnce(&mut Output) -> T) -> Option<T> {
    let mut output = OUTPUT.get()?.lock().ok()?;
    Some(f(&mut output))
}

/// A tracing layer that writes to [`OUTPUT`].
struct Messages;

impl<S: Subscriber> Layer<S> for Messages {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        thread_local!(static BUSY: Cell<bool> = const { Cell::new(false) });
        // A message about a message would wait for the lock that it holds.
        if BUSY.replace(true) {
            return;
        }
        let level = level(event);
        let mut text = Text::default();
        event.record(&mut text);
        with_output(|output| output.write(level, &text.0));
        BUSY.set(false);
    }
}

fn level(event: &Event<'_>) -> u8 {
    // What a library has to say is told by flowlog, with a remedy.
    if !event.metadata().target().starts_with("flowlog") {
        return 1;
    }
    match *event.metadata().level() {
        Level::ERROR => 7,
        Level::WARN => 5,
        Level::INFO if event.metadata().target() == NOTICE => 5,
        Level::INFO => 3,
        Level::DEBUG | Level::TRACE => 1,
    }
}

impl Output {
    fn write(&mut self, level: u8, text: &str) {
        if level < self.level {
            return;
        }
        if let Some(held) = &mut self.held {
            held.push(level, text);
            return;
        }
        let line = || format!("{} <{level}> {text}\n", Zoned::now().strftime("%a %b %e %T %Y"));
        // A message that cannot be written has no better place to go to.
        let _ = match &mut self.target {
            Target::Syslog => syslog(severity(level), text).map_err(io::Error::from),
            Target::Stdout => io::stdout().lock().write_all(line().as_bytes()),
            Target::Stderr => io::stderr().lock().write_all(line().as_bytes()),
            Target::File(_, file) => file.write_all(line().as_bytes()),
        };
        if self.verbose && !matches!(self.target, Target::Stderr) {
            let _ = io::stderr().lock().write_all(line().as_bytes());
        }
    }
}

/// ulogd2's map of levels to syslog.
fn severity(level: u8) -> Severity {
    match level {
        0..=2 => Severity::LOG_DEBUG,
        3..=4 => Severity::LOG_INFO,
        5..=6 => Severity::LOG_NOTICE,
        7 => Severity::LOG_ERR,
        _ => Severity::LOG_CRIT,
    }
}

/// The message of an event.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = fmt::Write::write_fmt(&mut self.0, format_args!("{value:?}"));
        }
    }
}
