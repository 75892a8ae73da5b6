//! Batches of the spool → messages to the collector.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::message::{Added, Messages};
use super::moves::Moves;
use super::transport::{Protocol, Transport};
use super::{ENCODING, Settings};
use crate::plugin::output::Address;
use crate::plugin::ship::{Batch, Client, Delivered, Refused, Settled, Trouble};
use crate::resolver::{Name, REFRESH, Resolver};

/// How long a message over TCP is at most: a collector gets much at once, and
/// soon.
const STREAM_MESSAGE: usize = 16 << 10;
/// How often it is looked after what has arrived.
const SETTLE: Duration = Duration::from_secs(1);
/// How long nothing must speak against it: over UDP a refusal takes its way
/// back, and over TCP a collector that ends tells so by what it has not read.
const GRACE: Duration = Duration::from_millis(100);
/// How long an acknowledgement is waited for, and how often it is asked for.
const PATIENCE: Duration = Duration::from_secs(5);
const ASK: Duration = Duration::from_millis(2);

/// A session with the collector.
pub(super) struct Collector {
    name: Address,
    transport: Transport,
    messages: Messages,
    /// When to look after what has been sent; absent: nothing is open.
    settle: Option<Instant>,
    /// What cannot be sent of what is held, and of what is settled.
    refused_held: Refused,
    refused: Refused,
    /// Over UDP, of a name.
    moves: Option<Moves>,
}

impl Client for Collector {
    type Settings = Settings;

    async fn connect(settings: &Settings) -> Result<Self, Trouble> {
        let Settings { protocol, domain, mtu, refresh, .. } = settings;
        let transport = Transport::connect(settings).await?;
        let limit = if *protocol == Protocol::Udp { *mtu } else { STREAM_MESSAGE };
        let messages = Messages::new(*domain, limit, *refresh);
        let name = || Name::new(&settings.host, settings.port, Resolver::default());
        let moves = transport.peer().and_then(|peer| Moves::new(name(), peer, REFRESH));
        Ok(Self {
            name: settings.collector(),
            transport,
            messages,
            settle: None,
            refused_held: Refused::default(),
            refused: Refused::default(),
            moves,
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        let mut delivered = Delivered { held: true, ..Delivered::default() };
        for record in batch.records() {
            let alien = batch.encoding() != ENCODING;
            let mut added = if alien { Added::Alien } else { self.messages.add(&record) };
            if added == Added::Full {
                self.send(&mut delivered).await?;
                added = self.messages.add(&record);
            }
            match added {
                Added::Yes => delivered.records += 1,
                Added::Full | Added::Alien => {
                    let why = || format!("another version encoded them as {}", batch.encoding());
                    self.refused_held.add(1, why);
                }
            }
        }
        self.send(&mut delivered).await?;
        self.transport.flush().await.map_err(|error| broken(&self.name, &error))?;
        self.settle.get_or_insert_with(|| Instant::now() + SETTLE);
        Ok(delivered)
    }

    fn due(&self) -> Option<Instant> {
        self.settle.into_iter().chain(self.moves.as_ref().map(Moves::due)).min()
    }

    async fn tick(&mut self) -> Result<Settled, Trouble> {
        let now = Instant::now();
        if let Some(moves) = self.moves.as_mut().filter(|moves| moves.due() <= now) {
            if moves.look() {
                return Err(Trouble::passing(format!(
                    "the name of the collector {} has another address now: what was not \
                     confirmed is sent there",
                    self.name
                )));
            }
            if self.settle.is_none_or(|settle| now < settle) {
                return Ok(Settled::No);
            }
        }
        self.settle().await
    }

    fn take_refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }

    async fn close(&mut self) -> Result<Settled, Trouble> {
        let settled = if self.settle.is_none() { Settled::No } else { self.settle().await? };
        let closed = self.transport.close().await.map_err(|error| broken(&self.name, &error));
        // What is settled has arrived, however the connection ends.
        if settled == Settled::All { Ok(settled) } else { closed.map(|()| settled) }
    }
}

impl Collector {
    /// Waits until what was sent has arrived, as far as that can be known.
    async fn settle(&mut self) -> Result<Settled, Trouble> {
        let begin = Instant::now();
        while !self.arrived().await? {
            if begin.elapsed() > PATIENCE {
                self.settle = Some(Instant::now() + SETTLE);
                return Ok(Settled::No);
            }
            sleep(ASK).await;
        }
        sleep(GRACE).await;
        self.arrived().await?;
        self.settle = None;
        self.refused.join(std::mem::take(&mut self.refused_held));
        Ok(Settled::All)
    }

    /// Sends the message that is being made, if it has records.
    async fn send(&mut self, delivered: &mut Delivered) -> Result<(), Trouble> {
        if self.messages.records() == 0 {
            return Ok(());
        }
        let message = self.messages.finish();
        self.transport.send(message).await.map_err(|error| broken(&self.name, &error))?;
        delivered.bytes += message.len() as u64;
        self.messages.next();
        Ok(())
    }

    async fn arrived(&mut self) -> Result<bool, Trouble> {
        self.transport.arrived().await.map_err(|error| broken(&self.name, &error))
    }
}

fn broken(collector: &Address, error: &io::Error) -> Trouble {
    let remedy = match error.raw_os_error() {
        Some(libc::EMSGSIZE) => "lower `mtu=`",
        Some(libc::ECONNREFUSED) => "start it, or correct `host=` and `port=`",
        _ => "see to the collector",
    };
    Trouble::passing(format!("the collector {collector} does not take records: {error}; {remedy}"))
}

#[cfg(test)]
mod tests;
