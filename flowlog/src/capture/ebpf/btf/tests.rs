use std::fs;
use std::path::Path;

use super::writer::Writer;
use super::*;

const BIT_FIELDS: u32 = 1 << 31;

/// The BTF of an image, and of conntrack if it is a module.
fn open(image: &Writer, module: Option<&Writer>) -> Result<KernelBtf, BtfError> {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(IMAGE), image.finish()).unwrap();
    if let Some(module) = module {
        fs::write(directory.path().join(CONNTRACK), module.finish()).unwrap();
    }
    KernelBtf::open_with(directory.path(), Path::new("/nowhere"))
}

/// An image with conntrack in it.
fn with_conntrack() -> Writer {
    let mut image = Writer::new();
    image.structure(SIGN, 32, &[]);
    image
}

fn field(offset: u32, size: u32) -> Option<Field> {
    Some(Field { offset, size })
}

#[test]
fn paths_go_through_arrays_typedefs_and_qualifiers() {
    let mut image = with_conntrack();
    let byte = image.int("unsigned char", 1);
    let short = image.int("short", 2);
    let shorts = image.array(short, 4);
    let inner = image.structure("inner", 12, &[("tag", byte, 8), ("list", shorts, 32)]);
    let constant = image.alias("", kind::CONST, inner);
    let volatile = image.alias("", kind::VOLATILE, constant);
    let tagged = image.alias("user", kind::TYPE_TAG, volatile);
    let named = image.alias("inner_t", kind::TYPEDEF, tagged);
    let row = image.array(named, 3);
    let table = image.array(row, 2);
    image.structure("outer", 80, &[("one", named, 0), ("table", table, 64)]);
    let btf = open(&image, None).unwrap();
    assert_eq!(btf.field("outer", "one.tag"), field(1, 1));
    assert_eq!(btf.field("outer", "one.list"), field(4, 8));
    assert_eq!(btf.field("outer", "one.list[3]"), field(10, 2));
    assert_eq!(btf.field("outer", "table"), field(8, 72));
    assert_eq!(btf.field("outer", "table[1]"), field(44, 36));
    assert_eq!(btf.field("outer", "table[1][2].tag"), field(69, 1));
    assert_eq!(btf.offset_of("inner", "list"), Some(4));
    assert_eq!(btf.size_of("outer"), Some(80));
    for nothing in ["two", "one.list[4]", "one[0]", "table[x]", "one.tag.more", "", "one."] {
        assert_eq!(btf.field("outer", nothing), None, "{nothing}");
    }
    assert_eq!(btf.field("inner_t", "tag"), None, "a typedef is no structure");
    assert_eq!((btf.size_of("oute"), btf.size_of("outer_")), (None, None));
}

#[test]
fn members_of_what_has_no_name_are_found_as_in_c() {
    let mut image = with_conntrack();
    let int = image.int("int", 4);
    let pointer = image.pointer(0);
    let deepest = image.structure("", 8, &[("low", int, 0), ("high", int, 32)]);
    let either = image.union("", 8, &[("whole", pointer, 0), ("", deepest, 0)]);
    image.structure("outer", 24, &[("first", pointer, 0), ("", either, 64), ("last", int, 128)]);
    let btf = open(&image, None).unwrap();
    assert_eq!(btf.field("outer", "whole"), field(8, 8));
    assert_eq!(btf.field("outer", "high"), field(12, 4));
    assert_eq!(btf.field("outer", "last"), field(16, 4));
}

#[test]
fn a_bit_field_has_no_offset_but_its_neighbours_do() {
    let mut image = with_conntrack();
    let int = image.int("int", 4);
    let words: Vec<_> = [("whole", 0), ("bits", 3 << 24 | 32), ("after", 64)]
        .iter()
        .flat_map(|(name, place)| [image.string(name), int, *place])
        .collect();
    let name = image.string("flags");
    image.add(name, BIT_FIELDS | u32::from(kind::STRUCT) << 24 | 3, 12, &words);
    let btf = open(&image, None).unwrap();
    assert_eq!(btf.offset_of("flags", "whole"), Some(0));
    assert_eq!(btf.offset_of("flags", "bits"), None);
    assert_eq!(btf.offset_of("flags", "after"), Some(8));
}

#[test]
fn of_two_structures_of_one_name_the_one_with_the_field_counts() {
    let mut image = with_conntrack();
    let int = image.int("int", 4);
    image.structure("twin", 4, &[("a", int, 0)]);
    image.structure("twin", 8, &[("a", int, 0), ("b", int, 32)]);
    assert_eq!(open(&image, None).unwrap().offset_of("twin", "b"), Some(4));
}

#[test]
fn enumerators_of_both_widths() {
    let mut image = with_conntrack();
    image.enumeration("plain", &[("ZERO", 0), ("MOST", i32::MAX)]);
    image.enumeration("signed", &[("MINUS", -1), ("PLUS", 1)]);
    image.enumeration_64("wide", &[("SMALL", 7), ("LARGE", 1 << 40)]);
    let btf = open(&image, None).unwrap();
    assert_eq!(btf.enum_value("plain", "MOST"), Some(i32::MAX.into()));
    assert_eq!(btf.enum_value("signed", "MINUS"), Some(-1));
    assert_eq!(btf.enum_value("wide", "SMALL"), Some(7));
    assert_eq!(btf.enum_value("wide", "LARGE"), Some(1 << 40));
    assert_eq!(btf.enum_value("wide", "ZERO"), None);
    assert_eq!(btf.enum_value("none", "ZERO"), None);
}

