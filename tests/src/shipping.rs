//! Faults of the far side, for every sink that ships: whatever goes away, each flow arrives, and
//! what a person has to mend is said, while nothing is lost and other stacks go on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::burst::{destination, uncounted_burst};
use crate::daemon::{Daemon, Launch, Program, ROOMY};
use crate::lab::SingleNs;
use crate::lines::{ensure_equal, multiset};
use crate::metrics::{self, ADDRESS, scrape};
use crate::poll;

/// A server that records are shipped to.
pub trait FarSide {
    /// The plugin for it.
    fn plugin(&self) -> &'static str;
    /// The keys of its section, with which everything arrives.
    fn keys(&self) -> String;
    /// Stops it.
    ///
    /// # Errors
    /// It does not end.
    fn stop(&mut self) -> Result<()>;
    /// Starts it again.
    ///
    /// # Errors
    /// It does not start.
    fn start(&mut self) -> Result<()>;
    /// The records of flows that it has: record id, and destination as `ADDRESS:PORT`. Some may
    /// be there twice.
    ///
    /// # Errors
    /// It cannot be asked.
    fn records(&self) -> Result<Vec<(String, String)>>;
}

/// How long records may take to arrive after everything was mended.
pub const ARRIVAL: Duration = Duration::from_secs(120);
/// How long the far side stays away.
const AWAY: Duration = Duration::from_secs(5);
/// When it is reported at the latest, and some for a busy machine.
const NOTICED: Duration = Duration::from_secs(15);
/// Flows made at once: a socket's queue has room for them.
const PART: u32 = 5000;

/// Where the spool is, and the log of another stack: what outlives the daemons of a test.
#[derive(Debug)]
pub struct Site<'s> {
    dir: TempDir,
    single: &'s SingleNs,
    made: u32,
}

impl<'s> Site<'s> {
    /// An empty one, for flows of that namespace.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(single: &'s SingleNs) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-spool-").tempdir()?;
        Ok(Self { dir, single, made: 0 })
    }

    /// A file that outlives the daemon.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Flows that were made.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// A configuration with the beginnings of flows for this sink, and for LOGEMU.
    pub fn config(&self, plugin: &str, keys: &str) -> String {
        let dir = self.dir.path().display();
        format!(
            "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics={ADDRESS}\n\
             spool_dir=\"{dir}/spool\"\n\
             stack=ct1:NFCT,ship1:{plugin}\n\
             stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
             [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n{ROOMY}\
             [emu1]\nfile=\"{dir}/flows.log\"\n[ship1]\n{keys}\n"
        )
    }

    /// Starts flowlog with this sink.
    ///
    /// # Errors
    /// It does not start.
    pub fn daemon(&self, plugin: &str, keys: &str) -> Result<Daemon> {
        let text = self.config(plugin, keys);
        Launch::new(Program::Flowlog, self.single.namespace(), &text)?.start()
    }

    /// Makes more flows.
    ///
    /// # Errors
    /// They cannot be sent.
    pub fn make(&mut self, flows: u32) -> Result<()> {
        let end = self.made + flows;
        while self.made < end {
            let part = PART.min(end - self.made);
            uncounted_burst(self.single, 4000, self.made, part)?;
            self.made += part;
        }
        Ok(())
    }

    /// A metric of the sinks that ship, all labels together.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn metric(&self, name: &str) -> Result<u64> {
        Ok(metrics::sum(&scrape(self.single.namespace())?, name, "")? as u64)
    }

    /// Waits until the spool has taken `records` since the start of the daemon.
    ///
    /// # Errors
    /// It does not.
    pub fn wait_spooled(&self, records: u32) -> Result<()> {
        poll::within(ARRIVAL, "records in the spool", || {
            let spooled = self.metric("flowlog_sink_spooled_records_total")?;
            Ok((spooled >= u64::from(records)).then_some(()))
        })
    }

    /// Waits until all in the spool was delivered.
    ///
    /// # Errors
    /// It is not.
    pub fn wait_delivered(&self) -> Result<()> {
        poll::within(ARRIVAL, "an empty spool", || {
            Ok((self.metric("flowlog_sink_spool_records")? == 0).then_some(()))
        })
    }

    /// What `/healthz` says.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn health(&self) -> Result<(String, String)> {
        metrics::get(self.single.namespace(), ADDRESS, "/healthz")
    }

    /// Fails unless the far side has a record of each flow that was made, and of no other. Returns
    /// how many came twice.
    ///
    /// # Errors
    /// One is missing, or strange.
    pub fn ensure_all(&self, far: &impl FarSide) -> Result<usize> {
        let records = far.records()?;
        let mut by_id: BTreeMap<&str, &str> = BTreeMap::new();
        for (id, flow) in &records {
            let other = by_id.insert(id, flow);
            ensure!(other.is_none_or(|other| other == flow), "{id} is {other:?} and {flow}");
        }
        let made = multiset((0..self.made).map(destination));
        ensure_equal(far.plugin(), &made, &multiset(by_id.values()))?;
        Ok(records.len() - by_id.len())
    }
}

