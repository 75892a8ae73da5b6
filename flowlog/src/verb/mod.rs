//! The verbs of the command line, one file each.

pub mod audit;
pub mod check;
pub mod info;
mod interrupt;
#[cfg(feature = "ebpf")]
pub mod layout;
pub mod list;
pub mod listening;
mod live;
mod reopening;
pub mod replay;
pub mod run;
mod status_line;
pub mod top;
pub mod trace;
pub mod watch;
pub mod who;
