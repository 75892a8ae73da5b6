//! The daemon's own messages: to syslog, standard output or a file, with
//! ulogd2's levels (1 debug, 3 info, 5 notice, 7 error, 8 fatal) and one for
//! warnings (6). Each target has a thread that writes to it, so that nothing it
//! does blocks the thread that has something to say; what the target does not
//! take in time is counted.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

use self::file::LogFile;
use self::queue::{Message, Queue};
use self::target::{Stream, Syslog, Target};
use crate::config::LogTarget;

mod devlog;
mod file;
mod level;
mod queue;
mod target;
mod writer;

/// Tracing target of messages of level 5 that warn of nothing.
pub const NOTICE: &str = "flowlog::notice";

/// Logs a notice: level 5, shown by default.
macro_rules! notice {
    ($($message:tt)*) => { tracing::info!(target: $crate::log::NOTICE, $($message)*) };
}
pub(crate) use notice;

/// Messages that wait at most while there is a screen.
const MOST_HELD: usize = 100;
/// How long the end of the program waits for messages to be written.
const AT_EXIT: Duration = Duration::from_millis(500);
const AT_START: Duration = Duration::from_millis(200);

static OUTPUT: OnceLock<Mutex<Output>> = OnceLock::new();

/// Where messages go.
struct Output {
    target: Arc<Queue>,
    /// The target is standard error.
    is_stderr: bool,
    /// What else goes to standard error; absent until something does.
    copies: Option<Arc<Queue>>,
    /// Least severe level shown.
    level: u8,
    /// Copy messages to standard error.
    verbose: bool,
    /// Messages that wait, while they would spoil a screen.
    held: Option<Waiting>,
}

