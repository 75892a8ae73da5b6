//! LOGEMU: lines to a file, each with the time and the host's name before it,
//! as syslogd would write them.

use std::io;
use std::path::PathBuf;

use super::clock::{self, PerSecond};
use super::output::{Counted, Output};
use crate::stats::{SinkPlugin, SinkStats};
use crate::zone::Zone;

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
    output: Output,
    prefix: Prefix,
}

impl LogEmu {
    /// Opens the file.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub fn open(settings: &Settings, host: &str, stats: SinkStats) -> io::Result<Self> {
        let Settings { file, sync, buffer_max } = settings;
        let counted = Counted { noun: SinkPlugin::Logemu.noun(), stats };
        let output = Output::at(file, *sync, *buffer_max, counted)?;
        Ok(Self { output, prefix: Prefix::new(host) })
    }

    /// Takes a line, which ends with a line feed, of an event at `at`
    /// (nanoseconds since the epoch).
    #[inline]
    pub fn push(&mut self, at: u64, line: &[u8]) {
        self.output.push(self.prefix.at(at), line);
    }

    /// Where it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Where it writes, to be written to.
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }
}

/// What stands before each line: `Nov  2 22:46:30 host `, in local time.
struct Prefix {
    host: String,
    text: PerSecond,
}

impl Prefix {
    /// `host` is cut at its first dot.
    fn new(host: &str) -> Self {
        let host = host.split('.').next().unwrap_or_default().to_owned();
        Self { host, text: PerSecond::local() }
    }

    #[inline]
    fn at(&mut self, nanoseconds: u64) -> &[u8] {
        let Self { host, text } = self;
        text.at(nanoseconds, |zone, second, out| prefix(host, zone, second, out))
    }
}

#[cold]
fn prefix(host: &str, zone: &Zone, second: u64, out: &mut Vec<u8>) {
    clock::syslog(zone, second, out);
    out.push(b' ');
    out.extend_from_slice(host.as_bytes());
    out.push(b' ');
}

#[cfg(test)]
mod tests;
