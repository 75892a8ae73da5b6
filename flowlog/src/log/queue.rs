//! Messages that wait for the thread that writes them: bounded, so that a target
//! that does not take them costs messages, which are counted, and never the time
//! of the thread that has something to say.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::level;

/// How often an idle writer looks after its file.
const IDLE: Duration = Duration::from_secs(1);
/// Messages that wait at most.
const MAX_MESSAGES: usize = 4096;
/// Bytes of their text at most.
const MAX_BYTES: usize = 1 << 20;
/// Bytes of a message at most, so that a line is written to a pipe as a whole
/// (`PIPE_BUF` is 4096).
const MAX_TEXT: usize = 3900;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// When it was made.
    pub(super) at: Timestamp,
    /// Its level on ulogd2's scale.
    pub(super) level: u8,
    /// One line, without its end.
    pub(super) text: String,
    /// Standard error has it already, or does not need it.
    pub(super) on_stderr: bool,
}

impl Message {
    /// A message of now. Control characters are escaped and a long text is cut,
    /// so that it is one line whatever it quotes.
    pub(super) fn new(level: u8, text: &str) -> Self {
        Self { at: Timestamp::now(), level, text: one_line(text), on_stderr: false }
    }
}

fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_TEXT));
    for character in text.chars() {
        if line.len() + character.len_utf8() > MAX_TEXT {
            line.push('…');
            break;
        }
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// What the writer has to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Job {
    /// Write this.
    Write(Message),
    /// Open the file anew.
    Reopen,
    /// Standard error is no longer there.
    Detach,
    /// Nothing has come for [`IDLE`]: look whether the file is still there.
    Look,
}

