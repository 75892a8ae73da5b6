//! IP2STR: the addresses of a flow as text, in the form of glibc's
//! `inet_ntop`, which is what ulogd2 writes.

use super::line::Line;
use super::{Body, Item};
use crate::flow::{Family, Flow, Tuple};

/// The longest text: an IPv6 address that ends in dotted decimal.
const LONGEST: usize = 45;
/// Any IPv4 address as text fits.
const SHORT: usize = 16;

/// One address as text.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; LONGEST + 3],
    len: u8,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; LONGEST + 3], len: 0 }
    }
}

impl Text {
    /// The text's bytes; ASCII.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.bytes[usize::from(self.len)] = byte;
        self.len += 1;
    }

    /// Writes `address`, which is of `family`.
    #[inline]
    pub fn set(&mut self, family: Family, address: &[u8; 16]) {
        self.len = 0;
        match family {
            Family::V4 => self.v4([address[0], address[1], address[2], address[3]]),
            Family::V6 => self.v6(address),
        }
    }

    #[inline]
    fn v4(&mut self, address: [u8; 4]) {
        // Something stands before it in ::ffff:a.b.c.d only.
        let start = usize::from(self.len).min(LONGEST - 15);
        let [first, second, third, fourth] = address;
        let len = self.octet(start, 0, first);
        let len = self.octet(start, len, second);
        let len = self.octet(start, len, third);
        let len = self.octet(start, len, fourth);
        // The last octet has no dot.
        self.len = (start + len - 1) as u8;
    }

    /// Writes an octet and a dot behind `len` bytes from `start` on; returns how
    /// many bytes these are then. Four bytes always, as many as count: no branch
    /// on the length. The mask changes nothing, and spares asking for room.
    #[inline(always)]
    fn octet(&mut self, start: usize, len: usize, octet: u8) -> usize {
        let (digits, count) = OCTETS[usize::from(octet)];
        self.bytes[start + (len & 0xf)..][..4].copy_from_slice(&digits);
        len + usize::from(count)
    }

    /// Writes it into a line.
    #[inline(always)]
    pub fn write(&self, line: &mut Line) {
        match self.bytes.first_chunk::<SHORT>() {
            Some(short) if usize::from(self.len) <= SHORT => {
                line.part(short, usize::from(self.len));
            }
            _ => line.text(self.as_bytes()),
        }
    }

    fn v6(&mut self, address: &[u8; 16]) {
        let groups: [u16; 8] =
            std::array::from_fn(|n| u16::from_be_bytes([address[2 * n], address[2 * n + 1]]));
        let (start, length) = longest_zeros(&groups);
        let mut n = 0;
        while n < 8 {
            if n == start && length > 1 {
                self.push(b':');
                self.push(b':');
                n += length;
                // ::a.b.c.d and ::ffff:a.b.c.d
                if start == 0 && (length == 6 || (length == 5 && groups[5] == 0xffff)) {
                    if length == 5 {
                        self.hex(0xffff);
                        self.push(b':');
                    }
                    self.v4([address[12], address[13], address[14], address[15]]);
                    return;
                }
                continue;
            }
            if n > 0 && !(length > 1 && n == start + length) {
                self.push(b':');
            }
            self.hex(groups[n]);
            n += 1;
        }
    }

    fn hex(&mut self, group: u16) {
        let digits = (4 - (group.leading_zeros() / 4).min(3)) as usize;
        for place in (0..digits).rev() {
            self.push(b"0123456789abcdef"[usize::from(group >> (4 * place)) & 0xf]);
        }
    }
}

/// Digits of each octet, a dot, and how many bytes that is.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut table = [([b'0'; 4], 1); 256];
    let mut n = 0;
    while n < 256 {
        let (hundreds, tens, ones) =
            (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        table[n] = if n >= 100 {
            ([hundreds, tens, ones, b'.'], 4)
        } else if n >= 10 {
            ([tens, ones, b'.', 0], 3)
        } else {
            ([ones, b'.', 0, 0], 2)
        };
        n += 1;
    }
    table
};

