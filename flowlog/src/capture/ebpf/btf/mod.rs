//! The kernel's description of its own types (BTF): where a field is in this
//! kernel, which number an enumerator has, what a function takes.
//!
//! Offsets move between releases and within one, so nothing is known in advance.
//! `/sys/kernel/btf/vmlinux` describes what is in the kernel image; a module has
//! a file of its own beside it, whose types go on from those of the image.
//! Conntrack is a module in most distributions: its files are read if they are
//! there, and they are searched first, since they are small and since their
//! view of a conntrack type is the one that counts.
//!
//! The whole is some megabytes large: look up what is needed, then drop it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

pub use self::object::Malformed;
use self::object::{Group, Object, Type, View, kind};

mod object;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod writer;

/// Where the kernel shows its BTF.
pub const DIRECTORY: &str = "/sys/kernel/btf";

/// Where the kernel shows its modules.
const MODULES: &str = "/sys/module";

/// What the kernel image calls itself there.
const IMAGE: &str = "vmlinux";

/// The module that tracks connections.
const CONNTRACK: &str = "nf_conntrack";

/// The module that tells of them over netlink; not everybody needs it.
const NETLINK: &str = "nf_conntrack_netlink";

/// Only conntrack itself has this structure: where the image describes it,
/// conntrack is in the image.
const SIGN: &str = "nf_conn_acct";

/// Bytes of a pointer; BTF does not say.
const POINTER: u32 = 8;

/// A chain of typedefs, or of structures within structures, that is longer than
/// this is a loop.
const DEPTH: usize = 32;

/// Why the kernel's types cannot be had.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel does not describe its types.
    #[error(
        "{path} is missing: this kernel does not describe its types, as eBPF capture needs it; \
         kernels built with CONFIG_DEBUG_INFO_BTF=y do"
    )]
    NoBtf {
        /// The file.
        path: PathBuf,
    },
    /// Conntrack is a module, and modules are not described.
    #[error(
        "{path} is missing, although the module nf_conntrack is loaded: this kernel does not \
         describe the types of its modules; Linux 5.11 and later do if built with \
         CONFIG_DEBUG_INFO_BTF_MODULES=y"
    )]
    NoModuleBtf {
        /// The file.
        path: PathBuf,
    },
    /// Conntrack is a module that is not loaded.
    #[error("the module nf_conntrack is not loaded; load it with `modprobe nf_conntrack`")]
    NotLoaded,
    /// A file cannot be read.
    #[error("{path} cannot be read: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} cannot be understood: {cause}; please report it with the kernel's release")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: Malformed,
    },
}

/// Where a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Bytes that it takes.
    pub size: u32,
}

/// What a function's argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A pointer.
    Pointer,
    /// An integer or an enumeration.
    Integer,
    /// Something else, such as a structure.
    Other,
}

/// A function that a program may be attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The module that has it; absent if the kernel image does.
    pub module: Option<&'static str>,
    /// Number by which the kernel knows it in the BTF of that module or of the
    /// image.
    pub type_id: u32,
    /// What it takes.
    pub arguments: Vec<Argument>,
}

/// The types of the kernel image, and of conntrack where it is a module.
#[derive(Debug)]
pub struct KernelBtf {
    image: Object,
    modules: Vec<(&'static str, Object)>,
    /// What has been looked up: most of the time goes into finding a name among
    /// ten thousand, and many fields of few structures are asked for.
    known: RefCell<HashMap<(Group, String), Vec<Place>>>,
}

/// One of the modules by its index, or the image, and the number of a type.
type Place = (Option<usize>, u32);

impl KernelBtf {
    /// Reads what the directory has, usually [`DIRECTORY`]. The functions of
    /// `nf_conntrack_netlink` are found only if that module is loaded by now.
    ///
    /// # Errors
    /// There is no BTF of the image or of conntrack, or it cannot be read.
    pub fn open(directory: &Path) -> Result<Self, BtfError> {
        Self::open_with(directory, Path::new(MODULES))
    }

