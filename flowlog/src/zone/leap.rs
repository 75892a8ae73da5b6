//! Leap seconds of a zone, from its TZif file (RFC 9636). libc takes them off the
//! time of such zones, which are those below `right/`.

/// Each leap second: from when on, and the correction since then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LeapSeconds(Vec<(i64, i64)>);

/// Bytes of a header.
const HEADER: usize = 44;

impl LeapSeconds {
    /// Those in a TZif file; none if it has none, or is damaged.
    pub(super) fn of(file: &[u8]) -> Self {
        Self(read(file).unwrap_or_default())
    }

    /// The seconds to take off a time.
    pub(super) fn before(&self, second: i64) -> i64 {
        let since = self.0.partition_point(|(from, _)| *from <= second);
        since.checked_sub(1).map_or(0, |last| self.0[last].1)
    }
}

/// The counts of a header that are needed to find the leap seconds.
struct Counts {
    version: u8,
    before_leap: usize,
    leap: usize,
    after_leap: usize,
}

fn read(file: &[u8]) -> Option<Vec<(i64, i64)>> {
    let first = counts(file, 4)?;
    if first.version == 0 {
        return leaps(&file[HEADER..], &first, 4);
    }
    // The first block is for readers of old; the second has 64 bits for a time.
    let leap = first.leap.checked_mul(8)?;
    let skip = HEADER.checked_add(first.before_leap)?.checked_add(leap)?;
    let second = file.get(skip.checked_add(first.after_leap)?..)?;
    leaps(second.get(HEADER..)?, &counts(second, 8)?, 8)
}

fn counts(block: &[u8], width: usize) -> Option<Counts> {
    let header = block.get(..HEADER)?;
    let number = |index: usize| -> Option<usize> {
        let bytes = header.get(20 + 4 * index..24 + 4 * index)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    };
    let [utc, standard, leap, times, types, names] =
        [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?, number(5)?];
    let before_leap = times.checked_mul(width + 1)?.checked_add(types.checked_mul(6)?)?;
    header.starts_with(b"TZif").then_some(Counts {
        version: header[4],
        before_leap: before_leap.checked_add(names)?,
        leap,
        after_leap: standard.checked_add(utc)?,
    })
}

fn leaps(data: &[u8], counts: &Counts, width: usize) -> Option<Vec<(i64, i64)>> {
    let length = counts.leap.checked_mul(width + 4)?;
    let records = data.get(counts.before_leap..)?.get(..length)?;
    let record = |bytes: &[u8]| -> Option<(i64, i64)> {
        let (time, correction) = bytes.split_at(width);
        let time = match width {
            4 => i32::from_be_bytes(time.try_into().ok()?).into(),
            _ => i64::from_be_bytes(time.try_into().ok()?),
        };
        Some((time, i32::from_be_bytes(correction.try_into().ok()?).into()))
    };
    records.chunks_exact(width + 4).map(record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of version 1 without anything but a type and two leap seconds.
    fn file() -> Vec<u8> {
        let mut file = b"TZif\0".to_vec();
        file.extend([0; 15]);
        for count in [0_u32, 0, 2, 0, 1, 4] {
            file.extend(count.to_be_bytes());
        }
        file.extend([0; 6]);
        file.extend(b"UTC\0");
        for (time, correction) in [(78_796_800_i32, 1_i32), (94_694_401, 2)] {
            file.extend(time.to_be_bytes());
            file.extend(correction.to_be_bytes());
        }
        file
    }

    #[test]
    fn a_leap_second_counts_from_its_time_on() {
        let leap = LeapSeconds::of(&file());
        let cases = [
            (0, 0),
            (78_796_799, 0),
            (78_796_800, 1),
            (94_694_400, 1),
            (94_694_401, 2),
            (i64::MAX, 2),
        ];
        for (second, expected) in cases {
            assert_eq!(leap.before(second), expected, "{second}");
        }
    }

    #[test]
    fn a_damaged_file_has_none() {
        let file = file();
        for length in 0..file.len() {
            assert_eq!(LeapSeconds::of(&file[..length]), LeapSeconds::default(), "{length}");
        }
        let mut huge = file;
        huge[28..32].fill(0xff);
        assert_eq!(LeapSeconds::of(&huge), LeapSeconds::default());
    }
}
