//! What a live flow costs a listener that keeps it (`hash_enable=1`): its resident memory with
//! many of them less that at its start. The flows come at a pace at which nothing is lost.

use ::tests::burst::udp_burst;
use anyhow::{Context as _, Result, ensure};

use super::listener::{Buffers, Listener, Listening, Programs};
use super::load::{PORT, place};
use crate::interrupt;
use crate::say::say;

/// Flows made at once: their events fit into any listener's large buffer.
const PORTION: u32 = 10_000;

/// What one listener takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct PerFlow {
    /// Which.
    pub(super) listener: Listener,
    /// Resident at its start, KiB.
    pub(super) before: u64,
    /// Resident with all flows, KiB.
    pub(super) after: u64,
    /// Bytes for each flow.
    pub(super) bytes: f64,
}

/// Measures flowlog and ulogd2.
///
/// # Errors
/// One does not run, or loses events, so that its flows are not known.
pub(super) fn measure(programs: &Programs, flows: u32) -> Result<Vec<PerFlow>> {
    let listeners = [Listener::Flowlog { hash: true }, Listener::Ulogd { hash: true }];
    listeners
        .into_iter()
        .map(|listener| {
            interrupt::check()?;
            let measured = of(programs, listener, flows)
                .with_context(|| format!("measuring the memory of {}", listener.name()))?;
            say!("memory: {}: {:.0} bytes per live flow", listener.name(), measured.bytes);
            Ok(measured)
        })
        .collect()
}

fn of(programs: &Programs, listener: Listener, flows: u32) -> Result<PerFlow> {
    let single = place()?;
    let listening = Listening::start(programs, listener, Buffers::Large, single.namespace())?;
    let before = listening.memory()?;
    let mut made = 0;
    while made < flows {
        let portion = PORTION.min(flows - made);
        udp_burst(&single, PORT, made, portion)?;
        listening.read()?;
        made += portion;
    }
    listening.drain()?;
    let after = listening.memory()?;
    let lost = listening.dropped()?;
    ensure!(lost == 0, "{lost} events were lost, so the number of its flows is not known");
    let bytes = after.saturating_sub(before) as f64 * 1024.0 / f64::from(flows);
    Ok(PerFlow { listener, before, after, bytes })
}
