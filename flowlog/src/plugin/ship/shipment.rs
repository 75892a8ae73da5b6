//! A network sink as the engine sees it: takes records, hands them to the keeper in
//! chunks, and waits for nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, chown};
use tracing::warn;

use super::batch::{self, Record};
use super::losses::Loss;
use super::spool::{self, Chunk, Job, Sink, Spool};
use super::tally::{Amount, Measure, Tally};
use super::worker::{self, Control, Link};
use super::{Client, Shipping};
use crate::capture::netlink::now_ns;
use crate::stack::Site;
use crate::stats::{Shipper, Stats};

/// Bytes that gather before they are handed over, and for how long they do.
const CHUNK: usize = 256 << 10;
const GATHER: Duration = Duration::from_millis(100);
/// How often the client hears that nothing happens, if it wants to.
const SILENCE: Duration = Duration::from_secs(1);
/// How long the end of the daemon waits for the far sides, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a sink says of itself when it begins.
#[derive(Debug)]
pub struct Start<'a> {
    /// The id of its section.
    pub id: &'a str,
    /// Its plugin.
    pub shipper: Shipper,
    /// How it encodes records: a word and a version, `json 1`.
    pub encoding: &'a str,
    /// Bytes that may wait in memory while the spool cannot be written.
    pub buffer_max: usize,
    /// Where they go from there.
    pub spool: &'a Spool,
    /// Who counts.
    pub stats: &'a Stats,
}

impl<'a> Start<'a> {
    /// For a sink with these settings.
    ///
    /// # Errors
    /// There is no spool, which is a mistake of flowlog.
    pub fn of(
        shipping: &'a Shipping,
        shipper: Shipper,
        encoding: &'a str,
        site: Site<'a>,
    ) -> anyhow::Result<Self> {
        let Shipping { id, buffer_max } = shipping;
        let spool = site.spool.with_context(|| format!("{id} has no spool"))?;
        Ok(Self { id, shipper, encoding, buffer_max: *buffer_max, spool, stats: site.stats })
    }
}

/// Starts the worker's thread.
type Begin = Box<dyn FnOnce(Link, Control) -> Option<JoinHandle<()>>>;

/// A network sink.
pub struct Shipment {
    sink: Arc<Sink>,
    shipper: Shipper,
    spool: Spool,
    control: Control,
    encoding: Arc<str>,
    chunk: Chunk,
    /// When the first record of the chunk came.
    since: Instant,
    buffer_max: usize,
    /// Bytes of a chunk: some of them fit into the buffer, however small that is.
    chunk_max: usize,
    /// Present until the worker has begun.
    begin: Option<Begin>,
    worker: Option<JoinHandle<()>>,
    directory: Option<PathBuf>,
    /// When it was last said up to when everything was pushed.
    heard: Instant,
    stats: Stats,
    /// What the stats have been told of the tally.
    told: [u64; Measure::ALL.len()],
}