/// Sends messages of `level` and graver to `target`, and with `verbose` to
/// standard error too. Called once, and after a fork, as it starts threads.
///
/// # Errors
/// The log file cannot be opened; the message names it.
pub fn start(target: &LogTarget, level: u8, verbose: bool) -> anyhow::Result<()> {
    let target = open(target)?;
    let is_stderr = matches!(&target, Target::Stream(stream) if stream.is_stderr());
    let awaited = matches!(&target, Target::File(file) if file.awaits_reader());
    let target = start_writer("log", target)?;
    let verbose = verbose && !is_stderr;
    let copies = if verbose {
        Some(start_writer("log copy", Target::Stream(Stream::stderr()))?)
    } else {
        None
    };
    let output = Mutex::new(Output { target, is_stderr, copies, level, verbose, held: None });
    if OUTPUT.set(output).is_ok() {
        let subscriber = tracing_subscriber::registry().with(Messages);
        // A second subscriber exists only in tests, which then keep theirs.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
    if awaited {
        let text = "the FIFO of `logfile` has no reader; messages wait until it has one";
        report_warning(&format!("flowlog: {text}"), text);
    }
    Ok(())
}

fn open(target: &LogTarget) -> anyhow::Result<Target> {
    Ok(match target {
        LogTarget::Syslog => Target::Syslog(Syslog::of_host()),
        LogTarget::Stdout => Target::Stream(Stream::stdout()),
        LogTarget::Stderr => Target::Stream(Stream::stderr()),
        // Where these are sockets they cannot be opened by their names.
        LogTarget::File(path) if path == Path::new("/dev/stdout") => {
            Target::Stream(Stream::stdout())
        }
        LogTarget::File(path) if path == Path::new("/dev/stderr") => {
            Target::Stream(Stream::stderr())
        }
        LogTarget::File(path) => Target::File(LogFile::open(path).map_err(|error| {
            anyhow::anyhow!(
                "can't open logfile '{}': {error}; name another file with `logfile=`",
                path.display()
            )
        })?),
    })
}

fn start_writer(name: &str, target: Target) -> anyhow::Result<Arc<Queue>> {
    writer::start(name, target).map_err(|error| {
        anyhow::anyhow!("the thread `{name}` cannot be started: {error}; raise the limit of tasks")
    })
}

/// Reports a failure: `on_stderr` goes to standard error, as it is, and `in_log`
/// to the target, if that is known and another.
pub(crate) fn report_failure(on_stderr: &str, in_log: &str) {
    report(level::ERROR, on_stderr, in_log);
}

/// As [`report_failure`], of what does not stop the start.
pub(crate) fn report_warning(on_stderr: &str, in_log: &str) {
    report(level::WARNING, on_stderr, in_log);
}

fn report(level: u8, on_stderr: &str, in_log: &str) {
    let logged = with_output(|output| {
        let shown = output.is_stderr || output.verbose;
        if !shown || level < output.level {
            output.copy(level, on_stderr);
        }
        output.write(level, in_log, true);
    });
    if logged.is_none() {
        // There is no other place.
        let _ = writeln!(io::stderr(), "{on_stderr}");
    }
}

/// Writes a line to standard error alone, if that takes it at once.
pub(crate) fn say(text: &str) {
    target::say(text);
}

/// Stops copying to standard error, which a daemon no longer has.
pub fn detach() {
    let queues = with_output(|output| {
        output.verbose = false;
        [Some(Arc::clone(&output.target)), output.copies.take()]
    });
    let deadline = Instant::now() + AT_EXIT;
    for queue in queues.into_iter().flatten().flatten() {
        queue.flush(deadline);
        queue.detach();
    }
}

/// Opens the log file anew; the old one stays in use if that fails.
pub fn reopen() {
    with_output(|output| output.target.reopen());
}

/// Messages that the target of `logfile` did not take, since the start.
pub fn dropped() -> u64 {
    with_output(|output| output.target.dropped()).unwrap_or(0)
}

/// Waits until the messages of the start are written, but no longer than a moment: a
/// service manager that waits for READY=1 finds them in the log then.
pub fn settle() {
    let deadline = Instant::now() + AT_START;
    for (queue, _) in queues() {
        queue.flush(deadline);
    }
}

/// Waits until all messages are written, but no longer than half a second.
pub fn finish() {
    let deadline = Instant::now() + AT_EXIT;
    for (queue, is_stderr) in queues() {
        let left = queue.flush(deadline);
        if left > 0 && !is_stderr {
            say(&format!("flowlog: {left} of its own messages could not be logged"));
        }
    }
}

/// Where messages wait, and whether that is for standard error.
fn queues() -> Vec<(Arc<Queue>, bool)> {
    let queues = with_output(|output| {
        let copies = output.copies.iter().map(|copies| (Arc::clone(copies), true));
        let target = (Arc::clone(&output.target), output.is_stderr);
        copies.chain([target]).collect()
    });
    queues.unwrap_or_default()
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
    // What was said before stands above the screen.
    let target = with_output(|output| {
        output.held = Some(Waiting::default());
        Arc::clone(&output.target)
    });
    if let Some(target) = target {
        target.flush(Instant::now() + AT_EXIT);
    }
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
                let text = format!("{left_out} messages before these are left out");
                output.write(level::NOTICE, &text, false);
            }
            for (level, text) in last {
                output.write(level, &text, false);
            }
        });
    }
}

/// Not for long: other threads wait for it.
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
        let level = level_of(event);
        let mut text = Text::default();
        event.record(&mut text);
        with_output(|output| output.write(level, &text.0, false));
        BUSY.set(false);
    }
}

fn level_of(event: &Event<'_>) -> u8 {
    // What a library has to say is told by flowlog, with a remedy.
    if !event.metadata().target().starts_with("flowlog") {
        return level::DEBUG;
    }
    match *event.metadata().level() {
        Level::ERROR => level::ERROR,
        Level::WARN => level::WARNING,
        Level::INFO if event.metadata().target() == NOTICE => level::NOTICE,
        Level::INFO => level::INFO,
        Level::DEBUG | Level::TRACE => level::DEBUG,
    }
}

impl Output {
    /// Has a message written; `on_stderr` if standard error has it already.
    fn write(&mut self, level: u8, text: &str, on_stderr: bool) {
        if level < self.level {
            return;
        }
        if let Some(held) = &mut self.held {
            held.push(level, text);
            return;
        }
        let mut message = Message::new(level, text);
        if self.verbose
            && let Some(copies) = &self.copies
        {
            copies.push(message.clone());
        }
        message.on_stderr = (on_stderr && !self.is_stderr) || self.verbose;
        self.target.push(message);
    }

    /// Has a text written to standard error, whatever its level.
    fn copy(&mut self, level: u8, text: &str) {
        if self.copies.is_none() {
            self.copies = writer::start("log copy", Target::Stream(Stream::plain())).ok();
        }
        if let Some(copies) = &self.copies {
            copies.push(Message::new(level, text));
        }
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
