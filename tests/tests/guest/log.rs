//! A log too long to be kept, or to be read anew each time: its lines so far, by their tags.

use std::fs::File;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use tests::daemon::Daemon;
use tests::{lines, poll, sources};

/// What a source of a daemon has written so far.
pub(crate) struct Log {
    file: BufReader<File>,
    /// The last line, while it is being written.
    rest: Vec<u8>,
    pub(crate) new: u32,
    pub(crate) destroy: u32,
    /// Events that `[LOST]` lines tell of.
    pub(crate) lost: u64,
    /// Lines, those of losses included.
    pub(crate) others: u32,
}

impl Log {
    /// That of a source, counted from 1.
    pub(crate) fn open(daemon: &Daemon, source: usize) -> Result<Self> {
        let file = BufReader::new(File::open(daemon.path(&sources::file(source)))?);
        Ok(Self { file, rest: Vec::new(), new: 0, destroy: 0, lost: 0, others: 0 })
    }

    /// Reads on to the end.
    pub(crate) fn read(&mut self) -> Result<()> {
        while self.file.read_until(b'\n', &mut self.rest)? > 0 {
            if !self.rest.ends_with(b"\n") {
                continue;
            }
            let tag = self.rest.iter().position(|byte| *byte == b'[');
            match &self.rest[tag.context("a line without a tag")?..] {
                [b'[', b'N', b'E', b'W', b']', ..] => self.new += 1,
                [b'[', b'D', b'E', b'S', b'T', b'R', b'O', b'Y', b']', ..] => self.destroy += 1,
                _ => {
                    self.others += 1;
                    self.lost += lines::lost(&lines::parse(&String::from_utf8_lossy(&self.rest))?);
                }
            }
            self.rest.clear();
        }
        Ok(())
    }

    /// Waits until there are so many beginnings and ends.
    pub(crate) fn wait(&mut self, new: u32, destroy: u32) -> Result<()> {
        self.until(|log| log.new >= new && log.destroy >= destroy)
            .with_context(|| format!("not {new} [NEW] and {destroy} [DESTROY]"))
    }

    /// Waits until it is as `enough` wants it.
    pub(crate) fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Result<()> {
        poll::until("the lines", || {
            self.read()?;
            Ok(enough(self).then_some(()))
        })
        .with_context(|| {
            let Self { new, destroy, lost, others, .. } = self;
            format!("{new} [NEW], {destroy} [DESTROY], {others} others, {lost} lost")
        })
    }
}
