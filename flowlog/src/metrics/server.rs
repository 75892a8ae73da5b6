//! Connections of scrapers, within bounds: so many at once, so many a second,
//! so long, so much. The address is taken before root is given up, and nobody
//! can connect before the daemon runs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::http::{self, LONGEST};
use super::{Question, Questions};
use crate::log::notice;
use crate::ratelimit::RateLimit;

/// Connections at once; further ones wait in the kernel.
const CONNECTIONS: usize = 8;
/// Connections that may wait there.
const BACKLOG: u32 = 16;
/// From one connection to the next, so that nobody keeps the engine at answers.
const PACE: Duration = Duration::from_millis(10);
/// How long a connection may take, from its beginning to its end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Without descriptors nobody can be let in for a while.
const SHORTAGE: Duration = Duration::from_secs(1);
/// Bytes that are read for nothing, so that an answer is not cut off by a reset.
const REST: usize = 64 << 10;

/// An address that belongs to this process.
#[derive(Debug)]
pub struct Bound {
    socket: TcpSocket,
    address: SocketAddr,
}

/// Takes the address. Nobody can connect yet.
///
/// # Errors
/// It cannot be had, and what to do.
pub fn bind(address: SocketAddr) -> anyhow::Result<Bound> {
    take(address).map_err(|error| cannot_be_had(address, &error))
}

fn take(address: SocketAddr) -> io::Result<Bound> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The ends of old connections must not keep a new daemon from its port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(Bound { address: socket.local_addr()?, socket })
}

fn cannot_be_had(address: SocketAddr, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: name another port with `metrics=`",
        io::ErrorKind::AddrNotAvailable => {
            "no interface has it: name one of this host's with `metrics=`"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE: name a higher one with `metrics=`"
        }
        _ => "name another address with `metrics=`, or remove it",
    };
    anyhow!("metrics cannot be served at {address}: {error}; {remedy}")
}

/// Lets scrapers in from now on. Call within a runtime; its end ends the server.
///
/// # Errors
/// Another program has taken the address meanwhile.
pub fn serve(bound: Bound) -> anyhow::Result<Questions> {
    let Bound { socket, address } = bound;
    let listener = socket.listen(BACKLOG).map_err(|error| cannot_be_had(address, &error))?;
    let (asking, questions) = mpsc::channel(CONNECTIONS);
    tokio::spawn(accept(listener, asking));
    notice!("metrics are served at http://{address}/metrics{}", exposure(address));
    Ok(questions)
}

/// What is to be known of an address that others can reach.
fn exposure(address: SocketAddr) -> &'static str {
    if address.ip().to_canonical().is_loopback() {
        ""
    } else {
        ", open to the network: whoever can reach it can read them"
    }
}

async fn accept(listener: TcpListener, asking: mpsc::Sender<Question>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut complaints = RateLimit::per_second();
    // The semaphore is never closed.
    while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let asking = asking.clone();
                tokio::spawn(async move {
                    // Whoever leaves, or takes too long, needs no words.
                    let _ = timeout(PATIENCE, converse(stream, &asking)).await;
                    drop(slot);
                });
                sleep(PACE).await;
            }
            Err(error) => {
                if complaints.allow() {
                    warn!("metrics cannot be served just now: {error}");
                }
                sleep(SHORTAGE).await;
            }
        }
    }
}

/// One request, one answer.
async fn converse(mut stream: TcpStream, asking: &mpsc::Sender<Question>) -> anyhow::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        let room = LONGEST - head.len();
        if (&mut stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        match http::parse(&head) {
            Ok(None) => {}
            Ok(Some(asked)) => {
                let (answer, answered) = oneshot::channel();
                let question = Question { topic: asked.topic, answer };
                asking.send(question).await.context("the daemon ends")?;
                break http::answered(&answered.await?, asked.head_only);
            }
            Err(refusal) => break http::refused(refusal),
        }
    };
    stream.write_all(&response).await?;
    stream.shutdown().await?;
    let mut rest = (&mut stream).take(REST as u64);
    let mut nothing = [0; 1024];
    while rest.read(&mut nothing).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests;
