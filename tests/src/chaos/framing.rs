//! Where records begin and end in the bytes of a connection: lines, messages with their length
//! before them (RFC 6587), datagrams, or messages of IPFIX (RFC 7011).

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::burst::flow_number;

use super::record::Seen;

/// How records stand in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each ends with a newline.
    Lines,
    /// Each begins with its length in digits, and a blank.
    Octets,
    /// Messages of IPFIX.
    Ipfix,
}

/// What a stream has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of a record.
    Record(Vec<u8>),
    /// A record that is read already.
    Seen(Seen),
    /// Bytes that are no record.
    Strange(Vec<u8>),
}

/// The bytes of a connection that are not yet a whole record, and the templates of IPFIX.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    bytes: Vec<u8>,
    templates: HashMap<u16, Vec<(u16, usize)>>,
}

impl Frames {
    /// Of a new connection.
    pub fn new(framing: Framing) -> Self {
        Self { framing, bytes: Vec::new(), templates: HashMap::new() }
    }

    /// Whether a record has begun that has no end yet.
    pub fn is_torn(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Takes further bytes, and returns the records that are whole now.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.bytes.extend_from_slice(bytes);
        let mut pieces = Vec::new();
        let mut start = 0;
        while let Some(length) = self.next(start, &mut pieces) {
            start += length;
        }
        self.bytes.drain(..start);
        pieces
    }

    /// The length of the next whole record with its frame.
    fn next(&mut self, start: usize, pieces: &mut Vec<Piece>) -> Option<usize> {
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        match self.framing {
            Framing::Lines => {
                let end = rest.iter().position(|byte| *byte == b'\n')?;
                pieces.push(Piece::Record(rest[..end].to_vec()));
                Some(end + 1)
            }
            Framing::Octets => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                let is_number = (1..=6).contains(&digits);
                if !is_number || rest.get(digits).is_some_and(|byte| *byte != b' ') {
                    pieces.push(Piece::Strange(rest.to_vec()));
                    return Some(rest.len());
                }
                let length: usize = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
                let record = rest.get(digits + 1..digits + 1 + length)?;
                pieces.push(Piece::Record(record.to_vec()));
                Some(digits + 1 + length)
            }
            Framing::Ipfix => {
                let length = usize::from(word(rest, 2)?);
                if word(rest, 0)? != 10 || length < 16 {
                    pieces.push(Piece::Strange(rest.to_vec()));
                    return Some(rest.len());
                }
                let message = rest.get(16..length)?.to_vec();
                self.message(&message, pieces);
                Some(length)
            }
        }
    }

    /// The sets of a message.
    fn message(&mut self, mut rest: &[u8], pieces: &mut Vec<Piece>) {
        while let (Some(id), Some(length)) = (word(rest, 0), word(rest, 2)) {
            let Some(set) = rest.get(4..usize::from(length)) else {
                pieces.push(Piece::Strange(rest.to_vec()));
                return;
            };
            match id {
                2 => self.learn(set),
                // Options have no flows.
                256.. => self.records(id, set, pieces),
                _ => {}
            }
            rest = &rest[usize::from(length)..];
        }
    }

    /// Templates: the elements with their lengths.
    fn learn(&mut self, mut set: &[u8]) {
        while let (Some(id), Some(count)) = (word(set, 0), word(set, 2)) {
            let mut at = 4;
            let mut elements = Vec::new();
            for _ in 0..count {
                let (Some(element), Some(length)) = (word(set, at), word(set, at + 2)) else {
                    return;
                };
                let is_enterprise = element & 0x8000 != 0;
                elements.push((if is_enterprise { 0 } else { element }, usize::from(length)));
                at += if is_enterprise { 8 } else { 4 };
            }
            self.templates.insert(id, elements);
            set = set.get(at..).unwrap_or_default();
        }
    }

    fn records(&self, id: u16, mut set: &[u8], pieces: &mut Vec<Piece>) {
        // What has no template here is of options.
        let Some(elements) = self.templates.get(&id) else { return };
        let length: usize = elements.iter().map(|(_, length)| length).sum();
        while length > 0 && set.len() >= length {
            let (record, rest) = set.split_at(length);
            let seen = flow_of(elements, record);
            pieces.push(seen.map_or_else(|| Piece::Strange(record.to_vec()), Piece::Seen));
            set = rest;
        }
    }
}

/// The flow: destinationIPv4Address (12), destinationTransportPort (11), firewallEvent (233).
fn flow_of(elements: &[(u16, usize)], record: &[u8]) -> Option<Seen> {
    let (mut address, mut port, mut event) = (None, None, None);
    let mut at = 0;
    for (element, length) in elements {
        let value = record.get(at..at + length)?;
        match (element, value) {
            (12, &[a, b, c, d]) => address = Some(Ipv4Addr::new(a, b, c, d)),
            (11, &[high, low]) => port = Some(u16::from_be_bytes([high, low])),
            (233, &[byte]) => event = Some(byte),
            _ => {}
        }
        at += length;
    }
    let end = match event? {
        1 => false,
        2 => true,
        _ => return None,
    };
    // A record that comes twice is the same, byte for byte (docs/ipfix.md).
    Some(Seen { flow: flow_number(address?, port?)?, end, id: super::record::id(record) })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pieces: Vec<Piece>) -> Vec<String> {
        let text = |piece: Piece| match piece {
            Piece::Record(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            other => format!("{other:?}"),
        };
        pieces.into_iter().map(text).collect()
    }

    #[test]
    fn lines_come_in_any_pieces() {
        let mut frames = Frames::new(Framing::Lines);
        assert!(frames.feed(b"on").is_empty() && frames.is_torn());
        assert_eq!(texts(frames.feed(b"e\ntwo\nth")), ["one", "two"]);
        assert_eq!(texts(frames.feed(b"ree\n")), ["three"]);
        assert!(!frames.is_torn());
    }

    #[test]
    fn messages_have_their_length_before_them() {
        let mut frames = Frames::new(Framing::Octets);
        assert_eq!(texts(frames.feed(b"3 a\nb10 012")), ["a\nb"]);
        assert_eq!(texts(frames.feed(b"3456789")), ["0123456789"]);
        assert!(matches!(frames.feed(b"x 1")[..], [Piece::Strange(_)]));
    }

    #[test]
    fn flows_of_ipfix_are_read_by_their_template() {
        let message = |sets: &[u8]| {
            let mut bytes = vec![0, 10, 0, (16 + sets.len()) as u8];
            bytes.resize(16, 0);
            bytes.extend_from_slice(sets);
            bytes
        };
        // Template 256: 12, an element of an enterprise, 11, 233.
        let template: &[u8] = &[
            0, 2, 0, 28, 1, 0, 0, 4, 0, 12, 0, 4, 0x80, 1, 0, 2, 0, 0, 0x72, 0x79, 0, 11, 0, 2, 0,
            233, 0, 1,
        ];
        let data: &[u8] = &[1, 0, 0, 13, 198, 19, 0, 5, 9, 9, 4, 1, 2];
        let bytes = [message(template), message(data)].concat();
        let mut frames = Frames::new(Framing::Ipfix);
        let (first, rest) = bytes.split_at(30);
        assert!(frames.feed(first).is_empty());
        let id = super::super::record::id(&data[4..]);
        let seen = Seen { flow: 0x1_0005, end: true, id };
        assert_eq!(frames.feed(rest), [Piece::Seen(seen)]);
        assert!(matches!(frames.feed(&[0, 9, 0, 9])[..], [Piece::Strange(_)]));
    }
}
