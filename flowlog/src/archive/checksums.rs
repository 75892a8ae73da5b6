//! Checksums of a file of the archive, which other readers pass over.
//!
//! A reader of Parquet finds everything by the offsets in the footer, so between
//! the last part that the footer names and the footer itself there may be bytes
//! that it never looks at. There stand a CRC-32 of each block of what is before
//! them, and a trailer with that of the footer:
//!
//! ```text
//! body | CRC-32 of each block | trailer | footer, its length, PAR1
//! ```
//!
//! [`Verified`] reads through them: each byte that it hands on is of a block that
//! is as it was written. The cost grows with what is read, not with the file. A
//! CRC finds what a disk or a copy has changed; it is no signature.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

/// Bytes of a block. Reading a page takes a block more at most.
const BLOCK: u64 = 4096;
/// Bytes that are read at once where the length is not known before: page headers.
const AHEAD: u64 = 4 * BLOCK;
/// What a trailer ends with.
const MAGIC: &[u8; 8] = b"flowlog\x01";
/// Length of the body, of a block, CRC-32 of the list, of the footer, of the
/// trailer up to there, and [`MAGIC`]. Numbers are little-endian.
const TRAILER: u64 = 8 + 4 + 4 + 4 + 4 + 8;
/// Length of the footer, and `PAR1`.
const TAIL: u64 = 8;
/// What each file of Parquet begins and ends with.
const PARQUET: &[u8; 4] = b"PAR1";

/// Puts the checksums into a file that is written to its end.
pub(super) fn seal(file: &File) -> io::Result<()> {
    let (body, footer) = footer(file)?;
    let mut list = Vec::with_capacity((body.div_ceil(BLOCK) * 4) as usize);
    let mut block = vec![0; BLOCK as usize];
    for start in (0..body).step_by(BLOCK as usize) {
        let block = &mut block[..(body - start).min(BLOCK) as usize];
        file.read_exact_at(block, start)?;
        list.extend_from_slice(&crc32fast::hash(block).to_le_bytes());
    }
    let mut trailer = Vec::with_capacity(TRAILER as usize);
    trailer.extend_from_slice(&body.to_le_bytes());
    trailer.extend_from_slice(&(BLOCK as u32).to_le_bytes());
    trailer.extend_from_slice(&crc32fast::hash(&list).to_le_bytes());
    trailer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
    trailer.extend_from_slice(&crc32fast::hash(&trailer).to_le_bytes());
    trailer.extend_from_slice(MAGIC);
    let end = [&list[..], &trailer, &footer].concat();
    file.write_all_at(&end, body)
}

/// Where the footer begins, and its bytes up to the end of the file.
fn footer(file: &File) -> io::Result<(u64, Bytes)> {
    let half = || io::Error::new(ErrorKind::InvalidData, "it does not end as a file of Parquet");
    let length = file.metadata()?.len();
    let tail_at = length.checked_sub(TAIL).ok_or_else(half)?;
    let mut tail = [0; TAIL as usize];
    file.read_exact_at(&mut tail, tail_at)?;
    let [a, b, c, d, magic @ ..] = tail;
    if magic != *PARQUET {
        return Err(half());
    }
    let begin = tail_at.checked_sub(u32::from_le_bytes([a, b, c, d]).into()).ok_or_else(half)?;
    Ok((begin, read(file, begin, length - begin)?))
}

fn read(file: &File, start: u64, length: u64) -> io::Result<Bytes> {
    let length = usize::try_from(length).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, start)?;
    Ok(bytes.into())
}

/// A file of the archive; clones share it. What is read of it was verified, if
/// the file has checksums.
#[derive(Clone, Debug)]
pub struct Verified(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: File,
    /// Where the footer begins.
    footer_at: u64,
    /// From there to the end of the file.
    footer: Bytes,
    /// Absent in a file of an earlier version.
    sums: Option<Sums>,
}

#[derive(Debug)]
struct Sums {
    /// Bytes before the list.
    body: u64,
    block: u64,
    /// A CRC-32 of each block, four bytes each.
    list: Bytes,
}

impl Sums {
    /// Reads list and trailer before the footer; `None` where there are none.
    fn read(file: &File, footer_at: u64, footer: &[u8]) -> io::Result<Option<Self>> {
        let Some(trailer_at) = footer_at.checked_sub(TRAILER) else { return Ok(None) };
        let trailer = read(file, trailer_at, TRAILER)?;
        if !trailer.ends_with(MAGIC) {
            return Ok(None);
        }
        let number = |at: usize| {
            let bytes = trailer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_le_bytes)
        };
        let body = u64::from(number(0)) | u64::from(number(4)) << 32;
        let (block, list_sum, footer_sum, own_sum) =
            (number(8), number(12), number(16), number(20));
        if crc32fast::hash(&trailer[..20]) != own_sum || block == 0 {
            return Err(damaged(trailer_at, footer_at));
        }
        if crc32fast::hash(footer) != footer_sum {
            return Err(damaged(footer_at, footer_at + footer.len() as u64));
        }
        let block = u64::from(block);
        let length = body.div_ceil(block) * 4;
        if body.checked_add(length) != Some(trailer_at) {
            return Err(damaged(trailer_at, footer_at));
        }
        let list = read(file, body, length)?;
        if crc32fast::hash(&list) != list_sum {
            return Err(damaged(body, trailer_at));
        }
        Ok(Some(Self { body, block, list }))
    }

    /// Whether `bytes` are the block of that number.
    fn fits(&self, number: u64, bytes: &[u8]) -> bool {
        let at = number as usize * 4;
        let sum = self.list.get(at..at + 4);
        sum == Some(&crc32fast::hash(bytes).to_le_bytes()[..])
    }
}

