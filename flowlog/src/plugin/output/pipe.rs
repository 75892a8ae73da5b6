//! A pipe, a FIFO, a terminal or an inherited socket, to be written without waiting.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::termios::tcgetsid;
use nix::unistd::write;

use super::append::Identity;

/// Bytes that a pipe takes whole or not at all (`PIPE_BUF`, pipe(7)).
pub(super) const ATOMIC: usize = 4096;

/// How a descriptor is written without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// It is this process's own, and does not block.
    Nonblocking,
    /// Others share it, so it may block: it is asked before. A pipe that is writable takes
    /// [`ATOMIC`] bytes (`pipe_poll`, fs/pipe.c, 6.18). A terminal promises one byte only
    /// (`tty_poll`, drivers/tty/tty_io.c), so it is never written so.
    Asked,
    /// A socket: each call says that it must not block.
    Socket,
}

/// An open pipe, terminal or socket.
#[derive(Debug)]
pub(super) struct Pipe {
    file: File,
    how: How,
    /// A pipe: the kernel says how much is unread.
    counts: bool,
}

impl Pipe {
    /// One that was opened with `O_NONBLOCK`.
    pub(super) fn nonblocking(file: File) -> io::Result<Self> {
        let counts = file.metadata()?.file_type().is_fifo();
        Ok(Self { file, how: How::Nonblocking, counts })
    }

    /// One that was inherited. `O_NONBLOCK` would be set for all that share it, so it is opened
    /// once more, if the kernel allows that.
    pub(super) fn inherited(file: File) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Self { file, how: How::Socket, counts: false });
        }
        let own = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
        match options.open(own) {
            Ok(file) => Self::nonblocking(file),
            Err(_) if kind.is_fifo() => Ok(Self { file, how: How::Asked, counts: true }),
            // Everybody may open their controlling terminal by this name (tty(4)), also where it
            // is another user's, as after su(1).
            Err(_) if tcgetsid(&file).is_ok() => Self::nonblocking(options.open("/dev/tty")?),
            Err(error) => Err(foreign_terminal(&error)),
        }
    }

    /// Which file it is.
    pub(super) fn identity(&self) -> io::Result<Identity> {
        self.file.metadata().map(|metadata| Identity::of(&metadata))
    }

    /// Writes what there is room for; `EAGAIN`: nothing.
    pub(super) fn write(&self, bytes: &[u8]) -> nix::Result<usize> {
        match self.how {
            How::Nonblocking => write(&self.file, bytes),
            How::Asked => {
                if !self.events(PollFlags::POLLOUT).intersects(PollFlags::POLLOUT) {
                    return if self.has_reader() { Err(Errno::EAGAIN) } else { Err(Errno::EPIPE) };
                }
                write(&self.file, &bytes[..bytes.len().min(ATOMIC)])
            }
            How::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.file.as_raw_fd(), bytes, flags)
            }
        }
    }

    /// Somebody has it open for reading.
    pub(super) fn has_reader(&self) -> bool {
        !self.events(PollFlags::empty()).intersects(PollFlags::POLLERR | PollFlags::POLLHUP)
    }

    fn events(&self, wanted: PollFlags) -> PollFlags {
        let mut asked = [PollFd::new(self.file.as_fd(), wanted)];
        match poll(&mut asked, PollTimeout::ZERO) {
            Ok(_) => asked[0].revents().unwrap_or(PollFlags::empty()),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Bytes that nobody has read yet, where the kernel says so.
    #[expect(unsafe_code, reason = "neither std nor nix has this ioctl as a function")]
    pub(super) fn unread(&self) -> usize {
        if !self.counts {
            return 0;
        }
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open as long as the file is borrowed, and FIONREAD writes one
        // int, for which there is room.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        if result < 0 { 0 } else { usize::try_from(bytes).unwrap_or(0) }
    }
}

/// A terminal that cannot be opened once more would have to be written blocking.
fn foreign_terminal(error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!(
            "it is the terminal of another user and cannot be opened without blocking ({error}); \
             write to a file, or to a pipe: flowlog … | cat"
        ),
    )
}
