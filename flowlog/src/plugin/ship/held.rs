//! What the spool held of each sink, noted in a file beside it: how much is lost with a spool that
//! cannot be read at all.
//!
//! It is written at most once a second, and not synced: after a kill the number may be that of a
//! second before.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::libc;

use super::rescue::Amounts;
use crate::stats::Amount;

/// Its name in the directory of the spool.
pub(super) const FILE: &str = "spool.held";

/// Notes it. Where that fails, the number is only not known afterwards.
pub(super) fn write(directory: &Path, amounts: &Amounts) {
    let _ = try_to_write(directory, &text(amounts));
}

/// What it held of a sink was counted when the daemon ended: the next start counts it no more.
pub(super) fn forget(directory: &Path, sink: &str) {
    if let Some(mut amounts) = read(directory)
        && amounts.remove(sink).is_some()
    {
        write(directory, &amounts);
    }
}

/// In place: a new file that is renamed would be written to the disk at once.
fn try_to_write(directory: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(directory.join(FILE))?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// What was noted last; absent if nothing was, or only a part of it.
pub(super) fn read(directory: &Path) -> Option<Amounts> {
    let text = std::fs::read_to_string(directory.join(FILE)).ok()?;
    parse(&text)
}

/// A line for each sink, and a checksum.
pub(super) fn text(amounts: &Amounts) -> String {
    let mut lines: Vec<_> = amounts
        .iter()
        .map(|(name, Amount { bytes, records })| format!("{records} {bytes} {name}\n"))
        .collect();
    lines.sort();
    let text = lines.concat();
    let sum = crc32fast::hash(text.as_bytes());
    format!("{text}crc32 {sum:08x}\n")
}

/// What such lines say; absent if they are not whole.
pub(super) fn parse(text: &str) -> Option<Amounts> {
    let (lines, sum) = text.strip_suffix('\n')?.rsplit_once("crc32 ")?;
    if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(lines.as_bytes()) {
        return None;
    }
    let amount = |line: &str| {
        let mut words = line.splitn(3, ' ');
        let (records, bytes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some((words.next()?.to_owned(), Amount { bytes, records }))
    };
    lines.lines().map(amount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        let mut amounts = Amounts::new();
        for records in [70_000, 3, 0] {
            amounts.insert("nats 1:NATS".to_owned(), Amount { bytes: 9 * records, records });
            amounts.insert("a:KAFKA".to_owned(), Amount { bytes: 8, records: 1 });
            write(directory.path(), &amounts);
            assert_eq!(read(directory.path()), Some(amounts.clone()));
        }
        let path = directory.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(directory.path()), None, "{length} bytes");
        }
        write(directory.path(), &amounts);
        for _ in 0..2 {
            forget(directory.path(), "nats 1:NATS");
            amounts.remove("nats 1:NATS");
            assert_eq!(read(directory.path()), Some(amounts.clone()));
        }
        write(directory.path(), &Amounts::new());
        assert_eq!(read(directory.path()), Some(Amounts::new()));
    }
}
