//! A file that flowlog writes, as logrotate and careless hands treat it: renamed, removed,
//! replaced. What it held is counted some seconds later, and whether flowlog really has left it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::received::Received;
use super::record::{Form, Parsed};

/// When flowlog must have left a file that was renamed, removed or replaced.
const LEFT: Duration = Duration::from_millis(3500);
/// When it is read, so that what comes too late is still counted.
const SETTLED: Duration = Duration::from_secs(30);

/// A file that flowlog has to leave.
#[derive(Debug)]
struct Former {
    file: File,
    /// Where it is now; nothing: it was removed.
    path: Option<PathBuf>,
    /// How long it was when it was removed.
    removed_at: u64,
    /// What happened, and when.
    what: &'static str,
    since: Instant,
    /// How long it was when flowlog had to have left it.
    left_at: Option<u64>,
}

/// A file that flowlog writes.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    received: Received,
    former: VecDeque<Former>,
    number: u32,
    /// Promises that were broken, with the fault.
    pub broken: Vec<String>,
}

impl LogFile {
    /// The file at this path.
    pub fn new(path: PathBuf, received: Received) -> Self {
        Self { path, received, former: VecDeque::new(), number: 0, broken: Vec::new() }
    }

    fn directory(&self) -> Result<&Path> {
        self.path.parent().context("no directory")
    }

    fn leaves(&mut self, what: &'static str, removed: bool) -> Result<()> {
        // Without one there is nothing to rename or remove.
        let Ok(file) = File::open(&self.path) else { return Ok(()) };
        self.number += 1;
        let name = self.path.file_name().context("no name")?.to_string_lossy().into_owned();
        let aside = self.directory()?.join(format!("{name}.{}", self.number));
        let removed_at = file.metadata()?.len();
        if removed {
            fs::remove_file(&self.path)?;
        } else {
            fs::rename(&self.path, &aside)?;
        }
        let path = (!removed).then_some(aside);
        let since = Instant::now();
        self.former.push_back(Former { file, path, removed_at, what, since, left_at: None });
        Ok(())
    }

    /// Renames it; HUP follows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn rotate(&mut self) -> Result<()> {
        self.leaves("rotate", false)
    }

    /// Removes it.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove(&mut self) -> Result<()> {
        self.leaves("remove-file", true)
    }

    /// Removes its directory, with all that it has been before.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn remove_directory(&mut self) -> Result<()> {
        self.leaves("remove-directory", true)?;
        // What was renamed is still open here.
        for former in &mut self.former {
            if former.path.take().is_some() {
                former.removed_at = former.file.metadata()?.len();
            }
        }
        fs::remove_dir_all(self.directory()?).context("removing its directory")
    }

    /// Makes its directory again.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn make_directory(&self) -> Result<()> {
        fs::create_dir_all(self.directory()?).context("making its directory")
    }

    /// Puts an empty file in its place.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn replace(&mut self) -> Result<()> {
        self.leaves("replace-file", false)?;
        // Whether flowlog has made one meanwhile is all the same.
        File::options().create(true).append(true).open(&self.path).context("replacing it")?;
        Ok(())
    }

    /// The flow of the last whole line; nothing where there is none.
    pub fn newest(&self, form: Form) -> Option<u32> {
        /// Longer than two lines.
        const TAIL: u64 = 1024;
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).ok()?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n')?;
        let line = bytes[..end].rsplit(|byte| *byte == b'\n').next()?;
        match form.parse(line) {
            Parsed::Flow(seen) => Some(seen.flow),
            Parsed::Lost(_) | Parsed::Strange => None,
        }
    }

    /// Counts what former files held, when flowlog has left them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tick(&mut self) -> Result<()> {
        for former in &mut self.former {
            if former.left_at.is_none() && former.since.elapsed() > LEFT {
                former.left_at = Some(former.file.metadata()?.len());
            }
        }
        while self.former.front().is_some_and(|former| former.since.elapsed() > SETTLED) {
            let Some(former) = self.former.pop_front() else { break };
            self.count(former)?;
        }
        Ok(())
    }

    /// Counts a file. What came after its removal has gone with it.
    fn count(&mut self, mut former: Former) -> Result<()> {
        let length = former.file.metadata()?.len();
        if former.left_at.is_some_and(|left| length > left) {
            self.broken.push(format!(
                "{} is still written {} s after {}",
                self.path.display(),
                former.since.elapsed().as_secs(),
                former.what
            ));
        }
        let end = if former.path.is_some() { u64::MAX } else { former.removed_at };
        former.file.seek(SeekFrom::Start(0))?;
        read(&former.file, end, &mut self.received)?;
        if let Some(path) = former.path {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// Counts everything, once flowlog has ended.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn finish(mut self) -> Result<(Received, Vec<String>)> {
        while let Some(former) = self.former.pop_front() {
            self.count(former)?;
        }
        if let Ok(file) = File::open(&self.path) {
            read(&file, u64::MAX, &mut self.received)?;
        }
        Ok((self.received, self.broken))
    }
}

/// Takes all lines; those that begin at `end` or later have gone with the file.
fn read(file: &File, end: u64, received: &mut Received) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut at = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = file.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        match line.strip_suffix(b"\n") {
            Some(whole) if at < end => received.take(whole)?,
            Some(whole) => received.abandon(whole),
            None => received.torn += 1,
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn log(directory: &Path) -> Result<(LogFile, File)> {
        let received = Received::new(directory, "x", Form::Columns)?;
        let log = LogFile::new(directory.join("d/log"), received);
        log.make_directory()?;
        let file = File::create(directory.join("d/log"))?;
        Ok((log, file))
    }

    #[test]
    fn what_was_renamed_counts_and_what_followed_a_removal_does_not() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut log, mut first) = log(directory.path())?;
        assert_eq!(log.newest(Form::Columns), None);
        write!(first, "new,198.19.0.1,1024\nnew,198.19.0.")?;
        assert_eq!(log.newest(Form::Columns), Some(1));
        log.rotate()?;
        writeln!(first, "2,1024")?;
        let mut second = File::create(directory.path().join("d/log"))?;
        writeln!(second, "new,198.19.0.3,1024")?;
        log.remove()?;
        writeln!(second, "new,198.19.0.4,1024")?;
        let third = File::create(directory.path().join("d/log"));
        writeln!(third?, "new,198.19.0.5,1024")?;
        log.remove_directory()?;
        let (mut received, broken) = log.finish()?;
        let flows: Vec<_> = received.read()?.map(|seen| seen.flow).collect();
        assert_eq!(flows, [1, 2, 3, 5]);
        assert_eq!(received.abandoned.len(), 1);
        assert!(broken.is_empty(), "{broken:?}");
        Ok(())
    }

    #[test]
    fn a_file_that_is_still_written_is_told() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let (mut log, mut file) = log(directory.path())?;
        log.remove()?;
        for former in &mut log.former {
            former.left_at = Some(0);
        }
        writeln!(file, "new,198.19.0.1,1024")?;
        let (_, broken) = log.finish()?;
        assert!(broken[0].contains("is still written") && broken[0].ends_with("remove-file"));
        Ok(())
    }
}
