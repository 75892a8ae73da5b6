//! The verbs of the command line, one file each.

pub mod check;
pub mod info;
pub mod list;
pub mod replay;
pub mod run;
