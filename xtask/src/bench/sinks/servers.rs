//! Sinks that ship to a server, which is started for them in their namespace.

use std::time::Duration;

use ::tests::shipping::FarSide as _;
use ::tests::{clickhouse, collector, kafka, nats, postgres};
use anyhow::{Context as _, Result};

use super::far::{Far, Place};
use super::files::bytes_in;

/// PGSQL.
///
/// # Errors
/// There is no server.
pub(super) fn pgsql<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(postgres::Postgres::new(Some(place.single.namespace()))?))
}

/// IPFIX.
///
/// # Errors
/// The port is taken.
pub(super) fn ipfix<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(Some(collector::TcpCollector::start(place.single.namespace())?)))
}

/// NATS.
///
/// # Errors
/// There is no server.
pub(super) fn nats_json<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    nats(place, "json")
}

/// NATS, in binary.
///
/// # Errors
/// There is no server.
pub(super) fn nats_protobuf<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    nats(place, "protobuf")
}

/// KAFKA.
///
/// # Errors
/// The mock does not start.
pub(super) fn kafka_json<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    kafka(place, "json")
}

/// KAFKA, in binary.
///
/// # Errors
/// The mock does not start.
pub(super) fn kafka_protobuf<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    kafka(place, "protobuf")
}

/// CLICKHOUSE.
///
/// # Errors
/// There is no server.
pub(super) fn clickhouse<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(clickhouse::Server::with_table(place.single.namespace())?))
}

impl Far for postgres::Postgres<'_> {
    fn keys(&self) -> String {
        // Over TCP, so that its bytes are seen.
        format!("host=127.0.0.1\nport={}\ndb=flowlog\nuser=flowlog", postgres::PORT)
    }

    fn cpu_time(&self) -> Result<Option<Duration>> {
        Self::cpu_time(self).map(Some)
    }

    fn flows(&mut self) -> Result<u64> {
        self.number("SELECT count(*) FROM flow")
    }

    fn disk(&self) -> Result<Option<u64>> {
        self.own_bytes("public").map(Some)
    }
}

/// Which reads until it is asked.
impl Far for Option<collector::TcpCollector> {
    fn keys(&self) -> String {
        "host=127.0.0.1".to_owned()
    }

    fn flows(&mut self) -> Result<u64> {
        let streams = self.take().context("it was read")?.stop()?;
        streams.iter().map(|stream| collector::records(stream)).sum()
    }
}

/// A server with JetStream, and what messages are.
struct Nats<'p>(nats::Server<'p>, &'static str);

fn nats<'p>(place: &'p Place<'p>, format: &'static str) -> Result<Box<dyn Far + 'p>> {
    const USERS: &str =
        "authorization { users: [ @READER@, { user: flowlog, password: secret } ] }\n";
    let keys = [nats::Server::JETSTREAM, USERS].concat();
    Ok(Box::new(Nats(nats::Server::start(place.single.namespace(), &keys)?, format)))
}

impl Far for Nats<'_> {
    fn keys(&self) -> String {
        format!("{}\ncreate_stream=1\nformat={}", self.0.keys(), self.1)
    }

    fn cpu_time(&self) -> Result<Option<Duration>> {
        self.0.cpu_time().map(Some)
    }

    fn flows(&mut self) -> Result<u64> {
        self.0.count("FLOWS")
    }

    fn disk(&self) -> Result<Option<u64>> {
        bytes_in(&self.0.path("store")).map(Some)
    }
}

/// The mock of brokers, and what messages are.
struct Kafka<'p>(kafka::Mock<'p>, &'static str);

fn kafka<'p>(place: &'p Place<'p>, format: &'static str) -> Result<Box<dyn Far + 'p>> {
    let mock = kafka::Mock::start(place.single.namespace(), &place.programs.kafka)?;
    Ok(Box::new(Kafka(mock, format)))
}

impl Far for Kafka<'_> {
    fn keys(&self) -> String {
        format!("{}\nformat={}", self.0.keys(), self.1)
    }

    fn cpu_time(&self) -> Result<Option<Duration>> {
        self.0.cpu_time().map(Some)
    }

    fn flows(&mut self) -> Result<u64> {
        self.0.count()
    }
}

impl Far for clickhouse::Server<'_> {
    fn keys(&self) -> String {
        "hostname=host".to_owned()
    }

    fn cpu_time(&self) -> Result<Option<Duration>> {
        self.process()?.cpu_time().map(Some)
    }

    /// After its merges, which leave out what is there twice.
    fn flows(&mut self) -> Result<u64> {
        self.ask("OPTIMIZE TABLE flowlog.flow FINAL")?;
        self.number("SELECT count() FROM flowlog.flow")
    }

    fn disk(&self) -> Result<Option<u64>> {
        self.bytes_on_disk().map(Some)
    }
}
