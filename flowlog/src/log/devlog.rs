//! The socket of the syslog daemon, `/dev/log`, without blocking. syslog(3) of
//! glibc waits for as long as the daemon does not read.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use super::target::{Outcome, is_writable_soon};

/// Where syslog daemons listen.
pub(super) const PATH: &str = "/dev/log";

/// A socket that connects by itself, and again after the daemon has been away.
#[derive(Debug)]
pub(super) struct DevLog {
    path: PathBuf,
    socket: Option<Socket>,
}

#[derive(Debug)]
struct Socket {
    descriptor: OwnedFd,
    /// A stream: each message ends with a zero byte, as glibc writes it.
    stream: bool,
    /// How much of the message in hand a stream has taken.
    sent: usize,
}

impl DevLog {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None }
    }

    /// Sends a message. [`Outcome::Full`] if the daemon does not read, an error
    /// if there is no daemon.
    pub(super) fn send(&mut self, message: &[u8]) -> io::Result<Outcome> {
        // A socket whose daemon was replaced fails once.
        if self.socket.is_some() {
            match self.try_send(message) {
                Ok(outcome) => return Ok(outcome),
                Err(_) => self.socket = None,
            }
        }
        self.socket = Some(Socket::connect(&self.path)?);
        self.try_send(message).inspect_err(|_| self.socket = None)
    }

    fn try_send(&mut self, message: &[u8]) -> io::Result<Outcome> {
        let Some(socket) = &mut self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        match socket.send(message) {
            Ok(()) => Ok(Outcome::Done),
            Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                if !is_writable_soon(socket.descriptor.as_fd()) && socket.sent == 0 {
                    // Another daemon may listen at the path by now.
                    self.socket = None;
                }
                Ok(Outcome::Full)
            }
            // Too long for the socket: it would be so for ever.
            Err(Errno::EMSGSIZE) => Ok(Outcome::Lost),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Socket {
    fn connect(path: &Path) -> io::Result<Self> {
        match Self::connect_as(path, SockType::Datagram) {
            Err(Errno::EPROTOTYPE) => Ok(Self::connect_as(path, SockType::Stream)?),
            result => Ok(result?),
        }
    }

    fn connect_as(path: &Path, kind: SockType) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(AddressFamily::Unix, kind, flags, None)?;
        connect(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self { descriptor, stream: kind == SockType::Stream, sent: 0 })
    }

    fn send(&mut self, message: &[u8]) -> Result<(), Errno> {
        let fd = self.descriptor.as_raw_fd();
        let once = |bytes: &[u8]| loop {
            match send(fd, bytes, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        };
        if !self.stream {
            return once(message).map(drop);
        }
        let message = [message, b"\0"].concat();
        while self.sent < message.len() {
            self.sent += once(&message[self.sent..])?;
        }
        self.sent = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn a_daemon_that_comes_goes_and_comes_again_gets_what_is_sent_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut devlog = DevLog::new(&path);
        assert!(devlog.send(b"away").is_err());
        let first = UnixDatagram::bind(&path).unwrap();
        assert_eq!(devlog.send(b"one").unwrap(), Outcome::Done);
        assert_eq!(received(&first), "one");
        drop(first);
        assert!(devlog.send(b"away").is_err());
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        assert_eq!(devlog.send(b"two").unwrap(), Outcome::Done);
        assert_eq!(received(&second), "two");
    }

    #[test]
    fn a_daemon_that_does_not_read_blocks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut devlog = DevLog::new(&path);
        let mut sent = 0;
        while devlog.send(format!("{sent}").as_bytes()).unwrap() == Outcome::Done {
            sent += 1;
        }
        for number in 0..sent {
            assert_eq!(received(&daemon), number.to_string());
        }
        assert_eq!(devlog.send(b"again").unwrap(), Outcome::Done);
        assert_eq!(received(&daemon), "again");
    }

    #[test]
    fn a_socket_that_was_replaced_while_full_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _stuck = UnixDatagram::bind(&path).unwrap();
        let mut devlog = DevLog::new(&path);
        while devlog.send(b"x").unwrap() == Outcome::Done {}
        std::fs::remove_file(&path).unwrap();
        let new = UnixDatagram::bind(&path).unwrap();
        assert_eq!(devlog.send(b"new").unwrap(), Outcome::Done);
        assert_eq!(received(&new), "new");
    }

    #[test]
    fn a_stream_gets_messages_that_end_with_a_zero_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let listener = UnixListener::bind(&path).unwrap();
        let mut devlog = DevLog::new(&path);
        assert_eq!(devlog.send(b"one").unwrap(), Outcome::Done);
        assert_eq!(devlog.send(b"two").unwrap(), Outcome::Done);
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = [0; 8];
        stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"one\0two\0");
    }
}
