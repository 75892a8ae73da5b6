//! Levels of the daemon's own messages: ulogd2's numbers, and names for them.

/// Names of levels and their numbers. ulogd2 knows 1, 3, 5, 7 and 8; a warning
/// lies between its notice and its error.
const LEVELS: [(&str, u8); 6] =
    [("debug", 1), ("info", 3), ("notice", 5), ("warning", 6), ("error", 7), ("fatal", 8)];

/// What can be written for a level.
pub const LEVEL_FORMS: &str =
    "a number from 0 to 8, or debug, info, notice, warning, error or fatal";

/// The number of a level, given as a name in upper or lower case.
pub fn level_named(text: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, number)| *number)
}
