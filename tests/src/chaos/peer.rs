//! Those who read what flowlog writes to pipes and sockets: a thread each, which can be stalled,
//! and which can go away and come back. When one goes away the daemon stands still, so that it is
//! known which records went away with it.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::fcntl::OFlag;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::framing::{Frames, Framing, Piece};
use super::received::Received;
use crate::namespace::Namespace;
use crate::poll;

/// Where a peer reads.
#[derive(Clone, Debug)]
pub enum Place {
    /// A FIFO, which stays.
    Fifo(PathBuf),
    /// A stream socket.
    Unix(PathBuf),
    /// A datagram socket.
    UnixDatagram(PathBuf),
    /// A port of TCP, on all addresses.
    Tcp(u16),
    /// A port of UDP, on all addresses.
    Udp(u16),
}

/// How often it looks for something to read.
const TURN: Duration = Duration::from_millis(4);
/// What it reads of one connection in a turn.
const MOST: usize = 4 << 20;
/// Datagrams of UDP wait here while the reader is stalled.
const UDP_ROOM: usize = 256 << 20;

/// What it listens on.
enum Ear {
    Fifo(File),
    Unix(UnixListener),
    Tcp(TcpListener),
    UnixDatagram(UnixDatagram),
    Udp(UdpSocket),
}

/// A connection with what it has not yet a whole record of.
struct Connection {
    stream: Box<dyn Read + Send>,
    frames: Frames,
}

struct State {
    ear: Option<Ear>,
    connections: Vec<Connection>,
    stalled: bool,
    framing: Framing,
    /// Nothing once it has finished.
    received: Option<Received>,
    /// What went wrong in the thread.
    failed: Option<anyhow::Error>,
}

/// A reader. Dropped, its thread ends.
pub struct Peer {
    place: Place,
    state: Arc<Mutex<State>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    /// Begins to read there.
    ///
    /// # Errors
    /// The place is taken.
    pub fn start(
        namespace: &Namespace,
        place: Place,
        framing: Framing,
        received: Received,
    ) -> Result<Self> {
        if let Place::Fifo(path) = &place {
            mkfifo(path, Mode::from_bits_truncate(0o600)).context("mkfifo")?;
        }
        let state = State {
            ear: Some(listen(namespace, &place)?),
            connections: Vec::new(),
            stalled: false,
            framing,
            received: Some(received),
            failed: None,
        };
        let state = Arc::new(Mutex::new(state));
        let end = Arc::new(AtomicBool::new(false));
        let (shared, ending) = (state.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Acquire) {
                if let Ok(mut state) = shared.lock()
                    && !state.stalled
                    && state.failed.is_none()
                {
                    state.failed = state.turn(false).err();
                }
                sleep(TURN);
            }
        });
        Ok(Self { place, state, end, thread: Some(thread) })
    }

    fn state(&self) -> Result<MutexGuard<'_, State>> {
        self.state.lock().map_err(|_poison| anyhow!("the reader of {:?} panicked", self.place))
    }

    /// Reads nothing, or goes on to read.
    ///
    /// # Errors
    /// Its thread panicked.
    pub fn stall(&self, stalled: bool) -> Result<()> {
        self.state()?.stalled = stalled;
        Ok(())
    }

    /// Goes away, having read everything; or with what it has not read. The daemon stands still
    /// meanwhile.
    ///
    /// # Errors
    /// As [`Peer::stall`].
    pub fn leave(&self, with_unread: bool) -> Result<()> {
        let mut state = self.state()?;
        state.turn(with_unread)?;
        let torn = state.connections.iter().filter(|one| one.frames.is_torn()).count();
        state.received.as_mut().context("it has finished")?.torn += torn as u64;
        state.connections.clear();
        state.ear = None;
        state.stalled = false;
        match &self.place {
            Place::Unix(path) | Place::UnixDatagram(path) => fs::remove_file(path)?,
            Place::Fifo(_) | Place::Tcp(_) | Place::Udp(_) => {}
        }
        Ok(())
    }

    /// Comes back.
    ///
    /// # Errors
    /// Somebody else has taken the place.
    pub fn come_back(&self, namespace: &Namespace) -> Result<()> {
        let ear = listen(namespace, &self.place)?;
        self.state()?.ear = Some(ear);
        Ok(())
    }

    /// Reads the rest, and returns all that it has read.
    ///
    /// # Errors
    /// Its thread failed.
    pub fn finish(mut self) -> Result<Received> {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_panic| anyhow!("the reader of {:?} panicked", self.place))?;
        }
        let mut state = self.state()?;
        if let Some(error) = state.failed.take() {
            return Err(error.context(format!("reading {:?}", self.place)));
        }
        state.turn(false)?;
        state.received.take().context("it has finished")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it read is of no interest any more.
            let _ = thread.join();
        }
    }
}

