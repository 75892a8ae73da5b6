//! A namespace within the lab that is removed and made anew while flowlog watches it by its name.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::ledger::Made;
use super::load::{PORT, Timeline};
use crate::burst::{send_each, source};
use crate::lab::SingleNs;
use crate::namespace::Namespace;

/// Flows that are made in a turn, and how often.
const BATCH: u32 = 5;
const TURN: Duration = Duration::from_millis(50);
/// When the new namespace must have been entered: 2 s, a second until a line is in the file, and
/// what it takes to see it.
const ENTERED: Duration = Duration::from_secs(5);

/// The namespace and its flows.
#[derive(Debug)]
pub(super) struct Inner {
    name: String,
    single: Option<SingleNs>,
    /// The flows so far. Those that were made before flowlog had entered are optional.
    pub(super) made: Made,
    pub(super) timeline: Timeline,
    begin: Instant,
    paused: bool,
    last: Instant,
    /// Since when the namespace is a new one, and the first flow in it.
    new: Option<(Instant, u32)>,
    told: bool,
}

impl Inner {
    /// Makes it, under a name of this process.
    ///
    /// # Errors
    /// There is one of that name.
    pub(super) fn new() -> Result<Self> {
        let name = format!("flowlog-{}-900-inner", std::process::id());
        let mut inner = Self {
            name,
            single: None,
            made: Made::default(),
            timeline: Timeline::new(),
            begin: Instant::now(),
            paused: true,
            last: Instant::now(),
            new: None,
            told: false,
        };
        inner.make()?;
        Ok(inner)
    }

    /// Times are counted from then on.
    pub(super) fn begin(&mut self, begin: Instant) {
        self.begin = begin;
    }

    /// Its name, for `netns=`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes no flows, or goes on with them.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    fn make(&mut self) -> Result<()> {
        self.single = Some(SingleNs::within(Namespace::called(&self.name)?)?.track()?);
        Ok(())
    }

    /// Removes it.
    pub(super) fn remove(&mut self) {
        self.single = None;
    }

    /// Makes it anew.
    ///
    /// # Errors
    /// As [`Inner::new`].
    pub(super) fn make_anew(&mut self) -> Result<()> {
        self.make()?;
        self.new = Some((Instant::now(), self.made.flows));
        self.told = false;
        Ok(())
    }

    /// Whether it is a new one that flowlog has not entered, as far as is known.
    pub(super) fn is_new(&self) -> bool {
        self.new.is_some()
    }

    /// A daemon that has just been started has entered it.
    pub(super) fn is_entered(&mut self) {
        self.new = None;
    }

    /// Makes the next flows. `logged`: the flow that was logged last. Returns a broken promise.
    ///
    /// # Errors
    /// They cannot be made.
    pub(super) fn tick(&mut self, logged: Option<u32>) -> Result<Option<String>> {
        if self.paused || self.single.is_none() || self.last.elapsed() < TURN {
            return Ok(None);
        }
        self.last = Instant::now();
        let mut broken = None;
        if let Some((since, first)) = self.new {
            if logged.is_some_and(|flow| flow >= first) {
                self.new = None;
            } else if since.elapsed() > ENTERED && !self.told {
                self.told = true;
                let seconds = ENTERED.as_secs();
                broken =
                    Some(format!("the namespace made anew was not entered within {seconds} s"));
            }
        }
        let count = if self.new.is_some() { 1 } else { BATCH };
        let first = self.made.flows;
        let namespace = self.single.as_ref().context("no namespace")?.namespace();
        namespace.enter(|| send_each(&source(PORT)?, first, first + count))?;
        self.made.flows += count;
        self.timeline.push((self.begin.elapsed(), self.made.flows));
        if self.new.is_some() {
            self.made.optional.extend(first..first + count);
        }
        Ok(broken)
    }
}
