//! A network sink as the engine sees it: takes records, hands them to the keeper in
//! chunks, and waits for nobody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, chown};
use tracing::warn;

use super::batch::Record;
use super::control::Control;
use super::gate::Outcome;
use super::held;
use super::link::Link;
use super::losses::Loss;
use super::spool::{Chunk, Job, Sink, Spool};
use super::worker;
use super::{Client, Shipping};
use crate::plugin::output::CLOSE_TIMEOUT;
use crate::plugin::threads;
use crate::stack::Site;
use crate::stats::{Amount, Instance, Measure, Part, SinkPlugin, SinkStats, Stats};

/// Bytes that gather before they are handed over, and for how long they do.
const CHUNK: usize = 256 << 10;
const GATHER: Duration = Duration::from_millis(100);
/// How long a worker may take beyond its deadline before it is left alone.
const GRACE: Duration = Duration::from_millis(500);
/// How often the client hears that nothing happens, if it wants to.
const SILENCE: Duration = Duration::from_secs(1);

/// What a sink says of itself when it begins.
#[derive(Debug)]
pub struct Start<'a> {
    /// Which sink it is.
    pub instance: Instance,
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
        plugin: SinkPlugin,
        encoding: &'a str,
        site: Site<'a>,
    ) -> anyhow::Result<Self> {
        let Shipping { id, buffer_max } = shipping;
        let spool = site.spool.with_context(|| format!("{id} has no spool"))?;
        let instance = site.instance(plugin);
        Ok(Self { instance, encoding, buffer_max: *buffer_max, spool, stats: site.stats })
    }
}

/// Starts the worker's thread.
type Begin = Box<dyn FnOnce(Link, Control) -> Option<JoinHandle<()>>>;

/// A network sink.
pub struct Shipment {
    sink: Arc<Sink>,
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
    /// When to have ended, once the daemon ends.
    deadline: Option<Instant>,
    /// Up to when everything was pushed, and when that was said last.
    complete: u64,
    heard: Instant,
}

