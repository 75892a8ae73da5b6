//! Levels of messages on ulogd2's scale, and what syslog calls them.

/// For who looks for a fault in flowlog.
pub(super) const DEBUG: u8 = 1;
/// What it does.
pub(super) const INFO: u8 = 3;
/// What an administrator may want to know.
pub(super) const NOTICE: u8 = 5;
/// Something is wrong or lost. ulogd2 has no such level.
pub(super) const WARNING: u8 = 6;
/// Something has failed.
pub(super) const ERROR: u8 = 7;

/// ulogd2's map of levels to the severities of syslog(3), and warnings.
pub(super) fn severity(level: u8) -> u8 {
    let severity = match level {
        0..=2 => libc::LOG_DEBUG,
        3..=4 => libc::LOG_INFO,
        5 => libc::LOG_NOTICE,
        6 => libc::LOG_WARNING,
        7 => libc::LOG_ERR,
        _ => libc::LOG_CRIT,
    };
    // From 0 to 7.
    severity as u8
}
