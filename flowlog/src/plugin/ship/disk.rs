//! The room that is left on a disk.

use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

/// Bytes that this process may still write to the disk of a directory; of one that is missing, to
/// the disk where it would be made. Absent: not known.
pub(in crate::plugin) fn left(directory: &Path) -> Option<u64> {
    for place in directory.ancestors() {
        let place = if place.as_os_str().is_empty() { Path::new(".") } else { place };
        match statvfs(place) {
            Ok(disk) => {
                let is_root = geteuid().is_root();
                let blocks = if is_root { disk.blocks_free() } else { disk.blocks_available() };
                return Some(blocks.saturating_mul(disk.fragment_size()));
            }
            Err(Errno::ENOENT) => {}
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_of_a_directory_that_is_missing_is_that_of_the_nearest_one() {
        // A file system that has no room at all.
        for path in ["/proc", "/proc/missing", "/proc/missing/deeper"] {
            assert_eq!(left(Path::new(path)), Some(0), "{path}");
        }
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("a/b"), "missing/deeper".into(), "".into()] {
            assert!(left(&path).is_some_and(|left| left > 0), "{path:?}");
        }
        std::fs::write(directory.path().join("file"), "").unwrap();
        assert_eq!(left(&directory.path().join("file/deeper")), None);
    }
}
