//! KAFKA: each record a message of a topic. The flow is the key, so that the
//! records of one stay in order; librdkafka compresses, sends and repeats.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};
use tokio::sync::oneshot;

use self::producer::{Producer, Stale};
pub use self::security::{BUILD, HAS_TLS, Sasl};
use self::trouble::Remedies;
use super::format::Format;
use super::ship::{
    Batch, Client, Delivered, Record, Settled, Shipped, Shipping, Start, Trouble, tls,
};
use super::threads;
use crate::stack::Site;
use crate::stats::SinkPlugin;

mod ledger;
mod producer;
mod security;
#[cfg(test)]
mod tests;
mod trouble;

/// The header with the record's id.
const ID: &str = "record";
/// How long the brokers may take to say what they know of the topic.
const GREETING: Duration = Duration::from_secs(10);
/// How often an idle producer is asked what has happened, so that nothing piles up.
const IDLE: Duration = Duration::from_secs(10);
/// And how long after it is clear that none of them can be reached at first.
const GRACE: Duration = Duration::from_secs(1);

/// How Kafka is to be reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all sinks that ship have.
    pub shipping: Shipping,
    /// What to write.
    pub format: Format,
    /// The far side.
    pub far: Far,
}

/// The far side.
#[derive(Clone, PartialEq, Eq)]
pub struct Far {
    /// Some brokers of the cluster, each with its port.
    pub brokers: String,
    /// The topic of messages.
    pub topic: String,
    /// How batches are compressed, in librdkafka's words.
    pub compression: &'static str,
    /// Whom to trust, and who flowlog is; absent: no TLS.
    pub tls: Option<tls::Settings>,
    /// Who flowlog says it is; absent: nobody.
    pub sasl: Option<Sasl>,
    /// Further properties of librdkafka, with their values.
    pub properties: Vec<(String, String)>,
}

/// Where it is: `Kafka at HOST:PORT`.
impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kafka at {}", self.brokers)
    }
}

/// Without the user and the properties, of which one may be a password.
impl fmt::Debug for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}, {}, {}", self.topic, self.compression)
    }
}

impl Far {
    /// Looks at the files of TLS, and asks librdkafka whether it knows the properties.
    ///
    /// # Errors
    /// A file is of no use, or it does not know a property, or not such a value.
    pub fn check(&self) -> Result<(), Trouble> {
        self.check_files()?;
        match self.config().create_native_config() {
            Ok(_) => Ok(()),
            Err(error) => Err(Remedies::of(self).property(&error)),
        }
    }

