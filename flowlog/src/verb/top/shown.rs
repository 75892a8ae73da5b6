//! The screen on a terminal: drawn into memory, put out by a thread that may have
//! to wait.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TermionBackend;
use ratatui::layout::Size;
use ratatui::termion::terminal_size;

use super::draw::Screen;
use super::terminal::{Drawn, Keyboard, Ours, entering, screen};
use crate::log;
use crate::verb::live::output::Output;

/// How long the end waits for a terminal that is slow.
const AT_EXIT: Duration = Duration::from_secs(1);

/// A terminal on which it is shown. Its parts go in this order.
pub(super) struct Shown {
    screen: Terminal<TermionBackend<Drawn>>,
    drawn: Drawn,
    pub(super) output: Output,
    pub(super) keyboard: Keyboard,
    _messages: log::Held,
    _ours: Ours,
    size: Option<Size>,
}

impl Shown {
    pub(super) fn new() -> io::Result<Self> {
        let ours = Ours::take(io::stdout())?;
        let messages = log::hold();
        let output = Output::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))?;
        output.put(entering(), 0);
        let drawn = Drawn::default();
        Ok(Self {
            screen: screen(&drawn)?,
            drawn,
            output,
            keyboard: Keyboard::new(),
            _messages: messages,
            _ours: ours,
            size: None,
        })
    }

    /// Whether the terminal has another size than when this was asked last.
    pub(super) fn is_resized(&mut self) -> bool {
        let size = terminal_size().ok().map(Size::from);
        size != std::mem::replace(&mut self.size, size)
    }

    /// Draws, unless the terminal has not even taken what was drawn before.
    pub(super) fn draw(&mut self, screen: &Screen<'_>) -> io::Result<bool> {
        if !self.output.is_idle() {
            return Ok(false);
        }
        self.screen.draw(|frame| screen.draw(frame.area(), frame.buffer_mut()))?;
        self.output.put(self.drawn.take(), 0);
        Ok(true)
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.output.close(AT_EXIT);
    }
}
