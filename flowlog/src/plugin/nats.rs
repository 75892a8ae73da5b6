//! NATS: each record a message of a JetStream stream. The record's id is the
//! message's, so that the stream itself leaves out what comes twice.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::header::{HeaderMap, NATS_EXPECTED_STREAM, NATS_MESSAGE_ID};
use async_nats::jetstream::context::{Context, ContextBuilder, PublishAckFuture};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream;
use async_nats::{Client as Connection, ConnectOptions, HeaderValue, ServerAddr, Subject};
use tokio::sync::watch;

pub use self::auth::Auth;
use self::trouble::Remedies;
use super::format::Format;
use super::ship::{Batch, Client, Delivered, Record, Shipped, Shipping, Start, Trouble, tls};
use crate::stack::Site;
use crate::stats::SinkPlugin;

mod auth;
pub mod subject;
#[cfg(test)]
mod tests;
mod trouble;

/// Messages under way that nobody has acknowledged, at most.
const IN_FLIGHT: usize = 4096;
/// How long a server may take to say who it is, and to acknowledge a message.
const GREETING: Duration = Duration::from_secs(10);
const ACKNOWLEDGEMENT: Duration = Duration::from_secs(30);

/// How NATS is to be reached.
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
#[derive(Clone, Debug)]
pub struct Far {
    /// Servers of one cluster, tried in this order.
    pub servers: Vec<ServerAddr>,
    /// Over TLS.
    pub tls: Option<tls::Settings>,
    /// Who flowlog is.
    pub auth: Auth,
    /// The subject of messages; `{host}` in it stands for the host's name.
    pub subject: String,
    /// The stream that is to have them.
    pub stream: Option<String>,
    /// It is made if it is missing.
    pub create_stream: bool,
}

/// Where it is: `NATS at HOST:PORT`.
impl std::fmt::Display for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NATS at ")?;
        for (place, server) in self.servers.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            match server.host() {
                host if host.contains(':') => write!(f, "{comma}[{host}]:{}", server.port())?,
                host => write!(f, "{comma}{host}:{}", server.port())?,
            }
        }
        Ok(())
    }
}

impl Far {
    /// Reads the files that it needs.
    ///
    /// # Errors
    /// One of them is of no use.
    pub fn check(&self) -> Result<(), Trouble> {
        self.options().map(drop)
    }

    fn options(&self) -> Result<ConnectOptions, Trouble> {
        let options = ConnectOptions::new()
            .name("flowlog")
            .connection_timeout(GREETING)
            .request_timeout(Some(GREETING))
            .retain_servers_order()
            .ignore_discovered_servers()
            // Whoever reconnects is the worker: it knows what has to be sent again. A
            // connection that it has left ends after one attempt at each server.
            .max_reconnects(self.servers.len());
        let options = self.auth.sign(options)?;
        Ok(match &self.tls {
            Some(tls) => {
                options.require_tls(true).tls_client_config((*tls.client_config()?).clone())
            }
            None => options,
        })
    }
}

/// Prepares the sink.
///
/// # Errors
/// A file that it needs is of no use.
pub fn open(settings: &Settings, site: Site<'_>) -> anyhow::Result<Shipped> {
    let Settings { shipping, format, far } = settings;
    far.check().map_err(|trouble| anyhow::anyhow!("{}:NATS: {trouble}", shipping.id))?;
    let target = Target { subject: subject::of_host(&far.subject, site.host), far: far.clone() };
    let start = Start::of(shipping, SinkPlugin::Nats, format.encoding(), site)?;
    Ok(Shipped::open::<Nats>(&start, format.encoder(site.host), target))
}

/// Where the messages of this host go.
#[derive(Clone, Debug)]
struct Target {
    far: Far,
    subject: String,
}

/// A connection.
struct Nats {
    jetstream: Context,
    subject: Subject,
    expected: Option<HeaderValue>,
    /// Why it is of no use any more, as the client's own task has noticed.
    broken: watch::Receiver<Option<Trouble>>,
    remedies: Remedies,
}

impl Client for Nats {
    type Settings = Target;

