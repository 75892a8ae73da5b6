//! Giving up root for a user, and keeping the few capabilities without which
//! resync, queries, buffer growth and the counts of eBPF programs would silently
//! stop working.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::thread;

use anyhow::{Context as _, bail};
use caps::{CapSet, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Uid, User, getgrouplist, initgroups, setgid, setuid};

/// A user to become.
#[derive(Clone, Debug)]
pub struct Target {
    name: CString,
    /// Its user id.
    pub uid: Uid,
    /// Its primary group.
    pub gid: Gid,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.to_string_lossy().fmt(f)
    }
}

/// Runs `look` with the rights of `target`, on a thread of its own that ends behind it: for
/// questions that the kernel answers by who asks, as access(2).
///
/// # Errors
/// The process is not root, or no thread can be started.
pub fn as_user<T: Send>(target: &Target, look: impl FnOnce() -> T + Send) -> io::Result<T> {
    let groups = getgrouplist(&target.name, target.gid)?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("as-user".to_owned());
        let thread = thread.spawn_scoped(scope, || {
            assume(target, &groups)?;
            Ok(look())
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread has panicked")))
    })
}

/// Gives the calling thread, and no other, the ids of a user, and with them its rights:
/// libc's functions would change all threads (nptl(7)).
#[expect(unsafe_code, reason = "libc has no form of these calls for one thread")]
fn assume(Target { uid, gid, .. }: &Target, groups: &[Gid]) -> io::Result<()> {
    let (uid, gid) = (uid.as_raw(), gid.as_raw());
    let groups: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    let done = |result: libc::c_long| match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the kernel reads as many group ids as the vector has, which lives until then;
    // the other two calls take integers.
    unsafe {
        done(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        done(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        done(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
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

/// Becomes `target`, with these capabilities alone. Call while there is one
/// thread: capabilities are per thread.
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
