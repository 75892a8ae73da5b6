//! What only the kernel under the guest tests knows: its series, its functions and who hooks them,
//! the eBPF programs that are loaded, how often a function is called, and sysctls of the whole
//! system.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use tests::namespace::Namespace;

/// The kernel describes the types of conntrack here, where it does.
const MODULE_BTF: &str = "/sys/kernel/btf/nf_conntrack";
const TRACING: &str = "/sys/kernel/tracing";

/// Whether the kernel describes the types of its modules, as eBPF capture needs it. Debian's does
/// from 6.1 on.
pub(crate) fn has_module_btf() -> bool {
    Path::new(MODULE_BTF).exists()
}

/// The first two numbers of its release, such as `6.12`.
pub(crate) fn series() -> Result<String> {
    let release = uname()?.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']);
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return Ok(release);
    };
    Ok(format!("{major}.{minor}"))
}

/// The series as `--kernel` names it: `6.12`, or `6.1-rt` for a PREEMPT_RT kernel.
pub(crate) fn series_and_locks() -> Result<String> {
    Ok(series()? + if is_preempt_rt()? { "-rt" } else { "" })
}

/// Whether it is a PREEMPT_RT kernel, whose softirqs run in threads.
pub(crate) fn is_preempt_rt() -> Result<bool> {
    Ok(uname()?.version().to_string_lossy().contains("PREEMPT_RT"))
}

/// The eBPF programs that are loaded, names by ids. One that goes while it is looked at is left
/// out; whoever waits for none to be left must have seen some before.
pub(crate) fn programs() -> BTreeMap<u32, String> {
    let known = loaded_programs().filter_map(Result::ok);
    known.map(|info| (info.id(), info.name_as_str().unwrap_or_default().to_owned())).collect()
}

/// The functions that somebody hooks now, by kprobes or by ftrace, which fentry uses as well.
pub(crate) fn hooked() -> Result<BTreeSet<String>> {
    // ADDRESS KIND FUNCTION+OFFSET MODULE, and: FUNCTION [MODULE] (NUMBER) FLAGS
    let lists = [("/sys/kernel/debug/kprobes/list", 2), ("enabled_functions", 0)];
    let mut functions = BTreeSet::new();
    for (file, column) in lists {
        let file = Path::new(TRACING).join(file);
        let list = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let words = list.lines().filter_map(|line| line.split_whitespace().nth(column));
        functions.extend(words.map(|word| word.split('+').next().unwrap_or(word).to_owned()));
    }
    Ok(functions)
}

/// Whether the kernel has a function of this name.
pub(crate) fn has_function(name: &str) -> Result<bool> {
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    Ok(symbols.lines().any(|line| line.split_whitespace().nth(2) == Some(name)))
}

/// Whether its kprobes on conntrack's functions can miss anything. A handler runs with preemption
/// disabled. On PREEMPT_RT no packet is received meanwhile, as softirqs run in threads
/// (kernel/softirq.c, 6.1).
pub(crate) fn may_miss_kprobes() -> Result<bool> {
    Ok(!is_preempt_rt()?)
}

/// Whether it counts what its kprobes miss: from 6.7 on.
pub(crate) fn counts_missed_kprobes() -> Result<bool> {
    let series = series()?;
    let (major, minor) = series.split_once('.').context("no series")?;
    Ok((major.parse::<u32>()?, minor.parse::<u32>()?) >= (6, 7))
}

/// Has what arrives at a device of a namespace received by these processors, a bit for each,
/// whichever sent it (`Documentation/networking/scaling.rst`, RPS).
pub(crate) fn receive_on(namespace: &Namespace, device: &str, processors: u32) -> Result<()> {
    let file = format!("/sys/class/net/{device}/queues/rx-0/rps_cpus");
    namespace.enter(|| {
        // A sysfs shows the devices of the namespace in which it was mounted.
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        fs::write(&file, format!("{processors:x}")).context(file)
    })
}

