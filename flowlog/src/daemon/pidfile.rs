//! The pidfile: `PID\n`, locked while the daemon lives, as ulogd2 does it, so
//! that neither runs beside the other by accident.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use thiserror::Error;
use tracing::{debug, info};

/// Why a pidfile cannot be had.
#[derive(Debug, Error)]
pub enum PidfileError {
    /// Another daemon holds it.
    #[error("another daemon is already running with pid {pid}, which holds {}; stop it, or name \
             another pidfile with -p", path.display())]
    Running {
        /// Its pid.
        pid: i32,
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("the pidfile {} cannot be written: {source}; name another one with -p", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A pidfile that is held; removed when dropped.
#[derive(Debug)]
pub struct Pidfile {
    path: PathBuf,
    /// Held for its lock.
    _file: File,
}

impl Pidfile {
    /// Writes this process's pid into `path` and locks it.
    ///
    /// # Errors
    /// A living process holds it, or it cannot be written.
    pub fn create(path: &Path) -> Result<Self, PidfileError> {
        let io = |source| PidfileError::Io { path: path.to_owned(), source };
        let stale = path.exists();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        if let Some(pid) = lock(&file).map_err(io)? {
            return Err(PidfileError::Running { pid, path: path.to_owned() });
        }
        if stale {
            info!("the pidfile {} was left behind, and is taken over", path.display());
        }
        let mut writer = &file;
        file.set_len(0).and_then(|()| writeln!(writer, "{}", std::process::id())).map_err(io)?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, _file: file })
    }
}

/// Locks `file`, or returns who holds it. The lock ends with the process.
fn lock(file: &File) -> io::Result<Option<i32>> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    match fcntl(file.as_fd(), FcntlArg::F_SETLK(&whole)) {
        Ok(_) => Ok(None),
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EACCES) => {
            let mut holder = whole;
            fcntl(file.as_fd(), FcntlArg::F_GETLK(&mut holder))?;
            Ok(Some(holder.l_pid))
        }
        Err(errno) => Err(errno.into()),
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // After -u the directory may be out of reach; the lock is gone anyway.
        if let Err(error) = fs::remove_file(&self.path) {
            debug!("the pidfile {} stays: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_the_pid_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let pidfile = Pidfile::create(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn a_pidfile_that_cannot_be_written_is_named() {
        let error = Pidfile::create(Path::new("/nonexistent/pid")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/pid"), "{error}");
    }
}
