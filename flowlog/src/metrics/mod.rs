//! What an operator's monitoring asks: `GET /metrics` and `GET /healthz`, where
//! `[global]` has `metrics=ADDRESS`.
//!
//! | module | its one job |
//! |---|---|
//! | [`family`] | every metric: name, type, labels, meaning |
//! | [`counters`] | the daemon's counters as metrics |
//! | [`process`] | the standard metrics of the process |
//! | [`page`] | the page in Prometheus's text format |
//! | [`http`] | one request and its answer, as bytes |
//! | `desk` | an answer within a bound, from the engine or without it |
//! | [`server`] | connections, within bounds |
//!
//! Connections are tasks of a thread of their own, so that they cost the engine nothing and are
//! served while it stands still. Each puts a [`Question`] to the engine, which answers it
//! between two turns. If it does not answer in time, the answer says so, and has what other
//! threads may read: [`crate::stats::Readings`].

use tokio::sync::{mpsc, oneshot};

pub mod counters;
mod desk;
pub mod family;
pub mod http;
pub mod page;
pub mod process;
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

/// A question to the engine.
#[derive(Debug)]
pub struct Question {
    /// What.
    pub topic: Topic,
    /// Where the answer goes; it may be too late for it.
    pub answer: oneshot::Sender<Answer>,
}

/// Questions on their way to the engine.
pub type Questions = mpsc::Receiver<Question>;