    /// As the other sinks read them, who say better than OpenSSL what is wrong with a file.
    fn check_files(&self) -> Result<(), Trouble> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.client_config().map(drop))
    }

    /// A property with the key that it would undo: properties go before keys.
    pub fn contradiction(&self) -> Option<(&str, &'static str)> {
        let (tls, sasl) = (self.tls.is_some(), self.sasl.is_some());
        self.properties.iter().find_map(|(name, value)| {
            security::undone(name, value, tls, sasl).map(|key| (name.as_str(), key))
        })
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "flowlog")
            // No message twice and none out of order while the connection lasts; `acks=all` follows.
            .set("enable.idempotence", "true")
            .set("compression.codec", self.compression)
            .set("socket.keepalive.enable", "true")
            // A little less than the worker waits for an answer.
            .set("message.timeout.ms", "50000")
            // Why a broker has hung up is no error to librdkafka.
            .set_log_level(RDKafkaLogLevel::Info);
        for (name, value) in security::properties(self.tls.as_ref(), self.sasl.as_ref()) {
            config.set(name, value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

/// Prepares the sink.
///
/// # Errors
/// A file of TLS is of no use, or librdkafka does not know a property.
pub fn open(settings: &Settings, site: Site<'_>) -> anyhow::Result<Shipped> {
    let Settings { shipping, format, far } = settings;
    far.check().map_err(|trouble| anyhow::anyhow!("{}:KAFKA: {trouble}", shipping.id))?;
    let start = Start::of(shipping, SinkPlugin::Kafka, format.encoding(), site)?;
    Ok(Shipped::open::<Kafka>(&start, format.encoder(site.host), far.clone()))
}

/// A producer.
struct Kafka {
    producer: Arc<Producer>,
    topic: String,
    remedies: Remedies,
    /// Messages handed to librdkafka so far.
    sent: u64,
    /// When it is asked what has happened though nothing is sent.
    due: Instant,
}

impl Client for Kafka {
    type Settings = Far;

    async fn connect(far: &Far) -> Result<Self, Trouble> {
        far.check_files()?;
        let remedies = Remedies::of(far);
        let producer = Producer::new(&far.config()).map_err(|error| remedies.property(&error))?;
        let (producer, due) = (Arc::new(producer), Instant::now() + IDLE);
        let kafka = Self { producer, topic: far.topic.clone(), remedies, sent: 0, due };
        kafka.look().await?;
        Ok(kafka)
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        // Before anything is sent that would be sent once more by the next one.
        self.producer.check_clock().map_err(|Stale| self.remedies.stale())?;
        // All brokers may have gone away since.
        self.settled().await?;
        let mut bytes = 0;
        for record in batch.records() {
            bytes += self.send(&record).await?;
        }
        self.settled().await?;
        Ok(Delivered { records: batch.len(), bytes, ..Delivered::default() })
    }

    fn due(&self) -> Option<Instant> {
        Some(self.due)
    }

    async fn tick(&mut self) -> Result<Settled, Trouble> {
        self.producer.serve();
        self.due = Instant::now() + IDLE;
        Ok(Settled::No)
    }
}

impl Kafka {
    /// Asks the brokers for the topic: whether they are Kafka, and have it.
    async fn look(&self) -> Result<(), Trouble> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let (asks, asked) = oneshot::channel();
        // librdkafka waits in this call, and for longer than it should when the clock is set back.
        threads::spawn("kafka-look", move || {
            let metadata = producer.client().fetch_metadata(Some(&topic), GREETING);
            let answer = metadata.map(|metadata| {
                let error = metadata.topics().first().and_then(|topic| topic.error());
                error.map(RDKafkaErrorCode::from)
            });
            // Nobody may wait for it any more.
            let _ = asks.send(answer);
        });
        // A name may have several addresses, of which the first need not be the one.
        let hopeless = async {
            let down = self.producer.until(|ledger| ledger.is_down().then_some(())).await;
            if down.is_ok() {
                tokio::time::sleep(GRACE).await;
            }
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = hopeless => {
                self.producer.check_clock().map_err(|Stale| self.remedies.stale())?;
                return self.settled().await;
            }
        };
        match answer {
            Ok(Ok(None)) => {
                self.producer.ledger().up();
                Ok(())
            }
            Ok(Ok(Some(code))) => Err(self.remedies.code(code, None)),
            Ok(Err(error)) => {
                let (code, reason) = self.producer.ledger().reason().unzip();
                let code = code.or(error.rdkafka_error_code());
                Err(self.remedies.code(code.unwrap_or(RDKafkaErrorCode::Fail), reason))
            }
            Err(_) => Err(self.remedies.code(RDKafkaErrorCode::Fail, None)),
        }
    }

    /// Hands a record to librdkafka, and returns its bytes before compression.
    async fn send(&mut self, record: &Record<'_>) -> Result<u64, Trouble> {
        let id = record.id.to_string();
        let key = format!("{:016x}", record.flow);
        let mut tried = false;
        loop {
            let headers = OwnedHeaders::new_with_capacity(1);
            let message = BaseRecord::to(&self.topic)
                .key(key.as_str())
                .payload(record.body)
                .timestamp((record.id.time / 1_000_000) as i64)
                .headers(headers.insert(Header { key: ID, value: Some(&id) }));
            let refused = match self.producer.send(message) {
                Ok(()) => {
                    self.sent += 1;
                    return Ok((key.len() + ID.len() + id.len() + record.body.len()) as u64);
                }
                Err((error, _)) => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
            };
            // A property may have made the queue smaller than a batch.
            if refused != RDKafkaErrorCode::QueueFull || tried {
                return Err(self.remedies.code(refused, None));
            }
            self.settled().await?;
            tried = true;
        }
    }

    /// Waits until the brokers have acknowledged all that was sent.
    async fn settled(&self) -> Result<(), Trouble> {
        match self.producer.until(|ledger| ledger.settled(self.sent)).await {
            Ok(settled) => settled.map_err(|(code, reason)| self.remedies.code(code, reason)),
            Err(Stale) => Err(self.remedies.stale()),
        }
    }
}
