//! How much later the second of two sources reports an event: a histogram with fixed bounds,
//! as Prometheus wants it.

use std::time::Duration;

use super::count::Count;

/// Upper bounds of the buckets, microseconds. Beyond the last there is one more bucket.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// The histogram.
#[derive(Debug, Default)]
pub struct Lag {
    buckets: [Count; BOUNDS.len() + 1],
    /// Microseconds.
    sum: Count,
}

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Its upper bound, seconds; absent: there is none.
    pub bound: Option<f64>,
    /// How many values are at most as large as the bound.
    pub count: u64,
}

impl Lag {
    pub(super) fn add(&self, lag: Duration) {
        let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.add(1);
        }
        self.sum.add(micros);
    }

    /// The buckets, each with all smaller values; the last one counts all.
    pub fn buckets(&self) -> Vec<Bucket> {
        let bounds = BOUNDS.iter().map(|micros| Some(*micros as f64 / 1e6)).chain([None]);
        let mut count = 0;
        let each = bounds.zip(&self.buckets).map(|(bound, bucket)| {
            count += bucket.get();
            Bucket { bound, count }
        });
        each.collect()
    }

    /// All values together, seconds.
    pub fn sum(&self) -> f64 {
        self.sum.get() as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_count_all_smaller_values() {
        let lag = Lag::default();
        for micros in [1, 100, 101, 3_000, 60_000_000] {
            lag.add(Duration::from_micros(micros));
        }
        let buckets = lag.buckets();
        assert_eq!(buckets[0], Bucket { bound: Some(0.0001), count: 2 });
        assert_eq!(buckets[1], Bucket { bound: Some(0.00025), count: 3 });
        assert_eq!(buckets[5], Bucket { bound: Some(0.005), count: 4 });
        assert_eq!(buckets[15], Bucket { bound: Some(10.0), count: 4 });
        assert_eq!(buckets[16], Bucket { bound: None, count: 5 });
        assert!((lag.sum() - 60.003_202).abs() < 1e-9, "{}", lag.sum());
    }
}
