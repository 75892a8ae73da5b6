//! One request to nfnetlink and all of its replies. The kernel works requests
//! off while they are sent, and fills a dump while it is read: a socket that
//! has nothing to read is a reply that will never come.

use std::io;
use std::time::Duration;

use super::attr::{DecodeError, Message, Messages};
use super::socket::NetfilterSocket;

/// A dump's datagrams are at most 32 KiB (`netlink_recvmsg`, 6.18).
const REPLY: usize = 1 << 16;
/// How often a request is made at most, and the time between: half a second in all.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);
/// `NLMSG_ERROR`: an error, or an acknowledgement.
const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
const NLMSG_DONE: u16 = 3;

/// Sends `request` (a dump, or a request with `NLM_F_ACK`) and hands each reply
/// to `each`, until the kernel says that this was all.
///
/// # Errors
/// The kernel's refusal, or that of `each`; `WouldBlock` when it does not
/// answer.
pub(crate) fn exchange(
    socket: &NetfilterSocket,
    request: &[u8],
    mut each: impl FnMut(&Message<'_>) -> io::Result<()>,
) -> io::Result<()> {
    socket.send(request)?;
    let mut buffer = vec![0; REPLY];
    loop {
        let datagram = match socket.receive(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        for message in Messages::new(datagram) {
            let message = message.map_err(malformed)?;
            match refusal(&message) {
                None => each(&message)?,
                Some(0) => return Ok(()),
                Some(errno) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
    }
}

/// The errno that ends an exchange, 0 for success; absent when `message` ends
/// none.
pub(crate) fn refusal(message: &Message<'_>) -> Option<i32> {
    let ends = matches!(message.kind, NLMSG_DONE | NLMSG_ERROR);
    let errno = message.payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
    ends.then_some(errno.saturating_neg())
}

/// A reply that is no message of the expected kind.
pub(crate) fn malformed(error: DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Calls `ask`, which opens a socket of its own each time, until it succeeds or
/// fails for a reason that does not pass, and at most [`ATTEMPTS`] times.
///
/// # Errors
/// The last error of `ask`.
pub(crate) fn persistently<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match ask() {
            Err(error) if is_transient(&error) => std::thread::sleep(PAUSE),
            result => return result,
        }
    }
    ask()
}

/// Whether the same call may succeed later: the kernel was short of memory, of
/// buffers or of descriptors, or busy, or a signal came in between.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(is_transient_errno)
}

/// The same of the number.
pub(crate) fn is_transient_errno(errno: i32) -> bool {
    matches!(
        errno,
        libc::EINTR
            | libc::EAGAIN
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EBUSY
            | libc::EMFILE
            | libc::ENFILE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a request is made that fails so for the first times.
    fn attempts(errno: i32, failures: u32) -> (u32, bool) {
        let mut made = 0;
        let result = persistently(|| {
            made += 1;
            if made > failures { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
        });
        (made, result.is_ok())
    }

    #[test]
    fn what_may_pass_is_tried_again_and_nothing_else_is() {
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EINTR, libc::EBUSY] {
            assert_eq!(attempts(errno, 2), (3, true), "{errno}");
        }
        assert_eq!(attempts(libc::EPERM, 1), (1, false));
        assert_eq!(attempts(libc::ENOBUFS, u32::MAX), (ATTEMPTS, false));
    }
}
