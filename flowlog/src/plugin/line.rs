//! A line of text in the making. It has room for the longest line there is, so
//! that nothing is asked and nothing is moved while it is written: a third of
//! what a line costs otherwise (docs/performance.md).

/// More than any line needs: six IPv6 addresses, ten numbers of 20 digits, and
/// every name and label there is come to less than 800 bytes.
const ROOM: usize = 1024;
/// Digits that fit a word.
const WORD: usize = 8;
/// Numbers below have at most [`WORD`] digits.
const WORD_LIMIT: u64 = 100_000_000;

/// A line; it is never longer than 1024 bytes, and what does not fit is cut.
#[derive(Debug)]
pub struct Line {
    bytes: Box<[u8; ROOM]>,
    len: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: Box::new([0; ROOM]), len: 0 }
    }
}

impl Line {
    /// What has been written.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len.min(ROOM)]
    }

    /// Nothing has been written.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Begins anew.
    #[inline]
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Writes a byte.
    #[inline(always)]
    pub fn byte(&mut self, byte: u8) {
        self.text(&[byte]);
    }

    /// Writes a text. Inlined, so that the length of a constant one is known.
    #[inline(always)]
    pub fn text(&mut self, text: &[u8]) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + text.len()) {
            room.copy_from_slice(text);
            self.len += text.len();
        }
    }

    /// Writes the first `len` bytes of `text`, by copying all of it: without a
    /// branch on a length that is never the same.
    #[inline(always)]
    pub fn part<const N: usize>(&mut self, text: &[u8; N], len: usize) {
        if let Some(room) = self.bytes.get_mut(self.len..self.len + N) {
            room.copy_from_slice(text);
            self.len += len.min(N);
        }
    }

    /// Writes a number.
    #[inline]
    pub fn number(&mut self, value: u64) {
        if value < 10 {
            self.byte(b'0' + value as u8);
        } else if value < WORD_LIMIT {
            let (digits, len) = digits(value as u32);
            self.part(&digits, len);
        } else {
            self.text(itoa::Buffer::new().format(value).as_bytes());
        }
    }
}

/// The digits of a number from 1 to below [`WORD_LIMIT`], and how many they are.
///
/// All of them at once: halves of four digits side by side in a word, divided
/// by 100, then pairs, divided by 10. The products stay within their lanes, and
/// both quotients are exact for numbers so small (the property test below tries
/// them). A loop over the digits takes three times as long.
#[inline]
fn digits(value: u32) -> ([u8; WORD], usize) {
    let halves = u64::from(value / 10_000) | u64::from(value % 10_000) << 32;
    let hundreds = ((halves * 10_486) >> 20) & 0x0000_007f_0000_007f;
    let pairs = hundreds | (halves - hundreds * 100) << 16;
    let tens = ((pairs * 103) >> 10) & 0x000f_000f_000f_000f;
    // The first digit is in the lowest byte.
    let digits = tens | (pairs - tens * 10) << 8;
    let zeros = digits.trailing_zeros() / 8;
    let text = (digits >> (8 * zeros)) + 0x3030_3030_3030_3030;
    (text.to_le_bytes(), WORD - zeros as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_the_rest_stays() {
        let mut line = Line::default();
        line.text(&[b'x'; ROOM - 1]);
        line.text(b"yy");
        line.number(12345);
        assert_eq!(line.as_bytes().len(), ROOM - 1);
        line.byte(b'\n');
        assert_eq!(line.as_bytes().len(), ROOM);
        line.clear();
        assert!(line.is_empty());
        line.part(b"abcdefgh", 3);
        assert_eq!(line.as_bytes(), b"abc");
    }

    proptest! {
        #[test]
        fn numbers_are_decimal(value: u64, bits in 0_u32..64) {
            let value = value >> bits;
            let mut line = Line::default();
            line.number(value);
            let expected = value.to_string();
            prop_assert_eq!(line.as_bytes(), expected.as_bytes());
        }

        #[test]
        fn numbers_of_one_word_are_decimal(value in 1..WORD_LIMIT as u32) {
            let (digits, len) = digits(value);
            let expected = value.to_string();
            prop_assert_eq!(&digits[..len], expected.as_bytes());
        }
    }
}
