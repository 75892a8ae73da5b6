//! Records to a file, each of which ends with its only line feed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::append::{self, Identity, LogFile, Opened};
use super::{CHUNK, Counted};
use crate::ratelimit::RateLimit;
use crate::stats::Measure;

/// How often a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked whether the file still stands at its path.
const LOOK: Duration = Duration::from_secs(1);

/// A file, and the records that wait for it.
pub struct FileOutput {
    path: PathBuf,
    sync: bool,
    buffer_max: usize,
    file: LogFile,
    /// A file was made whose name is not known to be on disk.
    nameless: bool,
    /// The file that is open has another name by now, which was counted.
    renamed: bool,
    moves: RateLimit,
    /// The file that is open is not to be written any more: its last sync failed, or it was
    /// removed.
    outdated: bool,
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that were written, and are not known to be in a file with
    /// a name or, with `sync`, on disk.
    unsynced: usize,
    /// Records in the buffer.
    records: u64,
    /// When that is looked for again.
    look_at: Instant,
    /// Bytes that may gather: a chunk, or all that may wait while writing fails.
    limit: usize,
    /// The last write failed: records wait.
    failing: bool,
    retries: RateLimit,
    complaints: RateLimit,
    counted: Counted,
}

impl FileOutput {
    /// Takes what was opened at `path`, an absolute one.
    ///
    /// # Errors
    /// The directory of a new file cannot be synced, with `sync`.
    pub(super) fn new(
        path: PathBuf,
        file: LogFile,
        sync: bool,
        buffer_max: usize,
        counted: Counted,
    ) -> io::Result<Self> {
        if sync && file.is_new() {
            sync_directory(&path)?;
        }
        Ok(Self {
            file,
            path,
            nameless: false,
            sync,
            buffer_max,
            renamed: false,
            moves: RateLimit::per_minute(),
            outdated: false,
            buffer: Vec::with_capacity(CHUNK + 4096),
            unsynced: 0,
            records: 0,
            look_at: Instant::now() + LOOK,
            limit: CHUNK.min(buffer_max),
            failing: false,
            retries: RateLimit::per_second(),
            complaints: RateLimit::per_second(),
            counted,
        })
    }