impl Shipment {
    /// Prepares a sink; nothing is sent before [`Shipment::begin`].
    pub fn open<C: Client + 'static>(start: &Start<'_>, settings: C::Settings) -> Self {
        let Start { id, shipper, encoding, buffer_max, spool, stats } = *start;
        stats.use_shipper(shipper);
        let encoding: Arc<str> = encoding.into();
        let sink = spool.claim(&format!("{id}:{}", shipper.plugin()));
        if C::COVERS {
            sink.tally.losses.want();
        }
        Self {
            sink,
            shipper,
            spool: spool.clone(),
            control: Control::default(),
            chunk: empty(&encoding),
            encoding,
            since: Instant::now(),
            buffer_max,
            chunk_max: CHUNK.min(buffer_max / 4),
            begin: Some(Box::new(|link, control| worker::spawn::<C>(settings, link, control))),
            worker: None,
            directory: None,
            heard: Instant::now(),
            stats: stats.clone(),
            told: [0; Measure::ALL.len()],
        }
    }

    /// Starts the threads: when no process is forked and no privilege dropped any
    /// more.
    pub fn begin(&mut self) {
        self.spool.begin();
        if let Some(begin) = self.begin.take()
            && let Some(jobs) = self.spool.jobs()
        {
            let link = Link::new(self.sink.clone(), jobs, self.spool.path());
            self.worker = begin(link, self.control.clone());
        }
    }

    /// A directory that was made for it.
    pub(super) fn own(&mut self, directory: &Path) {
        self.directory = Some(directory.to_owned());
    }

    /// Hands the directory that was made for it to a user. The spool is handed over
    /// by itself.
    pub fn give_to(&self, uid: Uid, gid: Gid) {
        let Some(directory) = &self.directory else { return };
        if let Err(error) = chown(directory, Some(uid), Some(gid)) {
            warn!("{} cannot be handed to the user: {error}", directory.display());
        }
    }

    /// Its name: `nats1:NATS`.
    pub fn name(&self) -> &str {
        &self.sink.name
    }

    /// What it counts.
    pub fn tally(&self) -> &Tally {
        &self.sink.tally
    }

    /// Takes a record.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        let size = record.size();
        if self.chunk.payload.len() + size > self.chunk_max {
            self.hand_over();
        }
        if self.waiting() + size > self.buffer_max {
            self.sink.tally.add(Measure::Lost, 1);
            self.lose((record.id.time, record.id.time), 1);
            return;
        }
        if self.chunk.records == 0 {
            self.since = Instant::now();
        }
        record.write(&mut self.chunk.payload);
        self.chunk.records += 1;
    }

    /// Bytes that are not in the spool.
    fn waiting(&self) -> usize {
        self.chunk.payload.len() + self.sink.tally.waiting().bytes as usize
    }

    fn hand_over(&mut self) {
        if self.chunk.records == 0 {
            return;
        }
        let chunk = std::mem::replace(&mut self.chunk, empty(&self.encoding));
        let Amount { bytes, records } = chunk.amount();
        self.sink.tally.add_waiting(Amount { bytes, records });
        let times = batch::times(&chunk.payload).unwrap_or_default();
        let job = Job::Append(self.sink.clone(), chunk);
        if self.spool.jobs().is_none_or(|jobs| jobs.send(job).is_err()) {
            // The keeper's thread could not be started, which was told.
            self.lose(times, records);
            self.sink.tally.take_waiting(Amount { bytes, records });
            self.sink.tally.add(Measure::Lost, records);
        }
    }

    /// Notes of which time records are lost.
    #[cold]
    fn lose(&self, (since, until): (u64, u64), records: u64) {
        let loss = Loss { measure: Measure::Lost, since, until, records };
        self.sink.tally.losses.note(loss);
    }

    /// Everything that happened before `complete` was pushed. What has gathered
    /// counts when it was handed over.
    pub fn caught_up(&mut self, complete: u64, hold: Duration) {
        if self.chunk.records == 0 {
            self.sink.tally.losses.caught_up(complete, hold);
            self.heard = Instant::now();
        }
    }

    /// Ends a batch: what has gathered long enough is handed over.
    pub fn flush(&mut self) {
        if self.chunk.records > 0 && self.since.elapsed() >= GATHER {
            self.hand_over();
        }
        self.tell();
    }

    /// When to flush again though nothing new has come.
    pub fn due_in(&self) -> Option<Duration> {
        if self.chunk.records > 0 {
            return Some(GATHER.saturating_sub(self.since.elapsed()));
        }
        // That nothing happens is to be known too.
        let wanted = self.sink.tally.losses.are_wanted();
        wanted.then(|| SILENCE.saturating_sub(self.heard.elapsed()))
    }

    /// Bytes that wait in memory, and how many may.
    pub fn fill(&self) -> (usize, usize) {
        (self.waiting(), self.buffer_max)
    }

    /// Tells the stats what was counted since.
    pub fn tell(&mut self) {
        for (measure, told) in Measure::ALL.into_iter().zip(&mut self.told) {
            let now = self.sink.tally.get(measure);
            self.stats.add_shipped(self.shipper, measure, now - *told);
            *told = now;
        }
    }

    /// The far side is tried again at once, by a new connection.
    pub fn reopen(&mut self) {
        self.control.reconnect();
    }

    /// Ends: all is in the spool then, and at the far side what it takes in a
    /// moment.
    pub fn close(&mut self) {
        self.begin();
        let deadline = self.spool.deadline(PATIENCE);
        self.hand_over();
        // The capture has ended.
        let hold = self.sink.tally.losses.hold();
        self.caught_up(now_ns(), hold);
        self.spool.settle(deadline);
        self.control.stop(deadline);
        if let Some(worker) = self.worker.take()
            && !spool::join(worker, deadline + Duration::from_secs(1))
        {
            warn!("{} does not end; what it has not delivered stays in the spool", self.name());
        }
        // What has arrived leaves the spool.
        self.spool.settle(deadline);
        self.tell();
        self.tell_what_is_left();
    }

    fn tell_what_is_left(&mut self) {
        let Amount { bytes: _, records } = self.sink.tally.kept();
        if records > 0 {
            warn!(
                "{records} records for {} wait in {} for the next start",
                self.name(),
                self.spool.path().display()
            );
        }
        let lost = self.sink.tally.waiting().records;
        if lost > 0 {
            warn!("{lost} records for {} could not be spooled", self.name());
            self.sink.tally.add(Measure::Lost, lost);
            self.tell();
        }
    }
}

fn empty(encoding: &Arc<str>) -> Chunk {
    Chunk { encoding: encoding.clone(), records: 0, payload: Vec::with_capacity(CHUNK) }
}
