//! The loop: readiness → drain → stacks → flush; signals, timers, shutdown.
//! One thread, one task: nothing is shared, and order is kept.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use self::rest::Rest;
use crate::capture::{Capture, Drained, DumpKind, Progress, RecordSink};
use crate::daemon::watchdog::Watchdog;
use crate::event::{Event, Record};
use crate::kernel::TableFill;
use crate::log::{self, notice};
use crate::metrics::{Question, Questions};
use crate::plugin::nfct::Nfct;
use crate::plugin::nfct::sync::Action;
use crate::ratelimit::RateLimit;
use crate::stack::Stacks;
use crate::stats::Stats;
use crate::zone;

mod report;
pub(crate) mod rest;

/// Messages taken from a source before others, signals and timers get a turn.
const BUDGET: usize = 4096;
/// How long a shutdown goes on draining what still arrives.
const DRAIN_AT_EXIT: Duration = Duration::from_secs(2);

/// A source with the stacks that it feeds.
pub struct Source {
    /// Its id in the configuration.
    pub id: String,
    /// What it is captured by, in words.
    pub by: String,
    /// The kernel's table of the namespace that it was opened in.
    pub table: TableFill,
    /// Where its records come from.
    pub capture: Box<dyn Capture>,
    /// What selects among them.
    pub nfct: Nfct,
    /// What they are handed to.
    pub stacks: Stacks,
}

/// Records go through NFCT into the stacks.
struct Feed<'a> {
    nfct: &'a mut Nfct,
    stacks: &'a mut Stacks,
}

impl RecordSink for Feed<'_> {
    fn announce(&mut self, events: &[Event]) {
        self.nfct.announce(events);
    }

    #[inline]
    fn record(&mut self, record: Record<'_>) {
        self.nfct.record(record, self.stacks);
    }
}

impl Source {
    /// Takes up to about `budget` messages down the stacks.
    ///
    /// # Errors
    /// The capture cannot go on.
    pub fn drain(&mut self, budget: usize) -> io::Result<Progress> {
        let mut feed = Feed { nfct: &mut self.nfct, stacks: &mut self.stacks };
        self.capture.drain(budget, &mut feed)
    }

    /// Learns which flows exist, so that the end of each of them is known from
    /// now on. Takes as long as a dump of the table, and no longer than
    /// `limit`.
    ///
    /// # Errors
    /// As [`Source::drain`].
    pub fn settle(&mut self, limit: Duration) -> io::Result<()> {
        let mut complaints = RateLimit::per_second();
        let start = Instant::now();
        while self.nfct.is_starting(Instant::now()) && start.elapsed() < limit {
            self.tick(Instant::now(), &mut complaints);
            self.drain(BUDGET)?;
            std::thread::sleep(Duration::from_micros(100));
        }
        self.stacks.flush();
        Ok(())
    }

    /// Does what time has made due.
    fn tick(&mut self, now: Instant, complaints: &mut RateLimit) {
        if self.capture.check_due().is_some_and(|due| due <= now) {
            self.capture.check(now);
        }
        if let Some(action) = self.nfct.tick(now, &mut self.stacks) {
            self.act(action, now, complaints);
        }
    }

    /// When [`Source::tick`] has something to do.
    fn deadline(&self) -> Option<Instant> {
        [self.nfct.deadline(), self.capture.check_due()].into_iter().flatten().min()
    }

    /// Ends the capture, and writes all that is left.
    fn finish(&mut self) {
        let mut feed = Feed { nfct: &mut self.nfct, stacks: &mut self.stacks };
        if let Err(error) = self.capture.finish(&mut feed) {
            warn!("[{}] the last events cannot be read: {error}", self.id);
        }
        self.nfct.finish(&mut self.stacks);
        self.stacks.close();
    }

    fn act(&mut self, action: Action, now: Instant, complaints: &mut RateLimit) {
        let result = match action {
            Action::Dump => self.capture.start_dump(DumpKind::Read),
            Action::DumpAndReset => self.capture.start_dump(DumpKind::ReadAndReset),
            Action::Query(keys) => self.capture.query(keys),
            Action::Nothing => Ok(()),
        };
        if let Err(error) = result {
            self.nfct.action_failed(now);
            if complaints.allow() {
                warn!("[{}] the conntrack table cannot be read: {error}", self.id);
            }
        }
    }
}

/// The daemon at work.
pub struct Engine {
    sources: Vec<Source>,
    descriptors: Vec<AsyncFd<OwnedFd>>,
    signals: Signals,
    rest: Rest,
    complaints: RateLimit,
    stats: Stats,
    /// What scrapers ask; absent where metrics are not served.
    questions: Option<Questions>,
    /// Absent where nobody watches.
    watchdog: Option<Watchdog>,
    /// When, seconds since the epoch.
    started: f64,
}

/// What ended a wait.
enum Wake {
    Asked(Question),
    Readable,
    Timer,
    Signal(SignalKind),
}

impl Engine {
    /// Takes over the signals and watches the sources. Call within a runtime.
    ///
    /// # Errors
    /// The kernel refuses to watch a descriptor or a signal.
    pub fn new(
        mut sources: Vec<Source>,
        stats: Stats,
        questions: Option<Questions>,
    ) -> io::Result<Self> {
        sources.iter_mut().for_each(|source| source.stacks.begin());
        let mut descriptors = Vec::new();
        for source in &sources {
            for descriptor in source.capture.descriptors()? {
                descriptors.push(watch(descriptor)?);
            }
        }
        Ok(Self {
            sources,
            descriptors,
            signals: Signals::new()?,
            rest: Rest::default(),
            complaints: RateLimit::per_second(),
            stats,
            questions,
            watchdog: Watchdog::of_environment(),
            started: report::now(),
        })
    }