fn listen(namespace: &Namespace, place: &Place) -> Result<Ear> {
    let any = Ipv4Addr::UNSPECIFIED;
    namespace.enter(|| {
        Ok(match place {
            Place::Fifo(path) => {
                let flags = OFlag::O_NONBLOCK.bits();
                Ear::Fifo(File::options().read(true).custom_flags(flags).open(path)?)
            }
            Place::Unix(path) => {
                let listener = UnixListener::bind(path)?;
                listener.set_nonblocking(true)?;
                Ear::Unix(listener)
            }
            Place::Tcp(port) => {
                // What the old reader has of a connection may not be gone at once.
                let listener =
                    poll::until("a free port", || Ok(TcpListener::bind((any, *port)).ok()))?;
                listener.set_nonblocking(true)?;
                Ear::Tcp(listener)
            }
            Place::UnixDatagram(path) => {
                let socket = UnixDatagram::bind(path)?;
                socket.set_nonblocking(true)?;
                Ear::UnixDatagram(socket)
            }
            Place::Udp(port) => {
                let socket = UdpSocket::bind((any, *port))?;
                setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &UDP_ROOM)?;
                socket.set_nonblocking(true)?;
                Ear::Udp(socket)
            }
        })
    })
}

impl State {
    /// Accepts and reads what is there; `away`: the records go away with the reader.
    fn turn(&mut self, away: bool) -> Result<()> {
        self.accept()?;
        let Self { ear, connections, received, framing, .. } = self;
        let received = received.as_mut().context("it has finished")?;
        match ear {
            Some(Ear::Fifo(fifo)) => {
                if connections.is_empty() {
                    let stream = Box::new(fifo.try_clone()?);
                    connections.push(Connection { stream, frames: Frames::new(*framing) });
                }
                let one = &mut connections[0];
                // Without a writer it ends, and goes on with the next one.
                if drain(one, received, away)? && one.frames.is_torn() {
                    received.torn += 1;
                    one.frames = Frames::new(*framing);
                }
            }
            Some(Ear::UnixDatagram(socket)) => {
                datagrams(received, away, |bytes| socket.recv(bytes))?;
            }
            Some(Ear::Udp(socket)) => datagrams(received, away, |bytes| socket.recv(bytes))?,
            Some(Ear::Unix(_) | Ear::Tcp(_)) => {
                let mut open = Vec::with_capacity(connections.len());
                for mut one in connections.drain(..) {
                    if !drain(&mut one, received, away)? {
                        open.push(one);
                    } else if one.frames.is_torn() {
                        received.torn += 1;
                    }
                }
                *connections = open;
            }
            None => {}
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<()> {
        loop {
            let stream: OwnedFd = match &self.ear {
                Some(Ear::Unix(listener)) => match listener.accept() {
                    Ok((stream, _)) => stream.into(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                },
                Some(Ear::Tcp(listener)) => match listener.accept() {
                    Ok((stream, _)) => stream.into(),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error.into()),
                },
                _ => return Ok(()),
            };
            let socket = socket2::Socket::from(stream);
            socket.set_nonblocking(true)?;
            let frames = Frames::new(self.framing);
            self.connections.push(Connection { stream: Box::new(socket), frames });
        }
    }
}

/// Reads what is there; whether it is the end.
fn drain(one: &mut Connection, received: &mut Received, away: bool) -> Result<bool> {
    let mut bytes = vec![0; 64 << 10];
    let mut read = 0;
    while away || read < MOST {
        match one.stream.read(&mut bytes) {
            Ok(0) => return Ok(true),
            Ok(length) => {
                read += length;
                for piece in one.frames.feed(&bytes[..length]) {
                    keep(piece, received, away)?;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A reset ends a connection.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn keep(piece: Piece, received: &mut Received, away: bool) -> Result<()> {
    match piece {
        Piece::Record(record) if away => received.abandon(&record),
        Piece::Record(record) => received.take(&record)?,
        Piece::Seen(seen) if away => {
            received.abandoned.insert(seen.packed());
        }
        Piece::Seen(seen) => received.add(seen)?,
        Piece::Strange(bytes) => received.take(&bytes)?,
    }
    Ok(())
}

fn datagrams(
    received: &mut Received,
    away: bool,
    mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
) -> Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        match receive(&mut bytes) {
            Ok(length) => keep(Piece::Record(bytes[..length].to_vec()), received, away)?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Datagrams of UDP to this port that found no room, as the kernel counts them.
///
/// # Errors
/// /proc has no such table.
pub fn udp_drops(namespace: &Namespace, port: u16) -> Result<u64> {
    let table = namespace.enter(|| Ok(fs::read_to_string("/proc/thread-self/net/udp")?))?;
    let ours = |line: &&str| {
        line.split_whitespace().nth(1).is_some_and(|at| at.ends_with(&format!(":{port:04X}")))
    };
    let drops = table.lines().filter(ours).filter_map(|line| line.split_whitespace().last());
    Ok(drops.filter_map(|word| word.parse::<u64>().ok()).sum())
}
