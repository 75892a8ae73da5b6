//! One BTF object as the kernel hands it out: its types one after another, and
//! the strings that name them.
//!
//! Opening one walks over the types once, to learn where each begins and which
//! of them are structures, enumerations and functions; everything else is read
//! when it is asked for. Whatever reads all of it into maps takes fifty times as
//! long, which is a second in an emulated guest. Each read is checked: what does
//! not hold together is as good as not there.

use std::ops::Range;

use thiserror::Error;

/// First two bytes of an object in this machine's byte order.
const MAGIC: u16 = 0xeb9f;
/// The one version that there is.
const VERSION: u8 = 1;
/// Bytes of the header that is in every object.
const HEADER: usize = 24;
/// Bytes of a header that also tells about kinds.
const HEADER_WITH_KINDS: usize = 32;
/// Bytes that every type has.
const TYPE: usize = 12;

/// Numbers of the kinds of type that flowlog looks into.
pub(super) mod kind {
    pub(in super::super) const INT: u8 = 1;
    pub(in super::super) const PTR: u8 = 2;
    pub(in super::super) const ARRAY: u8 = 3;
    pub(in super::super) const STRUCT: u8 = 4;
    pub(in super::super) const UNION: u8 = 5;
    pub(in super::super) const ENUM: u8 = 6;
    pub(in super::super) const TYPEDEF: u8 = 8;
    pub(in super::super) const VOLATILE: u8 = 9;
    pub(in super::super) const CONST: u8 = 10;
    pub(in super::super) const RESTRICT: u8 = 11;
    pub(in super::super) const FUNC: u8 = 12;
    pub(in super::super) const FUNC_PROTO: u8 = 13;
    pub(in super::super) const FLOAT: u8 = 16;
    pub(in super::super) const TYPE_TAG: u8 = 18;
    pub(in super::super) const ENUM64: u8 = 19;
}

/// Bytes that follow a type of each kind: once, and for each of its members.
const KINDS: [(u8, u8); 20] = [
    (0, 0),  // none
    (4, 0),  // integer
    (0, 0),  // pointer
    (12, 0), // array
    (0, 12), // structure
    (0, 12), // union
    (0, 8),  // enumeration
    (0, 0),  // forward declaration
    (0, 0),  // typedef
    (0, 0),  // volatile
    (0, 0),  // const
    (0, 0),  // restrict
    (0, 0),  // function
    (0, 8),  // prototype
    (4, 0),  // variable
    (0, 12), // section of data
    (0, 0),  // floating point
    (4, 0),  // tag of a declaration
    (0, 0),  // tag of a type
    (0, 12), // enumeration of 64 bits
];

/// Why bytes are no BTF that flowlog can read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// They do not begin as BTF does on this machine.
    #[error("does not begin with the header of BTF version 1 in this machine's byte order")]
    Header,
    /// The header tells of a part that is not within the file.
    #[error("its {0} are not within it")]
    Section(&'static str),
    /// A type ends beyond the last byte of the types.
    #[error("type {0} is cut off")]
    CutOff(u32),
    /// A kind whose size is not known, so that nothing behind it can be found.
    #[error("type {id} is of kind {kind}, whose size nothing tells")]
    Kind {
        /// The type.
        id: u32,
        /// Its kind.
        kind: u8,
    },
}

/// What is looked up by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    /// Structures and unions.
    Structure,
    /// Enumerations of either width.
    Enumeration,
    /// Functions.
    Function,
}

/// How many groups there are.
const GROUPS: usize = 3;

impl Group {
    fn of(kind: u8) -> Option<Self> {
        match kind {
            kind::STRUCT | kind::UNION => Some(Self::Structure),
            kind::ENUM | kind::ENUM64 => Some(Self::Enumeration),
            kind::FUNC => Some(Self::Function),
            _ => None,
        }
    }
}

/// One type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Type<'a> {
    /// One of [`kind`], or another.
    pub(super) kind: u8,
    /// What it says depends on the kind.
    pub(super) flag: bool,
    /// Its size or the type that it refers to, by its kind.
    pub(super) value: u32,
    /// What follows: members, parameters and the like.
    rest: &'a [u8],
}

impl<'a> Type<'a> {
    /// What follows, in parts of `N` words.
    pub(super) fn parts<const N: usize>(&self) -> impl Iterator<Item = [u32; N]> + use<'a, N> {
        let words = |part: &[u8]| std::array::from_fn(|i| word(part, 4 * i).unwrap_or(0));
        self.rest.chunks_exact(4 * N).map(words)
    }
}

/// One object.
#[derive(Debug)]
pub(super) struct Object {
    bytes: Vec<u8>,
    /// Where each type begins, and at last where the types end.
    types: Vec<u32>,
    strings: Range<usize>,
    /// Number of the first type: numbers go on from an object to the one that
    /// is built upon it. 0 is `void`, which no object holds.
    first: u32,
    /// Where its strings begin, in the same way.
    first_string: u32,
    /// Name and number of each type of each [`Group`].
    groups: [Vec<(u32, u32)>; GROUPS],
}

impl Object {
    /// Reads an object; `base` is the one that it is built upon, if any.
    ///
    /// # Errors
    /// It is not BTF, or BTF of a kind that is not known.
    pub(super) fn parse(bytes: Vec<u8>, base: Option<&Self>) -> Result<Self, Malformed> {
        let header = Header::parse(&bytes)?;
        let mut object = Self {
            // About what a kernel has; growing copies.
            types: Vec::with_capacity(header.types.len() / 20),
            strings: header.strings,
            first: base.map_or(1, Self::end),
            first_string: base.map_or(0, Self::string_end),
            groups: Default::default(),
            bytes,
        };
        object.walk(header.types, header.kinds)?;
        Ok(object)
    }

