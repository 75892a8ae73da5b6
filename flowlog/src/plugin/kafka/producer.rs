//! A producer of librdkafka, whose threads wait by the time of day: their condition variables have
//! deadlines of `CLOCK_REALTIME` (`cnd_timedwait`, tinycthread_extra.c, 2.12). After the clock
//! was set back they sleep until it has come as far again, which may be days.

use std::ops::Deref;
use std::sync::mpsc;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::ThreadedProducer;
use tokio::time::sleep;

use super::ledger::Context;
use crate::archive::clock::Moment;
use crate::plugin::threads;

/// How long the end of a producer is waited for. It takes half a second where brokers are away.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is looked whether the clock was set.
const LOOK: Duration = Duration::from_secs(1);

/// A producer that is given up when the clock is set, and does not hold up the thread that drops it.
pub(super) struct Producer {
    /// Absent when it is dropped.
    producer: Option<ThreadedProducer<Context>>,
    began: Moment,
}

impl Producer {
    pub(super) fn new(config: &ClientConfig, context: Context) -> KafkaResult<Self> {
        let began = Moment::now();
        let producer = config.create_with_context(context)?;
        Ok(Self { producer: Some(producer), began })
    }

    /// The clock was set since the producer was made: its threads may sleep. Also forwards, as it may
    /// have been set back after that.
    pub(super) fn is_stale(&self) -> bool {
        Moment::now().was_set_since(self.began)
    }

    /// Waits until the clock is set.
    pub(super) async fn stale(&self) {
        while !self.is_stale() {
            sleep(LOOK).await;
        }
    }
}

impl Deref for Producer {
    type Target = ThreadedProducer<Context>;

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
        // At exit librdkafka's threads are gone, if that can be.
        let _ = end.recv_timeout(PATIENCE);
    }
}
