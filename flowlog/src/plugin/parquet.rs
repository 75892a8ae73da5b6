//! PARQUET: records into the files of an archive (`archive/`), by way of the
//! spool: it keeps them until the file that they are in is closed, so that
//! neither a kill nor a full disk loses any, or writes any twice.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::compact::Encoder;
use super::record_id::{Identifier, RecordId};
use super::ship::{
    Batch, Client, Delivered, Encode, Loss, Refused, Row, Settled, Shipped, Shipping, Start,
    Trouble, Upstream,
};
use super::{Item, Scratch};
use crate::archive::clock::Moment;
use crate::archive::coverage::{Gap, Reason};
use crate::archive::origin::Origin;
use crate::archive::{self, Archive, Closed, Error, Host, Removed};
use crate::ratelimit::RateLimit;
use crate::stats::Measure;

/// How records stand in the spool: the message of conf/fleet/flow.proto, and
/// behind it when the run began that has put them there.
const ENCODING: &str = "flow.proto 1 of run ";

/// How often it is looked whether the directory is there and the clock was set.
const LOOK: Duration = Duration::from_secs(1);

/// How PARQUET is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all say who ship.
    pub shipping: Shipping,
    /// The archive.
    pub archive: archive::Settings,
    /// Bytes of the spool that may wait for a file to be closed.
    pub held_max: u64,
}

/// A run of flowlog, by the time when it began.
#[derive(Clone, Copy, Debug)]
pub struct Run(u64);

impl Run {
    /// The one that begins now.
    pub fn begin() -> Self {
        Self(Moment::now().wall)
    }

    /// The word of the encoding of its records.
    pub fn encoding(self) -> String {
        let Self(run) = self;
        format!("{ENCODING}{run}")
    }
}

/// Prepares the sink of a run; the directory is made here.
///
/// # Errors
/// The directory cannot be used; says what to do.
pub fn open(
    start: &Start<'_>,
    settings: &Settings,
    host: &str,
    origin: Origin,
    Run(run): Run,
) -> anyhow::Result<Shipped> {
    let Settings { shipping: _, archive, held_max } = settings;
    let made = archive::prepare(&archive.directory)
        .map_err(|error| anyhow::anyhow!("{}", told(&archive.directory, &error)))?;
    let far = Far {
        archive: archive.clone(),
        host: Host { name: host.to_owned(), hash: Identifier::of_this_host().host(), origin },
        run,
        held_max: *held_max,
        failed: Arc::default(),
        covered: Arc::default(),
        written: Arc::default(),
    };
    let sink = Shipped::open::<Writer>(start, Encoding(Encoder::new()), far);
    Ok(if made { sink.owning(&archive.directory) } else { sink })
}

fn told(directory: &Path, error: &Error) -> String {
    format!("the archive {} cannot be written: {error}", directory.display())
}

struct Encoding(Encoder);

impl Encode for Encoding {
    fn encode(&mut self, item: &Item<'_>, _: RecordId, _: &Scratch, out: &mut Vec<u8>) -> bool {
        let Self(encoder) = self;
        encoder.encode(item, None, out);
        true
    }
}

/// What the worker needs to know.
#[derive(Clone, Debug)]
struct Far {
    archive: archive::Settings,
    host: Host,
    run: u64,
    held_max: u64,
    /// The last attempt has failed.
    failed: Arc<AtomicBool>,
    /// Up to when the files of this run cover; 0 before the first is begun.
    covered: Arc<AtomicU64>,
    written: Arc<Mutex<Written>>,
}

/// What this run has written to.
#[derive(Debug, Default)]
struct Written {
    /// The directory: its device and inode; absent before the first.
    directory: Option<(u64, u64)>,
    /// The directory, or the file in it that was being written, was found to be gone.
    gone: bool,
}