    /// As [`Self::open`]; `modules` has a folder for each loaded module.
    pub(super) fn open_with(directory: &Path, modules: &Path) -> Result<Self, BtfError> {
        let path = directory.join(IMAGE);
        let image = read(&path, None)?.ok_or(BtfError::NoBtf { path })?;
        let mut btf = Self { image, modules: Vec::new(), known: RefCell::default() };
        for module in [CONNTRACK, NETLINK] {
            let path = directory.join(module);
            if let Some(object) = read(&path, Some(&btf.image))? {
                btf.modules.push((module, object));
            } else if module == CONNTRACK && btf.size_of(SIGN).is_none() {
                let loaded = modules.join(module).exists();
                return Err(if loaded {
                    BtfError::NoModuleBtf { path }
                } else {
                    BtfError::NotLoaded
                });
            }
        }
        // What was found so far was found without the modules.
        btf.known.take();
        Ok(btf)
    }

    /// Where a field is, and how large: `proto.tcp.state` of `nf_conn`, or
    /// `tuplehash[1].tuple`. What is in unnamed structures and unions is found
    /// as C finds it. Absent if there is no such field, or if it is a bit field.
    pub fn field(&self, structure: &str, path: &str) -> Option<Field> {
        // A name may stand for several structures that have nothing in common.
        let places = self.find(Group::Structure, structure);
        places.into_iter().find_map(|(object, id)| walk(self.view(object), id, path))
    }

    /// Where a field is; see [`Self::field`].
    pub fn offset_of(&self, structure: &str, path: &str) -> Option<u32> {
        Some(self.field(structure, path)?.offset)
    }

    /// Bytes of a structure or union.
    pub fn size_of(&self, structure: &str) -> Option<u32> {
        let (object, id) = *self.find(Group::Structure, structure).first()?;
        size(self.view(object), id, DEPTH)
    }

    /// The value of an enumerator; one that needs all 64 bits looks negative.
    pub fn enum_value(&self, enumeration: &str, name: &str) -> Option<i64> {
        let places = self.find(Group::Enumeration, enumeration);
        places.into_iter().find_map(|(object, id)| {
            let view = self.view(object);
            enumerator(view, view.get(id)?, name)
        })
    }

    /// The function of that name. That it is described does not mean that a
    /// program can be attached: the compiler may have left it only in part.
    pub fn function(&self, name: &str) -> Option<Function> {
        let (object, type_id) = *self.find(Group::Function, name).first()?;
        let view = self.view(object);
        let prototype = view.get(view.get(type_id)?.value)?;
        if prototype.kind != kind::FUNC_PROTO {
            return None;
        }
        let module = object.map(|index| self.modules[index].0);
        let arguments = prototype.parts().map(|[_, argument]| sort(view, argument)).collect();
        Some(Function { module, type_id, arguments })
    }

    /// All types of that name, those of modules first.
    fn find(&self, group: Group, name: &str) -> Vec<Place> {
        let find = || {
            let objects = (0..self.modules.len()).map(Some).chain([None]);
            objects
                .flat_map(|object| self.view(object).find(group, name).map(move |id| (object, id)))
                .collect()
        };
        self.known.borrow_mut().entry((group, name.to_owned())).or_insert_with(find).clone()
    }

    fn view(&self, object: Option<usize>) -> View<'_> {
        match object {
            Some(index) => View { object: &self.modules[index].1, base: Some(&self.image) },
            None => View { object: &self.image, base: None },
        }
    }
}

/// Reads an object; `None` if there is no such file.
fn read(path: &Path, base: Option<&Object>) -> Result<Option<Object>, BtfError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(BtfError::Read { path: path.to_owned(), cause }),
    };
    let object = Object::parse(bytes, base);
    object.map(Some).map_err(|cause| BtfError::Malformed { path: path.to_owned(), cause })
}

