//! What of the counts is looked at, and the keys that change it.

use ratatui::termion::event::{Event, Key, parse_event};

use super::counts::Counts;
use super::key::Table;

/// By what rows are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Events.
    #[default]
    Events,
    /// Packets of flows that have ended.
    Packets,
    /// Their bytes.
    Bytes,
}

impl Sort {
    fn next(self) -> Self {
        match self {
            Self::Events => Self::Packets,
            Self::Packets => Self::Bytes,
            Self::Bytes => Self::Events,
        }
    }

    /// What the screen calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Packets => "packets",
            Self::Bytes => "bytes",
        }
    }

    /// The number that counts.
    pub(super) fn of(self, counts: &Counts) -> u64 {
        match self {
            Self::Events => counts.events(),
            Self::Packets => counts.packets,
            Self::Bytes => counts.bytes,
        }
    }
}

/// What a key asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// End.
    Quit,
    /// Count anew.
    Reset,
}

/// What is looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The table that is shown.
    pub(super) table: Table,
    /// By what it is sorted.
    pub(super) sort: Sort,
    /// Numbers since the start instead of those per second.
    pub(super) totals: bool,
    /// Rows must have this text, in whatever case.
    pub(super) filter: String,
    /// It is being typed.
    pub(super) typing: bool,
    /// The picture stays as it is; counting goes on.
    pub(super) paused: bool,
    /// The help is shown.
    pub(super) help: bool,
}

impl View {
    /// Takes what was typed, as the terminal sends it.
    pub(super) fn typed(&mut self, bytes: &[u8]) -> Vec<Act> {
        let mut acts = Vec::new();
        let mut rest = bytes.iter().map(|byte| Ok(*byte));
        while let Some(Ok(byte)) = rest.next() {
            match parse_event(byte, &mut rest) {
                Ok(Event::Key(key)) => acts.extend(self.key(key)),
                // The escape key alone is the beginning of a sequence that does not come.
                Err(_) if byte == 0x1b => acts.extend(self.key(Key::Esc)),
                Ok(Event::Mouse(_) | Event::Unsupported(_)) | Err(_) => {}
            }
        }
        acts
    }

    fn key(&mut self, key: Key) -> Option<Act> {
        if self.help {
            self.help = false;
            return (key == Key::Char('q')).then_some(Act::Quit);
        }
        if self.typing {
            self.type_filter(key);
            return None;
        }
        match key {
            Key::Char('q') => return Some(Act::Quit),
            Key::Char('r') => return Some(Act::Reset),
            Key::Char('?' | 'h') => self.help = true,
            Key::Char('p' | ' ') => self.paused = !self.paused,
            Key::Char('s') => self.sort = self.sort.next(),
            Key::Char('t') => self.totals = !self.totals,
            Key::Char('/') => self.typing = true,
            Key::Esc => self.filter.clear(),
            Key::Char('\t') | Key::Right => self.turn(1),
            Key::BackTab | Key::Left => self.turn(Table::ALL.len() - 1),
            Key::Char(digit @ '1'..='5') => {
                self.table = Table::ALL[digit as usize - '1' as usize];
            }
            _ => {}
        }
        None
    }

    fn turn(&mut self, by: usize) {
        self.table = Table::ALL[(self.table as usize + by) % Table::ALL.len()];
    }

    fn type_filter(&mut self, key: Key) {
        /// More than any row has.
        const LONGEST: usize = 64;
        match key {
            Key::Char('\n' | '\r') => self.typing = false,
            Key::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            // Ctrl-U empties a line.
            Key::Ctrl('u') => self.filter.clear(),
            Key::Char(c) if !c.is_control() && self.filter.len() < LONGEST => self.filter.push(c),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(keys: &[u8]) -> View {
        let mut view = View::default();
        assert_eq!(view.typed(keys), []);
        view
    }

    #[test]
    fn tables_are_turned_and_chosen() {
        assert_eq!(after(b"").table, Table::Sources);
        assert_eq!(after(b"\t\t").table, Table::Ports);
        assert_eq!(after(b"\x1b[Z").table, Table::Processes, "backwards");
        assert_eq!(after(b"4").table, Table::Namespaces);
        assert_eq!(after(b"5\x1b[C").table, Table::Sources, "round");
        assert_eq!(after(b"5\x1b[D9").table, Table::Namespaces);
    }

    #[test]
    fn sorted_paused_and_helped() {
        assert_eq!(after(b"s").sort, Sort::Packets);
        assert_eq!(after(b"ss").sort, Sort::Bytes);
        assert_eq!(after(b"sss").sort, Sort::Events);
        assert!(after(b"t").totals && !after(b"tt").totals);
        assert!(after(b"p").paused && !after(b"pp").paused);
        let mut view = after(b"?");
        assert!(view.help);
        // Any key leaves the help, and does nothing else.
        assert_eq!((view.typed(b"r"), view.help), (vec![], false));
    }

    #[test]
    fn a_filter_is_typed_and_taken_back() {
        let view = after("/q10.7x\x7f\u{e9}".as_bytes());
        assert!(view.typing);
        assert_eq!(view.filter, "q10.7\u{e9}");
        let view = after(b"/abc\n3");
        assert_eq!((view.filter.as_str(), view.typing, view.table), ("abc", false, Table::Ports));
        assert_eq!(after(b"/abc\r\x1b").filter, "");
        assert_eq!(after(b"/abc\x1b").filter, "");
        assert_eq!(after(b"/abc\x15d").filter, "d");
    }

    #[test]
    fn what_others_do() {
        let mut view = View::default();
        assert_eq!(view.typed(b"rq"), [Act::Reset, Act::Quit]);
        assert_eq!(view.typed(b"?q"), [Act::Quit]);
        // Nobody has heard of these.
        assert_eq!(view.typed(b"\x1b[99~\xff\xfeZ"), []);
    }
}
