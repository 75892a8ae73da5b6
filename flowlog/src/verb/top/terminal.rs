//! The terminal: its screen and its mode while it is ours, and as it was before
//! when it no longer is, however this ends.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic;
use std::rc::Rc;
use std::sync::{Mutex, Once, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::termion::{cursor, screen};

/// The terminal, and the mode that it had; none while it is not ours. A panic has
/// to find it from anywhere.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);
static HOOK: Once = Once::new();
/// What `_POSIX_VDISABLE` is on Linux: no key sends the signal.
const NO_KEY: u8 = 0;

/// While it lives the terminal is ours.
#[derive(Debug)]
pub(super) struct Ours(());

impl Ours {
    /// Takes a terminal: keys come at once and are not shown. Ctrl-C still sends SIGINT; Ctrl-Z and Ctrl-\ do nothing,
    /// since nobody would restore the screen.
    ///
    /// # Errors
    /// It is no terminal.
    pub(super) fn take(terminal: impl AsFd) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut mode = before.clone();
        mode.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        // Enter is told apart from Ctrl-J by nobody; Ctrl-S must not stop us.
        mode.input_flags.remove(InputFlags::IXON);
        for key in [
            SpecialCharacterIndices::VSUSP,
            SpecialCharacterIndices::VQUIT,
            SpecialCharacterIndices::VLNEXT,
        ] {
            mode.control_chars[key as usize] = NO_KEY;
        }
        HOOK.call_once(restore_before_a_panic_is_told);
        let own = terminal.as_fd().try_clone_to_owned()?;
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((own, before));
        let ours = Self(());
        tcsetattr(&terminal, SetArg::TCSADRAIN, &mode)?;
        Ok(ours)
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        restore();
    }
}

/// What the terminal is told at first.
pub(super) fn entering() -> String {
    format!("{}{}", screen::ToAlternateScreen, cursor::Hide)
}

fn restore_before_a_panic_is_told() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        restore();
        tell(info);
    }));
}

/// Gives the terminal back, unless that has been done.
fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((terminal, before)) = before else { return };
    let mut terminal = File::from(terminal);
    // Nothing can be done about a terminal that has gone or takes nothing.
    if takes_more(terminal.as_fd()) {
        let _ = write!(terminal, "{}{}", cursor::Show, screen::ToMainScreen);
    }
    let _ = tcsetattr(&terminal, SetArg::TCSANOW, &before);
}

fn takes_more(terminal: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(terminal, PollFlags::POLLOUT)];
    let ready = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    ready && polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT))
}

/// What has been drawn and not yet put out.
#[derive(Clone, Debug, Default)]
pub(super) struct Drawn(Rc<RefCell<Vec<u8>>>);

impl Drawn {
    /// Hands it out.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Drawn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A screen that draws into memory.
///
/// # Errors
/// Standard output has no size.
pub(super) fn screen(drawn: &Drawn) -> io::Result<Terminal<TermionBackend<Drawn>>> {
    Terminal::new(TermionBackend::new(drawn.clone()))
}

/// Keys, as they come from standard input.
#[derive(Debug)]
pub(super) struct Keyboard {
    stdin: io::Stdin,
    /// Nobody types there, or nobody any more.
    closed: bool,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        use std::io::IsTerminal as _;
        let stdin = io::stdin();
        Self { closed: !stdin.is_terminal(), stdin }
    }

    /// What can be waited for.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed).then(|| self.stdin.as_fd())
    }

    /// What has been typed, without waiting.
    pub(super) fn typed(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(stdin) = self.descriptor() else { return Ok(0) };
        let mut polled = [PollFd::new(stdin, PollFlags::POLLIN)];
        match poll(&mut polled, PollTimeout::ZERO) {
            Ok(0) | Err(Errno::EINTR) => return Ok(0),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        match nix::unistd::read(stdin, room) {
            Ok(0) | Err(Errno::EIO) => {
                self.closed = true;
                Ok(0)
            }
            Ok(length) => Ok(length),
            // In the background nobody types for us.
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn a_panic_gives_the_terminal_back() {
        let pty = openpty(None, None).unwrap();
        let before = tcgetattr(&pty.slave).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _ours = Ours::take(&pty.slave).unwrap();
            assert!(tcgetattr(&pty.slave).unwrap() == before, "it has another mode");
        }));
        let told = panicked.unwrap_err();
        assert_eq!(told.downcast_ref::<&str>(), Some(&"it has another mode"));
        assert!(tcgetattr(&pty.slave).unwrap() == before);
        let expected = format!("{}{}", cursor::Show, screen::ToMainScreen);
        let mut written = vec![0; expected.len()];
        File::from(pty.master).read_exact(&mut written).unwrap();
        assert_eq!(written, expected.as_bytes());
    }

    #[test]
    fn what_is_no_terminal_is_not_taken() {
        assert!(Ours::take(tempfile::tempfile().unwrap()).is_err());
    }
}