fn damaged(from: u64, to: u64) -> io::Error {
    let what = format!("the bytes from {from} to {} are not those that were written", to - 1);
    io::Error::new(ErrorKind::InvalidData, what)
}

impl Verified {
    /// Opens a file, and verifies its end.
    ///
    /// # Errors
    /// It cannot be read, is not complete, or its end is damaged.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let (footer_at, footer) = footer(&file)?;
        let sums = Sums::read(&file, footer_at, &footer)?;
        Ok(Self(Arc::new(Inner { file, footer_at, footer, sums })))
    }

    /// It has checksums.
    pub fn has_checksums(&self) -> bool {
        self.0.sums.is_some()
    }

    /// The end of what may be read from `start` on in one piece.
    fn end(&self, start: u64) -> u64 {
        let Inner { footer_at, footer, sums, .. } = &*self.0;
        match sums {
            Some(Sums { body, .. }) if start < *footer_at => *body,
            _ => footer_at + footer.len() as u64,
        }
    }

    fn bytes(&self, start: u64, length: u64) -> io::Result<Bytes> {
        let Inner { file, footer_at, footer, sums } = &*self.0;
        let end = start.checked_add(length).filter(|end| *end <= self.end(start));
        let end = end.ok_or(ErrorKind::UnexpectedEof)?;
        if start >= *footer_at {
            return Ok(footer.slice((start - footer_at) as usize..(end - footer_at) as usize));
        }
        let Some(sums) = sums else { return read(file, start, length) };
        let Sums { body, block, .. } = *sums;
        let first = start / block * block;
        let bytes = read(file, first, end.next_multiple_of(block).min(body) - first)?;
        for (number, part) in (first / block..).zip(bytes.chunks(block as usize)) {
            if !sums.fits(number, part) {
                return Err(damaged(number * block, number * block + part.len() as u64));
            }
        }
        Ok(bytes.slice((start - first) as usize..(end - first) as usize))
    }
}

impl Length for Verified {
    fn len(&self) -> u64 {
        self.0.footer_at + self.0.footer.len() as u64
    }
}

impl ChunkReader for Verified {
    type T = Reader;

    fn get_read(&self, start: u64) -> Result<Reader, ParquetError> {
        Ok(Reader { file: self.clone(), at: start, bytes: Bytes::new() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.bytes(start, length as u64)?)
    }
}

/// Reads from a place on.
#[derive(Debug)]
pub struct Reader {
    file: Verified,
    at: u64,
    bytes: Bytes,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_empty() {
            let left = self.file.end(self.at).saturating_sub(self.at);
            self.bytes = self.file.bytes(self.at, left.min(AHEAD))?;
            self.at += self.bytes.len() as u64;
        }
        let length = out.len().min(self.bytes.len());
        out[..length].copy_from_slice(&self.bytes.split_to(length));
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file of Parquet is to this module: a body, and a footer that says how
    /// long it is.
    fn sealed(body: usize, footer: usize) -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.parquet");
        let content: Vec<u8> = (0..body).map(|n| (n * n / 7) as u8).collect();
        let footer: Vec<u8> = (0..footer).map(|n| n as u8 ^ 0x55).collect();
        let length = (footer.len() as u32).to_le_bytes();
        std::fs::write(&path, [&content[..], &footer, &length, PARQUET].concat()).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        seal(&file).unwrap();
        (directory, path, content)
    }

    fn all(file: &Verified, body: usize) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        let reader = file.get_read(0).map_err(io::Error::other)?;
        reader.take(body as u64).read_to_end(&mut read)?;
        Ok(read)
    }

    #[test]
    fn what_was_written_is_read_in_any_piece() {
        for body in [4, 4095, 4096, 4097, 3 * 4096 + 17] {
            let (_directory, path, content) = sealed(body, 100);
            let file = Verified::open(&path).unwrap();
            assert!(file.has_checksums());
            assert_eq!(all(&file, body).unwrap(), content);
            for (start, length) in [(0, 1), (body - 1, 1), (body / 2, body - body / 2), (1, 0)] {
                let bytes = file.get_bytes(start as u64, length).unwrap();
                assert_eq!(bytes, content[start..start + length]);
            }
            // Not the list, nor beyond the end.
            assert!(file.get_bytes(body as u64 - 1, 2).is_err());
            let end = file.len();
            assert_eq!(file.get_bytes(end - 4, 4).unwrap(), PARQUET[..]);
            assert!(file.get_bytes(end - 4, 5).is_err());
        }
    }

    #[test]
    fn each_changed_byte_is_noticed_where_it_is_read() {
        let (_directory, path, _) = sealed(2 * 4096 + 100, 60);
        let good = std::fs::read(&path).unwrap();
        let body = 2 * 4096 + 100;
        for place in (0..good.len()).filter(|place| place % 13 == 0 || *place >= body) {
            let mut bad = good.clone();
            bad[place] ^= 1 << (place % 8);
            std::fs::write(&path, &bad).unwrap();
            let read = Verified::open(&path).and_then(|file| {
                // The footer of a file with checksums says so.
                if file.has_checksums() { all(&file, body) } else { Err(ErrorKind::Other.into()) }
            });
            assert!(read.is_err(), "byte {place} of {}", good.len());
        }
        for length in [0, 7, 8, 100, good.len() - 1] {
            std::fs::write(&path, &good[..length]).unwrap();
            assert!(Verified::open(&path).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn a_file_without_checksums_is_read_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("old.parquet");
        std::fs::write(&path, b"PAR1 some pages and a footer\x06\0\0\0PAR1").unwrap();
        let file = Verified::open(&path).unwrap();
        assert!(!file.has_checksums());
        assert_eq!(file.get_bytes(0, 9).unwrap(), b"PAR1 some"[..]);
    }
}
