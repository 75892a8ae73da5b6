//! What a sink has delivered so far, on disk at eight bytes a record, so that an hour of it does
//! not have to fit into memory.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::record::{Form, Parsed, Seen};

/// Strange records that are kept, for a report.
const SAMPLES: usize = 3;

/// The records of a sink.
#[derive(Debug)]
pub struct Received {
    form: Form,
    path: PathBuf,
    file: BufWriter<File>,
    /// Records that are in [`Received::read`].
    pub records: u64,
    /// Records that were delivered to a reader or file that then went away with them: nobody can
    /// say that they were logged, or were not.
    pub abandoned: BTreeSet<u64>,
    /// Events that records of losses name.
    pub lost: u64,
    /// How many records of losses there are; those that went away with a reader are among them.
    pub reports: u64,
    /// Records of which a connection's end has cut something off.
    pub torn: u64,
    /// Records that nobody can have written.
    pub strange: u64,
    /// Some of them.
    pub samples: Vec<String>,
}

impl Received {
    /// Nothing, of a sink with this name, kept in this directory.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn new(directory: &Path, name: &str, form: Form) -> Result<Self> {
        let path = directory.join(format!("{name}.seen"));
        let file = File::create(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            form,
            path,
            file: BufWriter::new(file),
            records: 0,
            abandoned: BTreeSet::new(),
            lost: 0,
            reports: 0,
            torn: 0,
            strange: 0,
            samples: Vec::new(),
        })
    }

    /// Takes a record in the form of the sink.
    ///
    /// # Errors
    /// The disk is full.
    pub fn take(&mut self, record: &[u8]) -> Result<()> {
        match self.form.parse(record) {
            Parsed::Flow(seen) => self.add(seen)?,
            Parsed::Lost(events) => {
                self.lost += events;
                self.reports += 1;
            }
            Parsed::Strange => self.strange(record),
        }
        Ok(())
    }

    /// Takes a record that went away with its reader.
    pub fn abandon(&mut self, record: &[u8]) {
        match self.form.parse(record) {
            Parsed::Flow(seen) => {
                self.abandoned.insert(seen.packed());
            }
            Parsed::Lost(_) => self.reports += 1,
            Parsed::Strange => self.strange(record),
        }
    }

    /// Adds a record that is read already.
    ///
    /// # Errors
    /// The disk is full.
    pub fn add(&mut self, seen: Seen) -> Result<()> {
        self.records += 1;
        Ok(self.file.write_all(&seen.packed().to_ne_bytes())?)
    }

    fn strange(&mut self, record: &[u8]) {
        self.strange += 1;
        if self.samples.len() < SAMPLES {
            let text = String::from_utf8_lossy(record);
            self.samples
                .push(text.chars().take(300).collect::<String>().escape_debug().to_string());
        }
    }

    /// All records so far.
    ///
    /// # Errors
    /// They cannot be read again.
    pub fn read(&mut self) -> Result<impl Iterator<Item = Seen> + use<>> {
        self.file.flush()?;
        let mut file = BufReader::with_capacity(1 << 16, File::open(&self.path)?);
        Ok(std::iter::from_fn(move || {
            let mut bytes = [0; 8];
            file.read_exact(&mut bytes).ok()?;
            Some(Seen::unpacked(u64::from_ne_bytes(bytes)))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_kept_and_strange_ones_counted() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mut received = Received::new(directory.path(), "x", Form::Columns)?;
        for text in ["new,198.19.0.1,1024,a", "destroy,198.19.0.1,1024,b", "lost,,7,", "what"] {
            received.take(text.as_bytes())?;
        }
        received.abandon(b"new,198.19.0.2,1024,c");
        let flows: Vec<_> = received.read()?.map(|seen| (seen.flow, seen.end)).collect();
        assert_eq!(flows, [(1, false), (1, true)]);
        assert_eq!((received.lost, received.strange, received.records), (7, 1, 2));
        assert_eq!(received.samples, ["what"]);
        assert_eq!(received.abandoned.len(), 1);
        Ok(())
    }
}
