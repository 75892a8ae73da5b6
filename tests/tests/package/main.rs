//! Tests of what administrators install: the package and the archive that `cargo xtask dist` makes,
//! in a Debian 12. They need root, and what `cargo xtask test` has made, which turns the feature
//! `package` on.

mod archive;
mod documents;
mod install;
mod judges;
mod service;
mod systemd;
mod unit;
