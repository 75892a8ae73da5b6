//! The flows of the mix into each sink, and what a flow costs there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::tests::lab::SingleNs;
use anyhow::{Context as _, Result, ensure};

use super::Programs;
use super::far::{ALL, Far, Place, Sink};
use crate::bench::host::Host;
use crate::interrupt;
use crate::say::say;

/// Whose flows.
const SEED: &str = "1";
/// As fast as they go.
const RATE: &str = "0";

/// What a sink has done, and what it costs.
pub(super) struct Row {
    /// Its name.
    pub(super) name: &'static str,
    flows: u32,
    /// Until the far side had everything.
    time: Duration,
    /// Processor time of flowlog, without that of making the flows.
    cpu: Duration,
    /// Of the server.
    server: Option<Duration>,
    wire: Option<u64>,
    disk: Option<u64>,
}

impl Row {
    /// The first lines of a table of them.
    pub(super) const HEAD: &'static str = "| sink | flows per second | CPU µs per flow | of the \
        server | bytes per flow on the wire | on disk |\n|---|--:|--:|--:|--:|--:|\n";

    /// A line of that table.
    pub(super) fn line(&self) -> String {
        let flows = f64::from(self.flows);
        let each = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e6 / flows);
        let bytes = |bytes: u64| format!("{:.1}", bytes as f64 / flows);
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "–".to_owned());
        format!(
            "| {} | {:.0} | {} | {} | {} | {} |\n",
            self.name,
            flows / self.time.as_secs_f64(),
            each(self.cpu),
            or_none(self.server.map(each)),
            or_none(self.wire.map(bytes)),
            or_none(self.disk.map(bytes)),
        )
    }

    /// Bytes of a flow on disk.
    pub(super) fn disk_bytes(&self) -> Option<f64> {
        Some(self.disk? as f64 / f64::from(self.flows))
    }

    /// Flows that a core would take in a second.
    pub(super) fn per_core(&self) -> f64 {
        f64::from(self.flows) / self.cpu.as_secs_f64()
    }
}

/// Each sink in turn.
///
/// # Errors
/// One cannot be run, or flows are missing.
pub(super) fn all(programs: &Programs, flows: u32) -> Result<Vec<Row>> {
    let row = |sink: &Sink| {
        interrupt::check()?;
        say!("{flows} flows: {}", sink.name);
        one(programs, sink, flows).with_context(|| sink.name)
    };
    ALL.iter().map(row).collect()
}

fn one(programs: &Programs, sink: &Sink, flows: u32) -> Result<Row> {
    let single = SingleNs::untracked()?;
    let dir = tempfile::Builder::new().prefix("flowlog-sinks-").tempdir()?;
    let place = Place { single: &single, dir: dir.path(), programs };
    let mut far = (sink.start)(&place)?;
    let config = config(&place, sink, &*far)?;
    // What others have written waits for the disk no longer.
    nix::unistd::sync();
    let (bytes, server) = (single.namespace().loopback_bytes()?, far.cpu_time()?);
    let totals = push(&place, &config, flows)?;
    let server = far.cpu_time()?.zip(server).map(|(after, before)| after - before);
    let wire = single.namespace().loopback_bytes()? - bytes;
    let there = far.flows()?;
    ensure!(there == u64::from(flows), "{there} flows are there of {flows}: {totals:?}");
    let time = |name: &str| -> Result<Duration> {
        let time = totals.get(&format!("host.{name}")).with_context(|| format!("no {name}"))?;
        Ok(Duration::from_millis(*time))
    };
    Ok(Row {
        name: sink.name,
        flows,
        // A file is there when it is closed.
        time: time(if sink.ships { "arrived" } else { "closed" })?,
        cpu: time("cpu")?.saturating_sub(time("mix")?),
        server,
        wire: sink.ships.then_some(wire),
        disk: far.disk()?,
    })
}

fn config(place: &Place<'_>, sink: &Sink, far: &dyn Far) -> Result<PathBuf> {
    let file = place.dir.join("flowlog.conf");
    let spool = place.dir.join("spool");
    let text = format!(
        "[global]\nspool_dir=\"{}\"\nstack=ct1:NFCT,{}\n[ct1]\nhash_enable=0\n[sink1]\n{}\n",
        spool.display(),
        sink.stages,
        far.keys()
    );
    fs::write(&file, text)?;
    Ok(file)
}

/// Runs the host, and returns its totals.
fn push(place: &Place<'_>, config: &Path, flows: u32) -> Result<BTreeMap<String, u64>> {
    let mut command = place.single.namespace().command(&place.programs.host);
    command.arg(config).args([SEED, &flows.to_string(), RATE]);
    let mut host = Host::start(&mut command, place.dir)?;
    host.wait_long()?;
    host.totals()
}