    async fn connect(target: &Target) -> Result<Self, Trouble> {
        let Target { far, subject } = target;
        let remedies = Remedies::of(far, subject);
        // A server may ask for TLS though nobody has said so: the client then wants it.
        tls::provide();
        let (tell, broken) = watch::channel(None);
        let noticed = remedies.clone();
        let options = far.options()?.event_callback(move |event| {
            if let Some(trouble) = noticed.event(&event) {
                tell.send_if_modified(|told| told.is_none() && told.replace(trouble).is_none());
            }
            std::future::ready(())
        });
        let connection = options.connect(far.servers.as_slice()).await;
        let connection = connection.map_err(|error| remedies.connect(&error))?;
        if !connection.server_info().jetstream {
            return Err(remedies.no_jetstream());
        }
        let jetstream = context(connection);
        if let (Some(stream), true) = (&far.stream, far.create_stream) {
            make(&jetstream, stream, &far.subject).await.map_err(|error| remedies.make(&error))?;
        }
        Ok(Self {
            jetstream,
            subject: subject.as_str().into(),
            expected: far.stream.as_deref().map(HeaderValue::from),
            broken,
            remedies,
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        let mut broken = self.broken.clone();
        tokio::select! {
            delivered = self.publish(batch) => delivered,
            trouble = broken.wait_for(Option::is_some) => {
                let told = trouble.ok().and_then(|trouble| trouble.clone());
                Err(told.unwrap_or_else(|| self.remedies.gone()))
            }
        }
    }
}

/// The client notices no limit of its own before ours.
fn context(connection: Connection) -> Context {
    ContextBuilder::new()
        .timeout(ACKNOWLEDGEMENT)
        .max_ack_inflight(2 * IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(connection)
}

/// Makes the stream if there is none: for the subjects of all hosts.
async fn make(
    jetstream: &Context,
    stream: &str,
    subject: &str,
) -> Result<(), async_nats::jetstream::context::CreateStreamError> {
    let config = stream::Config {
        name: stream.to_owned(),
        subjects: vec![subject::of_all(subject)],
        description: Some("connections logged by flowlog".to_owned()),
        ..stream::Config::default()
    };
    jetstream.get_or_create_stream(config).await.map(drop)
}

impl Nats {
    /// Sends all, and waits until all are acknowledged.
    async fn publish(&self, batch: &Batch) -> Result<Delivered, Trouble> {
        let mut delivered = Delivered::default();
        let mut waiting = VecDeque::with_capacity(IN_FLIGHT);
        for record in batch.records() {
            if waiting.len() == IN_FLIGHT
                && let Some(oldest) = waiting.pop_front()
            {
                self.confirm(oldest, &mut delivered).await?;
            }
            let headers = self.headers(&record);
            delivered.bytes += (self.subject.len() + headers_size(&headers)) as u64;
            delivered.bytes += record.body.len() as u64;
            let message =
                PublishMessage::build().headers(headers).payload(record.body.to_vec().into());
            let sent = self.jetstream.send_publish(self.subject.clone(), message).await;
            waiting.push_back(sent.map_err(|error| self.remedies.publish(&error))?);
        }
        for acknowledgement in waiting {
            self.confirm(acknowledgement, &mut delivered).await?;
        }
        Ok(delivered)
    }

    fn headers(&self, record: &Record<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, record.id.to_string());
        if let Some(stream) = &self.expected {
            headers.insert(NATS_EXPECTED_STREAM, stream.clone());
        }
        headers
    }

    async fn confirm(
        &self,
        acknowledgement: PublishAckFuture,
        delivered: &mut Delivered,
    ) -> Result<(), Trouble> {
        let confirmed = acknowledgement.await.map_err(|error| self.remedies.publish(&error))?;
        delivered.records += 1;
        delivered.known += u64::from(confirmed.duplicate);
        Ok(())
    }
}

/// Bytes that headers have on the wire.
fn headers_size(headers: &HeaderMap) -> usize {
    const AROUND: usize = "NATS/1.0\r\n\r\n".len();
    let each = headers.iter().flat_map(|(name, values)| {
        let name: &str = name.as_ref();
        values.iter().map(|value| name.len() + value.as_str().len() + ": \r\n".len())
    });
    AROUND + each.sum::<usize>()
}
