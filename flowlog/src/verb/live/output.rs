//! Standard output behind a buffer with bounds. A terminal that stands still or
//! a pipe that nobody reads blocks whoever writes; that is a thread of its own,
//! so that the verb still sees signals and the time.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that may wait before nothing more is read from the capture.
const BEHIND: usize = 256 << 10;

/// The end of it where text is put in.
pub(in crate::verb) struct Output(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// Events in what waits, and in what is being written.
    events: [u64; 2],
    writing: bool,
    failed: Option<io::Error>,
    /// What has been put in is all.
    ended: bool,
}

impl Shared {
    /// A thread that panicked leaves a state that makes sense.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        guard: MutexGuard<'a, State>,
        limit: Duration,
        waits: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout_while(guard, limit, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Output {
    /// Writes to `writer` from now on.
    ///
    /// # Errors
    /// There can be no other thread.
    pub(in crate::verb) fn new(writer: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("output".to_owned()).spawn(move || write(&theirs, writer))?;
        Ok(Self(shared))
    }

    /// Puts in text that shows so many events.
    pub(in crate::verb) fn put(&self, text: impl AsRef<[u8]>, events: u64) {
        let mut state = self.0.lock();
        state.waiting.extend_from_slice(text.as_ref());
        state.events[0] += events;
        self.0.changed.notify_all();
    }

    /// So much waits that no more should be put in.
    pub(in crate::verb) fn is_behind(&self) -> bool {
        self.0.lock().waiting.len() >= BEHIND
    }

    /// All that was put in has been written.
    pub(in crate::verb) fn is_idle(&self) -> bool {
        let state = self.0.lock();
        !state.writing && state.waiting.is_empty()
    }

    /// Waits until it is no more behind or has failed, and at most so long.
    pub(in crate::verb) fn wait_for_room(&self, limit: Duration) {
        let waits = |state: &mut State| state.waiting.len() >= BEHIND && state.failed.is_none();
        drop(self.0.wait(self.0.lock(), limit, waits));
    }

    /// Something could not be written; nothing more will be.
    pub(in crate::verb) fn has_failed(&self) -> bool {
        self.0.lock().failed.is_some()
    }

    /// Why, once.
    pub(in crate::verb) fn failed(&self) -> Option<io::Error> {
        self.0.lock().failed.take()
    }

    /// Waits until all is written, and at most so long; returns how many events
    /// are not.
    pub(in crate::verb) fn close(&self, limit: Duration) -> u64 {
        let mut state = self.0.lock();
        state.ended = true;
        self.0.changed.notify_all();
        let waits = |state: &mut State| {
            (state.writing || !state.waiting.is_empty()) && state.failed.is_none()
        };
        self.0.wait(state, limit, waits).events.iter().sum()
    }
}

/// The work of the thread.
fn write(shared: &Shared, mut writer: impl Write) {
    let mut text = Vec::new();
    loop {
        let state = shared.lock();
        let waits = |state: &mut State| state.waiting.is_empty() && !state.ended;
        let waited = shared.changed.wait_while(state, waits);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            return;
        }
        text.clear();
        std::mem::swap(&mut text, &mut state.waiting);
        state.events = [0, state.events[0]];
        state.writing = true;
        shared.changed.notify_all();
        drop(state);
        let written = writer.write_all(&text).and_then(|()| writer.flush());
        let mut state = shared.lock();
        state.writing = false;
        match written {
            Ok(()) => state.events[1] = 0,
            Err(error) => state.failed = Some(error),
        }
        let failed = state.failed.is_some();
        shared.changed.notify_all();
        if failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_put_in_comes_out() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::new(writer).unwrap();
        output.put("one\n", 1);
        output.put("two\n", 1);
        assert_eq!((output.close(LONG), output.has_failed()), (0, false));
        let mut text = [0; 8];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }

    #[test]
    fn who_is_not_read_is_behind_and_tells_what_is_left() {
        let (mut reader, writer) = io::pipe().unwrap();
        let output = Output::new(writer).unwrap();
        output.put("x".repeat(BEHIND), 10);
        // The thread takes it, and stands still in the middle of it.
        output.wait_for_room(LONG);
        assert!(!output.is_behind());
        output.put("x".repeat(BEHIND), 5);
        assert!(output.is_behind());
        output.wait_for_room(Duration::from_millis(1));
        assert!(output.is_behind());
        assert_eq!(output.close(Duration::from_millis(1)), 15);
        let mut all = vec![0; 2 * BEHIND];
        reader.read_exact(&mut all).unwrap();
        assert_eq!(output.close(LONG), 0);
    }

    #[test]
    fn a_closed_pipe_is_told() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let output = Output::new(writer).unwrap();
        output.put("lost\n", 1);
        assert_eq!(output.close(LONG), 1);
        assert!(output.has_failed());
        assert_eq!(output.failed().unwrap().kind(), io::ErrorKind::BrokenPipe);
    }
}
