//! Kafka's brokers and a consumer that reads all along, since the mock keeps the last messages
//! only.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::received::Received;
use crate::kafka::{Mock, PARTITIONS, TOPIC};
use crate::namespace::Namespace;
use crate::poll;

/// The brokers with their reader.
pub(super) struct Broker<'n> {
    mock: Mock<'n>,
    end: Arc<AtomicBool>,
    read: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Received>>>,
}

impl<'n> Broker<'n> {
    /// Starts both.
    ///
    /// # Errors
    /// One does not start.
    pub(super) fn start(
        namespace: &'n Namespace,
        program: &Path,
        received: Received,
    ) -> Result<Self> {
        let mock = Mock::start(namespace, program)?;
        // Its threads are made by this one, and stay in the namespace.
        let consumer: BaseConsumer = namespace.enter(|| {
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", &mock.address).set("group.id", "chaos");
            config.set("enable.auto.commit", "false").set("reconnect.backoff.max.ms", "500");
            let consumer: BaseConsumer = config.create()?;
            let mut all = TopicPartitionList::new();
            for partition in 0..PARTITIONS {
                all.add_partition_offset(TOPIC, i32::try_from(partition)?, Offset::Beginning)?;
            }
            consumer.assign(&all)?;
            Ok(consumer)
        })?;
        let (end, read) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ending, count) = (end.clone(), read.clone());
        let thread = std::thread::spawn(move || consume(&consumer, received, &ending, &count));
        Ok(Self { mock, end, read, thread: Some(thread) })
    }

    /// The brokers.
    pub(super) fn mock(&self) -> &Mock<'n> {
        &self.mock
    }

    /// Reads the rest, and returns all that was read.
    ///
    /// # Errors
    /// The reader does not get to the end.
    pub(super) fn finish(mut self) -> Result<Received> {
        let messages = self.mock.count()?;
        let caught_up = poll::until("the consumer to read all messages", || {
            Ok((self.read.load(Ordering::Acquire) >= messages).then_some(()))
        });
        self.end.store(true, Ordering::Release);
        let thread = self.thread.take().context("it has ended")?;
        let received = thread.join().map_err(|_panic| anyhow!("the consumer panicked"))??;
        caught_up?;
        Ok(received)
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it read is of no interest any more.
            let _ = thread.join();
        }
    }
}

fn consume(
    consumer: &BaseConsumer,
    mut received: Received,
    end: &AtomicBool,
    count: &AtomicU64,
) -> Result<Received> {
    while !end.load(Ordering::Acquire) {
        // Errors are those of brokers that are away.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
            received.take(message.payload().unwrap_or_default())?;
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(received)
}
