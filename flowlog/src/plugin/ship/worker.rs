//! The thread of one sink: reads the spool, has the client deliver, and says to the
//! keeper what has arrived.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::batch::Batch;
use super::control::Control;
use super::failure::Failure;
use super::link::Link;
use super::losses::Loss;
use super::reader::{Found, Reader};
use super::{Appetite, Client, Delivered, Refused, Settled, Trouble};
use crate::capture::netlink::now_ns;
use crate::plugin::threads;
use crate::stats::{Amount, Measure, Part};

/// How long the far side may take to answer at all, and from when on it is reported.
const PATIENCE: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(10);
/// Names that are looked up at once: one that hangs keeps its thread, and each attempt to
/// connect starts another.
const LOOKUPS: usize = 4;
/// How often it is looked whether the spool has forgotten losses, and for how long.
const LOOK: Duration = Duration::from_millis(2);
const FORGET: Duration = Duration::from_millis(500);
/// How often the same trouble is told.
const REMIND: Duration = Duration::from_secs(60);

/// Starts the thread.
pub(super) fn spawn<C: Client + 'static>(
    settings: C::Settings,
    link: Link,
    control: Control,
) -> Option<JoinHandle<()>> {
    let name = link.sink.name.split(':').next().unwrap_or_default().to_owned();
    threads::spawn(&name, move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = match runtime.enable_all().max_blocking_threads(LOOKUPS).build() {
            Ok(runtime) => runtime,
            Err(why) => {
                error!("{} cannot begin: {why}; raise the limit of open files", link.sink.name);
                return;
            }
        };
        let over = control.over();
        runtime.block_on(async {
            let mut worker = Worker::<C>::new(settings, link, control);
            tokio::select! {
                () = worker.run() => {}
                () = over => {}
            }
        });
        // A name that is being looked up is not waited for.
        runtime.shutdown_background();
    })
}

struct Worker<C: Client> {
    settings: C::Settings,
    appetite: Appetite,
    link: Link,
    reconnect: Arc<Notify>,
    stop: watch::Receiver<Option<Instant>>,
    newest: watch::Receiver<i64>,
    backoff: Backoff,
    /// The trouble that was told last, and when.
    told: Option<(Trouble, Instant)>,
    connected_before: bool,
}