    /// Takes a record in two parts.
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        let length = front.len() + rest.len();
        if self.buffer.len() + length > self.limit && !self.make_room(length) {
            self.counted.stats.add(Measure::Lost, 1);
            return;
        }
        self.buffer.extend_from_slice(front);
        self.buffer.extend_from_slice(rest);
        self.records += 1;
    }

    /// Makes room for `length` bytes, if it can be had.
    #[cold]
    fn make_room(&mut self, length: usize) -> bool {
        if !self.failing || self.retries.allow() {
            self.write();
        }
        // A record longer than a chunk is taken too.
        self.buffer.is_empty() || self.buffer.len() + length <= self.limit
    }

    /// Ends a batch: what has gathered is written, and with `sync` on disk.
    pub fn flush(&mut self) {
        self.look();
        if self.buffer.is_empty() {
            return;
        }
        if self.failing && !self.retries.allow() {
            return;
        }
        self.write();
    }

    /// See [`super::Output::retry_in`].
    pub fn retry_in(&self) -> Option<Duration> {
        let look =
            self.file.is_regular().then(|| self.look_at.saturating_duration_since(Instant::now()));
        let retry = (!self.buffer.is_empty()).then_some(RETRY);
        look.into_iter().chain(retry).min()
    }

    /// The file, by its full path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`super::Output::fill`].
    pub fn fill(&self) -> (usize, usize) {
        (self.buffer.len(), self.buffer_max)
    }

    /// The last write, or the last sync, failed.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// See [`super::Output::close`].
    pub fn close(&mut self) {
        self.look_now();
        if !self.buffer.is_empty() {
            self.write();
        }
        if self.buffer.is_empty() {
            return;
        }
        let Counted { noun, stats } = &self.counted;
        let unsure = lines_in(&self.buffer[..self.unsynced]);
        let lost = self.records - unsure.min(self.records);
        let path = self.path.display();
        if unsure > 0 {
            stats.add(Measure::Unsure, unsure);
            warn!("{unsure} {noun} for {path} are not known to be on disk at exit");
        }
        if lost > 0 {
            stats.add(Measure::Lost, lost);
            warn!("{lost} {noun} for {path} are lost at exit");
        }
        (self.records, self.unsynced) = (0, 0);
        self.buffer.clear();
    }

    /// Opens the file anew, for log rotation; the old one stays in use if that
    /// fails.
    pub fn reopen(&mut self) {
        // What was logged before belongs into the old file, also where that was renamed: a rotation.
        if !self.outdated && self.file.is_removed() {
            self.removed();
        }
        if !self.buffer.is_empty() {
            self.write();
        }
        let result = self.open_anew();
        let path = self.path.display();
        match result {
            Ok(()) => info!("{path} opened anew"),
            Err(error) => {
                warn!(
                    "{path} cannot be opened anew, and the old file stays in use: {error}. Correct \
                     it, and send SIGHUP again"
                );
            }
        }
    }

    /// Opens what stands at the path. What was written and not synced is written there again.
    fn open_anew(&mut self) -> io::Result<()> {
        let Opened::File(file) = append::open(&self.path)? else {
            return Err(io::Error::other("it is no file any more; restart flowlog"));
        };
        // Also where the file was made by an attempt whose sync failed.
        self.nameless |= file.is_new();
        if self.sync && self.nameless {
            sync_directory(&self.path)?;
        }
        self.nameless = false;
        self.file = file;
        (self.outdated, self.renamed) = (false, false);
        let again = lines_in(&self.buffer[..self.unsynced]);
        self.counted.stats.add(Measure::Repeated, again);
        self.unsynced = 0;
        Ok(())
    }

    /// Looks whether the file is still the one at the path, once a second: it may have been
    /// removed, renamed or replaced.
    fn look(&mut self) {
        let now = Instant::now();
        if now < self.look_at || !self.file.is_regular() {
            return;
        }
        self.look_at = now + LOOK;
        if self.outdated {
            // Records that wait open it anew themselves.
            if self.buffer.is_empty() {
                self.write();
            }
            return;
        }
        let Ok((open, named)) = self.file.identity() else { return };
        match self.path.metadata() {
            Ok(there) if Identity::of(&there) == open => {}
            // It cannot be said what stands there.
            Err(error) if named && !is_absence(&error) => {}
            _ => self.moved(named),
        }
    }

    /// Looks at once: a file that was removed is not to be closed with what waits.
    fn look_now(&mut self) {
        self.look_at = Instant::now();
        self.look();
    }

    #[cold]
    fn moved(&mut self, named: bool) {
        if named {
            if !std::mem::replace(&mut self.renamed, true) {
                self.counted.stats.add(Measure::Replaced, 1);
            }
            let path = self.path.display().to_string();
            debug!("{path} was renamed");
            // What is written there is kept, so that one is used until the path can be opened.
            if let Err(error) = self.open_anew()
                && self.moves.allow()
            {
                warn!(
                    "{path} cannot be opened anew, and the renamed file stays in use: {error}. \
                     Correct it: flowlog tries again each second"
                );
            }
            return;
        }
        self.removed();
        if !self.buffer.is_empty() {
            self.write();
        } else if let Err(error) = self.open_anew() {
            self.failed(&error);
        }
    }

    /// The file has no name any more: nothing is written to it from now on.
    #[cold]
    fn removed(&mut self) {
        if !std::mem::take(&mut self.renamed) {
            self.counted.stats.add(Measure::Replaced, 1);
        }
        self.outdated = true;
        warn!(
            "{} was removed: flowlog makes it anew. Have log rotation rename it and send SIGHUP",
            self.path.display()
        );
    }

    /// Hands the file to `user`, if flowlog has created it, so that it can be
    /// opened anew after privileges were dropped.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        self.file.give_to(uid, gid);
    }

    fn write(&mut self) {
        match self.write_and_sync() {
            Ok(()) if self.failing => {
                self.failing = false;
                self.limit = CHUNK.min(self.buffer_max);
                self.buffer.shrink_to(CHUNK + 4096);
                info!("{} can be written again", self.path.display());
            }
            Ok(()) => {}
            Err(error) => self.failed(&error),
        }
    }

    fn write_and_sync(&mut self) -> io::Result<()> {
        for _ in 0..2 {
            if self.outdated {
                self.open_anew()?;
            }
            let (written, result) = self.file.append(&self.buffer[self.unsynced..]);
            self.unsynced += written;
            if self.unsynced > 0 && self.sync {
                // A kernel that could not write a page forgets that it has to: the same file says
                // next time that all is well (fsync(2), errors).
                self.file.sync().inspect_err(|_| self.outdated = true)?;
            }
            // Records count as written when the file still had a name after the write. Otherwise
            // they are written again.
            if self.unsynced == 0 || !self.file.is_removed() {
                self.written(self.unsynced);
                return result;
            }
            self.removed();
        }
        Err(io::Error::other("another process removes the file after each write"))
    }

    /// The first `bytes` of the buffer are in the file, and with `sync` on disk.
    fn written(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.buffer.drain(..bytes);
        self.unsynced = 0;
        // Only after a write in part is it worth counting.
        let left = if self.buffer.is_empty() { 0 } else { lines_in(&self.buffer) };
        let records = self.records - left.min(self.records);
        self.counted.stats.add(Measure::Records, records);
        self.counted.stats.add(Measure::Bytes, bytes as u64);
        self.records = left;
    }

    #[cold]
    fn failed(&mut self, error: &io::Error) {
        let Counted { noun, stats } = &self.counted;
        stats.add(Measure::Errors, 1);
        self.failing = true;
        self.limit = self.buffer_max;
        if self.complaints.allow() {
            let (waiting, lost) = (self.buffer.len(), stats.get(Measure::Lost));
            warn!(
                "{} cannot be written: {error}; {waiting} bytes wait, {lost} {noun} lost so far. \
                 Make room or move the file and send SIGHUP",
                self.path.display()
            );
        }
    }

    /// Records that wait.
    #[cfg(test)]
    pub(in crate::plugin) fn waiting(&self) -> u64 {
        lines_in(&self.buffer)
    }
}

/// Nothing stands at the path.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Has the names in the directory of a file on disk.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests;
