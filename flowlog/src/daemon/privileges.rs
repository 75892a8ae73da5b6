//! Giving up root for a user, and keeping the few capabilities without which
//! resync, queries, buffer growth and the counts of eBPF programs would silently
//! stop working.

use std::ffi::CString;

use anyhow::{Context as _, bail};
use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};

/// A user to become.
#[derive(Clone, Debug)]
pub struct Target {
    name: CString,
    /// Its user id.
    pub uid: Uid,
    /// Its primary group.
    pub gid: Gid,
}

/// Looks `name` up.
///
/// # Errors
/// There is no such user.
pub fn look_up(name: &str) -> anyhow::Result<Target> {
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Target { name: CString::new(name)?, uid: user.uid, gid: user.gid }),
        Ok(None) => bail!("unknown user {name}; name one that exists with -u"),
        Err(error) => bail!("the user {name} cannot be looked up: {error}"),
    }
}

/// Becomes `target`, with these capabilities alone. They are kept by the thread
/// that calls; others, which only write, lose all theirs by setuid(2), as they
/// did not ask to keep them.
///
/// # Errors
/// The process is not root, or the kernel refuses a step.
pub fn drop_to(target: &Target, keep: &CapsHashSet) -> anyhow::Result<()> {
    prctl::set_keepcaps(true).context("capabilities cannot be kept")?;
    setgid(target.gid)
        .and_then(|()| initgroups(&target.name, target.gid))
        .and_then(|()| setuid(target.uid))
        .with_context(|| {
            format!("cannot become {}; -u needs root", target.name.to_string_lossy())
        })?;
    prctl::set_keepcaps(false).context("capabilities cannot be dropped at the next exec")?;
    // The effective set is empty after setuid, and must stay within the
    // permitted one.
    caps::set(None, CapSet::Permitted, keep)
        .and_then(|()| caps::set(None, CapSet::Effective, keep))
        .with_context(|| format!("{keep:?} cannot be kept; give flowlog these capabilities"))?;
    Ok(())
}
