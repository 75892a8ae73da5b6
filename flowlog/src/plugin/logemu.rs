//! LOGEMU: lines to a file, each with the time and the host's name before it,
//! as syslogd would write them. What cannot be written waits; what waits is
//! bounded; what is lost is counted.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::{info, warn};

use self::file::LogFile;
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

mod file;

/// Lines are written when this much has gathered, at the latest when a batch
/// ends. Bytes.
const CHUNK: usize = 256 << 10;

/// How LOGEMU is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// Each batch is on disk before the next is taken.
    pub sync: bool,
    /// Lines kept while the file cannot be written, bytes.
    pub buffer_max: usize,
}

/// The sink.
pub struct LogEmu {
    settings: Settings,
    file: LogFile,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    lines: u64,
    prefix: Prefix,
    /// Bytes that may gather: a chunk, or all that may wait while writing fails.
    limit: usize,
    /// The last write failed: lines wait.
    failing: bool,
    retries: RateLimit,
    complaints: RateLimit,
    stats: Stats,
}

impl LogEmu {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened for appending; the message names it.
    pub fn open(mut settings: Settings, host: &str, stats: Stats) -> io::Result<Self> {
        // A daemon leaves its directory; the file is opened anew by this path.
        settings.file = std::path::absolute(&settings.file)?;
        let file = LogFile::open(&settings.file)?;
        Ok(Self {
            file,
            buffer: Vec::with_capacity(CHUNK + 4096),
            lines: 0,
            prefix: Prefix::new(host),
            limit: CHUNK.min(settings.buffer_max),
            settings,
            failing: false,
            retries: RateLimit::per_second(),
            complaints: RateLimit::per_second(),
            stats,
        })
    }

    /// Takes a line, which ends with a line feed, of an event at `at`
    /// (nanoseconds since the epoch).
    #[inline]
    pub fn push(&mut self, at: u64, line: &[u8]) {
        let length = self.prefix.at(at).len() + line.len();
        if self.buffer.len() + length > self.limit && !self.make_room(length) {
            self.stats.add(Counter::LogemuLostLines, 1);
            return;
        }
        self.buffer.extend_from_slice(self.prefix.current());
        self.buffer.extend_from_slice(line);
        self.lines += 1;
    }

    /// Makes room for `length` bytes, if it can be had.
    #[cold]
    fn make_room(&mut self, length: usize) -> bool {
        if !self.failing || self.retries.allow() {
            self.write();
        }
        // A line longer than a chunk is taken too.
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

    /// Lines wait for a file that could not be written.
    pub fn is_waiting(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The file, by its full path.
    pub fn path(&self) -> &Path {
        &self.settings.file
    }

    /// Bytes that wait, and how many may wait while the file cannot be written.
    pub fn fill(&self) -> (usize, usize) {
        (self.buffer.len(), self.settings.buffer_max)
    }

    /// The last write, or the last sync, failed.
    pub fn is_failing(&self) -> bool {
        self.failing
    }

    /// Tries for the last time, and counts what is then lost.
    pub fn close(&mut self) {
        self.write();
        let lines = std::mem::take(&mut self.lines);
        if lines > 0 {
            self.stats.add(Counter::LogemuLostLines, lines);
            warn!("{lines} lines for {} are lost at exit", self.settings.file.display());
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
        let path = self.settings.file.display();
        match LogFile::open(&self.settings.file) {
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
            self.stats.add(Counter::LogemuLines, self.lines - left);
            self.stats.add(Counter::LogemuBytes, written as u64);
            self.lines = left;
        }
        let result =
            result.and_then(|()| if self.settings.sync { self.file.sync() } else { Ok(()) });
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                self.limit = CHUNK.min(self.settings.buffer_max);
                self.buffer.shrink_to(CHUNK + 4096);
                info!("{} can be written again", self.settings.file.display());
            }
            Ok(()) => {}
            Err(error) => self.failed(&error),
        }
    }

    #[cold]
    fn failed(&mut self, error: &io::Error) {
        self.stats.add(Counter::LogemuWriteErrors, 1);
        self.failing = true;
        self.limit = self.settings.buffer_max;
        if self.complaints.allow() {
            let (waiting, lost) = (self.buffer.len(), self.stats.get(Counter::LogemuLostLines));
            warn!(
                "{} cannot be written: {error}; {waiting} bytes wait, {lost} lines lost so far. \
                 Make room or move the file and send SIGHUP",
                self.settings.file.display()
            );
        }
    }
}

fn lines_in(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// What stands before each line: `Nov  2 22:46:30 host `, in local time. Made
/// once a second, not once a line.
struct Prefix {
    host: String,
    zone: TimeZone,
    second: u64,
    text: Vec<u8>,
}

impl Prefix {
    /// `host` is cut at its first dot.
    fn new(host: &str) -> Self {
        let host = host.split('.').next().unwrap_or_default().to_owned();
        let mut prefix = Self { host, zone: TimeZone::system(), second: 0, text: Vec::new() };
        prefix.make(0);
        prefix
    }

    #[inline]
    fn at(&mut self, nanoseconds: u64) -> &[u8] {
        let second = nanoseconds / 1_000_000_000;
        if second != self.second {
            self.make(second);
        }
        &self.text
    }

    fn current(&self) -> &[u8] {
        &self.text
    }

    #[cold]
    fn make(&mut self, second: u64) {
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let time = Timestamp::from_second(second as i64).unwrap_or(Timestamp::UNIX_EPOCH);
        let local = self.zone.to_datetime(time);
        self.second = second;
        self.text.clear();
        // Writing to a vector cannot fail.
        let _ = io::Write::write_fmt(
            &mut self.text,
            format_args!(
                "{} {:2} {:02}:{:02}:{:02} {} ",
                MONTHS[local.month() as usize - 1],
                local.day(),
                local.hour(),
                local.minute(),
                local.second(),
                self.host
            ),
        );
    }
}

#[cfg(test)]
mod tests;
