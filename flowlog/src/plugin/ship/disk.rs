//! The room that is left on a disk.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

/// Bytes that this process may still write to the disk of a directory; of one that is missing, to
/// the disk where it would be made. Absent: not known, as of a file system that has no number of
/// blocks.
pub(in crate::plugin) fn left(directory: &Path) -> Option<u64> {
    for place in directory.ancestors() {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        match statvfs(place) {
            Ok(disk) => {
                let is_root = geteuid().is_root();
                let free = if is_root { disk.blocks_free() } else { disk.blocks_available() };
                return room(disk.blocks(), free, disk.fragment_size());
            }
            Err(Errno::ENOENT) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Bytes of the blocks that are free; `None` where the number of all blocks is not reported.
fn room(blocks: u64, free: u64, size: u64) -> Option<u64> {
    // ramfs, a tmpfs without a limit and some file systems of FUSE report zeros, and have room.
    (blocks > 0).then(|| free.saturating_mul(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_directory_that_is_missing_is_that_of_the_nearest_one() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("a/b"), "missing/deeper".into(), "".into()] {
            assert!(left(&path).is_some_and(|left| left > 0), "{path:?}");
        }
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(left(&directory.path().join("file/deeper")), None);
    }

    /// They have no room by their numbers, and no end of it in fact.
    #[test]
    fn a_file_system_without_a_number_of_blocks_is_not_full() {
        for path in ["/proc", "/proc/missing", "/proc/missing/deeper"] {
            assert_eq!(left(Path::new(path)), None, "{path}");
        }
        let rooms = [room(0, 0, 4096), room(100, 0, 4096), room(100, 3, 4096)];
        assert_eq!(rooms, [None, Some(0), Some(3 * 4096)]);
        assert_eq!(room(u64::MAX, u64::MAX, 4096), Some(u64::MAX));
    }
}