#[test]
fn functions_and_what_they_take() {
    let mut image = with_conntrack();
    let int = image.int("int", 4);
    let choice = image.enumeration("choice", &[]);
    let pointer = image.pointer(0);
    let named = image.alias("handle", kind::TYPEDEF, pointer);
    let by_value = image.structure("pair", 16, &[]);
    let id = image.function("act", &[named, int, choice, by_value]);
    let btf = open(&image, None).unwrap();
    let function = btf.function("act").unwrap();
    assert_eq!((function.module, function.type_id), (None, id));
    use Argument::{Integer, Other, Pointer};
    assert_eq!(function.arguments, [Pointer, Integer, Integer, Other]);
    assert_eq!(btf.function("ac"), None);
    assert_eq!(btf.function("pair"), None, "a structure is no function");
}

#[test]
fn a_module_goes_on_from_the_image_and_is_searched_first() {
    let mut image = Writer::new();
    let int = image.int("int", 4);
    image.structure("shared", 4, &[("there", int, 0)]);
    image.function("act", &[int, int]);
    // A module may name its types by strings of the image.
    let again = image.string("again");
    let mut module = Writer::upon(&image);
    let pointer = module.pointer(int);
    module.add(again, u32::from(kind::STRUCT) << 24, 12, &[]);
    module.structure("own", 16, &[("number", int, 0), ("where", pointer, 64)]);
    let id = module.function("act", &[pointer]);
    let btf = open(&image, Some(&module)).unwrap();
    assert_eq!(btf.offset_of("shared", "there"), Some(0));
    assert_eq!(btf.size_of("again"), Some(12));
    assert_eq!(btf.field("own", "number"), field(0, 4));
    assert_eq!(btf.field("own", "where"), field(8, 8));
    let function = btf.function("act").unwrap();
    assert_eq!((function.module, function.type_id), (Some(CONNTRACK), id));
    assert_eq!((pointer, id), (5, 9), "numbers go on where those of the image end");
    assert_eq!(function.arguments, [Argument::Pointer]);
}

#[test]
fn what_is_missing_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let modules = tempfile::tempdir().unwrap();
    let open = || KernelBtf::open_with(directory.path(), modules.path()).unwrap_err();
    let error = open();
    assert!(matches!(error, BtfError::NoBtf { .. }), "{error}");
    fs::write(directory.path().join(IMAGE), Writer::new().finish()).unwrap();
    let error = open();
    assert!(matches!(error, BtfError::NotLoaded), "{error}");
    fs::create_dir(modules.path().join(CONNTRACK)).unwrap();
    let error = open();
    assert!(matches!(error, BtfError::NoModuleBtf { .. }), "{error}");
    assert!(error.to_string().contains("5.11"), "{error}");
    fs::create_dir(directory.path().join(CONNTRACK)).unwrap();
    let error = open();
    assert!(matches!(error, BtfError::Read { .. }), "{error}");
}

#[test]
fn a_kind_that_came_later_is_passed_over_if_its_size_is_told() {
    const LATER: u8 = 21;
    let mut image = with_conntrack();
    image.add(0, u32::from(LATER) << 24 | 2, 0, &[1, 2, 3, 4, 5]);
    image.structure("behind", 40, &[]);
    let error = open(&image, None).unwrap_err();
    let cause = Malformed::Kind { id: 2, kind: LATER };
    assert!(matches!(error, BtfError::Malformed { cause: found, .. } if found == cause), "{error}");
    image.tell_kinds(LATER, 4, 8);
    assert_eq!(open(&image, None).unwrap().size_of("behind"), Some(40));
}

#[test]
fn loops_end() {
    let mut image = with_conntrack();
    image.structure("round", 8, &[("", 2, 0)]);
    image.alias("itself", kind::TYPEDEF, 3);
    image.array(4, 2);
    image.structure("holder", 8, &[("alias", 3, 0), ("array", 4, 0)]);
    let btf = open(&image, None).unwrap();
    assert_eq!(btf.field("round", "none"), None);
    assert_eq!(btf.field("holder", "alias"), None);
    assert_eq!(btf.field("holder", "array"), None);
}

#[test]
fn bytes_that_are_no_btf_are_refused_and_never_misread() {
    let mut image = with_conntrack();
    let int = image.int("int", 4);
    image.structure("small", 4, &[("number", int, 0)]);
    image.function("act", &[int]);
    let bytes = image.finish();
    let parse = |bytes: Vec<u8>| Object::parse(bytes, None).map(|_| ());
    assert_eq!(parse(vec![]), Err(Malformed::Header));
    assert_eq!(parse(bytes[..7].to_vec()), Err(Malformed::Header));
    assert_eq!(parse(bytes[..20].to_vec()), Err(Malformed::Section("types")));
    let mut swapped = bytes.clone();
    swapped.swap(0, 1);
    assert_eq!(parse(swapped), Err(Malformed::Header));
    let cut = bytes[..bytes.len() - 1].to_vec();
    assert_eq!(parse(cut), Err(Malformed::Section("strings")));
    // Whatever one byte says, nothing panics.
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let Ok(object) = Object::parse(bytes, None) else { continue };
            let known = RefCell::default();
            let btf = KernelBtf { image: object, modules: vec![], known };
            let _ = (btf.field("small", "number"), btf.size_of("small"), btf.function("act"));
        }
    }
}
