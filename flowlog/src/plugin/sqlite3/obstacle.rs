//! What keeps a database from being written at this moment: a lock of another process, or a disk
//! without room. Found without a lock or a change of it.

use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::plugin::beneath::beside;
use crate::plugin::ship::disk;

/// The bytes by which SQLite locks a database (`PENDING_BYTE` and what follows, os.h): a writer
/// has a write lock on some of them where there is no WAL.
const LOCK_BYTES: (i64, i64) = (0x4000_0000, 512);
/// The byte of the WAL's index by which a writer locks it (`WAL_WRITE_LOCK`, wal.c).
const WAL_WRITE_LOCK: (i64, i64) = (120, 1);
/// A transaction of flowlog may take this long; who holds a lock longer is in the way.
const SHORT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_millis(50);
/// What a new database with its WAL and index takes, bytes.
const ROOM: u64 = 128 << 10;

/// What is in the way, and what to do.
pub fn obstacle(path: &Path) -> Option<(String, &'static str)> {
    lock(path).or_else(|| no_room(path))
}

fn lock(path: &Path) -> Option<(String, &'static str)> {
    let first = holder(path)?;
    for _ in 0..SHORT.as_millis() / STEP.as_millis() {
        thread::sleep(STEP);
        if holder(path) != Some(first) {
            return None;
        }
    }
    let name = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
    let what = format!("process {first} ({}) holds its lock", name.trim_end().escape_debug());
    Some((what, "end its transaction, or that process; rows wait until then"))
}

/// The process that has locked it for writing. A lock that belongs to no process is that of -1.
fn holder(path: &Path) -> Option<i32> {
    holder_of(path, LOCK_BYTES).or_else(|| holder_of(&beside(path, "-shm"), WAL_WRITE_LOCK))
}

fn holder_of(path: &Path, (begin, length): (i64, i64)) -> Option<i32> {
    let file = File::open(path).ok()?;
    let mut lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: begin,
        l_len: length,
        l_pid: 0,
    };
    // Tells which lock is in the way of such a one, and takes none.
    fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid)
}

fn no_room(path: &Path) -> Option<(String, &'static str)> {
    too_little(disk::left(path.parent()?)?)
}

fn too_little(left: u64) -> Option<(String, &'static str)> {
    let what = || format!("its disk has {left} bytes left");
    (left < ROOM).then(|| (what(), "make room; rows wait until then"))
}

#[cfg(test)]
mod tests {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn a_lock_of_a_writer_is_found_with_and_without_a_wal() {
        for mode in ["wal", "delete"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("flow.db");
            let open = || Connection::open(&path).unwrap();
            let writer = open();
            writer.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())).unwrap();
            writer.execute_batch("CREATE TABLE t (a)").unwrap();
            assert_eq!(holder(&path), None, "{mode}");
            // Looking closes the file, which drops the locks of this process on it: each is
            // looked for once.
            let writer = open();
            writer.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
            assert_eq!(holder(&path), Some(std::process::id() as i32), "{mode}");
            drop(writer);
            let reader = open();
            reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
            assert_eq!(holder(&path), None, "{mode}: a reader is in nobody's way");
        }
    }

    #[test]
    fn what_is_not_there_has_no_lock() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(obstacle(&directory.path().join("flow.db")), None);
        assert_eq!(obstacle(&directory.path().join("missing/flow.db")), None);
    }

    #[test]
    fn a_disk_without_room_is_found() {
        let (what, _) = too_little(0).unwrap();
        assert_eq!(what, "its disk has 0 bytes left");
        assert!(too_little(ROOM - 1).is_some() && too_little(ROOM).is_none());
    }

    /// Also where its directory will be made there. Only root may mount a small disk.
    #[test]
    fn a_disk_without_room_is_found_where_the_directory_is_missing() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        // Of the thread alone, and gone with it.
        let look = || {
            unshare(CloneFlags::CLONE_NEWNS).ok()?;
            let (none, private) = (None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC);
            mount(none, "/", none, private, none).ok()?;
            mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).ok()?;
            let paths = ["flow.db", "missing/flow.db", "missing/deeper/flow.db"];
            Some(paths.map(|path| obstacle(&place.join(path))))
        };
        let found = thread::scope(|scope| scope.spawn(look).join().unwrap());
        // Where a sandbox forbids it to root there is nothing to be seen.
        for obstacle in found.into_iter().flatten() {
            assert_eq!(obstacle.unwrap().0, "its disk has 65536 bytes left");
        }
    }

    /// It reports zeros, and has room.
    #[test]
    fn a_file_system_that_does_not_say_how_large_it_is_is_not_full() {
        for path in ["/proc/flow.db", "/proc/missing/flow.db", "/proc/missing/deeper/flow.db"] {
            assert_eq!(obstacle(Path::new(path)), None, "{path}");
        }
    }
}
