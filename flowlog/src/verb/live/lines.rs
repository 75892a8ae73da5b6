//! Lines on their way to standard output, counted.

use std::time::Duration;

use super::output::Output;
use super::text::Text;

/// Bytes of lines that one drain may make: several times what one with a budget
/// does. At the end the whole queue is read at once.
const MOST: usize = 8 << 20;
/// Lines whose memory the next ones find, bytes. More comes by a flood, and
/// goes with it.
const KEPT: usize = 1 << 20;

/// Lines, and what became of the events in them.
pub(in crate::verb) struct Lines {
    /// Where they are shown.
    pub(in crate::verb) output: Output,
    /// Lines that have not been put out, the last of them perhaps in the making.
    pub(in crate::verb) text: Text,
    /// The events in them.
    unflushed: u64,
    /// Events for which there was no room.
    dropped: u64,
    /// Events to be shown at most.
    most: u64,
    shown: u64,
    /// Events that nobody wanted to see.
    pub(in crate::verb) filtered: u64,
    /// Events that nobody has seen.
    pub(in crate::verb) lost: u64,
}

impl Lines {
    /// Shows so many events at most.
    pub(in crate::verb) fn new(output: Output, most: Option<u64>) -> Self {
        Self {
            output,
            text: Text::default(),
            unflushed: 0,
            dropped: 0,
            most: most.unwrap_or(u64::MAX),
            shown: 0,
            filtered: 0,
            lost: 0,
        }
    }

    /// Events that have been shown.
    pub(in crate::verb) fn shown(&self) -> u64 {
        self.shown
    }

    /// As many events as were asked for have been shown.
    pub(in crate::verb) fn has_enough(&self) -> bool {
        self.shown >= self.most
    }

    /// Whether a line may still be made; if not, its event is counted.
    pub(in crate::verb) fn has_room(&mut self) -> bool {
        let room = self.text.len() < MOST;
        self.dropped += u64::from(!room);
        room
    }

    /// Events for which there was no room since this was last asked; somebody
    /// has to tell them.
    pub(in crate::verb) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Ends a line, which is that of an event.
    pub(in crate::verb) fn end_event(&mut self) {
        self.shown += 1;
        self.unflushed += 1;
        self.end();
    }

    /// Ends another line.
    pub(in crate::verb) fn end(&mut self) {
        self.text.push(b'\n');
    }

    /// Puts them out.
    pub(in crate::verb) fn put_out(&mut self) {
        if !self.text.is_empty() {
            self.output.put(self.text.as_bytes(), self.unflushed);
            self.unflushed = 0;
            self.text.clear(KEPT);
        }
    }

    /// Waits at most so long until all can be seen; what cannot is lost.
    pub(in crate::verb) fn close(&mut self, limit: Duration) {
        let left = self.output.close(limit);
        self.shown = self.shown.saturating_sub(left);
        self.lost += left;
    }
}
