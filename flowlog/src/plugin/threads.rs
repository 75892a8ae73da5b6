//! Threads of sinks.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::error;

/// Starts a thread that needs no signals: those are the engine's.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    match thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(handle) => Some(handle),
        Err(why) => {
            error!("the thread {name} cannot be started: {why}; raise the limit of tasks");
            None
        }
    }
}

/// Waits for the end of a thread, but not beyond `deadline`; returns whether it came.
pub(super) fn join(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    thread.join().is_ok()
}
