//! What an operator's monitoring asks: `GET /metrics` and `GET /healthz`, where
//! `[global]` has `metrics=ADDRESS`.
//!
//! | module | its one job |
//! |---|---|
//! | [`family`] | every metric: name, type, labels, meaning |
//! | [`counters`] | the daemon's counters as metrics |
//! | [`page`] | the page in Prometheus's text format |
//! | [`http`] | one request and its answer, as bytes |
//! | [`server`] | connections, within bounds |
//!
//! Connections are tasks of the engine's runtime, which run while the engine
//! waits. They know no counter: each puts a [`Question`] to the engine, which
//! answers it between two turns, so that nothing is shared or locked.

use tokio::sync::{mpsc, oneshot};

pub mod counters;
pub mod family;
pub mod http;
pub mod page;
pub mod server;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// All numbers.
    Metrics,
    /// Whether all is well.
    Health,
}

/// What the engine has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The page of numbers.
    Page(String),
    /// All is well, in one line.
    Fit(String),
    /// What is not, a line for each.
    Unfit(String),
}

/// Somebody asks.
#[derive(Debug)]
pub struct Question {
    /// What.
    pub topic: Topic,
    /// Where the answer goes. Whoever asked may have left.
    pub answer: oneshot::Sender<Answer>,
}

/// Questions on their way to the engine.
pub type Questions = mpsc::Receiver<Question>;
