//! Looks at the daemon once a second: whether /metrics and /healthz answer and how fast, how much
//! memory it has, and what it says that it has lost.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::counters::{Counters, STANDS_STILL};
use crate::metrics::{ADDRESS, get_within};
use crate::namespace::Namespace;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);
/// How soon both pages have to answer.
pub const PROMPT: Duration = Duration::from_secs(1);
/// How long they are waited for.
const PATIENCE: Duration = Duration::from_secs(4);

/// A look.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When, from the start of the traffic.
    pub at: Duration,
    /// How long /metrics took; nothing: no answer.
    pub metrics: Option<Duration>,
    /// The same of /healthz.
    pub health: Option<Duration>,
    /// What /healthz said.
    pub words: String,
    /// The process.
    pub pid: i32,
    /// Where its main thread was in the kernel, if it stood still.
    pub place: Option<String>,
    /// Its resident memory, KiB.
    pub memory: u64,
    /// What it counts.
    pub counters: Counters,
}

/// The looks so far.
#[derive(Debug)]
pub struct Probe {
    samples: Arc<Mutex<Vec<Sample>>>,
    /// The daemon's process; 0: there is none just now.
    pid: Arc<AtomicI32>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    /// Begins to look.
    pub fn start(namespace: &Namespace, begin: Instant) -> Self {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (pid, end) = (Arc::new(AtomicI32::new(0)), Arc::new(AtomicBool::new(false)));
        let shared = (samples.clone(), pid.clone(), end.clone());
        let path = namespace.path();
        let thread = std::thread::spawn(move || {
            let (samples, pid, end) = shared;
            while !end.load(Ordering::Acquire) {
                let process = pid.load(Ordering::Acquire);
                if process != 0 {
                    let sample = look(&path, process, begin);
                    // It may have been ended meanwhile.
                    if pid.load(Ordering::Acquire) == process
                        && let Ok(mut samples) = samples.lock()
                    {
                        samples.push(sample);
                    }
                }
                sleep(EVERY);
            }
        });
        Self { samples, pid, end, thread: Some(thread) }
    }

    /// Looks at this process from now on; 0: at none.
    pub fn watch(&self, pid: i32) {
        self.pid.store(pid, Ordering::Release);
    }

    /// What was seen so far.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn samples(&self) -> Result<Vec<Sample>> {
        Ok(self.samples.lock().map_err(|_poison| anyhow!("the probe panicked"))?.clone())
    }

    /// The last numbers that are whole, of this process.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn last_counters(&self, pid: i32) -> Result<Option<Counters>> {
        let samples = self.samples.lock().map_err(|_poison| anyhow!("the probe panicked"))?;
        let mut whole =
            samples.iter().rev().filter(|one| one.pid == pid && one.counters.is_whole());
        Ok(whole.next().map(|one| one.counters.clone()))
    }

    /// For how long nothing has answered.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn silence(&self) -> Result<Duration> {
        let samples = self.samples.lock().map_err(|_poison| anyhow!("the probe panicked"))?;
        let last = samples.last().map_or(Duration::ZERO, |sample| sample.at);
        let answered = samples.iter().rev().find(|sample| sample.metrics.is_some());
        Ok(last.saturating_sub(answered.map_or(Duration::ZERO, |sample| sample.at)))
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn look(namespace: &std::path::Path, process: i32, begin: Instant) -> Sample {
    let at = begin.elapsed();
    let ask = |path: &str| {
        let asked = Instant::now();
        let answer = get_within(namespace, ADDRESS, path, PATIENCE).ok();
        (answer, asked.elapsed())
    };
    let (page, metrics) = ask("/metrics");
    let (health, took) = ask("/healthz");
    let words = health.map(|(_, words)| words);
    let stands = words.as_ref().is_none_or(|words| words.starts_with(STANDS_STILL));
    let counters = page.as_ref().and_then(|(_, page)| Counters::of_page(page).ok());
    Sample {
        at,
        metrics: page.is_some().then_some(metrics),
        health: words.is_some().then_some(took),
        words: words.unwrap_or_default(),
        pid: process,
        place: stands.then(|| place(process)),
        memory: memory(process).unwrap_or_default(),
        counters: counters.unwrap_or_default(),
    }
}

/// The functions of the kernel that the main thread is in, the innermost first; or its state.
fn place(process: i32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{process}/task/{process}/{name}"));
    let stack = read("stack").unwrap_or_default();
    let name = |line: &str| line.split(' ').nth(1)?.split('+').next().map(str::to_owned);
    let names: Vec<_> = stack.lines().filter_map(name).take(6).collect();
    if names.is_empty() {
        let status = read("status").unwrap_or_default();
        let state = status.lines().find_map(|line| line.strip_prefix("State:"));
        return state.unwrap_or("no state").trim().to_owned();
    }
    names.join(" < ")
}

/// Resident memory, KiB.
fn memory(process: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
