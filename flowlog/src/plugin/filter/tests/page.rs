//! docs/filter.md and docs/flow.schema.json against the list of fields.

use serde_json::Value as Json;

use super::*;
use crate::plugin::filter::fields::Field;
use crate::plugin::filter::value::Type;

/// With this variable set the tables of the page are written anew.
const WRITE: &str = "FLOWLOG_WRITE_PAGES";

fn docs(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).join(name)
}

fn page() -> String {
    fs::read_to_string(docs("filter.md")).unwrap()
}

#[test]
fn names_are_unique_and_can_be_written() {
    let fields = fields::all();
    let names: BTreeSet<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names.len(), fields.len());
    for name in names {
        assert!(Program::new(&format!("has({name})")).is_ok(), "{name}");
    }
}

/// Every member of flows and expectations is a field of the same name.
#[test]
fn the_schema_has_no_other_names() {
    let schema: Json =
        serde_json::from_str(&fs::read_to_string(docs("flow.schema.json")).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    for definition in ["flow", "entry", "expectation"] {
        let members = schema["$defs"][definition]["properties"].as_object().unwrap();
        for (name, member) in members {
            let referred = member["$ref"].as_str().and_then(|path| path.rsplit('/').next());
            let inner = referred.map_or(member, |name| &schema["$defs"][name]);
            match inner["properties"].as_object() {
                Some(inner) => names.extend(inner.keys().map(|inner| format!("{name}.{inner}"))),
                None => drop(names.insert(name.clone())),
            }
        }
    }
    // The line of PRINTFLOW is no part of the event, the id is made behind FILTER, the host is
    // always this one, and those that expect are not counted.
    for none in ["print", "record", "host", "master.packets", "master.bytes"] {
        assert!(names.remove(none), "{none}");
    }
    let fields: BTreeSet<String> = fields::all().into_iter().map(|field| field.name).collect();
    let missing: Vec<_> = names.difference(&fields).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let more: Vec<&str> = fields.difference(&names).map(String::as_str).collect();
    let ours = [
        "bytes", "dst.ip", "dst.port", "duration", "kind", "packets", "proto", "src.ip", "src.port",
    ];
    assert_eq!(more, ours);
}

fn table() -> String {
    let mut text = "| field | type | meaning |\n|---|---|---|\n".to_owned();
    for Field { name, kind, help, .. } in fields::all() {
        let words = match kind {
            Type::Word(words) | Type::Set(words) => {
                let names: Vec<_> = words.names().iter().map(|name| format!("`{name}`")).collect();
                format!(": {}", names.join(", "))
            }
            _ => String::new(),
        };
        text += &format!("| `{name}` | {kind} | {help}{words} |\n");
    }
    text += "\n## Functions\n\n| function | meaning |\n|---|---|\n";
    for functions::Function { form, help } in functions::ALL {
        text += &format!("| `{form}` | {help} |\n");
    }
    text
}

#[test]
fn its_tables_are_made_of_the_lists() {
    const BEGIN: &str = "## Fields\n\n";
    const END: &str = "\n## ";
    let page = page();
    let (front, rest) = page.split_once(BEGIN).expect("## Fields");
    let (_, rest) = rest.split_once("\n## Functions\n").expect("## Functions");
    let (_, rest) = rest.split_once(END).expect("a heading behind the functions");
    let expected = format!("{front}{BEGIN}{}{END}{rest}", table());
    if std::env::var_os(WRITE).is_some() {
        fs::write(docs("filter.md"), &expected).unwrap();
    }
    assert!(self::page() == expected, "run\n  {WRITE}=1 cargo test -p flowlog its_tables");
}

/// Every function of the list can be called.
#[test]
fn functions_are_what_the_list_says() {
    for function in functions::ALL {
        let text = match function.name() {
            "has" => "has(cause)".to_owned(),
            "in_net" => "src.ip.in_net('10.0.0.0/8', 'fd00::/8')".to_owned(),
            "size" => "size(helper) > 1 && helper.size() > 1".to_owned(),
            "duration" => "duration > duration('2h30m')".to_owned(),
            "timestamp" => "time > timestamp('2026-01-31T12:00:00Z')".to_owned(),
            name if function.form.starts_with("ADDRESS") => format!("src.ip.{name}()"),
            name => format!("helper.{name}('f')"),
        };
        assert!(Program::new(&text).is_ok(), "{text}");
    }
}

/// The page's configurations are taken, and what it says of an event is true.
#[test]
fn its_examples_are_taken() {
    let page = page();
    let expressions: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("expr=\"")?.strip_suffix('"')).collect();
    assert!(expressions.len() > 8, "{expressions:?}");
    for expression in &expressions {
        let program = Program::new(expression);
        let program = program.unwrap_or_else(|mistake| panic!("{expression}: {mistake}"));
        for made in [tcp(), ping6(), expectation()] {
            assert!(program.holds(&made.item()).is_ok(), "{expression}");
        }
    }
    let example = page.split("```\n").find(|part| part.contains("[global]")).unwrap();
    let outcome = crate::config::parse(Path::new("f.conf"), example);
    assert!(outcome.config.is_some(), "{:?}", outcome.diagnostics);
}
