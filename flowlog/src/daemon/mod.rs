//! What makes a process a daemon: going to the background, the pidfile, its
//! priority, giving up root, and being watched.

pub mod background;
pub mod pidfile;
pub mod priority;
pub mod privileges;
pub mod watchdog;
