//! Somebody who listens on a socket: how to reach him, and what the kernel says
//! of what was sent. Nothing here waits.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, connect,
    getpeername, getsockopt, recv, send, setsockopt, socket, sockopt,
};

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often what a peer says is read, at most, before the next look: one that never stops
/// must not keep the loop.
const READS: usize = 64;
/// Milliseconds after which a peer that confirms nothing counts as gone.
const SILENCE: u32 = 30_000;

/// Who listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A stream socket of this host.
    UnixStream(PathBuf),
    /// A datagram socket of this host, as /dev/log.
    UnixDatagram(PathBuf),
    /// Host and port over TCP.
    Tcp(String, u16),
    /// Host and port over UDP.
    Udp(String, u16),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::UnixStream(path) | Self::UnixDatagram(path) => return path.display().fmt(f),
            Self::Tcp(host, port) => ("tcp", host, port),
            Self::Udp(host, port) => ("udp", host, port),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

impl Address {
    /// Records keep their bounds on the way.
    pub(super) fn is_datagram(&self) -> bool {
        matches!(self, Self::UnixDatagram(_) | Self::Udp(..))
    }

    fn kind(&self) -> SockType {
        if self.is_datagram() { SockType::Datagram } else { SockType::Stream }
    }
}

/// What came of connecting.
pub(super) enum Connected {
    Yes(Connection),
    /// Under way, since then.
    Soon(Connection, Instant),
}

/// What came of sending.
pub(super) enum Sent {
    /// So many bytes.
    Bytes(usize),
    /// There is no room now.
    Full,
    /// The record is longer than a datagram may be.
    TooLong,
}

/// A socket that is, or will be, connected.
pub(super) struct Connection {
    socket: OwnedFd,
    address: Address,
}

impl Connection {
    /// Begins to connect; `to` for TCP and UDP.
    pub(super) fn open(address: &Address, to: Option<SocketAddr>) -> io::Result<Connected> {
        match (address, to) {
            (Address::UnixStream(path) | Address::UnixDatagram(path), _) => {
                Self::begin(address, AddressFamily::Unix, &UnixAddr::new(path)?)
            }
            (Address::Tcp(..) | Address::Udp(..), Some(to)) => {
                let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
                Self::begin(address, family, &SockaddrStorage::from(to))
            }
            (Address::Tcp(..) | Address::Udp(..), None) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn begin(
        address: &Address,
        family: AddressFamily,
        to: &dyn SockaddrLike,
    ) -> io::Result<Connected> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, address.kind(), flags, None)?;
        if matches!(address, Address::Tcp(..)) {
            notice_silence(&socket)?;
        }
        let result = connect(socket.as_raw_fd(), to);
        let connection = Self { socket, address: address.clone() };
        match result {
            Ok(()) => Ok(Connected::Yes(connection)),
            Err(Errno::EINPROGRESS) => Ok(Connected::Soon(connection, Instant::now())),
            // A socket of this host is connected at once, or not at all (unix(7)).
            Err(Errno::EAGAIN) => Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                "its queue of connections is full, and it accepts none",
            )),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The address that it leads to, over TCP and UDP.
    pub(super) fn peer(&self) -> Option<SocketAddr> {
        let peer: SockaddrStorage = getpeername(self.socket.as_raw_fd()).ok()?;
        match (peer.as_sockaddr_in(), peer.as_sockaddr_in6()) {
            (Some(v4), _) => Some((v4.ip(), v4.port()).into()),
            (None, Some(v6)) => Some((v6.ip(), v6.port()).into()),
            (None, None) => None,
        }
    }

    /// Whether a connection that was under way `since` then has come about.
    pub(super) fn is_up(&self, since: Instant) -> io::Result<bool> {
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO)? > 0 {
            self.error()?;
            return Ok(true);
        }
        if since.elapsed() > PATIENCE {
            return Err(Errno::ETIMEDOUT.into());
        }
        Ok(false)
    }

    /// A record may be refused after it was sent, which the next call tells.
    pub(super) fn is_refusable(&self) -> bool {
        matches!(self.address, Address::Udp(..))
    }

    /// An error that the kernel has kept for this socket.
    pub(super) fn error(&self) -> io::Result<()> {
        match getsockopt(&self.socket, sockopt::SocketError)? {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code)),
        }
    }

    /// Sends what there is room for, or one record to a datagram socket.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<Sent> {
        match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => Ok(Sent::Bytes(count)),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(Sent::Full),
            Err(Errno::EMSGSIZE) => Ok(Sent::TooLong),
            Err(errno) => Err(errno.into()),
        }
    }

    /// How many of `sent` bytes have arrived, as far as the kernel tells, and
    /// whether the connection holds. Over TCP those have that the peer's host
    /// has acknowledged; through a stream socket of this host all, once the peer
    /// has read everything. To be asked once after a break.
    pub(super) fn arrived(&self, sent: usize) -> (usize, io::Result<()>) {
        // Before it is known that the peer is there: what he leaves unread when
        // he goes is no longer queued.
        let queued = queued(&self.socket);
        let open = self.check_open();
        let arrived = match (&self.address, &open) {
            (Address::Tcp(..), _) => sent - queued.min(sent),
            // The kernel tells by an error that something was left unread.
            (Address::UnixStream(_), Err(error))
                if error.kind() == io::ErrorKind::ConnectionReset =>
            {
                0
            }
            (Address::UnixStream(_), Err(_)) => sent,
            // What is told here is the memory that they take, not the bytes.
            (Address::UnixStream(_), Ok(())) if queued > 0 => 0,
            (Address::UnixStream(_) | Address::UnixDatagram(_) | Address::Udp(..), _) => sent,
        };
        (arrived, open)
    }

    /// Fails if the peer has closed the connection. What he says is ignored.
    fn check_open(&self) -> io::Result<()> {
        if self.address.is_datagram() {
            return Ok(());
        }
        let mut said = [0; 4096];
        for _ in 0..READS {
            match recv(self.socket.as_raw_fd(), &mut said, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err(io::Error::other("the connection was closed there")),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

/// Has a TCP connection fail whose peer confirms nothing any more.
pub(in crate::plugin) fn notice_silence(socket: &impl AsFd) -> nix::Result<()> {
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &SILENCE)
}

/// Bytes that the peer's host has not acknowledged over TCP, or the peer has not
/// read through a stream socket of this host: what the kernel tells as `SIOCOUTQ`.
#[expect(unsafe_code, reason = "neither std nor nix has this ioctl")]
pub(in crate::plugin) fn queued(socket: &impl AsFd) -> usize {
    let mut bytes: libc::c_int = 0;
    let socket = socket.as_fd();
    // SAFETY: the socket is open as long as it is borrowed, and TIOCOUTQ, which is
    // SIOCOUTQ, writes one int, for which there is room.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
}
