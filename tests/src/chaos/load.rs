//! The traffic of the lab: new UDP flows at an even rate, each with a number that is never used
//! again, and when each was made. Expired flows are collected twice a second, so that each end is
//! an event soon after.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::burst::{send_each, source};
use crate::namespace::Namespace;

/// The source port of all flows.
pub const PORT: u16 = 4000;
/// How often flows are made.
const TURN: Duration = Duration::from_millis(10);
/// How often expired flows are collected.
const COLLECT: Duration = Duration::from_millis(500);

/// When flows were made: the time since the start, and the first number that was not yet made.
pub type Timeline = Vec<(Duration, u32)>;

/// What the threads share.
#[derive(Debug, Default)]
struct Shared {
    end: AtomicBool,
    paused: AtomicBool,
    /// The generator stands still, as it was asked to.
    stands: AtomicBool,
    made: AtomicU32,
    timeline: Mutex<Timeline>,
}

/// The generator. Dropped, it ends.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Makes `rate` flows a second in this namespace, once it is resumed.
    ///
    /// # Errors
    /// Its socket cannot be opened.
    pub fn start(namespace: &Namespace, rate: u32, begin: Instant) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.paused.store(true, Ordering::Release);
        let socket = namespace.enter(|| source(PORT))?;
        let worker = shared.clone();
        let sender = std::thread::spawn(move || {
            let mut clock = Instant::now();
            let mut owed = 0.0;
            while !worker.end.load(Ordering::Acquire) {
                sleep(TURN);
                // A machine that was busy does not make up for more than a quarter of a second.
                let passed = clock.elapsed().as_secs_f64().min(0.25);
                clock = Instant::now();
                if worker.paused.load(Ordering::Acquire) {
                    worker.stands.store(true, Ordering::Release);
                    continue;
                }
                owed += passed * f64::from(rate);
                let count = owed as u32;
                owed -= f64::from(count);
                let first = worker.made.load(Ordering::Acquire);
                send_each(&socket, first, first + count)?;
                worker.made.store(first + count, Ordering::Release);
                if let Ok(mut timeline) = worker.timeline.lock() {
                    timeline.push((begin.elapsed(), first + count));
                }
            }
            Ok(())
        });
        let worker = shared.clone();
        let path = namespace.path();
        let collector = std::thread::spawn(move || {
            while !worker.end.load(Ordering::Acquire) {
                // A dump removes what has expired; nothing is of this protocol, so it is short.
                let mut command = std::process::Command::new("nsenter");
                command.arg(format!("--net={}", path.display()));
                command.args(["conntrack", "-L", "-p", "icmp"]);
                command.output().context("conntrack")?;
                sleep(COLLECT);
            }
            Ok(())
        });
        Ok(Self { shared, threads: vec![sender, collector] })
    }

    /// Makes no flows until it is resumed. None is being made when this returns.
    pub fn pause(&self) {
        self.shared.stands.store(false, Ordering::Release);
        self.shared.paused.store(true, Ordering::Release);
        while !self.shared.stands.load(Ordering::Acquire) && !self.has_failed() {
            sleep(TURN);
        }
    }

    /// Makes flows again.
    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Release);
    }

    /// Whether a thread has ended.
    pub fn has_failed(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Flows that were made so far, numbered from 0.
    pub fn made(&self) -> u32 {
        self.shared.made.load(Ordering::Acquire)
    }

    /// Ends it, and returns when its flows were made.
    ///
    /// # Errors
    /// A flow could not be made.
    pub fn finish(&mut self) -> Result<Timeline> {
        self.shared.end.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_panic| anyhow!("the generator panicked"))??;
        }
        let mut timeline = self.shared.timeline.lock().map_err(|_| anyhow!("no timeline"))?;
        Ok(std::mem::take(&mut timeline))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            // Its flows are of no interest any more.
            let _ = thread.join();
        }
    }
}

/// When a flow was made.
pub fn time_of(timeline: &Timeline, flow: u32) -> Duration {
    let at = timeline.partition_point(|(_, next)| *next <= flow);
    timeline.get(at).or(timeline.last()).map_or(Duration::ZERO, |(time, _)| *time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_has_its_time() {
        let seconds = Duration::from_secs;
        let timeline = vec![(seconds(1), 10), (seconds(2), 10), (seconds(3), 25)];
        assert_eq!(time_of(&timeline, 9), seconds(1));
        assert_eq!(time_of(&timeline, 10), seconds(3));
        assert_eq!(time_of(&timeline, 99), seconds(3));
        assert_eq!(time_of(&Timeline::new(), 1), Duration::ZERO);
    }
}
