//! What the threads know of the spool's file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Mutex, watch};

/// What the threads know of the file; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Health(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Grows when another file takes the place of the one before.
    generation: AtomicU64,
    /// A reader has found that generation, and those before, to be damaged.
    damaged: AtomicU64,
    /// The file has no name any more, and none could be made in its place: what it holds ends
    /// with the daemon.
    detached: AtomicBool,
    /// What such a file holds is being copied.
    replacing: AtomicBool,
    /// See [`Health::claims`].
    claimed: AtomicBool,
    /// See [`Health::rows`].
    rows: Mutex<()>,
    /// The writer has opened it. Before that it is not known whether it is a spool at all.
    opened: watch::Sender<bool>,
}

impl Health {
    /// Which file it is, counted from the start.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// The writer has opened it.
    pub(super) fn open(&self) {
        self.0.opened.send_replace(true);
    }

    /// Resolves once the writer has opened it.
    pub(super) fn opened(&self) -> impl Future<Output = ()> + use<> {
        let mut opened = self.0.opened.subscribe();
        async move {
            // It fails when nobody has the spool any more: the worker ends then.
            let _ = opened.wait_for(|opened| *opened).await;
        }
    }

    /// Another file has taken its place.
    pub(super) fn another_file(&self) {
        self.0.generation.fetch_add(1, Ordering::Release);
    }

    /// A reader has found damage in that file. The writer gives it up then.
    pub(super) fn found_damage(&self, generation: u64) {
        self.0.damaged.store(generation + 1, Ordering::Relaxed);
    }

    /// A reader has found damage.
    pub(super) fn is_damaged(&self) -> bool {
        self.0.damaged.load(Ordering::Relaxed) > self.generation()
    }

    /// While this is held no row is dropped: a worker holds it while it takes rows, and the writer
    /// until those that it drops are gone. So each row is taken, or dropped, or neither. The
    /// thread that has waited longest gets it.
    pub(super) fn rows(&self) -> &Mutex<()> {
        &self.0.rows
    }

    /// What the spool holds ends with the daemon.
    pub(super) fn is_detached(&self) -> bool {
        self.0.detached.load(Ordering::Relaxed)
    }

    /// Notes whether it has a name; returns whether it was noted that it has none.
    pub(super) fn detach(&self, detached: bool) -> bool {
        self.0.detached.swap(detached, Ordering::Relaxed)
    }

    /// What a file without a name holds is being copied: whether that ends before the daemon does
    /// is not known.
    pub(super) fn is_replacing(&self) -> bool {
        self.0.replacing.load(Ordering::Acquire)
    }

    /// Notes whether such a copy is under way.
    pub(super) fn replaces(&self, replacing: bool) {
        // A reader that finds it ended also finds its result.
        self.0.replacing.store(replacing, Ordering::Release);
    }

    /// The directory was claimed when another file was to be made there: what stands in it is not
    /// that of another flowlog.
    pub(super) fn has_claimed(&self) -> bool {
        self.0.claimed.load(Ordering::Relaxed)
    }

    /// Notes whether it was.
    pub(super) fn claims(&self, claimed: bool) {
        self.0.claimed.store(claimed, Ordering::Relaxed);
    }
}
