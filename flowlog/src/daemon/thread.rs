//! Threads beside the one that reads events.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::sys::signal::{SigSet, SigmaskHow};

/// Starts a thread in which all signals are blocked: they are for the thread
/// that called, which may wait for them with sigtimedwait(2).
///
/// # Errors
/// The limit of tasks is reached.
pub fn spawn_without_signals(
    name: &str,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    // A thread inherits the mask, so no signal can come between start and block.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let thread = Builder::new().name(name.to_owned()).spawn(run);
    before.thread_set_mask()?;
    thread
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn signals_are_blocked_there_and_not_here() {
        let (sender, receiver) = mpsc::channel();
        let thread = spawn_without_signals("test", move || {
            let _ = sender.send(SigSet::thread_get_mask());
        });
        let there = receiver.recv().unwrap().unwrap();
        thread.unwrap().join().unwrap();
        let here = SigSet::thread_get_mask().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            assert!(there.contains(signal) && !here.contains(signal), "{signal}");
        }
    }
}