/// The far side is away for 5 s under `flows` flows, and when it is back and gets what has waited,
/// the daemon is killed. Returns how many records came twice.
///
/// # Errors
/// A flow is missing.
pub fn survives(single: &SingleNs, far: &mut impl FarSide, flows: u32) -> Result<usize> {
    let mut site = Site::new(single)?;
    let plugin = far.plugin();
    let keys = far.keys();
    let mut daemon = site.daemon(plugin, &keys)?;
    site.make(flows / 5)?;
    poll::until("the first to arrive", || Ok((!far.records()?.is_empty()).then_some(())))?;
    far.stop()?;
    let away = Instant::now();
    while site.made() < flows * 4 / 5 {
        site.make(PART)?;
        sleep(AWAY / (flows * 3 / 5 / PART));
    }
    site.wait_spooled(site.made())?;
    // At once, or where something between answers in its place after 10 s without an answer.
    poll::within(NOTICED, "bad health without a far side", || {
        Ok((!site.health()?.0.contains("200")).then_some(()))
    })?;
    sleep(AWAY.saturating_sub(away.elapsed()));
    far.start()?;
    // While it delivers, unless it was faster.
    let waiting = site.metric("flowlog_sink_spool_records")?;
    poll::within(ARRIVAL, "something to arrive", || {
        Ok((site.metric("flowlog_sink_spool_records")? < waiting.max(1)).then_some(()))
    })?;
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait()?;
    let daemon = site.daemon(plugin, &keys)?;
    let left = flows - site.made();
    site.make(left)?;
    site.wait_spooled(left)?;
    site.wait_delivered()?;
    let (status, said) = site.health()?;
    ensure!(status.contains("200"), "{status}: {said}");
    let finished = daemon.stop()?;
    for loss in ["lost_records", "dropped_records", "refused_records"] {
        let name = format!("{}.{loss}: 0 ", plugin.to_ascii_lowercase());
        ensure!(finished.log.contains(&name), "no {name:?} in\n{}", finished.log);
    }
    site.ensure_all(far)
}

/// With `wrong` keys nothing arrives: the log and `/healthz` say `words`, the other stack goes on.
/// After `mend`, and with `keys` then, everything arrives.
///
/// # Errors
/// It is not so.
pub fn waits_for_a_person(
    single: &SingleNs,
    far: &impl FarSide,
    wrong: &str,
    words: &[&str],
    mend: impl FnOnce() -> Result<()>,
) -> Result<()> {
    const FLOWS: u32 = 500;
    let mut site = Site::new(single)?;
    let daemon = site.daemon(far.plugin(), wrong)?;
    site.make(FLOWS)?;
    for words in words {
        daemon.wait_log(words)?;
    }
    site.wait_spooled(FLOWS)?;
    let (status, said) = site.health()?;
    ensure!(!status.contains("200"), "healthy: {said}");
    let first = words.first().context("no words")?;
    ensure!(said.contains(first), "/healthz does not say {first:?}: {said}");
    ensure!(site.metric("flowlog_sink_spool_records")? == u64::from(FLOWS), "something has left");
    let log = site.path("flows.log");
    poll::until("the other stack", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        Ok((text.lines().count() >= FLOWS as usize).then_some(()))
    })?;
    mend()?;
    daemon.stop()?;
    let daemon = site.daemon(far.plugin(), &far.keys())?;
    site.wait_delivered()?;
    daemon.stop()?;
    site.ensure_all(far)?;
    single.namespace().flush_conntrack()
}
