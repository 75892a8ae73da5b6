//! `flowlog audit`: a mass of flows shows no difference between eBPF and netlink, and differences
//! that were made are found to the last.

use std::ffi::OsString;
use std::fs::{self, File};
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::burst::udp_burst;
use tests::daemon::Program;
use tests::lab::{Lab, SingleNs};
use tests::mass::mass_of;
use tests::namespace::Namespace;
use tests::process::Guarded;
use tests::{poll, traffic};

use super::attach::InKernel;
use super::by_ebpf;
use super::kernel::Sysctl;

/// Flows that are made before what was told of them is waited for: it fits into both buffers.
const CHUNK: u32 = 2_500;
/// Bytes of netlink's buffer.
const LARGE: &str = "67108864";
/// What is counted by kind; of expectations nothing is known to be due.
const KINDS: [&str; 3] = ["new", "update", "destroy"];

/// An audit that runs.
pub(super) struct Audit<'n> {
    process: Guarded,
    namespace: &'n Namespace,
    dir: TempDir,
}

/// What it has said.
pub(super) struct Report {
    code: Option<i32>,
    json: Value,
    stderr: String,
}

impl<'n> Audit<'n> {
    /// Starts it and waits until both sources are listened to.
    pub(super) fn start(namespace: &'n Namespace, args: &[&str], spoil: &str) -> Result<Self> {
        let before = InKernel::look()?;
        let dir = tempfile::tempdir()?;
        let mut command = std::process::Command::new(Program::Flowlog.path()?);
        command.args(["audit", "--json", "--netns", namespace.name()]).args(args);
        command.stdout(File::create(dir.path().join("stdout"))?);
        command.stderr(File::create(dir.path().join("stderr"))?);
        if !spoil.is_empty() {
            command.env("FLOWLOG_SPOIL", OsString::from(spoil));
        }
        let process = Guarded::spawn(&mut command)?;
        let mut audit = Self { process, namespace, dir };
        poll::until("the audit to listen", || audit.listens())?;
        audit.wait_attached(&before)?;
        Ok(audit)
    }

    fn listens(&mut self) -> Result<Option<()>> {
        if let Some(code) = self.process.ended()? {
            bail!("the audit ended with {code:?}\n{}", self.text("stderr")?);
        }
        let sockets = self.process.netlink_sockets(self.namespace)?;
        Ok(sockets.iter().any(|socket| socket.groups != 0).then_some(()))
    }

    /// It tells nobody that it has attached all its programs: nothing is added any more.
    fn wait_attached(&self, before: &InKernel) -> Result<()> {
        let mut last = (InKernel::look()?, Instant::now());
        poll::until("eBPF programs to be attached", || {
            let now = InKernel::look()?;
            if now != last.0 {
                last = (now, Instant::now());
            }
            let (programs, functions) = last.0.beyond(before);
            let there = programs.len() > 5 && functions.len() > 5;
            Ok((there && last.1.elapsed() > Duration::from_secs(1)).then_some(()))
        })
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join(name))?)
    }

    /// Waits until netlink's messages have been read.
    fn wait_drained(&self) -> Result<()> {
        poll::until("the messages to be read", || {
            let sockets = self.process.netlink_sockets(self.namespace)?;
            Ok(sockets.iter().all(|socket| socket.queued == 0).then_some(()))
        })
    }

    /// Ends it before its time.
    fn end(self, signal: Signal) -> Result<Report> {
        self.process.signal(signal)?;
        self.wait()
    }

    fn wait(mut self) -> Result<Report> {
        let code = self.process.wait()?;
        let (stdout, stderr) = (self.text("stdout")?, self.text("stderr")?);
        let json = serde_json::from_str(&stdout)
            .with_context(|| format!("exit {code:?}, no report:\n{stdout}\n{stderr}"))?;
        Ok(Report { code, json, stderr })
    }
}

impl Report {
    /// A number of the report, by the names that lead to it.
    fn number(&self, names: &[&str]) -> Result<u64> {
        let value = names.iter().fold(&self.json, |value, name| &value[name]);
        value.as_u64().with_context(|| format!("no {names:?} in {:#}", self.json))
    }

