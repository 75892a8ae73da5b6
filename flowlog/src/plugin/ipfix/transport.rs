//! A transport session: how messages get to the collector, and what is known of
//! their arrival.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Settings;
use crate::plugin::output::{Address, notice_silence, queued};
use crate::plugin::ship::{Trouble, tls};

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);
/// Datagrams that go out at once, and the pause behind them. A collector has
/// some 200 KiB of room for what it has not read yet, and what does not fit is
/// lost unseen.
const BURST: u32 = 32;
const PAUSE: Duration = Duration::from_millis(1);

/// How to reach a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls(tls::Settings),
    /// UDP.
    Udp,
}

/// A session that is up.
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Udp {
        socket: UdpSocket,
        /// Datagrams since the last pause.
        sent: u32,
    },
}

impl Transport {
    /// Connects to the first address of the collector that answers.
    pub(super) async fn connect(settings: &Settings) -> Result<Self, Trouble> {
        let collector = settings.collector();
        let unreachable = |error| unreachable(&collector, &error);
        match &settings.protocol {
            Protocol::Tcp => first(settings, tcp).await.map(Self::Tcp).map_err(unreachable),
            Protocol::Tls(tls) => {
                let connector = TlsConnector::from(tls.client_config()?);
                let name = server_name(&settings.host)?;
                let stream = first(settings, tcp).await.map_err(unreachable)?;
                let stream = connector.connect(name, stream).await.map_err(|error| {
                    let trouble = tls::trouble(&collector.to_string(), &error);
                    trouble.unwrap_or_else(|| unreachable(error))
                })?;
                Ok(Self::Tls(Box::new(stream)))
            }
            Protocol::Udp => {
                let socket = first(settings, udp).await.map_err(unreachable)?;
                Ok(Self::Udp { socket, sent: 0 })
            }
        }
    }

    /// Where it leads, over UDP.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Udp { socket, .. } => socket.peer_addr().ok(),
            Self::Tcp(_) | Self::Tls(_) => None,
        }
    }

    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(message).await,
            Self::Tls(stream) => stream.write_all(message).await,
            Self::Udp { socket, sent } => {
                if *sent == BURST {
                    sleep(PAUSE).await;
                    *sent = 0;
                }
                *sent += 1;
                socket.send(message).await.map(drop)
            }
        }
    }

    /// Keeps nothing back.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.flush().await,
            Self::Tcp(_) | Self::Udp { .. } => Ok(()),
        }
    }

    /// Whether all that was sent has arrived, as far as the kernel tells: over
    /// TCP when the collector's host has acknowledged it, over UDP unless it was
    /// refused.
    pub(super) async fn arrived(&mut self) -> io::Result<bool> {
        // First, and then whether the collector is there: what it leaves unread
        // when it goes is no longer queued.
        let all = match self {
            Self::Tcp(stream) => queued(stream) == 0,
            Self::Tls(stream) => queued(stream.get_ref().0) == 0,
            Self::Udp { .. } => true,
        };
        match self {
            Self::Tcp(stream) => check_open(stream).await?,
            Self::Tls(stream) => check_open(stream.as_mut()).await?,
            Self::Udp { socket, .. } => {
                if let Some(error) = socket.take_error()? {
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    /// Ends the session.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Tls(stream) => stream.shutdown().await,
            Self::Tcp(_) | Self::Udp { .. } => Ok(()),
        }
    }
}

/// The first address that answers.
async fn first<T, F: Future<Output = io::Result<T>>>(
    settings: &Settings,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<T> {
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host((settings.host.as_str(), settings.port)).await? {
        let connecting = timeout(PATIENCE, connect(address)).await;
        match connecting.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(connected) => return Ok(connected),
            Err(why) => error = why,
        }
    }
    Err(error)
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    notice_silence(&stream)?;
    Ok(stream)
}

async fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

fn server_name(host: &str) -> Result<ServerName<'static>, Trouble> {
    ServerName::try_from(host.to_owned()).map_err(|_| {
        Trouble::refused(format!(
            "`{host}` is no name that a certificate could have: correct `host=`"
        ))
    })
}

fn unreachable(collector: &Address, error: &io::Error) -> Trouble {
    Trouble::passing(format!(
        "the collector {collector} cannot be reached: {error}; start it, or correct `host=` and \
         `port=`"
    ))
}

/// Fails if the collector has closed the connection. What it says is ignored.
async fn check_open<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut said = [0; 512];
    loop {
        let mut buffer = ReadBuf::new(&mut said);
        // Nothing is waited for.
        let read = poll_fn(|context| {
            Poll::Ready(match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(result) => Some(result),
                Poll::Pending => None,
            })
        });
        match read.await {
            None => return Ok(()),
            Some(Err(error)) => return Err(error),
            Some(Ok(())) if buffer.filled().is_empty() => {
                return Err(io::Error::other("the connection was closed there"));
            }
            Some(Ok(())) => {}
        }
    }
}
