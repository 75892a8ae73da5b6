//! Network namespaces: a name or path → a file, and a call made inside it.
//! Sockets stay in the namespace they were opened in, so that it is enough to
//! be there while they are opened.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;
use tracing::error;

/// Where `ip netns` keeps the namespaces that it names.
const NAMED: &str = "/run/netns";
/// The calling thread's own namespace: `/proc/self` is the main thread's.
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace could not be entered or left.
#[derive(Debug, Error)]
pub enum NetnsError {
    /// Its file cannot be opened.
    #[error(
        "network namespace {path} cannot be opened: {cause}; see `ip netns list` for names, or \
         give a path such as /proc/PID/ns/net"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The kernel refuses the file.
    #[error("network namespace {path} cannot be entered: {cause}; {}", remedy(cause))]
    Enter {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The thread is still in the other namespace.
    #[error(
        "the way back from network namespace {path} is barred: {cause}; run it as root, with \
         CAP_SYS_ADMIN"
    )]
    Return {
        /// The namespace that the thread is in.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl NetnsError {
    /// It may be there a little later: `ip netns add` makes a file first, and then a namespace of
    /// it (ip/ipnetns.c, 6.1).
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Open { cause, .. } => cause.kind() == io::ErrorKind::NotFound,
            Self::Enter { cause, .. } => cause.raw_os_error() == Some(libc::EINVAL),
            Self::Return { .. } => false,
        }
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.raw_os_error() {
        Some(libc::EPERM) => "run it as root, with CAP_SYS_ADMIN",
        Some(libc::EINVAL) => {
            "it is no namespace (a leftover of one?): give a name from `ip netns list`, or a \
             path such as /proc/PID/ns/net"
        }
        _ => "give a name from `ip netns list`, or a path such as /proc/PID/ns/net",
    }
}

/// The file of a namespace: a bare name is one of `ip netns`.
pub fn resolve(name_or_path: &Path) -> PathBuf {
    let bare = name_or_path.components().count() == 1 && !name_or_path.has_root();
    if bare { Path::new(NAMED).join(name_or_path) } else { name_or_path.to_owned() }
}

/// The namespaces that have a name for `ip netns`, by their inode numbers. One
/// that goes while it is looked at is left out.
pub fn names() -> BTreeMap<u32, String> {
    let files = fs::read_dir(NAMED).into_iter().flatten().flatten();
    let named = files.filter_map(|file| {
        // The link or mount is followed: it is the namespace that is asked for.
        let inode = fs::metadata(file.path()).ok()?.ino();
        Some((inode as u32, file.file_name().to_string_lossy().into_owned()))
    });
    named.collect()
}

/// Inode number of the namespace that the calling thread is in.
///
/// # Errors
/// There is no /proc.
pub fn current() -> io::Result<u32> {
    // 32 bits in the kernel (`struct ns_common`, include/linux/ns_common.h, 6.12).
    Ok(fs::metadata(OWN)?.ino() as u32)
}

/// Calls `f` with the calling thread inside the namespace `path` (a file, or a
/// name as for [`resolve`]), and comes back afterwards, also when `f` panics.
/// `None` calls `f` where the thread is.
///
/// # Errors
/// The namespace cannot be entered, and `f` was not called; or `f` was called
/// and the thread cannot come back.
pub fn within<T>(path: Option<&Path>, f: impl FnOnce() -> T) -> Result<T, NetnsError> {
    let Some(path) = path.map(resolve) else { return Ok(f()) };
    let namespace = open(&path)?;
    within_open(&namespace, &path, f)
}

/// As [`within`], for a namespace whose file is open. Nothing here waits for the file
/// system that has the file. Errors call it `path`.
///
/// # Errors
/// As [`within`].
pub fn within_open<T>(
    namespace: &File,
    path: &Path,
    f: impl FnOnce() -> T,
) -> Result<T, NetnsError> {
    let mut stay = Stay { home: Some(open(Path::new(OWN))?), path: path.to_owned() };
    if let Err(errno) = setns(namespace, CloneFlags::CLONE_NEWNET) {
        stay.home = None;
        return Err(NetnsError::Enter { path: stay.path.clone(), cause: errno.into() });
    }
    let value = f();
    stay.leave()?;
    Ok(value)
}

/// Opens the file of a namespace. A FIFO of that name is opened without its
/// other end.
fn open(path: &Path) -> Result<File, NetnsError> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    opened.map_err(|cause| NetnsError::Open { path: path.to_owned(), cause })
}

/// What tells a namespace from all others that exist at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// That of the calling thread's namespace.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn here() -> io::Result<Self> {
        Self::of(Path::new(OWN))?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// That of the namespace that a file stands for; none where the file stands
    /// for none, as one that `ip netns add` has only begun to make.
    ///
    /// # Errors
    /// There is no such file.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        Self::of_file(&fs::metadata(path)?)
    }

    fn of_file(file: &Metadata) -> io::Result<Option<Self>> {
        // All namespaces are files of one device (fs/nsfs.c, 6.18).
        let is_namespace = file.dev() == fs::metadata(OWN)?.dev();
        Ok(is_namespace.then(|| Self { device: file.dev(), inode: file.ino() }))
    }

    /// The namespace that a file stands for, opened; none as for [`Identity::of`].
    ///
    /// # Errors
    /// There is no such file, or it cannot be opened.
    pub fn opened(path: &Path) -> io::Result<Option<(Self, File)>> {
        if Self::of(path)?.is_none() {
            return Ok(None);
        }
        let file = File::open(path)?;
        // Another one may stand there by now.
        Ok(Self::of_file(&file.metadata()?)?.map(|identity| (identity, file)))
    }
}

