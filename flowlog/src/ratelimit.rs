//! "At most once a second": for warnings about faults that can come in floods.

use std::time::{Duration, Instant};

/// Lets one call through in each period.
#[derive(Debug)]
pub struct RateLimit {
    period: Duration,
    last: Option<Instant>,
}

impl RateLimit {
    /// One call a second.
    pub fn per_second() -> Self {
        Self { period: Duration::from_secs(1), last: None }
    }

    /// One call a minute, for what goes on until somebody acts.
    pub fn per_minute() -> Self {
        Self { period: Duration::from_secs(60), last: None }
    }

    /// Whether this call is let through.
    pub fn allow(&mut self) -> bool {
        let now = Instant::now();
        let allowed = self.last.is_none_or(|last| now.duration_since(last) >= self.period);
        if allowed {
            self.last = Some(now);
        }
        allowed
    }
}
