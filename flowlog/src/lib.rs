//! flowlog logs every connection that a Linux host tracks: one record per
//! conntrack event, pushed through a stack written as in ulogd.conf. Losses are
//! counted and stand in the stream.
//!
//! Arrows point one way: `capture` → `event`, `flow` → `plugin`, `stack`,
//! `engine`. Plugins never see netlink. `docs/architecture.md` is the map.

#![deny(unsafe_code)]

pub mod activate;
pub mod archive;
pub mod capture;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod event;
pub mod flow;
pub mod heap;
pub mod kernel;
pub mod log;
pub mod metrics;
pub mod netns;
pub mod plugin;
pub mod ratelimit;
pub mod resolver;
pub mod source;
pub mod stack;
pub mod stats;
pub mod verb;
pub mod zone;