impl Shipment {
    /// Prepares a sink; nothing is sent before [`Shipment::begin`].
    pub fn open<C: Client + 'static>(start: &Start<'_>, settings: C::Settings) -> Self {
        let Start { ref instance, encoding, buffer_max, spool, stats } = *start;
        let sink = spool.claim(&format!("{}:{}", instance.sink, instance.plugin.plugin()));
        stats.register(instance.clone(), &sink.stats);
        let encoding: Arc<str> = encoding.into();
        if C::COVERS {
            sink.losses.want();
        }
        let chunk_max = CHUNK.min(buffer_max / 4);
        Self {
            sink,
            spool: spool.clone(),
            control: Control::default(),
            chunk: Chunk::empty(encoding.clone(), chunk_max),
            encoding,
            since: Instant::now(),
            buffer_max,
            chunk_max,
            begin: Some(Box::new(|link, control| worker::spawn::<C>(settings, link, control))),
            worker: None,
            directory: None,
            deadline: None,
            complete: 0,
            heard: Instant::now(),
        }
    }

    /// Starts the threads: when no process is forked and no privilege dropped any
    /// more.
    pub fn begin(&mut self) {
        self.spool.begin();
        if let Some(begin) = self.begin.take()
            && let Some(jobs) = self.spool.jobs()
        {
            let link = Link::new(self.sink.clone(), jobs, &self.spool);
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
    pub fn stats(&self) -> &SinkStats {
        &self.sink.stats
    }

    /// Takes a record.
    #[inline]
    pub fn push(&mut self, record: &Record<'_>) {
        let size = record.size();
        if self.chunk.payload.len() + size > self.chunk_max {
            self.hand_over();
        }
        let time = record.id.time;
        let takes = if self.chunk.records == 0 { size + Chunk::OVERHEAD } else { size };
        if self.waiting() + takes > self.buffer_max {
            self.lose(1, (time, time));
            return;
        }
        if self.chunk.records == 0 {
            self.since = Instant::now();
            self.chunk.span = (time, time);
        }
        let (first, last) = self.chunk.span;
        self.chunk.span = (first.min(time), last.max(time));
        record.write(&mut self.chunk.payload);
        self.chunk.records += 1;
    }

    /// Bytes of memory that records take which are not in the spool.
    fn waiting(&self) -> usize {
        let Chunk { records, payload, .. } = &self.chunk;
        let gathered = if *records == 0 { 0 } else { payload.len() + Chunk::OVERHEAD };
        gathered + self.sink.stats.waiting().bytes as usize
    }

    fn hand_over(&mut self) {
        if let Some(chunk) = self.take_chunk() {
            self.hand_over_chunk(chunk);
        }
    }

    pub(super) fn hand_over_chunk(&mut self, chunk: Chunk) {
        let (held, span) = (chunk.held(), chunk.span);
        self.sink.waits(&chunk);
        let job = Job::Append(self.sink.clone(), chunk);
        if self.spool.jobs().is_none_or(|jobs| jobs.send(job).is_err()) {
            // The keeper's thread does not run, which the monitor reports.
            self.sink.waits_no_more(held);
            self.lose(held.records, span);
        }
    }

    /// What has gathered, in no more memory than it needs: it may wait for long.
    pub(super) fn take_chunk(&mut self) -> Option<Chunk> {
        if self.chunk.records == 0 {
            return None;
        }
        let empty = Chunk::empty(self.encoding.clone(), self.chunk_max);
        let mut chunk = std::mem::replace(&mut self.chunk, empty);
        chunk.payload.shrink_to_fit();
        chunk.complete = self.complete;
        Some(chunk)
    }

    /// Counts records that are lost, and notes of which time they are.
    #[cold]
    fn lose(&self, records: u64, (since, until): (u64, u64)) {
        self.sink.loses(Loss { measure: Measure::Lost, since, until, records });
    }

    /// How long records have waited, in memory or in the spool, without any that went on.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.sink.stalled_for()
    }

    /// Which thread that it needs does not run, though the daemon does: it could not be started, or
    /// a fault in flowlog or a library has ended it. It is not started again, as the fault would
    /// come again.
    pub fn dead_thread(&self) -> Option<(Part, String)> {
        if self.begin.is_some() || self.deadline.is_some() {
            return None;
        }
        if self.spool.is_dead() {
            let what = "the thread that writes the spool has ended: records are lost; \
                        restart flowlog, and see its log for why";
            return Some((Part::Spool, what.to_owned()));
        }
        self.worker.as_ref().is_none_or(JoinHandle::is_finished).then(|| {
            let what = "the thread that delivers has ended: records wait in the spool, and none \
                        is delivered; restart flowlog, and see its log for why";
            (Part::Destination, what.to_owned())
        })
    }

    /// Everything that happened before `complete` was pushed. What has gathered
    /// counts when it was handed over.
    pub fn caught_up(&mut self, complete: u64) {
        self.complete = complete;
        if self.chunk.records == 0 {
            self.sink.losses.caught_up(complete);
            self.heard = Instant::now();
        }
    }

    /// Ends a batch: what has gathered long enough is handed over.
    pub fn flush(&mut self) {
        if self.chunk.records > 0 && self.since.elapsed() >= GATHER {
            self.hand_over();
        }
        if self.heard.elapsed() >= SILENCE {
            self.heard = Instant::now();
        }
    }

    /// When to flush again though nothing new has come.
    pub fn due_in(&self) -> Option<Duration> {
        if self.chunk.records > 0 {
            return Some(GATHER.saturating_sub(self.since.elapsed()));
        }
        // That nothing happens is to be known too.
        let wanted = self.sink.losses.are_wanted();
        wanted.then(|| SILENCE.saturating_sub(self.heard.elapsed()))
    }

    /// Bytes that wait in memory, and how many may.
    pub fn fill(&self) -> (usize, usize) {
        (self.waiting(), self.buffer_max)
    }

    /// The far side is tried again at once, by a new connection.
    pub fn reopen(&mut self) {
        self.control.reconnect();
    }

    /// The daemon ends: hands over what there is, to be delivered until `deadline`.
    pub fn end(&mut self, deadline: Instant) {
        if self.deadline.is_some() {
            return;
        }
        self.deadline = Some(deadline);
        self.begin();
        self.hand_over();
        if let Some(jobs) = self.spool.jobs() {
            // Behind the records: the worker ends when it has come to the last of them.
            let _ = jobs.send(Job::Stop(self.control.clone(), deadline));
        }
    }

    /// Ends: all is in the spool then, and at the far side what it takes in a
    /// moment.
    pub fn close(&mut self) {
        let deadline = self.deadline.unwrap_or_else(|| Instant::now() + CLOSE_TIMEOUT);
        self.end(deadline);
        self.spool.settle(deadline);
        self.control.stop(deadline);
        if let Some(worker) = self.worker.take()
            && !threads::join(worker, deadline + GRACE)
        {
            warn!("{} does not end; what it has not delivered stays in the spool", self.name());
        }
        // What has arrived leaves the spool.
        self.spool.settle(deadline);
        self.tell_what_is_left();
    }

    /// Says what is in the spool, and counts it where that ends with the daemon.
    fn tell_what_is_kept(&self) {
        let kept = self.sink.stats.kept();
        let Amount { bytes: _, records } = kept;
        if records == 0 {
            return;
        }
        let (name, path, health) = (self.name(), self.spool.path().display(), self.spool.health());
        let measure = if health.is_replacing() {
            // What the destination has acknowledged meanwhile may be among them.
            warn!(
                "{records} records for {name} were being copied to a new spool when flowlog \
                 ended, and may be lost: {path} was removed"
            );
            Measure::Unsure
        } else if health.is_detached() {
            warn!("{records} records for {name} are lost: {path} was removed");
            Measure::Lost
        } else {
            warn!("{records} records for {name} wait in {path} for the next start");
            return;
        };
        self.sink.stats.take_kept(kept);
        self.sink.stats.add(measure, records);
        if health.has_claimed()
            && let Some(directory) = self.spool.path().parent()
        {
            held::forget(directory, name);
        }
    }

    fn tell_what_is_left(&mut self) {
        self.tell_what_is_kept();
        let outcome = self.sink.gate.give_up();
        let left = self.sink.stats.waiting().records;
        if left == 0 {
            return;
        }
        match outcome {
            Outcome::Out => {
                warn!("{left} records for {} could not be spooled", self.name());
                self.sink.stats.add(Measure::Lost, left);
            }
            Outcome::Unsure => {
                warn!(
                    "{left} records for {} were being spooled when flowlog ended, and may be lost",
                    self.name()
                );
                self.sink.stats.add(Measure::Unsure, left);
            }
        }
    }
}
