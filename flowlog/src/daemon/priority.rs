//! The daemon's share of the processor. The kernel drops events while their
//! logger waits for its turn, so it goes before ordinary work; it is no
//! real-time process, as ulogd2 is, and can starve nobody.
#![expect(unsafe_code, reason = "setpriority has no safe form in the libraries used here")]

use std::io;

/// Sets the nice value of this process, from -20 (first) to 19 (last).
///
/// # Errors
/// A value below the present one needs `CAP_SYS_NICE`.
pub fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only; 0 is the calling process.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
