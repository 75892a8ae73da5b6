//! Lines in the making: bytes, since what is put together is text already and
//! need not be looked at again.

use std::fmt;

/// Text. Its memory is used again and again.
#[derive(Debug, Default)]
pub(in crate::verb) struct Text(Vec<u8>);

impl Text {
    #[inline]
    pub(in crate::verb) fn push(&mut self, byte: u8) {
        self.0.push(byte);
    }

    #[inline]
    pub(in crate::verb) fn push_str(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Text that others have made as bytes.
    #[inline]
    pub(in crate::verb) fn push_bytes(&mut self, text: &[u8]) {
        self.0.extend_from_slice(text);
    }

    /// A number, with what stands before it.
    #[inline]
    pub(in crate::verb) fn number(&mut self, before: &str, value: u64) {
        self.push_str(before);
        self.push_str(itoa::Buffer::new().format(value));
    }

    /// Three digits.
    #[inline]
    pub(in crate::verb) fn thousandths(&mut self, value: u64) {
        let digits = [value / 100, value / 10 % 10, value % 10].map(|digit| b'0' + digit as u8);
        self.0.extend_from_slice(&digits);
    }

    pub(in crate::verb) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::verb) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Begins anew, and keeps at most so much memory.
    pub(in crate::verb) fn clear(&mut self, kept: usize) {
        self.0.clear();
        self.0.shrink_to(kept);
    }

    pub(in crate::verb) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What `write` writes, as a string.
    pub(in crate::verb) fn string(write: impl FnOnce(&mut Self)) -> String {
        let mut text = Self::default();
        write(&mut text);
        String::from_utf8_lossy(&text.0).into_owned()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_str(text);
        Ok(())
    }
}
