//! What makes a process a daemon: going to the background, the pidfile, its
//! priority, giving up root, being watched, and its other threads.

pub mod background;
pub mod notify;
pub mod pidfile;
pub mod priority;
pub mod privileges;
pub mod thread;
pub mod watchdog;