    fn count(&self, kind: &str, name: &str) -> Result<u64> {
        self.number(&["events", kind, name])
    }

    fn ensure(&self, kind: &str, name: &str, expected: u64) -> Result<()> {
        let found = self.count(kind, name)?;
        ensure!(found == expected, "{kind} {name} is {found}, not {expected}: {self}");
        Ok(())
    }

    /// Nothing was lost, and all that was due was delivered and told by both in the same words.
    fn ensure_no_difference(&self) -> Result<()> {
        ensure!(self.code == Some(0), "exit {:?}: {self}", self.code);
        ensure!(self.number(&["unexplained"])? == 0, "unexplained: {self}");
        let losses = self.json["losses"].as_object().context("no losses")?;
        ensure!(losses.values().all(|count| count == 0), "something was lost: {self}");
        for name in ["differing", "only_ebpf", "only_netlink", "unchecked", "unseen"] {
            self.ensure("sum", name, 0)?;
        }
        for kind in KINDS {
            self.ensure(kind, "due", self.count(kind, "netlink")?)?;
        }
        Ok(())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}\n{}", self.json, self.stderr)
    }
}

/// Makes a mass of flows, which end in every way there is: by packets, by their timeouts, and all
/// at once.
fn paced(audit: &Audit<'_>, lab: &Lab, numbers: Range<u32>) -> Result<()> {
    for (chunk, first) in numbers.clone().step_by(CHUNK as usize).enumerate() {
        mass_of(lab, first..numbers.end.min(first + CHUNK))?;
        if chunk % 4 == 3 {
            lab.router().flush_conntrack()?;
        }
        audit.wait_drained()?;
    }
    lab.router().expire_conntrack()?;
    audit.wait_drained()
}

fn mass_lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.add_mass_rules()?;
    Ok(lab)
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn no_difference_by_kprobes() -> Result<()> {
    by_ebpf(|| no_difference("kprobe", 100_000, Signal::SIGTERM))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn no_difference_by_fentry() -> Result<()> {
    by_ebpf(|| no_difference("fentry", 20_000, Signal::SIGINT))
}

/// kprobes have a gap: the kernel passes programs over, and counts them (docs/limitations.md). What
/// is shown is that there is no difference without that, so it is tried again.
fn no_difference(attach: &str, flows: u32, signal: Signal) -> Result<()> {
    const TRIES: u32 = 3;
    for _ in 1..TRIES {
        let audited = audited(attach, flows, signal)?;
        if audited.report.number(&["losses", "ebpf.missed"])? == 0 {
            return audited.ensure_no_difference(attach, flows);
        }
    }
    audited(attach, flows, signal)?.ensure_no_difference(attach, flows)
}

/// An audit of a mass.
struct Audited {
    report: Report,
    /// Flows made besides the mass.
    mixed: u64,
    netns: u64,
}

fn audited(attach: &str, flows: u32, signal: Signal) -> Result<Audited> {
    let _max = Sysctl::set("net/netfilter/nf_conntrack_max", 400_000)?;
    let lab = mass_lab()?;
    let args = ["--for", "10m", "--attach", attach, "--netlink-buffer-size", LARGE];
    let audit = Audit::start(lab.router(), &args, "")?;
    let mixed = traffic::mix(&lab, 30_000)?.len() as u64;
    paced(&audit, &lab, 0..flows)?;
    let report = audit.end(signal)?;
    Ok(Audited { report, mixed, netns: lab.router().inode()? })
}

impl Audited {
    fn ensure_no_difference(&self, attach: &str, flows: u32) -> Result<()> {
        let Self { report, mixed, netns } = self;
        report.ensure_no_difference()?;
        let made = u64::from(flows) + mixed;
        for kind in ["new", "destroy"] {
            report.ensure(kind, "matched", made)?;
        }
        // Two thirds of the flows have answers, and there is FTP.
        let updates = report.count("update", "matched")?;
        ensure!(updates > made / 2, "{updates} updates of {made} flows: {report}");
        ensure!(report.count("expect", "matched")? > 0, "no expectation: {report}");
        ensure!(report.json["method"] == attach, "{report}");
        ensure!(report.json["netns"] == *netns, "{report}");
        ensure!(
            report.number(&["lag_us", "median"])? <= report.number(&["lag_us", "max"])?,
            "{report}"
        );
        let seconds = report.json["seconds"].as_f64().context("no seconds")?;
        ensure!(seconds > 0. && seconds < 600., "{seconds} s: {report}");
        // Nobody looks at how far it is.
        ensure!(!report.stderr.contains(['\r', '%']), "not for a file: {:?}", report.stderr);
        Ok(())
    }
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn it_ends_by_itself() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let report = Audit::start(single.namespace(), &["--for", "6s"], "")?.wait()?;
        report.ensure_no_difference()?;
        report.ensure("sum", "matched", 0)?;
        ensure!(report.json["lag_us"].is_null(), "{report}");
        let seconds = report.json["seconds"].as_f64().context("no seconds")?;
        ensure!((6. ..30.).contains(&seconds), "{seconds} s: {report}");
        Ok(())
    })
}

