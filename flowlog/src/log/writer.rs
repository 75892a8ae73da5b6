//! The thread that writes messages to a target, so that no other thread waits
//! for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::level;
use super::queue::{Job, Message, Queue};
use super::target::{Outcome, Target};
use crate::daemon::thread::spawn_without_signals;

/// How long after a failure a message is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Starts the thread of a target; returns what it reads from. It ends with the
/// process.
///
/// # Errors
/// The limit of tasks is reached.
pub(super) fn start(name: &str, target: Target) -> io::Result<Arc<Queue>> {
    let queue = Arc::new(Queue::new());
    let theirs = Arc::clone(&queue);
    spawn_without_signals(name, move || Writer { queue: theirs, target }.run())?;
    Ok(queue)
}

struct Writer {
    queue: Arc<Queue>,
    target: Target,
}

impl Writer {
    fn run(mut self) {
        loop {
            match self.queue.next() {
                Job::Write(message) => self.deliver(&message),
                job => self.obey(&job),
            }
            if let Some(text) = self.target.remark() {
                self.deliver(&Message::new(level::WARNING, &text));
            }
        }
    }

    fn obey(&mut self, command: &Job) {
        match command {
            Job::Reopen => self.target.reopen(),
            Job::Detach => self.target.detach(),
            Job::Look => self.target.look(),
            Job::Write(_) => {}
        }
    }

    /// Writes a message, however long that takes.
    fn deliver(&mut self, message: &Message) {
        let mut done = 0;
        loop {
            let pause = match self.target.write(message, &mut done) {
                Outcome::Done => return,
                Outcome::Lost => return self.queue.count_dropped(),
                Outcome::Full => Duration::ZERO,
                Outcome::Away => RETRY,
            };
            if let Some(command) = self.queue.command_within(pause) {
                self.obey(&command);
                // In another file the line stands as a whole.
                done = 0;
            }
        }
    }
}
