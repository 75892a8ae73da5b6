//! The kernel's clock of events (`CLOCK_BOOTTIME`) and the time of day.

use std::time::Duration;

use nix::time::{ClockId, clock_getres, clock_gettime};

/// Nanoseconds of `CLOCK_BOOTTIME`, which cannot be set.
pub(in crate::capture) fn boot_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_BOOTTIME).unsigned_abs()
}

/// Boot time → time of day.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Nanoseconds from the epoch to the start of the host.
    offset: i64,
}

impl Clock {
    /// The relation of the two clocks now. The time of day may be set at any
    /// moment, so ask again for each batch of events.
    pub(super) fn now() -> Self {
        let boot = nanoseconds(ClockId::CLOCK_BOOTTIME);
        let real = nanoseconds(ClockId::CLOCK_REALTIME);
        Self { offset: real - boot }
    }

    /// A clock for tests, whose host started so long after the epoch.
    #[cfg(test)]
    pub(super) fn at(offset: i64) -> Self {
        Self { offset }
    }

    /// Nanoseconds since the epoch, of nanoseconds since the start of the host.
    pub(super) fn real(self, boot: u64) -> u64 {
        boot.saturating_add_signed(self.offset)
    }
}

fn nanoseconds(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_nanos() as i64)
}

/// Jiffies in a second (`CONFIG_HZ`): a coarse clock's resolution is one jiffy
/// (`KTIME_LOW_RES`, include/linux/hrtimer_defs.h, 6.12).
pub(super) fn jiffies_per_second() -> u32 {
    let jiffy = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |jiffy| jiffy.tv_nsec());
    // Where the kernel does not say, the value of Debian and Ubuntu.
    u32::try_from(jiffy).ok().and_then(|ns| 1_000_000_000_u32.checked_div(ns)).unwrap_or(250)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_now_has_the_time_of_now() {
        let boot = nanoseconds(ClockId::CLOCK_BOOTTIME) as u64;
        let told = Clock::now().real(boot);
        let real = nanoseconds(ClockId::CLOCK_REALTIME) as u64;
        assert!(real.abs_diff(told) < 1_000_000_000, "{told} {real}");
    }

    #[test]
    fn a_jiffy_is_one_of_the_configurable() {
        assert!([100, 250, 300, 1000].contains(&jiffies_per_second()), "{}", jiffies_per_second());
    }
}