/// The queue between the threads that make messages and the one that writes them.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer has something to do.
    work: Condvar,
    /// All messages are written.
    empty: Condvar,
    /// Messages that were dropped since the start.
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    /// The writer has one that it has not yet written.
    in_flight: bool,
    /// Dropped, and not yet reported.
    unreported: u64,
    /// It was full, and has not been half empty since.
    overflowing: bool,
    reopen: bool,
    detach: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            work: Condvar::new(),
            empty: Condvar::new(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds a message, or counts it as dropped if there is no room.
    pub(super) fn push(&self, message: Message) {
        let mut state = self.lock();
        if !state.has_room() {
            state.unreported += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Some(report) = state.report() {
            state.add(report);
        }
        state.add(message);
        self.work.notify_one();
    }

    /// Counts a message that the writer could not write.
    pub(super) fn count_dropped(&self) {
        self.lock().unreported += 1;
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Has the writer open its file anew.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.work.notify_one();
    }

    /// Has the writer leave standard error alone.
    pub(super) fn detach(&self) {
        self.lock().detach = true;
        self.work.notify_one();
    }

    /// What to do next; waits for it. The message before is written.
    pub(super) fn next(&self) -> Job {
        let mut state = self.lock();
        state.in_flight = false;
        loop {
            if let Some(command) = state.command() {
                return command;
            }
            let next = state.take().or_else(|| state.report());
            if let Some(message) = next {
                state.in_flight = true;
                return Job::Write(message);
            }
            self.empty.notify_all();
            let wait = self.work.wait_timeout(state, IDLE);
            let (woken, timeout) = wait.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if timeout.timed_out() && state.is_idle() {
                return Job::Look;
            }
        }
    }

    /// Waits for a command, at most `limit`: the message in hand cannot be
    /// written yet.
    pub(super) fn command_within(&self, limit: Duration) -> Option<Job> {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        loop {
            if let Some(command) = state.command() {
                return Some(command);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            (state, _) =
                self.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until all messages are written, at most until `deadline`; returns
    /// how many are not.
    pub(super) fn flush(&self, deadline: Instant) -> u64 {
        let mut state = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let waiting = state.messages.len() as u64 + u64::from(state.in_flight);
            if waiting == 0 && state.unreported == 0 || left.is_zero() {
                return waiting;
            }
            (state, _) =
                self.empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether another message fits. What was full has room again when it is half
    /// empty, else each message would have a report before it.
    fn has_room(&mut self) -> bool {
        let share = if self.overflowing { 2 } else { 1 };
        let fits = self.messages.len() < MAX_MESSAGES / share && self.bytes < MAX_BYTES / share;
        self.overflowing = !fits;
        fits
    }

    fn add(&mut self, message: Message) {
        self.bytes += message.text.len();
        self.messages.push_back(message);
    }

    fn take(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.text.len();
        Some(message)
    }

    /// The message that says how many were dropped.
    fn report(&mut self) -> Option<Message> {
        let count = std::mem::take(&mut self.unreported);
        let plural = if count == 1 { "message was" } else { "messages were" };
        let text = format!(
            "{count} {plural} dropped here: the target of `logfile` did not take them in time"
        );
        (count > 0).then(|| Message::new(level::WARNING, &text))
    }

    /// There is nothing to do.
    fn is_idle(&self) -> bool {
        self.messages.is_empty() && self.unreported == 0 && !self.reopen && !self.detach
    }

    fn command(&mut self) -> Option<Job> {
        if std::mem::take(&mut self.detach) {
            return Some(Job::Detach);
        }
        std::mem::take(&mut self.reopen).then_some(Job::Reopen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(queue: &Queue) -> String {
        match queue.next() {
            Job::Write(message) => message.text,
            job => panic!("{job:?}"),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_reported_in_its_place() {
        let queue = Queue::new();
        for number in 0..MAX_MESSAGES + 5 {
            queue.push(Message::new(level::NOTICE, &number.to_string()));
        }
        assert_eq!(queue.dropped(), 5);
        for number in 0..=MAX_MESSAGES / 2 {
            assert_eq!(text(&queue), number.to_string());
        }
        queue.push(Message::new(level::NOTICE, "late"));
        for number in MAX_MESSAGES / 2 + 1..MAX_MESSAGES {
            assert_eq!(text(&queue), number.to_string());
        }
        assert!(text(&queue).starts_with("5 messages were dropped"));
        assert_eq!(text(&queue), "late");
        assert_eq!(queue.dropped(), 5);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Queue::new();
        let long = "x".repeat(MAX_TEXT);
        let fit = MAX_BYTES.div_ceil(MAX_TEXT);
        for _ in 0..fit + 3 {
            queue.push(Message::new(level::NOTICE, &long));
        }
        assert_eq!(queue.dropped(), 3);
    }

    #[test]
    fn a_loss_is_reported_although_no_message_follows() {
        let queue = Queue::new();
        queue.count_dropped();
        assert!(text(&queue).starts_with("1 message was dropped"));
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let message = Message::new(level::NOTICE, "a\nb\u{1b}[31m");
        assert_eq!(message.text, "a\\nb\\u{1b}[31m");
        let message = Message::new(level::NOTICE, &"é".repeat(MAX_TEXT));
        assert!(message.text.len() < MAX_TEXT + 4 && message.text.ends_with('…'));
    }

    #[test]
    fn a_flush_ends_at_its_deadline_with_what_is_left() {
        let queue = Queue::new();
        queue.push(Message::new(level::NOTICE, "one"));
        queue.push(Message::new(level::NOTICE, "two"));
        assert_eq!(queue.flush(Instant::now() + Duration::from_millis(10)), 2);
        assert_eq!(text(&queue), "one");
        assert_eq!(queue.flush(Instant::now() + Duration::from_millis(10)), 2, "one in flight");
    }

    #[test]
    fn commands_come_before_messages() {
        let queue = Queue::new();
        queue.push(Message::new(level::NOTICE, "one"));
        queue.reopen();
        queue.detach();
        assert_eq!(queue.next(), Job::Detach);
        assert_eq!(queue.command_within(Duration::ZERO), Some(Job::Reopen));
        assert_eq!(text(&queue), "one");
    }
}
