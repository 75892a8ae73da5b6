//! What Prometheus's own client libraries say of every process, by the same names, read from
//! /proc. What cannot be read is left out.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

use super::family::Family;
use super::page::Page;

/// Adds the metrics of this process.
pub fn add(page: &mut Page) {
    if let Some(Usage { cpu, started, memory }) = Usage::of_this_process() {
        page.add(Family::ProcessCpu, &[], cpu);
        page.add(Family::ProcessMemory, &[], memory);
        if let Some(boot) = fs::read_to_string("/proc/stat").ok().and_then(|stat| boot(&stat)) {
            page.add(Family::ProcessStartTime, &[], boot as f64 + started);
        }
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is that of the directory itself.
        page.add(Family::ProcessFiles, &[], files.count().saturating_sub(1));
    }
    let limits = fs::read_to_string("/proc/self/limits").ok();
    if let Some(limit) = limits.and_then(|limits| most_files(&limits)) {
        page.add(Family::ProcessFilesLimit, &[], limit);
    }
}

/// What a process has used.
#[derive(Debug, PartialEq)]
struct Usage {
    /// Seconds of processor time.
    cpu: f64,
    /// When it started, seconds since the boot.
    started: f64,
    /// Bytes of resident memory.
    memory: u64,
}

impl Usage {
    fn of_this_process() -> Option<Self> {
        let positive = |variable| sysconf(variable).ok().flatten().filter(|value| *value > 0);
        let ticks = positive(SysconfVar::CLK_TCK)? as f64;
        let page = u64::try_from(positive(SysconfVar::PAGE_SIZE)?).ok()?;
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?, ticks, page)
    }

    /// Reads /proc/PID/stat, see proc_pid_stat(5).
    fn parse(stat: &str, ticks: f64, page: u64) -> Option<Self> {
        // The name of the program may hold anything, also blanks and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The state, which is field 3 of the manual page, is the first of these.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        let cpu = (number(14)? + number(15)?) as f64 / ticks;
        Some(Self { cpu, started: number(22)? as f64 / ticks, memory: number(24)? * page })
    }
}

/// When the host was started, seconds since the epoch, as /proc/stat says.
fn boot(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of open files, as /proc/PID/limits says; absent: unlimited.
fn most_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_parentheses_shifts_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12300 \
                    1000000 200 18446744073709551615";
        let usage = Usage { cpu: 3.0, started: 123.0, memory: 819_200 };
        assert_eq!(Usage::parse(stat, 100.0, 4096), Some(usage));
        assert_eq!(Usage::parse("7 (a", 100.0, 4096), None);
        let limits = "Limit    Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        assert_eq!(most_files(limits), Some(1024));
        assert_eq!(most_files("Max open files  unlimited  unlimited  files\n"), None);
        assert_eq!(boot("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
    }

    #[test]
    fn this_process_has_every_metric() {
        let mut page = Page::default();
        add(&mut page);
        let page = page.finish();
        let value = |name: &str| -> f64 {
            let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit_once(' ')).unwrap().1.parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0, "{page}");
        assert!(value("process_open_fds") >= 3.0, "{page}");
        assert!(value("process_max_fds") > value("process_open_fds"), "{page}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{page}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