/// Keeps the current thread on one processor.
pub(crate) fn stay_on(processor: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &only).with_context(|| format!("processor {processor}"))
}

/// All kprobes of the system are off while this lives.
#[derive(Debug)]
pub(crate) struct KprobesOff(());

impl KprobesOff {
    const SWITCH: &str = "/sys/kernel/debug/kprobes/enabled";

    pub(crate) fn now() -> Result<Self> {
        fs::write(Self::SWITCH, "0").context(Self::SWITCH)?;
        Ok(Self(()))
    }
}

impl Drop for KprobesOff {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, "1");
    }
}

/// Probes of ftrace on a function, one beside the other, so that the kernel is long in their
/// handlers whenever it is called. They go with this value.
#[derive(Debug)]
pub(crate) struct SlowProbes(usize);

impl SlowProbes {
    const GROUP: &str = "flowlog_slow";

    pub(crate) fn new(function: &str, count: usize) -> Result<Self> {
        let mut probes = Self(0);
        while probes.0 < count {
            append("kprobe_events", &format!("p:{}/slow{} {function}", Self::GROUP, probes.0))?;
            probes.0 += 1;
        }
        probes.switch("1")?;
        Ok(probes)
    }

    fn switch(&self, on: &str) -> Result<()> {
        let file = Path::new(TRACING).join("events").join(Self::GROUP).join("enable");
        fs::write(&file, on).with_context(|| file.display().to_string())
    }
}

impl Drop for SlowProbes {
    fn drop(&mut self) {
        let _ = self.switch("0");
        for number in 0..self.0 {
            let _ = append("kprobe_events", &format!("-:{}/slow{number}", Self::GROUP));
        }
    }
}

/// Counts the calls of a function, by a probe of ftrace that goes with this value.
#[derive(Debug)]
pub(crate) struct CallCounter(());

impl CallCounter {
    const EVENT: &str = "flowlog_test/calls";

    /// Counts from now on.
    pub(crate) fn new(function: &str) -> Result<Self> {
        append("kprobe_events", &format!("p:{} {function}", Self::EVENT))?;
        let counter = Self(());
        counter.switch("1")?;
        Ok(counter)
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Result<u64> {
        let profile = fs::read_to_string(Path::new(TRACING).join("kprobe_profile"))?;
        let words = profile.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut ours = words.filter(|words| words.first() == Some(&"calls"));
        ours.next().and_then(|words| words.get(1)?.parse().ok()).context("no such event")
    }

    fn switch(&self, on: &str) -> Result<()> {
        let file = Path::new(TRACING).join("events").join(Self::EVENT).join("enable");
        fs::write(&file, on).with_context(|| file.display().to_string())
    }
}

impl Drop for CallCounter {
    fn drop(&mut self) {
        let _ = self.switch("0");
        let _ = append("kprobe_events", &format!("-:{}", Self::EVENT));
    }
}

/// Writes to a list of tracefs, which truncation would empty.
fn append(file: &str, line: &str) -> Result<()> {
    let path = Path::new(TRACING).join(file);
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.write_all(line.as_bytes()).with_context(|| format!("{line:?} to {}", path.display()))
}

/// A sysctl of the whole system that has its former value again when this is dropped.
#[derive(Debug)]
pub(crate) struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets a sysctl such as `net/netfilter/nf_conntrack_max`.
    pub(crate) fn set(key: &str, value: u32) -> Result<Self> {
        let path = Path::new("/proc/sys").join(key);
        let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let sysctl = Self { path, before };
        fs::write(&sysctl.path, value.to_string()).with_context(|| format!("{key}={value}"))?;
        let set = fs::read_to_string(&sysctl.path)?;
        ensure!(set.trim() == value.to_string(), "{key} is {}, not {value}", set.trim());
        Ok(sysctl)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, self.before.trim());
    }
}