/// Where the first of the longest runs of zero groups begins, and its length.
fn longest_zeros(groups: &[u16; 8]) -> (usize, usize) {
    let (mut best, mut run) = ((0, 0), (0, 0));
    for (n, group) in groups.iter().enumerate() {
        run = if *group != 0 { (n + 1, 0) } else { (run.0, run.1 + 1) };
        if run.1 > best.1 {
            best = run;
        }
    }
    best
}

/// Both addresses of a tuple.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pair {
    /// The source address.
    pub src: Text,
    /// The destination address.
    pub dst: Text,
}

impl Pair {
    /// Writes both addresses of `tuple`.
    #[inline]
    pub fn set(&mut self, tuple: &Tuple) {
        self.src.set(tuple.family, &tuple.src);
        self.dst.set(tuple.family, &tuple.dst);
    }

    /// As [`Pair::set`], for a reply tuple. Without NAT it has the addresses of
    /// the original one, whose text is there.
    #[inline]
    fn set_reply(&mut self, reply: &Tuple, orig: &Tuple, text: &Self) {
        if reply.src == orig.dst && reply.dst == orig.src && reply.family == orig.family {
            self.src = text.dst;
            self.dst = text.src;
        } else {
            self.set(reply);
        }
    }
}

/// The addresses of an item: `orig.ip.saddr.str` and its kin.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// Original direction.
    pub orig: Pair,
    /// Reply direction.
    pub reply: Pair,
    /// The connection that expects this one; only for expectations.
    pub master: Pair,
}

impl Addresses {
    /// Writes the addresses of `item`. Not inlined: within the loop over the
    /// stages the compiler would work out all its places before, for each item.
    #[inline(never)]
    pub fn set(&mut self, item: &Item<'_>) {
        match item.body {
            Body::Flow { flow, .. } => self.set_flow(flow),
            Body::Expectation(expectation) => {
                self.orig.set(&expectation.tuple);
                self.reply.set(&expectation.tuple.inverse());
                self.master.set(&expectation.master);
            }
            Body::Lost(_) => {}
        }
    }

    /// Writes the addresses of `flow`.
    #[inline]
    pub fn set_flow(&mut self, flow: &Flow) {
        self.orig.set(&flow.orig);
        self.reply.set_reply(&flow.reply, &flow.orig, &self.orig);
    }

    /// Something has been written at all.
    pub fn are_set(&self) -> bool {
        self.orig.src.len > 0
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn v6(address: Ipv6Addr) -> String {
        let mut text = Text::default();
        text.set(Family::V6, &address.octets());
        String::from_utf8(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn ipv6_is_written_as_glibc_writes_it() {
        for text in [
            "::",
            "::1",
            "1::",
            "fd77:1::2",
            "1:0:0:2::3",
            "1::2:0:0:3",
            "2001:db8:1:2:3:4:5:6",
            "1:2:3:0:5:6:7:8",
            "::ffff:10.1.2.3",
            "::10.1.2.3",
            "::0.1.0.2",
            "::2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:0",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let address: Ipv6Addr = text.parse().unwrap();
            let expected = match text {
                // A run of one zero is not shortened by glibc.
                "::2:3:4:5:6:7:8" => "0:2:3:4:5:6:7:8",
                "1:0:0:2::3" => "1:0:0:2::3",
                "1::2:0:0:3" => "1::2:0:0:3",
                // Two runs of equal length: the first is shortened.
                text => text,
            };
            assert_eq!(v6(address), expected);
        }
    }

    proptest! {
        #[test]
        fn ipv4_is_dotted_decimal(bits: u32) {
            let address = Ipv4Addr::from(bits);
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            let mut text = Text::default();
            text.set(Family::V4, &bytes);
            let expected = address.to_string();
            prop_assert_eq!(text.as_bytes(), expected.as_bytes());
        }

        /// The standard library follows RFC 5952, from which glibc departs
        /// only in `::a.b.c.d`.
        #[test]
        fn ipv6_is_as_in_the_standard_library(groups: [u16; 8], zeros: u8) {
            let groups = std::array::from_fn(|n| {
                if zeros & (1 << n) != 0 { 0 } else { groups[n] }
            });
            let address = Ipv6Addr::from(groups);
            prop_assume!(groups[..6] != [0; 6]);
            prop_assert_eq!(v6(address), address.to_string());
        }
    }
}
