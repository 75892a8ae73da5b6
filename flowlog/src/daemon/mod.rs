//! What makes a process a daemon: going to the background, the pidfile, its
//! priority, and giving up root.

pub mod background;
pub mod pidfile;
pub mod priority;
pub mod privileges;
