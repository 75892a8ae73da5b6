//! IPFIX, over TCP, to a collector that keeps the bytes: over UDP nobody would know what was lost.

use anyhow::{Context as _, Result};

use super::{Case, MANY, Rate, Sink};
use crate::collector::{TcpCollector, records};
use crate::daemon::{Daemon, Finished, Program};
use crate::lab::SingleNs;

/// Measures ulogd2 and flowlog.
///
/// # Errors
/// One does not run, or records are missing.
pub fn measure() -> Result<Vec<Rate>> {
    let cases = [("ulogd2, TCP", Program::Ulogd), ("flowlog, TCP", Program::Flowlog)];
    let measured = cases.into_iter().map(|(name, program)| {
        let single = SingleNs::new()?;
        let collector = Some(TcpCollector::start(single.namespace())?);
        let case = Case { name, program, flows: MANY, single: &single };
        case.measure(&mut Collector { collector }).context(name)
    });
    measured.collect()
}

/// The collector, until it is read.
struct Collector {
    collector: Option<TcpCollector>,
}

impl Sink for Collector {
    fn stages(&self) -> &'static str {
        "sink1:IPFIX"
    }

    fn keys(&self) -> String {
        "oid=1\nhost=\"127.0.0.1\"\nproto=\"tcp\"\nmtu=1400".to_owned()
    }

    /// Bytes.
    fn arrived(&self, _daemon: &Daemon) -> Result<u64> {
        Ok(self.collector.as_ref().context("it was read")?.received() as u64)
    }

    fn sees_all(&self) -> bool {
        true
    }

    /// Bytes do not tell.
    fn is_all(&self, _arrived: u64, _rows: u32) -> bool {
        false
    }

    fn result(&mut self, _finished: &Finished) -> Result<(u64, u64)> {
        let (mut rows, mut bytes) = (0, 0);
        for stream in self.collector.take().context("it was read")?.stop()? {
            rows += records(&stream)?;
            bytes += stream.len() as u64;
        }
        Ok((rows, bytes))
    }
}