impl Written {
    /// Goes on in that directory; returns whether it, or the file that was being written, is there
    /// in place of another.
    fn goes_on(&mut self, directory: (u64, u64)) -> bool {
        let before = self.directory.replace(directory);
        std::mem::take(&mut self.gone) || before.is_some_and(|before| before != directory)
    }
}

/// The archive, on the worker's thread.
struct Writer {
    archive: Archive,
    directory: PathBuf,
    held_max: u64,
    /// Bytes of the spool that wait for the file to be closed.
    held: u64,
    /// When it was last looked at what goes on around the archive.
    looked: Instant,
    /// What was refused of what is held, and of what is settled.
    refused_held: Refused,
    refused: Refused,
    failed: Arc<AtomicBool>,
    covered: Arc<AtomicU64>,
    written: Arc<Mutex<Written>>,
    /// See [`Client::replaced`].
    replaced: bool,
    complaints: RateLimit,
}

impl Client for Writer {
    type Settings = Far;

    const COVERS: bool = true;

    async fn connect(far: &Far) -> Result<Self, Trouble> {
        let Far { archive, host, run, held_max, failed, covered, written } = far.clone();
        let now = Moment::now();
        // Events are read by now, since a moment.
        let begun = covered.compare_exchange(0, now.wall, Ordering::Relaxed, Ordering::Relaxed);
        let from = begun.map_or_else(|covered| covered, |_| now.wall);
        let directory = archive.directory.clone();
        let opened = Archive::open(archive, host, run, from, now)
            .and_then(|archive| Ok((archive.identity()?, archive)));
        let (identity, archive) = opened.map_err(|error| trouble(&directory, &error, &failed))?;
        let replaced = lock(&written).goes_on(identity);
        if replaced {
            warn!("the archive {} was removed or replaced: it is opened anew", directory.display());
        }
        let (held, looked) = (0, Instant::now());
        Ok(Self {
            archive,
            directory,
            held_max,
            held,
            looked,
            refused_held: Refused::default(),
            refused: Refused::default(),
            failed,
            covered,
            written,
            replaced,
            complaints: RateLimit::per_minute(),
        })
    }

    fn replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    fn learn(&mut self, Upstream { complete, losses }: Upstream<'_>) {
        self.archive.learn(complete);
        if let Some(losses) = losses {
            self.archive.lose(losses.iter().map(|(_, loss)| gap(loss)).collect());
        }
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        self.look()?;
        let Some(run) = run_of(batch.encoding()) else {
            self.refuse(batch).map_err(|error| self.trouble(&error))?;
            // What was held before is not settled by it.
            return Ok(Delivered { held: true, ..Delivered::default() });
        };
        let known = self.write(run, batch).map_err(|error| self.trouble(&error))?;
        self.held += batch.bytes() as u64;
        // After a failure a small file says at once whether it is over.
        let mut full = self.archive.is_full()
            || self.held >= self.held_max
            || self.failed.swap(false, Ordering::Relaxed);
        if full {
            full = self.close_file()? == Settled::All;
        }
        Ok(Delivered {
            records: batch.len(),
            known,
            bytes: batch.bytes() as u64,
            held: !full,
            ..Delivered::default()
        })
    }

    fn take_refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }

    fn due(&self) -> Option<Instant> {
        Some(self.looked + LOOK)
    }

    async fn tick(&mut self) -> Result<Settled, Trouble> {
        self.look()?;
        let now = Moment::now();
        if self.archive.due() <= now.steady {
            return self.close_file();
        }
        self.archive.tidy(now);
        self.tell();
        Ok(Settled::No)
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        self.look()?;
        self.close_file()
    }
}

impl Writer {
    /// Looks whether a clock was set, and whether the directory is still there.
    fn look(&mut self) -> Result<(), Trouble> {
        self.looked = Instant::now();
        let there = self.archive.look(Moment::now());
        self.covered.store(self.archive.covered(), Ordering::Relaxed);
        there.map_err(|error| self.trouble(&error))
    }

