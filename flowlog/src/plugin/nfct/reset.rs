//! SIGUSR2 with `hash_enable=0`: the kernel's counters are reset, and the reset
//! is made again, with a growing delay, until it succeeds.

use std::time::Instant;

use super::sync::{Action, backoff};

/// The reset of the kernel's counters where no table is kept.
#[derive(Debug, Default)]
pub(super) struct Reset {
    /// It is under way.
    asked: bool,
    /// It failed, and is made again then.
    pub(super) again: Option<Instant>,
    /// Times that it failed in a row.
    failures: u32,
}

impl Reset {
    pub(super) fn begin(&mut self) -> Action {
        (self.asked, self.again) = (true, None);
        Action::DumpAndReset
    }

    pub(super) fn ended(&mut self, complete: bool, now: Instant) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        if complete {
            self.failures = 0;
        } else {
            self.again = Some(now + backoff(self.failures));
            self.failures = self.failures.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_made_again_until_it_succeeds() {
        let now = Instant::now();
        let mut reset = Reset::default();
        reset.ended(false, now);
        assert_eq!(reset.again, None, "nobody asked for one");
        reset.begin();
        reset.ended(false, now);
        assert_eq!(reset.again, Some(now + backoff(0)));
        reset.begin();
        reset.ended(false, now);
        assert_eq!(reset.again, Some(now + backoff(1)));
        reset.begin();
        reset.ended(true, now);
        assert_eq!(reset.again, None);
    }
}
