//! How a guest ended, read from its console.

use std::time::Duration;

use super::init::MARK;

/// How much of the console is shown when something went wrong.
const LAST_LINES: usize = 20;

/// How a guest ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The command ended with this status.
    Exit(u8),
    /// The time was over before.
    TimedOut {
        /// The end of the console.
        last_words: String,
    },
    /// The guest ended before the command did.
    Died {
        /// The end of the console, or what QEMU had to say.
        last_words: String,
    },
}

impl Ending {
    /// What went wrong, where the command did not come to its end.
    pub(crate) fn words(&self, limit: Duration) -> Option<String> {
        match self {
            Self::Exit(_) => None,
            Self::TimedOut { last_words } => {
                Some(format!("{last_words}timed out after {} s", limit.as_secs()))
            }
            Self::Died { last_words } => {
                Some(format!("{last_words}the guest ended before the command did"))
            }
        }
    }
}

/// The status that the console tells.
pub(super) fn status(console: &str) -> Option<u8> {
    let mark = console.lines().rev().find_map(|line| Some(line.split_once(MARK)?.1))?;
    mark.trim().parse().ok()
}

/// The end of the console, with a line end behind it.
pub(super) fn last_words(console: &str) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).collect();
    let end = &lines[lines.len().saturating_sub(LAST_LINES)..];
    end.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::{last_words, status};

    #[test]
    fn the_last_mark_has_the_status() {
        assert_eq!(status("boot\r\n[    4.2] @@ exit 7\r\n[    4.3] reboot\r\n"), Some(7));
        assert_eq!(status("@@ exit 1\r\n@@ exit 0\r\n"), Some(0));
        for none in ["", "Kernel panic", "@@ exit ", "@@ exit 300"] {
            assert_eq!(status(none), None, "{none}");
        }
    }

    #[test]
    fn the_end_of_a_long_console_is_shown() {
        let console: String = (1..=30).map(|line| format!("{line}\r\n")).collect();
        let words = last_words(&console);
        assert!(words.starts_with("11\n12\n") && words.ends_with("\n30\n"));
        assert_eq!(last_words(""), "");
    }
}
