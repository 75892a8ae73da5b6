//! JSON as bytes, written by hand into a buffer that is used again and again:
//! serde_json would need a value for each record first, and it escapes other
//! than jansson, which ulogd2 writes with.

use crate::plugin::record_id::RecordId;

/// JSON in the making. Its buffer grows to the longest record, once.
#[derive(Debug)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// What stands between two members.
    comma: &'static [u8],
    /// What stands between a name and its value.
    colon: &'static [u8],
    /// Nothing stands yet in the object or list that is open.
    first: bool,
}

impl Text {
    /// Nothing yet; members are written as jansson writes them by default.
    pub(super) fn spaced() -> Self {
        Self { bytes: Vec::with_capacity(4096), comma: b", ", colon: b": ", first: true }
    }

    /// Nothing yet, and later no blanks.
    pub(super) fn compact() -> Self {
        Self { comma: b",", colon: b":", ..Self::spaced() }
    }

    /// What has been written.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes back what stands behind the first `length` bytes.
    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.first = true;
    }

    /// Goes on behind what stands in `front`, which has members.
    pub(super) fn begin_with(&mut self, front: &[u8]) {
        self.bytes.clear();
        self.bytes.extend_from_slice(front);
        self.first = false;
    }

    /// Opens an object.
    pub(super) fn open(&mut self) {
        self.bytes.push(b'{');
        self.first = true;
    }

    /// Closes an object.
    pub(super) fn close(&mut self) {
        self.bytes.push(b'}');
        self.first = false;
    }

    #[inline]
    fn separate(&mut self) {
        if !self.first {
            self.bytes.extend_from_slice(self.comma);
        }
        self.first = false;
    }

    /// Writes the name of a member, which needs no escapes; its value follows.
    #[inline]
    pub(super) fn name(&mut self, name: &str) {
        self.separate();
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'"');
        self.bytes.extend_from_slice(self.colon);
    }

    /// A member that is a number.
    #[inline]
    pub(super) fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.name(name);
        self.bytes.extend_from_slice(itoa::Buffer::new().format(value.into()).as_bytes());
    }

    /// A member that is a string.
    pub(super) fn string(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.quoted(value);
    }

    /// A member that is an object; `members` writes its members.
    pub(super) fn object(&mut self, name: &str, members: impl FnOnce(&mut Self)) {
        self.name(name);
        self.open();
        members(self);
        self.close();
    }

    /// A member that is a list of strings.
    pub(super) fn list<'a>(&mut self, name: &str, values: impl Iterator<Item = &'a str>) {
        self.name(name);
        self.bytes.push(b'[');
        self.first = true;
        for value in values {
            self.separate();
            self.quoted(value.as_bytes());
        }
        self.bytes.push(b']');
        self.first = false;
    }

    /// A member that is a time, RFC 3339 with nanoseconds.
    pub(super) fn time(&mut self, name: &str, nanoseconds: u64) {
        self.name(name);
        self.bytes.push(b'"');
        crate::plugin::clock::rfc3339(nanoseconds, 9, &mut self.bytes);
        self.bytes.push(b'"');
    }

    /// A member that is a string of hexadecimal digits.
    pub(super) fn hex(&mut self, name: &str, value: &[u8]) {
        self.name(name);
        self.bytes.push(b'"');
        self.digits(value);
        self.bytes.push(b'"');
    }

    /// A member that is the id of a record, as that is written.
    pub(super) fn id(&mut self, name: &str, RecordId { time, hash }: RecordId) {
        self.name(name);
        self.bytes.push(b'"');
        self.digits(&time.to_be_bytes());
        self.digits(&hash.to_be_bytes());
        self.bytes.push(b'"');
    }

    fn digits(&mut self, value: &[u8]) {
        for byte in value {
            self.bytes.extend([byte >> 4, byte & 0xf].map(|d| DIGITS[usize::from(d)]));
        }
    }

    /// A string with jansson's escapes. What is not UTF-8 becomes U+FFFD.
    pub(super) fn quoted(&mut self, value: &[u8]) {
        self.bytes.push(b'"');
        for chunk in value.utf8_chunks() {
            self.escaped(chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                self.bytes.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
        self.bytes.push(b'"');
    }

    fn escaped(&mut self, value: &[u8]) {
        let mut rest = value;
        // Stretches without escapes are copied whole: nearly always all of it.
        while let Some(place) = rest.iter().position(|b| *b < b' ' || matches!(b, b'"' | b'\\')) {
            self.bytes.extend_from_slice(&rest[..place]);
            let short = match rest[place] {
                b'"' => b'"',
                b'\\' => b'\\',
                8 => b'b',
                9 => b't',
                10 => b'n',
                12 => b'f',
                13 => b'r',
                byte => {
                    self.bytes.extend_from_slice(b"\\u00");
                    let digits = [byte >> 4, byte & 0xf].map(|d| DIGITS[usize::from(d)]);
                    self.bytes.extend(digits.map(|digit| digit.to_ascii_uppercase()));
                    rest = &rest[place + 1..];
                    continue;
                }
            };
            self.bytes.extend_from_slice(&[b'\\', short]);
            rest = &rest[place + 1..];
        }
        self.bytes.extend_from_slice(rest);
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quoted(value: &[u8]) -> String {
        let mut text = Text::spaced();
        text.quoted(value);
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    /// As `json_dumps` of jansson 2.14 with no flags: upper-case digits, DEL and
    /// what is not ASCII as they are.
    #[test]
    fn escapes_are_those_of_jansson() {
        assert_eq!(quoted(b"a\"b\\c/d \n"), r#""a\"b\\c/d \n""#);
        assert_eq!(quoted(b"\x08\x0c\r\t\x01\x1f\x7f"), "\"\\b\\f\\r\\t\\u0001\\u001F\x7f\"");
        assert_eq!(quoted("grün".as_bytes()), "\"grün\"");
        assert_eq!(quoted(b"a\xffb"), "\"a\u{fffd}b\"");
    }

    proptest! {
        #[test]
        fn any_string_is_read_as_it_was(value in ".{0,40}") {
            let read: String = serde_json::from_str(&quoted(value.as_bytes())).unwrap();
            prop_assert_eq!(read, value);
        }

        #[test]
        fn any_bytes_give_json(value: Vec<u8>) {
            prop_assert!(serde_json::from_str::<String>(&quoted(&value)).is_ok());
        }
    }
}