/// What happens in other namespaces is counted as due there, and is no finding.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn others_are_not_compared() -> Result<()> {
    const FLOWS: u32 = 200;
    by_ebpf(|| {
        let (own, other) = (SingleNs::new()?, SingleNs::new()?);
        let audit = Audit::start(own.namespace(), &["--for", "10m"], "")?;
        udp_burst(&own, 4000, 0, FLOWS)?;
        udp_burst(&other, 4000, 0, 2 * FLOWS)?;
        own.namespace().flush_conntrack()?;
        let elsewhere = other.namespace().inode()?.to_string();
        // With flows that live.
        drop(other);
        audit.wait_drained()?;
        let report = audit.end(Signal::SIGTERM)?;
        report.ensure_no_difference()?;
        for kind in ["new", "destroy"] {
            report.ensure(kind, "matched", FLOWS.into())?;
        }
        let due = report.number(&["due", &elsewhere, "new"])?;
        ensure!(due == u64::from(2 * FLOWS), "{due} due elsewhere: {report}");
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn dropped_events_are_found() -> Result<()> {
    by_ebpf(|| {
        let (report, spoilt) = spoilt("drop", "dropped")?;
        for name in ["only_netlink", "only_netlink_unexplained"] {
            report.ensure("sum", name, spoilt)?;
        }
        for name in ["differing", "only_ebpf"] {
            report.ensure("sum", name, 0)?;
        }
        // Each with its tuple.
        let lost = report.json["lost"].as_array().context("no lost")?;
        let told = |event: &&Value| event["by"] == "ebpf" && event["orig"]["src"].is_string();
        ensure!(lost.iter().filter(told).count() as u64 == spoilt, "lost: {report}");
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn altered_events_are_found() -> Result<()> {
    by_ebpf(|| {
        let (report, spoilt) = spoilt("alter", "altered")?;
        report.ensure("sum", "differing", spoilt)?;
        for name in ["only_netlink", "only_ebpf"] {
            report.ensure("sum", name, 0)?;
        }
        let fields = report.json["fields"].as_object().context("no fields")?;
        let all = |count: &Value| count.as_u64() == Some(spoilt);
        ensure!(fields.values().any(all), "no field differs in each: {report}");
        Ok(())
    })
}

/// An audit whose eBPF events are spoilt, each thousandth; and how many were.
fn spoilt(how: &str, done: &str) -> Result<(Report, u64)> {
    let lab = mass_lab()?;
    let args = ["--for", "10m", "--netlink-buffer-size", LARGE];
    let audit = Audit::start(lab.router(), &args, &format!("{how}:1000"))?;
    paced(&audit, &lab, 0..5_000)?;
    let report = audit.end(Signal::SIGTERM)?;
    let words = format!("FLOWLOG_SPOIL has {done} ");
    let told = report.stderr.split(&words).nth(1).and_then(|rest| rest.split(' ').next());
    let spoilt = told.with_context(|| format!("no {words:?}: {report}"))?.parse()?;
    // A beginning and an end of each flow, and more.
    ensure!(spoilt >= 10, "{spoilt} {done}: {report}");
    ensure!(report.code == Some(1), "exit {:?}: {report}", report.code);
    ensure!(report.number(&["unexplained"])? == spoilt, "not {spoilt} unexplained: {report}");
    Ok((report, spoilt))
}
