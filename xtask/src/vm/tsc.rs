//! How fast the guest's time stamp counter runs. The guest would find out by comparing it with
//! its timers, and on a busy host it sometimes finds a fraction of the truth; its clock then runs
//! as many times too fast, and everything in it that waits gives up too early.

use std::time::{Duration, Instant};

/// How long is measured: a microsecond of doubt on either side is then one in 25,000, and the
/// kernel corrects up to 1 % by itself.
const SPAN: Duration = Duration::from_millis(50);
/// Readings of which the best is taken.
const READINGS: u32 = 100;

/// In kHz. Without counting instructions QEMU gives the guest the host's counter.
#[cfg(target_arch = "x86_64")]
pub(super) fn kilohertz() -> u64 {
    let (from, begin) = reading();
    std::thread::sleep(SPAN);
    let (to, end) = reading();
    let nanoseconds = (end - begin).as_nanos().max(1);
    u64::try_from(u128::from(to.wrapping_sub(from)) * 1_000_000 / nanoseconds).unwrap_or(0)
}

/// Where the host has none, no guest is booted either.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn kilohertz() -> u64 {
    0
}

/// The counter and the time at which it was read: of several readings the one that took the
/// shortest, because there nobody came in between.
#[cfg(target_arch = "x86_64")]
fn reading() -> (u64, Instant) {
    let one = |_| {
        let before = Instant::now();
        // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
        let counter = unsafe { std::arch::x86_64::_rdtsc() };
        (before.elapsed(), counter, before)
    };
    let best = (0..READINGS).map(one).min_by_key(|(took, ..)| *took);
    best.map_or_else(|| (0, Instant::now()), |(_, counter, at)| (counter, at))
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::kilohertz;

    #[test]
    fn two_measurements_agree() {
        let (one, other) = (kilohertz(), kilohertz());
        assert!(one > 100_000 && one.abs_diff(other) < one / 100, "{one} {other}");
    }
}
