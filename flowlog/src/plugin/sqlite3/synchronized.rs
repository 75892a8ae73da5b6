//! Whether the kernel takes the wall clock for synchronised.
#![expect(unsafe_code, reason = "adjtimex(2) has no safe form")]

use nix::libc;

/// An NTP daemon keeps the wall clock, and says that it is right (`STA_UNSYNC`, adjtimex(2)).
pub(super) fn is_synchronized() -> bool {
    // SAFETY: it has integers only, for which zero is a value.
    let mut clock = unsafe { std::mem::zeroed::<libc::timex>() };
    // SAFETY: the kernel writes a `timex` to where one is; without modes it changes nothing.
    let state = unsafe { libc::adjtimex(&raw mut clock) };
    state >= 0 && state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_the_clock_can_be_asked_for() {
        // Which it is depends on the host; it is the same twice.
        assert_eq!(is_synchronized(), is_synchronized());
    }
}
