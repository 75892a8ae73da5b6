//! FILTER: hands on what an expression in CEL holds of. The crate `cel` parses
//! it; it is checked once (`check`) against one list of fields (`fields`), and
//! asked of each event as a tree of our own (`tree`), which allocates nothing.
//! What it says of addresses and protocols is asked of the kernel (`pushdown`).

use std::fmt;
use std::sync::Arc;

use tracing::warn;

use self::pushdown::Bounds;
use self::tree::Test;
use super::{Body, Item};
use crate::ratelimit::RateLimit;
use crate::stats::{Counter, Stats};

mod check;
pub mod fields;
pub mod functions;
mod literal;
pub mod pushdown;
mod tree;
pub mod value;

pub use self::tree::Fault;

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the expression, in characters from 1; 0: nobody knows.
    pub column: usize,
    /// What, and what to do.
    pub what: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            0 => f.write_str(&self.what),
            column => write!(f, "column {column}: {}", self.what),
        }
    }
}

/// An expression that has been checked.
#[derive(Clone, Debug)]
pub struct Program {
    test: Arc<Test>,
}

impl Program {
    /// Checks `text`.
    ///
    /// # Errors
    /// It is no expression, names a field that there is not, or compares what
    /// cannot be compared.
    pub fn new(text: &str) -> Result<Self, Mistake> {
        Ok(Self { test: Arc::new(check::check(text)?) })
    }

    /// One that holds of everything.
    pub fn all() -> Self {
        Self { test: Arc::new(Test::Always(true)) }
    }

    /// Whether it holds of `item`, which is no loss.
    ///
    /// # Errors
    /// It divides by zero, or a number becomes too large.
    #[inline]
    pub fn holds(&self, item: &Item<'_>) -> Result<bool, Fault> {
        self.test.holds(item)
    }

    /// What the original tuple must be wherever it holds.
    pub fn bounds(&self) -> Bounds {
        pushdown::of(&self.test)
    }
}

/// What a FILTER of a stack is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its id in the stack.
    pub id: String,
    /// The line of its expression in the file.
    pub line: usize,
    /// What to ask.
    pub program: Program,
}

/// The stage.
pub struct Filter {
    id: String,
    program: Program,
    complaints: RateLimit,
    stats: Stats,
}

impl Filter {
    /// Ready to be asked.
    pub fn new(settings: &Settings, stats: Stats) -> Self {
        stats.use_filter();
        let Settings { id, line: _, program } = settings.clone();
        Self { id, program, complaints: RateLimit::per_second(), stats }
    }

    /// Whether `item` goes on. Losses do; so does what there is no answer for.
    /// Not inlined, as [`super::ip2str::Addresses::set`] is not.
    #[inline(never)]
    pub fn passes(&mut self, item: &Item<'_>) -> bool {
        if matches!(item.body, Body::Lost(_)) {
            return true;
        }
        match self.program.holds(item) {
            Ok(answer) => {
                let counter = if answer { Counter::FilterSelected } else { Counter::FilterRefused };
                self.stats.add(counter, 1);
                answer
            }
            Err(fault) => {
                self.no_answer(fault);
                true
            }
        }
    }

    #[cold]
    fn no_answer(&mut self, fault: Fault) {
        let counter = match fault {
            Fault::Overflow => Counter::FilterOverflows,
            Fault::DivisionByZero => Counter::FilterDivisionsByZero,
        };
        self.stats.add(counter, 1);
        if self.complaints.allow() {
            warn!(
                "[{}] the expression has no answer for an event because of {}, which is passed \
                 on ({} so far); guard it, as in `packets > 0 && …`",
                self.id,
                fault.name(),
                self.stats.get(counter)
            );
        }
    }
}

#[cfg(test)]
mod tests;
