//! The hosts' end of one of the router's links: frames are put on it, and those that the router
//! sent are counted by the kernel's own statistics, which costs less than to receive them.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{LinkAddr, MsgFlags, MultiHeaders, bind, sendmmsg};
use socket2::{Domain, Socket, Type};

use super::frame::{Frame, Mac};
use crate::namespace::Namespace;
use crate::poll;

/// The hosts' name of their end.
const INTERFACE: &str = "eth0";
/// Frames in one system call.
const AT_ONCE: usize = 64;

/// An end of a link, used by several threads.
#[derive(Debug)]
pub(super) struct Wire {
    /// The router's address on this link.
    pub(super) gateway: Mac,
    socket: Socket,
    statistics: File,
    sent: AtomicU64,
    /// What the interface has received when all that was sent so far has come through the router.
    due: AtomicU64,
}

impl Wire {
    /// The end in `host` of the link that the router calls `link`.
    pub(super) fn open(host: &Namespace, router: &Namespace, link: &str) -> Result<Self> {
        let gateway = router.enter(|| interface(link))?;
        let gateway = gateway.addr().with_context(|| format!("{link} has no address"))?;
        let (socket, statistics) = host.enter(|| {
            // Of no protocol: it only sends.
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).context("a packet socket")?;
            bind(socket.as_raw_fd(), &interface(INTERFACE)?).context("binding to an interface")?;
            // It stays the one of this namespace, wherever it is read.
            Ok((socket, File::open("/proc/thread-self/net/dev")?))
        })?;
        let [sent, due] = [0, 0].map(AtomicU64::new);
        let wire = Self { gateway, socket, statistics, sent, due };
        wire.due.store(wire.received()?, Ordering::Relaxed);
        Ok(wire)
    }

    /// Frames sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Puts frames on the link, in this order.
    pub(super) fn send(&self, frames: &[Frame]) -> Result<()> {
        let mut headers = MultiHeaders::<()>::preallocate(AT_ONCE, None);
        let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame.bytes())]).collect();
        let mut rest = &slices[..];
        while !rest.is_empty() {
            let now = &rest[..rest.len().min(AT_ONCE)];
            let fd = self.socket.as_raw_fd();
            let sent = sendmmsg(fd, &mut headers, now, [None; AT_ONCE], [], MsgFlags::empty());
            rest = &rest[sent.context("sending frames")?.count()..];
        }
        self.sent.fetch_add(frames.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Announces frames that the other end will send here. Returns what is due by then.
    pub(super) fn expect(&self, frames: usize) -> u64 {
        let frames = frames as u64;
        self.due.fetch_add(frames, Ordering::Relaxed) + frames
    }

    /// What is due by now.
    pub(super) fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Waits until so many frames have come from the router. It keeps the kernel's queues short,
    /// and shows what was dropped; the order of packets does not depend on it, so a few frames of
    /// the router's own among them do no harm.
    pub(super) fn wait(&self, due: u64) -> Result<()> {
        // As a rule they are there already.
        if self.received()? >= due {
            return Ok(());
        }
        poll::until("the router to forward the frames", || {
            Ok((self.received()? >= due).then_some(()))
        })
        .with_context(|| format!("{:?} of {due} arrived", self.received()))
    }

    /// The frames that came from the router so far.
    fn received(&self) -> Result<u64> {
        let mut buffer = [0; 4096];
        let length = self.statistics.read_at(&mut buffer, 0)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let ours = text.lines().find_map(|line| line.trim().strip_prefix(INTERFACE));
        // eth0: BYTES PACKETS …
        let packets = ours.and_then(|numbers| numbers.split_whitespace().nth(2));
        Ok(packets.with_context(|| format!("no {INTERFACE} in\n{text}"))?.parse()?)
    }
}

/// The address of an interface of the thread's namespace.
fn interface(name: &str) -> Result<LinkAddr> {
    let mut all = getifaddrs().context("asking for interfaces")?;
    let ours = all.find_map(|found| {
        let is_ours = found.interface_name == name;
        found.address.filter(|_| is_ours)?.as_link_addr().copied()
    });
    ours.with_context(|| format!("no interface {name}"))
}
