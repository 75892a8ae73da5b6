//! The loop: readiness → drain → stacks → flush; signals, timers, shutdown.
//! One thread, one task: nothing is shared, and order is kept.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use self::monitor::Monitor;
use self::recovery::Recovery;
use self::rest::Rest;
use crate::activate::Activation;
use crate::archive::clock::Moment;
use crate::capture::netlink::now_ns;
use crate::capture::{Capture, Drained, DumpKind, Progress, RecordSink};
use crate::daemon::notify::{Notifier, Word};
use crate::daemon::watchdog::Watchdog;
use crate::event::{Event, Lost, Record};
use crate::kernel::TableFill;
use crate::log::{self, notice};
use crate::metrics::{Question, Questions};
use crate::plugin::nfct::Nfct;
use crate::plugin::nfct::sync::Action;
use crate::ratelimit::RateLimit;
use crate::source::place::Place;
use crate::stack::Stacks;
use crate::stats::Stats;
use crate::zone;

mod monitor;
pub mod recovery;
mod report;
pub(crate) mod rest;

/// Messages taken from a source before others, signals and timers get a turn.
const BUDGET: usize = 4096;
/// The shortest time to a timer: events wake the loop at once.
const BREATH: Duration = Duration::from_millis(5);
/// How long a shutdown goes on draining what still arrives.
const DRAIN_AT_EXIT: Duration = Duration::from_millis(1500);
/// How long the last events are read behind it.
const FINISH_AT_EXIT: Duration = Duration::from_millis(500);
/// How long after the signal sinks may go on writing, all together, and for how long at least: the
/// kernel may take seconds to detach probes.
const WRITE_AT_EXIT: Duration = Duration::from_millis(5500);
const LEAST_AT_EXIT: Duration = Duration::from_secs(2);