/// A namespace that something was opened in, so that more can be opened there.
#[derive(Debug)]
pub struct Home {
    namespace: File,
    inode: u32,
}

impl Home {
    /// The calling thread's namespace.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn here() -> io::Result<Self> {
        Ok(Self { namespace: File::open(OWN)?, inode: current()? })
    }

    /// Calls `f` there; needs `CAP_SYS_ADMIN` unless the thread is there.
    ///
    /// # Errors
    /// The namespace cannot be entered, or not be left.
    pub fn enter<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        if current()? == self.inode {
            return Ok(f());
        }
        // The open file outlives its name in /run/netns.
        within_open(&self.namespace, Path::new("of the socket"), f).map_err(io::Error::other)
    }
}

/// Between two looks at the name of a namespace.
const LOOK: Duration = Duration::from_secs(1);

/// A namespace that was named, for those who look at it without the engine: what it
/// is called may be removed, or made anew.
#[derive(Debug)]
pub struct Named {
    path: PathBuf,
    identity: Identity,
    due: Instant,
}

impl Named {
    /// The namespace that a name or path stands for now; none where there is no name,
    /// or where it says nothing.
    pub fn of(name_or_path: Option<&Path>) -> Option<Self> {
        let path = resolve(name_or_path?);
        let identity = Identity::of(&path).ok().flatten()?;
        Some(Self { path, identity, due: Instant::now() + LOOK })
    }

    /// Looks once a second whether the name still stands for the same namespace.
    ///
    /// # Errors
    /// It does not, and what to do.
    pub fn look(&mut self, now: Instant) -> io::Result<()> {
        if now < self.due {
            return Ok(());
        }
        self.due = now + LOOK;
        let what = match Identity::of(&self.path) {
            Ok(Some(found)) if found == self.identity => return Ok(()),
            Ok(Some(_)) => "was made anew",
            Ok(None) => "was removed",
            Err(error) if is_absence(&error) => "was removed",
            // Another user may not look, which says nothing of the namespace.
            Err(_) => return Ok(()),
        };
        let path = self.path.display();
        Err(io::Error::other(format!(
            "network namespace {path} {what}, and nothing of another one is seen; start it again"
        )))
    }
}

/// Nothing stands there.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// A thread's stay in another namespace.
struct Stay {
    /// Where to go back to; none once it is not away.
    home: Option<File>,
    path: PathBuf,
}

impl Stay {
    fn leave(&mut self) -> Result<(), NetnsError> {
        let Some(home) = self.home.take() else { return Ok(()) };
        setns(home, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| NetnsError::Return { path: self.path.clone(), cause: errno.into() })
    }
}

impl Drop for Stay {
    /// Reached with something to do only when the call panicked.
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            error!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_is_one_of_ip_netns() {
        assert_eq!(resolve(Path::new("blue")), Path::new("/run/netns/blue"));
        assert_eq!(resolve(Path::new("/proc/1/ns/net")), Path::new("/proc/1/ns/net"));
        assert_eq!(resolve(Path::new("./blue")), Path::new("./blue"));
    }

    #[test]
    fn a_namespace_is_known_by_its_file_and_nothing_else_is_one() {
        let here = Identity::here().unwrap();
        assert_eq!(Identity::of(Path::new("/proc/self/ns/net")).unwrap(), Some(here));
        // Of the same device, and another namespace.
        assert_ne!(Identity::of(Path::new("/proc/self/ns/mnt")).unwrap(), Some(here));
        assert_eq!(Identity::of(Path::new("/dev/null")).unwrap(), None);
        assert!(Identity::of(Path::new("/nonexistent")).is_err());
        assert_eq!(Home::here().unwrap().enter(|| 7).unwrap(), 7);
    }

    #[test]
    fn a_name_that_stands_for_another_namespace_is_told_once_a_second() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("named");
        let link = |target: &str| {
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink(target, &path).unwrap();
        };
        link("/proc/self/ns/net");
        let mut named = Named::of(Some(&path)).unwrap();
        let mut now = Instant::now();
        let mut look = || {
            now += LOOK;
            named.look(now).map_err(|error| error.to_string())
        };
        assert_eq!(look(), Ok(()));
        link("/proc/self/ns/mnt");
        assert!(look().unwrap_err().contains("was made anew"));
        fs::remove_file(&path).unwrap();
        assert!(look().unwrap_err().contains("was removed"));
        link("/dev/null");
        assert!(look().unwrap_err().contains("was removed"), "no namespace");
        link("/proc/self/ns/net");
        assert_eq!(look(), Ok(()));
        fs::remove_file(&path).unwrap();
        assert!(named.look(now).is_ok(), "a look a second");
        assert!(Named::of(None).is_none());
    }

    #[test]
    fn a_fifo_in_place_of_a_namespace_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = within(Some(&path), || panic!("called")).unwrap_err();
        assert!(matches!(error, NetnsError::Enter { .. }), "{error}");
        assert!(Identity::opened(&path).unwrap().is_none());
    }

    #[test]
    fn no_namespace_is_a_plain_call() {
        assert_eq!(within(None, || 7).unwrap(), 7);
    }

    #[test]
    fn a_missing_namespace_is_refused_before_the_call() {
        let error = within(Some(Path::new("/nonexistent")), || panic!("called")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent"), "{error}");
    }
}