    /// Number of the first type of an object that is built upon this one.
    fn end(&self) -> u32 {
        self.first + narrow(self.types.len()) - 1
    }

    fn string_end(&self) -> u32 {
        self.first_string + narrow(self.strings.len())
    }

    fn walk(&mut self, types: Range<usize>, kinds: Range<usize>) -> Result<(), Malformed> {
        let all = self.bytes.get(..types.end).unwrap_or_default();
        let kinds = self.bytes.get(kinds).unwrap_or_default();
        let mut at = types.start;
        let mut id = self.first;
        while at < types.end {
            let (name, info) = word(all, at).zip(word(all, at + 4)).ok_or(Malformed::CutOff(id))?;
            let kind = kind_of(info);
            let (once, each) = sizes(kind, kinds).ok_or(Malformed::Kind { id, kind })?;
            // Members are counted by 16 bits, by 24 in the newest kernels; where
            // 16 count, the other 8 are 0.
            let members = (info & 0xff_ffff) as usize;
            self.types.push(narrow(at));
            if let Some(group) = Group::of(kind) {
                self.groups[group as usize].push((name, id));
            }
            at += TYPE + usize::from(once) + usize::from(each) * members;
            if at > types.end {
                return Err(Malformed::CutOff(id));
            }
            id += 1;
        }
        self.types.push(narrow(at));
        Ok(())
    }

    fn get(&self, id: u32) -> Option<Type<'_>> {
        let index = id.checked_sub(self.first)? as usize;
        let from = *self.types.get(index)? as usize;
        let to = *self.types.get(index + 1)? as usize;
        let bytes = self.bytes.get(from..to)?;
        let info = word(bytes, 4)?;
        Some(Type {
            kind: kind_of(info),
            flag: info >> 31 == 1,
            value: word(bytes, 8)?,
            rest: bytes.get(TYPE..)?,
        })
    }

    /// The strings from that place on, if it is in this object.
    fn string(&self, name: u32) -> Option<&[u8]> {
        let offset = name.checked_sub(self.first_string)? as usize;
        self.bytes.get(self.strings.clone())?.get(offset..)
    }
}

/// An object together with the one that it is built upon: numbers and names in
/// it may be of either.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// The object.
    pub(super) object: &'a Object,
    /// What it is built upon, if anything.
    pub(super) base: Option<&'a Object>,
}

impl<'a> View<'a> {
    /// The type of that number.
    pub(super) fn get(self, id: u32) -> Option<Type<'a>> {
        self.object.get(id).or_else(|| self.base?.get(id))
    }

    /// Whether what is called `name` is called `text`.
    pub(super) fn is_named(self, name: u32, text: &str) -> bool {
        let string = self.object.string(name).or_else(|| self.base?.string(name));
        string.is_some_and(|string| begins(string, text))
    }

    /// Numbers of the types of that name in the object itself.
    pub(super) fn find(self, group: Group, text: &str) -> impl Iterator<Item = u32> + use<'a, '_> {
        let all = self.object.groups[group as usize].iter();
        all.filter_map(move |(name, id)| self.is_named(*name, text).then_some(*id))
    }
}

/// Whether the first of the strings is that text.
fn begins(strings: &[u8], text: &str) -> bool {
    // Most are told from it by the first byte, without a call.
    strings.first() == text.as_bytes().first()
        && strings.strip_prefix(text.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

/// Where the parts of an object are.
struct Header {
    types: Range<usize>,
    strings: Range<usize>,
    /// Sizes of each kind, 4 bytes for each; empty where nothing tells them.
    kinds: Range<usize>,
}

impl Header {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let begins = bytes.starts_with(&MAGIC.to_ne_bytes()) && bytes.get(2) == Some(&VERSION);
        let length = word(bytes, 4).ok_or(Malformed::Header)? as usize;
        if !begins || length < HEADER {
            return Err(Malformed::Header);
        }
        let section = |at, what| {
            let offset = word(bytes, at).ok_or(Malformed::Header)? as usize;
            let size = word(bytes, at + 4).ok_or(Malformed::Header)? as usize;
            let start = length.saturating_add(offset);
            let range = start..start.saturating_add(size);
            bytes.get(range.clone()).map(|_| range).ok_or(Malformed::Section(what))
        };
        let kinds =
            if length < HEADER_WITH_KINDS { 0..0 } else { section(HEADER, "sizes of kinds")? };
        Ok(Self { types: section(8, "types")?, strings: section(16, "strings")?, kinds })
    }
}

/// Bytes that follow a type of that kind: once, and for each member. Newer
/// kernels tell those of kinds that came after this was written.
fn sizes(kind: u8, kinds: &[u8]) -> Option<(u8, u8)> {
    if let Some(known) = KINDS.get(usize::from(kind)) {
        return Some(*known);
    }
    let [once, each] = *kinds.get(4 * usize::from(kind)..)?.first_chunk()?;
    Some((once, each))
}

/// The kind in a type's second word; bits 29 and 30 belong to it since they
/// are used at all.
fn kind_of(info: u32) -> u8 {
    (info >> 24) as u8 & 0x7f
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Offsets in a file whose own header counts by 32 bits.
fn narrow(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