/// What a type is behind its names and qualifiers.
fn bare(view: View<'_>, id: u32) -> Option<Type<'_>> {
    let mut found = view.get(id)?;
    for _ in 0..DEPTH {
        match found.kind {
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                found = view.get(found.value)?;
            }
            _ => return Some(found),
        }
    }
    None
}

/// Bytes of a type.
fn size(view: View<'_>, id: u32, depth: usize) -> Option<u32> {
    let found = bare(view, id)?;
    match found.kind {
        kind::INT | kind::STRUCT | kind::UNION | kind::ENUM | kind::ENUM64 | kind::FLOAT => {
            Some(found.value)
        }
        kind::PTR => Some(POINTER),
        kind::ARRAY => {
            let [element, _, count] = found.parts().next()?;
            size(view, element, depth.checked_sub(1)?)?.checked_mul(count)
        }
        _ => None,
    }
}

/// Follows a path from a structure.
fn walk(view: View<'_>, structure: u32, path: &str) -> Option<Field> {
    let (mut id, mut offset) = (structure, 0_u32);
    for step in path.split('.') {
        let (name, indexes) = step.split_once('[').unwrap_or((step, ""));
        let (within, member) = member(view, bare(view, id)?, name, DEPTH)?;
        offset = offset.checked_add(within)?;
        id = member;
        for index in indexes.split(['[', ']']).filter(|index| !index.is_empty()) {
            let (within, element) = element(view, id, index.parse().ok()?)?;
            offset = offset.checked_add(within)?;
            id = element;
        }
    }
    Some(Field { offset, size: size(view, id, DEPTH)? })
}

/// Offset and type of a member, also of those of unnamed members.
fn member(view: View<'_>, structure: Type<'_>, name: &str, depth: usize) -> Option<(u32, u32)> {
    if !matches!(structure.kind, kind::STRUCT | kind::UNION) {
        return None;
    }
    let deeper = depth.checked_sub(1)?;
    structure.parts().find_map(|[called, id, place]| {
        // With bit fields about, the upper byte is a member's size in bits.
        let (bits, place) =
            if structure.flag { (place >> 24, place & 0xff_ffff) } else { (0, place) };
        let offset = place / 8;
        if called == 0 {
            let (within, id) = member(view, bare(view, id)?, name, deeper)?;
            return Some((offset.checked_add(within)?, id));
        }
        let whole = bits == 0 && place.is_multiple_of(8);
        (whole && view.is_named(called, name)).then_some((offset, id))
    })
}

/// Offset and type of an array's element.
fn element(view: View<'_>, array: u32, index: u32) -> Option<(u32, u32)> {
    let array = bare(view, array)?;
    if array.kind != kind::ARRAY {
        return None;
    }
    let [id, _, count] = array.parts().next()?;
    let within = size(view, id, DEPTH)?.checked_mul(index)?;
    (index < count).then_some((within, id))
}

/// The value of an enumerator of that enumeration.
fn enumerator(view: View<'_>, enumeration: Type<'_>, name: &str) -> Option<i64> {
    if enumeration.kind == kind::ENUM64 {
        let mut all = enumeration.parts();
        let [_, low, high] = all.find(|[called, _, _]| view.is_named(*called, name))?;
        return Some((u64::from(high) << 32 | u64::from(low)).cast_signed());
    }
    let mut all = enumeration.parts();
    let [_, value] = all.find(|[called, _]| view.is_named(*called, name))?;
    // The flag says that there are negative values.
    Some(if enumeration.flag { value.cast_signed().into() } else { value.into() })
}

/// What an argument of that type is.
fn sort(view: View<'_>, id: u32) -> Argument {
    match bare(view, id).map(|found| found.kind) {
        Some(kind::PTR) => Argument::Pointer,
        Some(kind::INT | kind::ENUM | kind::ENUM64) => Argument::Integer,
        _ => Argument::Other,
    }
}
