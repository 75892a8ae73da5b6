//! Connections of scrapers, within bounds of number, rate, time and size. They have a thread of
//! their own. The address is taken before root is given up, and nobody can connect before the
//! daemon runs.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::Questions;
use super::desk::Desk;
use super::http::{self, LONGEST};
use crate::log::notice;
use crate::ratelimit::RateLimit;
use crate::stats::Readings;

/// Connections at once. A further one takes the place of the oldest: a scrape takes
/// milliseconds, and clients that say nothing keep no others out.
const CONNECTIONS: usize = 64;
/// Connections that may wait in the kernel.
const BACKLOG: u32 = 128;
/// From one connection to the next, so that a flood of them does not take a processor.
const PACE: Duration = Duration::from_millis(1);
/// How long a connection may take, from its beginning to its end.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
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

/// Lets scrapers in from now on, on a thread of its own, which ends with the process. What the
/// engine does not answer in time is answered from `readings`.
///
/// # Errors
/// Another program has taken the address meanwhile, or there can be no thread.
pub fn serve(bound: Bound, readings: Readings) -> anyhow::Result<Questions> {
    let Bound { socket, address } = bound;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _within = runtime.enter();
        socket.listen(BACKLOG).map_err(|error| cannot_be_had(address, &error))?
    };
    let (engine, questions) = mpsc::channel(1);
    let desk = Arc::new(Desk::new(engine, readings));
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || runtime.block_on(accept(listener, desk)))
        .context("metrics cannot be served without a thread; raise the limit of processes")?;
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

async fn accept(listener: TcpListener, desk: Arc<Desk>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    let mut complaints = RateLimit::per_second();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() >= CONNECTIONS
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let desk = Arc::clone(&desk);
                let task = tokio::spawn(async move {
                    // A client that leaves, or takes too long, is not worth a message.
                    let _ = timeout(CONNECTION_TIMEOUT, converse(stream, &desk)).await;
                });
                connections.push_back(task.abort_handle());
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
async fn converse(mut stream: TcpStream, desk: &Desk) -> anyhow::Result<()> {
    let mut head = Vec::with_capacity(1024);
    let response = loop {
        let room = LONGEST - head.len();
        if (&mut stream).take(room as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
        match http::parse(&head) {
            Ok(None) => {}
            Ok(Some(asked)) => {
                break http::answered(&desk.answer(asked.topic).await, asked.head_only);
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
