//! The netlink socket: opening it with the right groups and buffer, reading
//! many datagrams with one system call, and asking it how much it dropped.
#![expect(unsafe_code, reason = "recvmmsg and SO_MEMINFO have no safe wrapper that reuses buffers")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// Datagrams read by one system call.
const BATCH: usize = 64;
/// Room for one datagram. The kernel sizes an event by `ctnetlink_nlmsg_size`
/// (6.18), well under 2 KiB; a larger one would be told as cut.
const DATAGRAM: usize = 4096;
/// Index of the drop counter in what `SO_MEMINFO` returns
/// (include/uapi/linux/sock_diag.h, `SK_MEMINFO_DROPS`).
const MEMINFO_DROPS: usize = 8;
/// Values that `SO_MEMINFO` returns (`SK_MEMINFO_VARS`).
const MEMINFO_VARS: usize = 9;

/// A nfnetlink socket, non-blocking and closed on exec.
pub struct NetfilterSocket {
    socket: Socket,
}

impl NetfilterSocket {
    /// Opens a socket in the current network namespace.
    ///
    /// # Errors
    /// The kernel has no nfnetlink, or refuses the socket.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        // From now on other processes cannot send to it: the kernel refuses them
        // (`netlink_getsockbyportid`, net/netlink/af_netlink.c, 6.18).
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        Ok(Self { socket })
    }

    /// Joins the multicast group `group` (1 is `NFNLGRP_CONNTRACK_NEW`).
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN` in the namespace's user namespace.
    pub fn join(&self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    /// Leaves a multicast group.
    ///
    /// # Errors
    /// None that a live socket gives.
    pub fn leave(&self, group: u32) -> io::Result<()> {
        self.socket.drop_membership(group)
    }

    /// Asks the kernel to keep and repeat DESTROY events that did not fit.
    ///
    /// # Errors
    /// The options are unknown to the kernel.
    pub fn set_reliable(&self) -> io::Result<()> {
        self.socket.set_broadcast_error(true)?;
        self.socket.set_no_enobufs(true)
    }

    /// Sets the receive buffer and returns the size that the kernel accounts,
    /// twice `bytes` when it could be had. Beyond `rmem_max` this needs
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Neither way of setting it is allowed.
    pub fn set_buffer(&self, bytes: usize) -> io::Result<usize> {
        setsockopt(self, sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(self, sockopt::RcvBuf, &bytes))?;
        Ok(getsockopt(self, sockopt::RcvBuf)?)
    }

    /// The receive buffer's size as the kernel accounts it, in bytes.
    ///
    /// # Errors
    /// None that a live socket gives.
    pub fn buffer(&self) -> io::Result<usize> {
        Ok(getsockopt(self, sockopt::RcvBuf)?)
    }

    /// Messages that the kernel has dropped for this socket since it was
    /// opened, modulo 2^32.
    ///
    /// # Errors
    /// `ENOPROTOOPT` before Linux 4.12.
    pub fn drops(&self) -> io::Result<u32> {
        let mut info = [0u32; MEMINFO_VARS];
        let mut length = size_of_val(&info) as libc::socklen_t;
        // SAFETY: `info` and `length` are live, and `length` states the size of
        // `info`; the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(info[MEMINFO_DROPS]) } else { Err(io::Error::last_os_error()) }
    }

    /// Has the kernel drop what `program` refuses, before it is queued.
    ///
    /// # Errors
    /// The kernel does not take the program.
    pub(super) fn attach_filter(&self, program: &[libc::sock_filter]) -> io::Result<()> {
        let length = program.len().try_into().map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
        // SAFETY: `program` names `length` live instructions; the kernel copies
        // them, and writes nothing.
        let result = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one or several whole messages to the kernel.
    ///
    /// # Errors
    /// As sendto(2).
    pub fn send(&self, messages: &[u8]) -> io::Result<()> {
        self.socket.send(messages, 0).map(drop)
    }

    /// Reads one datagram into `buffer` without blocking.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; otherwise as recv(2).
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let length = self.socket.recv(&mut &mut *buffer, 0)?;
        Ok(&buffer[..length.min(buffer.len())])
    }
}

impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for NetfilterSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A datagram of a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// It was longer than the buffer.
    pub cut: bool,
}

/// Buffers for reading many datagrams at once; allocated once.
pub struct Batch {
    data: Box<[u8]>,
    // The headers point to the vectors and these into `data`, from one call of
    // `receive` only: each makes the pointers anew.
    vectors: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// Allocates the buffers.
    pub fn new() -> Self {
        let vector = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a plain C struct of integers and pointers, for which all bits
        // zero is a value.
        let header = unsafe { mem::zeroed::<libc::mmsghdr>() };
        Self {
            data: vec![0; BATCH * DATAGRAM].into_boxed_slice(),
            vectors: vec![vector; BATCH].into_boxed_slice(),
            headers: vec![header; BATCH].into_boxed_slice(),
            filled: 0,
        }
    }

    /// Reads up to 64 datagrams without blocking and returns how many.
    ///
    /// # Errors
    /// `WouldBlock` when there is none (fewer than 64 datagrams do not
    /// mean that: an error may be waiting), `ENOBUFS` once after the kernel had to
    /// drop messages; otherwise as recvmmsg(2).
    pub fn receive(&mut self, socket: &NetfilterSocket) -> io::Result<usize> {
        self.filled = 0;
        let rooms = self.data.chunks_exact_mut(DATAGRAM);
        for ((header, vector), room) in self.headers.iter_mut().zip(&mut self.vectors).zip(rooms) {
            vector.iov_base = room.as_mut_ptr().cast();
            vector.iov_len = room.len();
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header names one vector, and each vector a part of `data`
        // with its length. The pointers have just been made from exclusive
        // borrows of what `self` owns, and nothing else uses it until the call
        // has returned; the kernel writes within the stated lengths.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                // The type of flags depends on the C library.
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// What the last [`Batch::receive`] read.
    pub fn datagrams(&self) -> impl Iterator<Item = Datagram<'_>> {
        let rooms = self.data.chunks_exact(DATAGRAM);
        rooms.zip(&self.headers).take(self.filled).map(|(room, header)| Datagram {
            bytes: &room[..(header.msg_len as usize).min(DATAGRAM)],
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}
