//! Writes BTF for tests: types in the order of calls, numbered from 1 or on from
//! those of another writer, as a module's types go on from the image's.

use super::object::kind;

/// An object in the making.
pub(crate) struct Writer {
    types: Vec<u8>,
    strings: Vec<u8>,
    next: u32,
    first_string: u32,
    /// Sizes of kinds, for the longer header of newer kernels.
    kinds: Vec<u8>,
}

/// Name, type and offset in bits.
pub(crate) type Member<'a> = (&'a str, u32, u32);

impl Writer {
    pub(crate) fn new() -> Self {
        // The first string is that of what has no name.
        Self { types: vec![], strings: vec![0], next: 1, first_string: 0, kinds: vec![] }
    }

    /// Goes on where another object ends.
    pub(crate) fn upon(base: &Self) -> Self {
        let first_string = base.first_string + u32::try_from(base.strings.len()).unwrap();
        Self { types: vec![], strings: vec![], next: base.next, first_string, kinds: vec![] }
    }

    /// Tells the sizes of kinds 0 to `last`, each with nothing behind it but
    /// `last`, which has `once` and, for each member, `each` bytes.
    pub(crate) fn tell_kinds(&mut self, last: u8, once: u8, each: u8) {
        self.kinds = vec![0; 4 * usize::from(last)];
        self.kinds.extend([once, each, 0, 0]);
    }

    /// Puts a string among the others, and tells where it is.
    pub(crate) fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.first_string + u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(text.bytes().chain([0]));
        at
    }

    /// Any type: kind and flag are in `info`, members are counted there too.
    pub(crate) fn add(&mut self, name: u32, info: u32, value: u32, rest: &[u32]) -> u32 {
        for word in [&[name, info, value], rest].concat() {
            self.types.extend(word.to_ne_bytes());
        }
        self.next += 1;
        self.next - 1
    }

    fn named(&mut self, name: &str, kind: u8, value: u32, members: u32, rest: &[u32]) -> u32 {
        let name = self.string(name);
        self.add(name, u32::from(kind) << 24 | members, value, rest)
    }

    pub(crate) fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.named(name, kind::INT, bytes, 0, &[bytes * 8])
    }

    pub(crate) fn pointer(&mut self, to: u32) -> u32 {
        self.named("", kind::PTR, to, 0, &[])
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.named("", kind::ARRAY, 0, 0, &[of, 0, count])
    }

    pub(crate) fn structure(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        self.members(name, kind::STRUCT, bytes, members)
    }

    pub(crate) fn union(&mut self, name: &str, bytes: u32, members: &[Member<'_>]) -> u32 {
        self.members(name, kind::UNION, bytes, members)
    }

    fn members(&mut self, name: &str, kind: u8, bytes: u32, members: &[Member<'_>]) -> u32 {
        let words = members.iter().map(|(name, id, bits)| [self.string(name), *id, *bits]);
        let words: Vec<_> = words.collect();
        let count = u32::try_from(members.len()).unwrap();
        self.named(name, kind, bytes, count, words.as_flattened())
    }

    /// A typedef, or a qualifier without a name.
    pub(crate) fn alias(&mut self, name: &str, kind: u8, of: u32) -> u32 {
        self.named(name, kind, of, 0, &[])
    }

    pub(crate) fn enumeration(&mut self, name: &str, all: &[(&str, i32)]) -> u32 {
        let words = all.iter().map(|(name, value)| [self.string(name), value.cast_unsigned()]);
        let words: Vec<_> = words.collect();
        let signed = all.iter().any(|(_, value)| *value < 0);
        let name = self.string(name);
        let info = u32::from(signed) << 31 | u32::from(kind::ENUM) << 24;
        let count = u32::try_from(all.len()).unwrap();
        self.add(name, info | count, 4, words.as_flattened())
    }

    pub(crate) fn enumeration_64(&mut self, name: &str, all: &[(&str, u64)]) -> u32 {
        let words = all.iter().map(|(name, value)| {
            let [low, high] = [*value, value >> 32].map(|value| (value & 0xffff_ffff) as u32);
            [self.string(name), low, high]
        });
        let words: Vec<_> = words.collect();
        let count = u32::try_from(all.len()).unwrap();
        self.named(name, kind::ENUM64, 8, count, words.as_flattened())
    }

    pub(crate) fn function(&mut self, name: &str, arguments: &[u32]) -> u32 {
        let words: Vec<_> = arguments.iter().map(|id| [0, *id]).collect();
        let count = u32::try_from(arguments.len()).unwrap();
        let prototype = self.named("", kind::FUNC_PROTO, 0, count, words.as_flattened());
        self.named(name, kind::FUNC, prototype, 0, &[])
    }

    /// The object's bytes.
    pub(crate) fn finish(&self) -> Vec<u8> {
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let (types, strings, kinds) = (size(&self.types), size(&self.strings), size(&self.kinds));
        let mut sections = vec![0, types, types, strings];
        if kinds != 0 {
            sections.extend([types + strings, kinds]);
        }
        let header = 8 + 4 * u32::try_from(sections.len()).unwrap();
        let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        bytes.extend(header.to_ne_bytes());
        bytes.extend(sections.iter().flat_map(|word| word.to_ne_bytes()));
        [&bytes[..], &self.types, &self.strings, &self.kinds].concat()
    }
}