    /// Runs until SIGTERM or SIGINT.
    ///
    /// # Errors
    /// A source cannot go on.
    pub async fn run(mut self) -> io::Result<()> {
        let mut more = true;
        loop {
            match self.wait(more).await {
                Wake::Signal(kind) if self.handle(kind) => break,
                Wake::Asked(question) => self.answer(question),
                Wake::Signal(_) | Wake::Readable | Wake::Timer => {}
            }
            more = self.turn()?;
            // Behind it: a turn that does not end is what the watchdog is for.
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.tick(Instant::now());
            }
        }
        self.shut_down()
    }

    /// One turn: what is there goes down the stacks; returns whether there is
    /// more.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let mut messages = 0;
        let mut more = false;
        for source in &mut self.sources {
            source.tick(now, &mut self.complaints);
            let progress = source.drain(BUDGET)?;
            messages += progress.messages;
            more |= progress.drained == Drained::More;
            source.stacks.flush();
        }
        if !more {
            let room = self.sources.iter().map(|s| s.capture.queue_events()).min().unwrap_or(0);
            self.rest.after(messages, room);
        }
        Ok(more)
    }

    async fn wait(&mut self, more: bool) -> Wake {
        let deadline = self.deadline();
        tokio::select! {
            biased;
            kind = self.signals.next() => Wake::Signal(kind),
            // Before what is readable, which may always be the case; a turn follows.
            question = asked(&mut self.questions) => Wake::Asked(question),
            // Lets signals and scrapers come, however much there is to read.
            () = tokio::task::yield_now(), if more => Wake::Readable,
            () = readable(&self.descriptors) => Wake::Readable,
            () = sleep_until(deadline) => Wake::Timer,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let ticks = self.sources.iter().filter_map(Source::deadline).min();
        let retry = self.sources.iter().filter_map(|source| source.stacks.retry_in()).min();
        let retry = retry.map(|soon| Instant::now() + soon);
        let watchdog = self.watchdog.as_ref().map(Watchdog::due);
        [ticks, retry, watchdog].into_iter().flatten().min()
    }

    /// Handles a signal; returns whether it ends the daemon.
    fn handle(&mut self, kind: SignalKind) -> bool {
        match kind {
            kind if kind == SignalKind::hangup() => {
                notice!("signal received: files are opened anew");
                log::reopen();
                zone::look();
                self.sources.iter_mut().for_each(|source| source.stacks.reopen());
            }
            kind if kind == SignalKind::user_defined2() => {
                notice!("signal received: dumping the table and resetting its counters");
                for source in &mut self.sources {
                    let action = source.nfct.dump_and_reset();
                    source.act(action, Instant::now(), &mut self.complaints);
                }
            }
            kind if kind == SignalKind::user_defined1() => self.totals(),
            kind if kind == SignalKind::alarm() => notice!("SIGALRM received"),
            _ => {
                notice!("Terminal signal received, exiting");
                return true;
            }
        }
        false
    }

    /// Takes what has already arrived, writes everything, reports.
    fn shut_down(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while self.turn()? && start.elapsed() < DRAIN_AT_EXIT {}
        self.sources.iter_mut().for_each(Source::finish);
        self.totals();
        Ok(())
    }

    fn totals(&mut self) {
        for source in &mut self.sources {
            source.capture.before_totals();
            let (live, old) = (source.nfct.live(), source.nfct.preexisting());
            info!("[{}] {live} flows are live, {old} of them from before the start", source.id);
        }
        for line in self.stats.totals() {
            notice!("{line}");
        }
        notice!("total log.dropped_messages: {} messages", log::dropped());
    }
}

#[expect(unsafe_code, reason = "tokio leaves the safety of descriptors to its caller")]
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd names one open descriptor, the same as long as it
    // lives, and nothing else closes it.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Waits until one of the descriptors is readable. Readiness is forgotten at
/// once: whoever wakes up reads until nothing is left.
async fn readable(descriptors: &[AsyncFd<OwnedFd>]) {
    poll_fn(|context| {
        let mut any = false;
        for descriptor in descriptors {
            if let Poll::Ready(Ok(mut guard)) = descriptor.poll_read_ready(context) {
                guard.clear_ready();
                any = true;
            }
        }
        if any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn asked(questions: &mut Option<Questions>) -> Question {
    match questions {
        // The server, which holds the other end, lives as long as the runtime.
        Some(questions) => match questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// The signals that the daemon handles.
struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    fn new() -> io::Result<Self> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
            SignalKind::user_defined1(),
            SignalKind::user_defined2(),
            SignalKind::alarm(),
        ];
        let watch = |kind| Ok((kind, signal(kind)?));
        Ok(Self(kinds.into_iter().map(watch).collect::<io::Result<_>>()?))
    }

    async fn next(&mut self) -> SignalKind {
        poll_fn(|context| {
            let ready = self
                .0
                .iter_mut()
                .find_map(|(kind, signal)| signal.poll_recv(context).is_ready().then_some(*kind));
            ready.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
