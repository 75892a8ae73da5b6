//! Looks at the file of a network namespace, on a thread of its own: it may stand on
//! a file system that does not answer, and the thread that reads events waits for
//! none.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use crate::daemon::thread::spawn_without_signals;
use crate::netns::Identity;

/// What stands there: a namespace and its open file; none; or it cannot be looked at.
pub(super) type Sight = io::Result<Option<(Identity, File)>>;

/// The thread, and a look under way.
pub(super) struct Lookout {
    look: fn(&Path) -> Sight,
    path: PathBuf,
    thread: Option<Thread>,
    asked: Option<Instant>,
}

struct Thread {
    questions: SyncSender<()>,
    answers: Receiver<Sight>,
}

impl Lookout {
    /// For the file of a namespace.
    pub(super) fn new(path: PathBuf) -> Self {
        Self::with(path, Identity::opened)
    }

    fn with(path: PathBuf, look: fn(&Path) -> Sight) -> Self {
        Self { look, path, thread: None, asked: None }
    }

    /// Begins a look, unless one is under way.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn ask(&mut self, now: Instant) -> io::Result<()> {
        if self.asked.is_some() {
            return Ok(());
        }
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start(self.path.clone(), self.look)?),
        };
        if thread.questions.try_send(()).is_ok() {
            self.asked = Some(now);
        }
        Ok(())
    }

    /// What was seen, once.
    pub(super) fn poll(&mut self) -> Option<Sight> {
        let sight = self.thread.as_ref()?.answers.try_recv().ok()?;
        self.asked = None;
        Some(sight)
    }

    /// For how long the look under way has had no answer.
    pub(super) fn waits(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.asked?))
    }
}

impl Thread {
    /// It ends with its questions. One that hangs is left behind.
    fn start(path: PathBuf, look: fn(&Path) -> Sight) -> io::Result<Self> {
        let (questions, asked) = mpsc::sync_channel(1);
        let (sight, answers) = mpsc::channel();
        spawn_without_signals("netns", move || {
            while asked.recv().is_ok() && sight.send(look(&path)).is_ok() {}
        })?;
        Ok(Self { questions, answers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn seen(lookout: &mut Lookout) -> Sight {
        let start = Instant::now();
        loop {
            if let Some(sight) = lookout.poll() {
                return sight;
            }
            assert!(start.elapsed() < LONG, "no answer");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn each_question_is_answered_once() {
        let now = Instant::now();
        let mut lookout = Lookout::new("/proc/self/ns/net".into());
        assert!(lookout.poll().is_none() && lookout.waits(now).is_none());
        for _ in 0..2 {
            lookout.ask(now).unwrap();
            let (identity, _file) = seen(&mut lookout).unwrap().unwrap();
            assert_eq!(identity, Identity::here().unwrap());
            assert!(lookout.poll().is_none() && lookout.waits(now).is_none());
        }
        let mut lookout = Lookout::new("/nonexistent/netns".into());
        lookout.ask(now).unwrap();
        assert_eq!(seen(&mut lookout).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_look_that_hangs_blocks_no_caller() {
        // To open a FIFO waits for its other end, as a read waits for a disk.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let start = Instant::now();
        let mut lookout = Lookout::with(path.clone(), |path| File::open(path).map(|_| None));
        for _ in 0..10 {
            lookout.ask(start).unwrap();
            assert!(lookout.poll().is_none());
        }
        assert_eq!(lookout.waits(start + LONG), Some(LONG));
        assert!(start.elapsed() < LONG, "it took {:?}", start.elapsed());
        let _writer = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        assert!(seen(&mut lookout).unwrap().is_none());
    }
}