/// What happened so long ago has been drained, whatever holds it on its way: the time
/// of a message may be half a second older than it, and losses are reported each second.
const HOLD: Duration = Duration::from_secs(3);

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
    /// The namespace that the configuration names, if it names one.
    pub place: Option<Place>,
    /// The rule that makes the kernel track connections there.
    pub activation: Option<Activation>,
    /// What went wrong with reading.
    pub recovery: Recovery,
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

    /// Does what time has made due.
    fn tick(&mut self, now: Instant, complaints: &mut RateLimit) {
        self.look_at_place(now);
        if self.capture.check_due().is_some_and(|due| due <= now) {
            self.capture.check(now);
        }
        if let Some(action) = self.nfct.tick(now, &mut self.stacks) {
            self.act(action, now, complaints);
        }
    }

    /// When [`Source::tick`] has something to do.
    fn deadline(&self) -> Option<Instant> {
        let place = self.place.as_ref().map(Place::due);
        let deadlines = [self.nfct.deadline(), self.capture.check_due(), place];
        deadlines.into_iter().chain([self.recovery.due()]).flatten().min()
    }

    /// Ends the capture, and hands all that is left to the sinks, as far as it can be read until
    /// `deadline`.
    fn finish(&mut self, deadline: Instant) {
        let begun = Moment::now();
        let complete = self.is_complete();
        let mut feed = Feed { nfct: &mut self.nfct, stacks: &mut self.stacks };
        let read = loop {
            match self.capture.drain(BUDGET, &mut feed) {
                Ok(progress) if progress.drained == Drained::Dry => break Ok(true),
                Ok(_) if Instant::now() > deadline => break Ok(false),
                Ok(progress) if progress.drained == Drained::Later => std::thread::sleep(BREATH),
                Ok(_) => {}
                Err(error) => break Err(error),
            }
        };
        let ended = self.capture.finish(&mut feed);
        if !matches!(read, Ok(true)) {
            // How many there were is not known.
            feed.record(Record::Lost(Lost::noticed("exit", 1, now_ns())));
        }
        self.nfct.finish(&mut self.stacks);
        match read.and_then(|dry| ended.map(|()| dry)) {
            Ok(true) if complete => self.caught_up(begun),
            Ok(true) => {}
            Ok(false) => warn!(
                "[{}] not all events could be read until the end: the last of them are in no log, \
                 and count as 1 lost",
                self.id
            ),
            Err(error) => warn!("[{}] the last events cannot be read: {error}", self.id),
        }
    }

    /// Everything that happened before `complete` was read, and what was lost of it is known.
    fn caught_up(&mut self, complete: Moment) {
        self.nfct.caught_up(complete);
        self.stacks.caught_up(complete.wall);
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

/// Has each source learn which flows exist, so that the end of each of them is known from
/// now on. Takes as long as a dump of each table, and all together no longer than `limit`:
/// what fails until then is reported, and tried again later. Sources that are ready are
/// read meanwhile.
pub fn settle(sources: &mut [Source], limit: Duration) {
    let mut complaints = RateLimit::per_second();
    let start = Instant::now();
    while sources.iter().any(|source| source.nfct.is_starting()) && start.elapsed() < limit {
        for source in sources.iter_mut() {
            source.tick(Instant::now(), &mut complaints);
            source.drain_or_wait(BUDGET, &mut complaints);
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    for source in sources {
        if source.nfct.is_starting() {
            warn!(
                "[{}] the conntrack table could not be read within {} s: the ends of flows that \
                 exist are logged without their start until it can; see `flowlog check`",
                source.id,
                limit.as_secs()
            );
        }
        source.stacks.flush();
    }
}

/// The daemon at work.
pub struct Engine {
    sources: Vec<Source>,
    /// Each with the index of its source.
    descriptors: Vec<(usize, AsyncFd<OwnedFd>)>,
    signals: Signals,
    rest: Rest,
    complaints: RateLimit,
    stats: Stats,
    /// What scrapers ask; absent where metrics are not served.
    questions: Option<Questions>,
    /// Absent where nobody watches.
    watchdog: Option<Watchdog>,
    notifier: Notifier,
    monitor: Monitor,
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
        for (index, source) in sources.iter_mut().enumerate() {
            recovery::watch(index, source, &mut descriptors)?;
        }
        Ok(Self {
            monitor: Monitor::new(&sources, &stats, Instant::now()),
            sources,
            descriptors,
            signals: Signals::new()?,
            rest: Rest::default(),
            complaints: RateLimit::per_second(),
            stats,
            questions,
            watchdog: Watchdog::of_environment(),
            notifier: Notifier::of_environment(),
        })
    }

    /// Says to the service manager, if there is one, that events are read.
    pub fn ready(&self) {
        self.notifier.say(Word::Ready);
    }

    /// Runs until SIGTERM or SIGINT.
    pub async fn run(mut self) {
        let mut more = true;
        loop {
            match self.wait(more).await {
                Wake::Signal(kind) if self.handle(kind) => break,
                Wake::Asked(question) => self.answer(question),
                Wake::Signal(_) | Wake::Readable | Wake::Timer => {}
            }
            more = self.turn();
            self.monitor.tick(Instant::now(), &mut self.sources);
            // Behind it: a turn that does not end is what the watchdog is for.
            if let Some(watchdog) = &mut self.watchdog {
                watchdog.tick(Instant::now(), &self.notifier);
            }
        }
        self.shut_down();
    }

    /// One turn: what is there goes down the stacks; returns whether there is
    /// more.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        let begun = Moment::now();
        let mut messages = 0;
        let mut more = false;
        for (index, source) in self.sources.iter_mut().enumerate() {
            source.tick(now, &mut self.complaints);
            let progress = source.drain_or_wait(BUDGET, &mut self.complaints);
            recovery::watch_again(index, source, &mut self.descriptors, &mut self.complaints);
            messages += progress.messages;
            more |= progress.drained == Drained::More;
            source.stacks.flush();
            if progress.drained == Drained::Dry && source.is_complete() {
                let hold = HOLD + source.capture.holds();
                source.caught_up(begun.before(hold));
            }
        }
        if !more {
            let room = self.sources.iter().map(|s| s.capture.queue_events()).min().unwrap_or(0);
            self.rest.after(messages, room);
        }
        more
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
        let due = [ticks, retry, watchdog, Some(self.monitor.due())].into_iter().flatten().min();
        // Whatever stays due, the loop does not spin for it.
        due.map(|due| due.max(Instant::now() + BREATH))
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
    fn shut_down(&mut self) {
        let start = Instant::now();
        // From now on the server says that flowlog is shutting down.
        self.questions = None;
        while self.turn() && start.elapsed() < DRAIN_AT_EXIT {}
        let deadline = Instant::now() + FINISH_AT_EXIT;
        self.sources.iter_mut().for_each(|source| source.finish(deadline));
        let written = (start + WRITE_AT_EXIT).max(Instant::now() + LEAST_AT_EXIT);
        self.sources.iter_mut().for_each(|source| source.stacks.end(written));
        self.sources.iter_mut().for_each(|source| source.stacks.close());
        self.monitor.warn_of_rest(Instant::now(), &self.sources);
        self.totals();
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

/// Waits until one of the descriptors is readable. Readiness is forgotten at
/// once: whoever wakes up reads until nothing is left.
async fn readable(descriptors: &[(usize, AsyncFd<OwnedFd>)]) {
    poll_fn(|context| {
        let mut any = false;
        for (_, descriptor) in descriptors {
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
