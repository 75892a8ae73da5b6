//! Netlink framing: messages in a datagram, attributes in a message. Total
//! functions over bytes; a wrong length is an error, never a panic.

use thiserror::Error;

/// Length of `struct nlmsghdr`.
const MESSAGE_HEADER: usize = 16;
/// Length of `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_TYPE_MASK`: the kind without the nested and byte-order flags.
const KIND_MASK: u16 = 0x3fff;

/// Why bytes are no conntrack message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A header does not fit into what is left.
    #[error("{what} needs {need} bytes, {have} are left")]
    Short {
        /// What was expected there.
        what: &'static str,
        /// Bytes that it needs.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// A length field is smaller than its own header, or larger than what is
    /// left.
    #[error("{what} says that it is {length} bytes long, {have} are there")]
    Length {
        /// Whose length it is.
        what: &'static str,
        /// The length that it states.
        length: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// An attribute's value has the wrong size.
    #[error("{name} has {have} bytes instead of {need}")]
    Size {
        /// The attribute.
        name: &'static str,
        /// Bytes of its type.
        need: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// An attribute without which the message means nothing is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The message was longer than the receive buffer.
    #[error("message cut by the receive buffer")]
    Cut,
}

/// One netlink message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`: subsystem in the high byte, message in the low one.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub seq: u32,
    /// What follows the header.
    pub payload: &'a [u8],
    /// Header and payload, as received.
    pub bytes: &'a [u8],
}

/// The messages of a datagram. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Iterates over the messages of `datagram`.
    pub fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        if rest.is_empty() {
            return None;
        }
        self.0 = &[];
        let Some(header) = rest.first_chunk::<MESSAGE_HEADER>() else {
            return Some(Err(DecodeError::Short {
                what: "netlink header",
                need: MESSAGE_HEADER,
                have: rest.len(),
            }));
        };
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length < MESSAGE_HEADER || length > rest.len() {
            return Some(Err(DecodeError::Length {
                what: "netlink message",
                length,
                have: rest.len(),
            }));
        }
        self.0 = rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: &rest[MESSAGE_HEADER..length],
            bytes: &rest[..length],
        }))
    }
}

/// One attribute.
#[derive(Clone, Copy, Debug)]
pub struct Attribute<'a> {
    /// `nla_type` without its flags.
    pub kind: u16,
    /// Its value.
    pub value: &'a [u8],
}

/// The attributes of a message or of a nested attribute. Ends after the first
/// error.
#[derive(Clone, Debug)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Iterates over the attributes in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0;
        let Some(header) = rest.first_chunk::<ATTRIBUTE_HEADER>() else {
            self.0 = &[];
            return (!rest.is_empty()).then_some(Err(DecodeError::Short {
                what: "attribute header",
                need: ATTRIBUTE_HEADER,
                have: rest.len(),
            }));
        };
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        if length < ATTRIBUTE_HEADER || length > rest.len() {
            self.0 = &[];
            return Some(Err(DecodeError::Length { what: "attribute", length, have: rest.len() }));
        }
        self.0 = rest.get(align(length)..).unwrap_or(&[]);
        Some(Ok(Attribute {
            kind: u16::from_ne_bytes([header[2], header[3]]) & KIND_MASK,
            value: &rest[ATTRIBUTE_HEADER..length],
        }))
    }
}

impl<'a> Attribute<'a> {
    /// The attributes nested in this one.
    pub fn nested(&self) -> Attributes<'a> {
        Attributes::new(self.value)
    }

    /// The value as exactly `N` bytes.
    ///
    /// # Errors
    /// It has another size.
    #[inline]
    pub fn array<const N: usize>(&self, name: &'static str) -> Result<[u8; N], DecodeError> {
        self.value.try_into().map_err(|_| DecodeError::Size {
            name,
            need: N,
            have: self.value.len(),
        })
    }

    /// The value as a number in network order.
    ///
    /// # Errors
    /// It is not one byte long.
    pub fn u8(&self, name: &'static str) -> Result<u8, DecodeError> {
        Ok(self.array::<1>(name)?[0])
    }

    /// The value as a number in network order.
    ///
    /// # Errors
    /// It is not two bytes long.
    pub fn u16(&self, name: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(name)?))
    }

    /// The value as a number in network order.
    ///
    /// # Errors
    /// It is not four bytes long.
    pub fn u32(&self, name: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(name)?))
    }

    /// The value as a number in network order.
    ///
    /// # Errors
    /// It is not eight bytes long.
    pub fn u64(&self, name: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(name)?))
    }
}

/// Netlink pads everything to four bytes.
const fn align(length: usize) -> usize {
    (length + 3) & !3
}
