//! Records to a file, each of which ends with its only line feed.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use super::append::LogFile;
use super::{CHUNK, Counted};
use crate::ratelimit::RateLimit;
use crate::stats::Measure;

/// How often a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A file, and the records that wait for it.
pub struct FileOutput {
    path: PathBuf,
    sync: bool,
    buffer_max: usize,
    file: LogFile,
    buffer: Vec<u8>,
    /// Records in the buffer.
    records: u64,
    /// Bytes that may gather: a chunk, or all that may wait while writing fails.
    limit: usize,
    /// The last write failed: records wait.
    failing: bool,
    retries: RateLimit,
    complaints: RateLimit,
    counted: Counted,
}

impl FileOutput {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub fn open(path: &Path, sync: bool, buffer_max: usize, counted: Counted) -> io::Result<Self> {
        // A daemon leaves its directory; the file is opened anew by this path.
        let path = std::path::absolute(path)?;
        Ok(Self {
            file: LogFile::open(&path)?,
            path,
            sync,
            buffer_max,
            buffer: Vec::with_capacity(CHUNK + 4096),
            records: 0,
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
        (!self.buffer.is_empty()).then_some(RETRY)
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
        self.write();
        let records = std::mem::take(&mut self.records);
        if records > 0 {
            let Counted { noun, stats } = &self.counted;
            stats.add(Measure::Lost, records);
            warn!("{records} {noun} for {} are lost at exit", self.path.display());
            self.buffer.clear();
        }
    }

    /// Opens the file anew, for log rotation; the old one stays in use if that
    /// fails.
    pub fn reopen(&mut self) {
        // What was logged before belongs into the old file.
        if !self.buffer.is_empty() {
            self.write();
        }
        let path = self.path.display();
        match LogFile::open(&self.path) {
            Ok(file) => {
                self.file = file;
                info!("{path} opened anew");
            }
            Err(error) => {
                warn!("{path} cannot be opened anew, the old file stays in use: {error}");
            }
        }
    }

    /// Hands the file to `user`, if flowlog has created it, so that it can be
    /// opened anew after privileges were dropped.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        self.file.give_to(uid, gid);
    }

    fn write(&mut self) {
        let (written, result) = self.file.append(&self.buffer);
        if written > 0 {
            self.buffer.drain(..written);
            // Only after a write in part is it worth counting.
            let left = if self.buffer.is_empty() { 0 } else { lines_in(&self.buffer) };
            self.counted.stats.add(Measure::Records, self.records - left);
            self.counted.stats.add(Measure::Bytes, written as u64);
            self.records = left;
        }
        let result = result.and_then(|()| if self.sync { self.file.sync() } else { Ok(()) });
        match result {
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

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