    /// Returns how many of the records were in a closed file already.
    fn write(&mut self, run: u64, batch: &Batch) -> Result<u64, Error> {
        let Self { archive, .. } = self;
        archive.begin(run)?;
        let mut known = 0;
        for (row, records) in batch.rows() {
            let &Row { number: row, complete, .. } = row;
            if archive.has(run, row) {
                known += records.count() as u64;
                continue;
            }
            for record in records {
                archive.push(record.id.time, record.body)?;
            }
            archive.end_row(row, complete);
        }
        Ok(known)
    }

    /// Says that it does not have those records.
    fn refuse(&mut self, batch: &Batch) -> Result<(), Error> {
        let times = || batch.records().map(|record| record.id.time);
        let (Some(since), Some(until)) = (times().min(), times().max()) else { return Ok(()) };
        self.archive.refuse(Gap::new(Reason::Refused, (since, until), batch.len()))?;
        self.refused_held.add(batch.len(), || {
            format!("they are encoded as `{}`, by another version", batch.encoding())
        });
        Ok(())
    }

    /// Closes the file. All that was held is settled then, unless there are losses
    /// that no file says yet.
    fn close_file(&mut self) -> Result<Settled, Trouble> {
        let closed = self.archive.close(Moment::now());
        self.covered.store(self.archive.covered(), Ordering::Relaxed);
        self.tell();
        closed.map_err(|error| self.trouble(&error))?;
        if self.archive.held() > 0 || self.archive.losses() > 0 {
            return Ok(Settled::No);
        }
        self.held = 0;
        self.refused.join(std::mem::take(&mut self.refused_held));
        Ok(Settled::All)
    }

    fn tell(&mut self) {
        let Closed { files, records, bytes, malformed, removed, crowd, clock_was_set, untidy } =
            self.archive.take_closed();
        let directory = self.directory.display();
        if let Some(why) = untidy.filter(|_| self.complaints.allow()) {
            warn!(
                "old files of {directory} cannot be removed: {why}. Make the directory writable, \
                 or remove them by hand"
            );
        }
        if clock_was_set {
            warn!(
                "the clock was set: {directory} begins a new file, and no file covers the time \
                 between; old files are not removed for it"
            );
        }
        if crowd > 0 {
            warn!(
                "{crowd} files of {directory} are due to be removed at once: each minute one more is \
                 removed than were closed in it; raise `keep_for` or `keep_bytes` to keep them"
            );
        }
        // Their rows are in a closed file, and do not come again.
        self.refused.add(malformed, || "the bytes in the spool were damaged".to_owned());
        if files > 0 {
            debug!("{directory} has {files} more files, {records} records in {bytes} bytes");
        }
        let Removed { files, bytes } = removed;
        if files > 0 {
            info!("{files} old files, {bytes} bytes, were removed from {directory}");
        }
    }

    fn trouble(&self, error: &Error) -> Trouble {
        lock(&self.written).gone |= matches!(error, Error::Gone);
        trouble(&self.directory, error, &self.failed)
    }
}

/// Plain values: whole also where a thread has panicked.
fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trouble(directory: &Path, error: &Error, failed: &AtomicBool) -> Trouble {
    failed.store(true, Ordering::Relaxed);
    let what = told(directory, error);
    if error.may_pass() { Trouble::passing(what) } else { Trouble::refused(what) }
}

/// A loss on the way, as a file names it.
fn gap(loss: &Loss) -> Gap {
    let Loss { measure, since, until, records } = *loss;
    let reason = match measure {
        Measure::Dropped => Reason::Dropped,
        Measure::Refused => Reason::Refused,
        _ => Reason::Lost,
    };
    Gap::new(reason, (since, until), records)
}

fn run_of(encoding: &str) -> Option<u64> {
    encoding.strip_prefix(ENCODING)?.parse().ok()
}

#[cfg(test)]
mod tests;