/// Why delivering ended.
enum End {
    /// The daemon ends.
    Stop,
    /// Somebody wants a new connection.
    Reconnect,
    Trouble(Trouble),
    Spool(Failure),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl<C: Client> Worker<C> {
    fn new(settings: C::Settings, link: Link, control: Control) -> Self {
        let (stop, reconnect) = (control.stopping(), control.reconnect_asked());
        // The worker ends when the engine drops its own.
        drop(control);
        Self {
            appetite: C::appetite(&settings),
            settings,
            newest: link.sink.newest.subscribe(),
            link,
            stop,
            reconnect,
            backoff: Backoff::default(),
            told: None,
            connected_before: false,
        }
    }

    /// Delivers until the daemon ends.
    async fn run(&mut self) {
        tokio::select! {
            // First: at the end there may be records to deliver.
            biased;
            () = self.link.health.opened() => {}
            _ = self.stop.wait_for(Option::is_some) => return,
        }
        loop {
            let wait = match self.connection().await {
                End::Stop => return,
                End::Reconnect => continue,
                End::Trouble(trouble) => {
                    self.tell(&trouble);
                    self.backoff.after(&trouble)
                }
                End::Spool(failure) => {
                    self.tell(&Trouble::passing(failure));
                    Duration::from_secs(1)
                }
            };
            // A far side that is away now is not waited for at the end.
            tokio::select! {
                () = sleep(wait) => {}
                () = self.reconnect.notified() => {}
                _ = self.stop.wait_for(Option::is_some) => return,
            }
        }
    }

    /// One connection, from its beginning to its end.
    async fn connection(&mut self) -> End {
        if self.link.sink.stats.kept().records > 0 {
            self.link.sink.undelivered.wait();
        }
        let reader = match Reader::open(&self.link.path, &self.link.health) {
            Ok(reader) => reader,
            Err(failure) => return End::Spool(failure),
        };
        let settings = self.settings.clone();
        let mut client = match self.answer(C::connect(&settings), "to a connection").await {
            Ok(client) => client,
            Err(trouble) => return trouble.into(),
        };
        self.link.sink.stats.answered();
        if std::mem::replace(&mut self.connected_before, true) {
            self.link.count(Measure::Reconnects, 1);
        }
        // It knows and has nothing yet.
        (self.link.losses, self.link.unsettled) = (None, Amount::default());
        self.link.count(Measure::Replaced, client.replaced().into());
        let end = match self.deliver_all(client, &reader).await {
            Ok(end) | Err(end) => end,
        };
        // What it held it has no more.
        self.link.sink.take_rows(self.link.arrived);
        end
    }

    async fn deliver_all(&mut self, mut client: C, reader: &Reader) -> Result<End, End> {
        // What was delivered on a former connection and not acknowledged comes again.
        let mut after = self.link.arrived;
        let taken_back = self.link.sink.taken_back();
        loop {
            if self.link.sink.taken_back() != taken_back {
                // Some of what it holds was counted as lost. The rest comes again.
                return Ok(End::Reconnect);
            }
            self.teach(&mut client, reader, after)?;
            if client.due().is_some_and(|due| due <= Instant::now()) {
                let owed = self.link.sink.stats.unanswered().is_some();
                let settled = self.answer(client.tick(), "to records").await;
                self.count_refused(&mut client);
                let settled = settled?;
                if !owed {
                    // Nothing was asked for before, and this is answered.
                    self.link.sink.stats.answered();
                }
                self.settle(settled, after);
            }
            // Before it is looked for rows: all that is to be delivered is there then.
            let stopping = self.stop.borrow().is_some();
            match self.next(reader, after).await? {
                Some(batch) => {
                    self.settled_losses().await;
                    // Else the rows are read again.
                    if self.teach(&mut client, reader, after)? {
                        self.deliver(&mut client, &batch).await?;
                        after = batch.last;
                    }
                }
                None if stopping => {
                    self.settled_losses().await;
                    self.teach(&mut client, reader, after)?;
                    self.close(client, after).await?;
                    return Ok(End::Stop);
                }
                None => {
                    if self.idle(client.due()).await {
                        // What is held would come again.
                        self.teach(&mut client, reader, after)?;
                        self.close(client, after).await?;
                        return Ok(End::Reconnect);
                    }
                }
            }
        }
    }

    /// Ends the client; what it has settled then is all up to the row `after`.
    async fn close(&mut self, mut client: C, after: i64) -> Result<(), End> {
        let settled = self.answer(client.close(), "to records").await;
        self.count_refused(&mut client);
        self.settle(settled?, after);
        Ok(())
    }

    fn teach(&mut self, client: &mut C, reader: &Reader, after: i64) -> Result<bool, End> {
        self.link.teach(client, reader, after).map_err(End::Spool)
    }

    /// Waits until it is known what losses there are to state.
    async fn settled_losses(&self) {
        let settled = async {
            while !self.link.are_settled() {
                sleep(LOOK).await;
            }
        };
        // A spool that cannot be written does not come to that.
        let _ = timeout(FORGET, settled).await;
    }

    /// Waits for something to do; returns whether that is a new connection.
    async fn idle(&mut self, due: Option<Instant>) -> bool {
        tokio::select! {
            // First: SIGHUP closes a file with all rows that came before it.
            biased;
            _ = self.newest.changed() => false,
            () = sleep_to(due) => false,
            () = self.reconnect.notified() => true,
            _ = self.stop.wait_for(Option::is_some) => false,
        }
    }

    /// The rows behind `after`, as many as the far side likes.
    async fn next(&mut self, reader: &Reader, after: i64) -> Result<Option<Batch>, End> {
        let Appetite { bytes, linger } = self.appetite;
        let bytes = bytes.min(self.link.share);
        self.newest.mark_unchanged();
        let found = self.take(reader, after, bytes).await?;
        let hungry = found.as_ref().is_some_and(|batch| batch.bytes < bytes);
        if !hungry || linger.is_zero() || self.stop.borrow().is_some() {
            return Ok(found);
        }
        tokio::select! {
            () = sleep(linger) => {}
            _ = self.stop.wait_for(Option::is_some) => {}
        }
        self.take(reader, after, bytes).await
    }

    /// Takes rows: none of them is dropped from now on.
    async fn take(
        &mut self,
        reader: &Reader,
        after: i64,
        bytes: usize,
    ) -> Result<Option<Batch>, End> {
        let health = self.link.health.clone();
        let _kept = health.rows().lock().await;
        let mut after = after;
        loop {
            match reader.next(&self.link.sink.name, after, bytes).map_err(End::Spool)? {
                Found::Batch(batch) => {
                    self.link.sink.take_rows(batch.last);
                    self.link.sink.undelivered.wait();
                    return Ok(Some(batch));
                }
                Found::Nothing => {
                    self.link.sink.undelivered.clear();
                    return Ok(None);
                }
                // It stays until a later one has arrived, and is found again.
                Found::Damaged(row, _) if !self.link.sink.count_damaged(row) => after = row,
                Found::Damaged(row, records) => {
                    error!(
                        "row {row} of {} is damaged: {records} records for {} are lost",
                        self.link.path.display(),
                        self.link.sink.name
                    );
                    self.link.count(Measure::Lost, records);
                    // Its time is not known: it is later than what came before, unless the clock
                    // was set back since.
                    let until = now_ns();
                    let since = Some(self.link.latest).filter(|latest| *latest <= until);
                    let (measure, since) = (Measure::Lost, since.unwrap_or_default());
                    let losses = &self.link.sink.losses;
                    losses.note(Loss { measure, since, until, records });
                    // Rows behind it are not delivered before it is known to be lost.
                    self.link.noted = if losses.are_wanted() { losses.count() } else { 0 };
                    after = row;
                }
            }
        }
    }

    async fn deliver(&mut self, client: &mut C, batch: &Batch) -> Result<(), End> {
        if batch.first <= self.link.handed {
            // Rows that came since may be behind those that come again.
            self.link.count(Measure::Repeated, batch.records_up_to(self.link.handed));
        }
        self.link.handed = self.link.handed.max(batch.last);
        if C::COVERS {
            let latest = batch.records().map(|record| record.id.time).max();
            self.link.latest = latest.unwrap_or_default().max(self.link.latest);
        }
        let owed = self.link.sink.stats.unanswered().is_some();
        let delivered = self.answer(client.deliver(batch), "to records").await;
        self.count_refused(client);
        let delivered = delivered?;
        // It has taken a batch, but has not confirmed what it was asked for before.
        if !(owed && delivered.held) {
            self.link.sink.stats.answered();
        }
        self.link.sink.undelivered.progress();
        self.link.unsettled.bytes += batch.bytes as u64;
        self.link.unsettled.records += batch.records;
        self.count(&delivered);
        // What is held may fail yet.
        if !delivered.held {
            self.settle(Settled::All, batch.last);
        }
        Ok(())
    }

    fn count(&mut self, delivered: &Delivered) {
        let Delivered { records, known, refused, why, bytes, held: _ } = delivered;
        self.link.count(Measure::Records, *records);
        self.link.count(Measure::Known, *known);
        self.link.count(Measure::Bytes, *bytes);
        self.add_refused(*refused, why.as_deref());
    }

    /// Counts what the client has refused for good, whatever became of the call.
    fn count_refused(&self, client: &mut C) {
        let Refused { records, why } = client.take_refused();
        self.add_refused(records, why.as_deref());
    }

    fn add_refused(&self, records: u64, why: Option<&str>) {
        if records > 0 {
            self.link.sink.stats.add_refused(records, why.unwrap_or("it does not say why"));
        }
    }

    fn settle(&mut self, settled: Settled, last: i64) {
        if settled == Settled::All {
            self.link.acknowledge(last);
            self.works();
        }
    }

    /// The far side works.
    fn works(&mut self) {
        self.link.sink.stats.answered();
        self.backoff.reset();
        if self.told.take().is_some() {
            self.link.sink.stats.set_trouble(Part::Destination, None);
            info!("{} works again", self.link.sink.name);
        }
    }

    /// What was asked for, or that there is no answer; says so before it gives up waiting.
    async fn answer<T>(
        &mut self,
        asked: impl Future<Output = Result<T, Trouble>>,
        to: &str,
    ) -> Result<T, Trouble> {
        // It owes an answer from now on.
        self.link.sink.stats.ask();
        let mut asked = std::pin::pin!(asked);
        if let Ok(result) = timeout(SLOW, &mut asked).await {
            return result;
        }
        self.report(&no_answer(to, SLOW));
        match timeout(PATIENCE - SLOW, asked).await {
            Ok(result) => {
                if result.is_ok() {
                    self.works();
                }
                result
            }
            Err(_) => Err(no_answer(to, PATIENCE)),
        }
    }

    #[cold]
    fn tell(&mut self, trouble: &Trouble) {
        self.link.count(Measure::Errors, 1);
        self.link.sink.stats.answered();
        self.report(trouble);
    }

    fn report(&mut self, trouble: &Trouble) {
        let stats = &self.link.sink.stats;
        stats.set_trouble(Part::Destination, Some(trouble.to_string()));
        let known =
            self.told.as_ref().is_some_and(|(told, at)| told == trouble && at.elapsed() < REMIND);
        if !known {
            let Amount { bytes: _, records } = stats.kept();
            warn!("{}: {trouble}. {records} records wait in the spool", self.link.sink.name);
            self.told = Some((trouble.clone(), Instant::now()));
        }
    }
}

fn no_answer(to: &str, time: Duration) -> Trouble {
    Trouble::passing(format!("the destination has not answered {to} for {} s", time.as_secs()))
}

async fn sleep_to(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
