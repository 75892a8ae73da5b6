//! A comparison without a log: the steps of `flowlog audit`.

use std::io;
use std::time::Duration;

use super::{Auditable, CrossCapture, Report};
use crate::capture::live::{self, BUDGET};
use crate::capture::{Capture as _, Discard, Drained};

impl Auditable for CrossCapture {
    fn step(&mut self, wait: Duration) -> io::Result<()> {
        live::wait(self, wait)?;
        while self.drain(BUDGET, &mut Discard)?.drained == Drained::More {}
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        crate::capture::Capture::finish(self, &mut Discard)?;
        self.before_totals();
        Ok(())
    }

    fn report(&self) -> Report {
        Self::report(self)
    }
}
