//! Archives in the "newc" format of cpio, the one that the kernel unpacks into its first root
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Everything belongs to root, and
//! a device is only a header, so that no privilege is needed to make one.

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Context as _, Result};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes an archive. The directories above an entry are added by themselves; of several entries
/// with one name the first counts. Names are paths from the root, with or without a leading `/`.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    names: HashSet<String>,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(super) fn new(out: W) -> Self {
        Self { out, names: HashSet::new(), inode: 0 }
    }

    /// Whether there is an entry of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains(name.trim_matches('/'))
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// Writing fails; so with all others here.
    pub(super) fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY | 0o755, &[], (0, 0))
    }

    /// Adds a file with these permissions.
    pub(super) fn file(&mut self, name: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(name, FILE | permissions, content, (0, 0))
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, LINK | 0o777, target.as_bytes(), (0, 0))
    }

    /// Adds a character device.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE | 0o600, &[], (major, minor))
    }

    /// Ends the archive and gives back what it was written to.
    pub(super) fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.put("TRAILER!!!", 0, &[], (0, 0))?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
        let name = name.trim_matches('/');
        if name.is_empty() || !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        if let Some((above, _)) = name.rsplit_once('/') {
            self.directory(above)?;
        }
        self.put(name, mode, content, device).with_context(|| format!("cannot pack {name}"))
    }

    /// Writes a header, the name and the content, the latter two filled up to whole words.
    fn put(&mut self, name: &str, mode: u32, content: &[u8], device: (u32, u32)) -> Result<()> {
        const LINKS: u32 = 1;
        const HEADER: usize = 110;
        const ZEROS: [u8; 3] = [0; 3];
        let padding = |length: usize| &ZEROS[..length.wrapping_neg() % 4];
        let size = u32::try_from(content.len()).context("the file has 4 GiB or more")?;
        let name_size = u32::try_from(name.len() + 1)?;
        let (major, minor) = device;
        self.inode += 1;
        // inode, mode, user, group, links, time, size, device (two), device node (two), length of
        // the name with its NUL, checksum
        let inode = self.inode;
        let fields = [inode, mode, 0, 0, LINKS, 0, size, 0, 0, major, minor, name_size, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.out.write_all(padding(HEADER + name.len() + 1))?;
        self.out.write_all(content)?;
        self.out.write_all(padding(content.len()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    /// Name, mode, content and device.
    type Entry = (String, u32, Vec<u8>, (u32, u32));

    /// All entries, read as the kernel does.
    fn entries(mut archive: &[u8]) -> Vec<Entry> {
        let mut found = Vec::new();
        while !archive.is_empty() {
            assert_eq!(&archive[..6], b"070701");
            let field = |index: usize| {
                let digits = &archive[6 + 8 * index..14 + 8 * index];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (size, name_size) = (field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[110..109 + name_size].to_vec()).unwrap();
            assert_eq!(archive[109 + name_size], 0);
            let begin = (110 + name_size).next_multiple_of(4);
            let content = archive[begin..begin + size].to_vec();
            found.push((name, field(1), content, (field(9), field(10))));
            archive = &archive[(begin + size).next_multiple_of(4)..];
        }
        found
    }

    #[test]
    fn an_archive_has_what_was_put_into_it_with_the_directories_above() {
        let mut archive = Archive::new(Vec::new());
        archive.device("dev/console", 5, 1).unwrap();
        archive.file("/usr/lib/a", 0o644, b"12345").unwrap();
        archive.file("usr/lib/bc", 0o755, b"").unwrap();
        archive.link("usr/bin", "/bin").unwrap();
        let entry = |name: &str, mode, content: &[u8], device| {
            (name.to_owned(), mode, content.to_vec(), device)
        };
        assert_eq!(
            entries(&archive.finish().unwrap()),
            [
                entry("dev", 0o040_755, b"", (0, 0)),
                entry("dev/console", 0o020_600, b"", (5, 1)),
                entry("usr", 0o040_755, b"", (0, 0)),
                entry("usr/lib", 0o040_755, b"", (0, 0)),
                entry("usr/lib/a", 0o100_644, b"12345", (0, 0)),
                entry("usr/lib/bc", 0o100_755, b"", (0, 0)),
                entry("usr/bin", 0o120_777, b"/bin", (0, 0)),
                entry("TRAILER!!!", 0, b"", (0, 0)),
            ]
        );
    }

    #[test]
    fn the_first_entry_of_a_name_counts() {
        let mut archive = Archive::new(Vec::new());
        archive.file("a", 0o644, b"first").unwrap();
        archive.file("/a", 0o644, b"second").unwrap();
        archive.directory("/").unwrap();
        assert!(archive.contains("/a") && !archive.contains("b"));
        let entries = entries(&archive.finish().unwrap());
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].2, b"first");
    }
}
