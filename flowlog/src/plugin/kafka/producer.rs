//! A producer of librdkafka, whose threads wait by the wall clock: their condition variables have
//! deadlines of `CLOCK_REALTIME` (`cnd_timedwait_ms`, tinycthread_extra.c, 2.12). After the clock
//! was set back they sleep until it has come as far again, which may be days, so another producer
//! has to take over. No thread of ours waits as they do: what has happened is asked for.

use std::ops::Deref;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::BaseProducer;
use tokio::time::sleep;

use super::ledger::{Context, Ledger};
use crate::archive::clock::Moment;
use crate::plugin::threads;

/// How long the end of a producer is waited for. It takes half a second where brokers are away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is asked what has happened, from the first time on: brokers answer in a few
/// milliseconds, or are away.
const FIRST: Duration = Duration::from_millis(1);
const LAST: Duration = Duration::from_millis(16);

/// The clock of this host was set: the producer is of no use any more.
pub(super) struct Stale;

/// A producer and what it reports.
pub(super) struct Producer {
    /// Absent when it is dropped.
    producer: Option<BaseProducer<Context>>,
    ledger: Arc<Ledger>,
    began: Moment,
}

impl Producer {
    pub(super) fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let (began, ledger) = (Moment::now(), Arc::<Ledger>::default());
        let producer = config.create_with_context(Context(ledger.clone()))?;
        Ok(Self { producer: Some(producer), ledger, began })
    }

    /// What it has reported.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Runs the callbacks for what has happened, without waiting.
    pub(super) fn serve(&self) {
        loop {
            // Each poll takes one event.
            let before = self.ledger.callbacks();
            self.poll(Duration::ZERO);
            if self.ledger.callbacks() == before {
                return;
            }
        }
    }

    /// Waits until `done` has an answer.
    ///
    /// # Errors
    /// The clock was set.
    pub(super) async fn until<T>(&self, done: impl Fn(&Ledger) -> Option<T>) -> Result<T, Stale> {
        let mut pause = FIRST;
        loop {
            self.serve();
            if let Some(answer) = done(&self.ledger) {
                return Ok(answer);
            }
            self.check_clock()?;
            sleep(pause).await;
            pause = (pause * 2).min(LAST);
        }
    }

    /// # Errors
    /// The clock was set since the producer was made. Also forwards: it may have been set back
    /// after that.
    pub(super) fn check_clock(&self) -> Result<(), Stale> {
        if Moment::now().was_set_since(self.began) { Err(Stale) } else { Ok(()) }
    }
}

impl Deref for Producer {
    type Target = BaseProducer<Context>;

    #[expect(clippy::expect_used, reason = "only `drop` takes it")]
    fn deref(&self) -> &Self::Target {
        self.producer.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Producer {
    /// Its threads are joined by another one.
    fn drop(&mut self) {
        let producer = self.producer.take();
        let (ended, end) = mpsc::channel::<()>();
        threads::spawn("kafka-end", move || {
            drop(producer);
            drop(ended);
        });
        // So that at exit librdkafka's threads are gone.
        let _ = end.recv_timeout(PATIENCE);
    }
}
