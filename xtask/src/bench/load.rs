//! One run: a fresh namespace, its listeners (none, one, or two side by side), as many new flows
//! as one core makes, and a flush that ends them all at once.

use std::time::Duration;

use ::tests::burst::{Burst, udp_burst};
use ::tests::lab::SingleNs;
use anyhow::Result;

use super::listener::{Buffers, Listener, Listening, Outcome, Programs};

/// Source port of the load.
pub(super) const PORT: u16 = 20_000;

/// Who listens, with which buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Case {
    /// All at the same time; empty for the load alone.
    pub(super) listeners: Vec<Listener>,
    /// The same for all of them.
    pub(super) buffers: Buffers,
}

impl Case {
    /// All that are measured, in the order of the table.
    pub(super) fn all() -> Vec<Self> {
        let flowlog = |hash| Listener::Flowlog { hash };
        let ulogd = |hash| Listener::Ulogd { hash };
        let mut cases = vec![Self { listeners: Vec::new(), buffers: Buffers::Default }];
        let pairs = [flowlog(false), ulogd(false), flowlog(true), ulogd(true)];
        // The buffer of conntrack cannot be set.
        for (buffers, others) in
            [(Buffers::Default, &[Listener::Conntrack][..]), (Buffers::Large, &[])]
        {
            let alone = pairs.iter().chain(others);
            cases.extend(alone.map(|&listener| Self { listeners: vec![listener], buffers }));
        }
        let both = vec![flowlog(false), ulogd(false)];
        cases.push(Self { listeners: both, buffers: Buffers::Large });
        cases
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        let names: Vec<_> = self.listeners.iter().map(|listener| listener.name()).collect();
        match names.as_slice() {
            [] => "nobody listens".to_owned(),
            names => format!("{} ({} buffers)", names.join(" beside "), self.buffers.name()),
        }
    }
}

/// What one run gave.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Time that the flows took to be made.
    pub(super) generator: Duration,
    /// Of each listener.
    pub(super) outcomes: Vec<Outcome>,
}

impl Run {
    /// For messages.
    pub(super) fn words(&self) -> String {
        let mut words = format!("flows made in {:.2} s", self.generator.as_secs_f64());
        for outcome in &self.outcomes {
            let cpu = outcome.cpu.as_millis();
            words.push_str(&format!("; {} lines, CPU {cpu} ms", outcome.lines));
        }
        words
    }
}

/// A namespace for the load, whose flows do not end by themselves while it runs.
///
/// # Errors
/// It cannot be made.
pub(super) fn place() -> Result<SingleNs> {
    let single = SingleNs::new()?;
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 600)])?;
    Ok(single)
}

/// Runs a case once.
///
/// # Errors
/// A listener does not run, or the flows cannot be made.
pub(super) fn run(programs: &Programs, case: &Case, flows: u32) -> Result<Run> {
    let single = place()?;
    let namespace = single.namespace();
    let start = |&listener| Listening::start(programs, listener, case.buffers, namespace);
    let listening = case.listeners.iter().map(start).collect::<Result<Vec<_>>>()?;
    let Burst { elapsed, .. } = udp_burst(&single, PORT, 0, flows)?;
    namespace.flush_conntrack()?;
    for one in &listening {
        one.drain()?;
    }
    let outcomes = listening.into_iter().map(Listening::finish).collect::<Result<Vec<_>>>()?;
    Ok(Run { generator: elapsed, outcomes })
}
