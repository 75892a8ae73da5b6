//! `flowlog info`: the plugins, their keys and what these mean, from the one
//! list that the parser reads too.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;

use super::check::print;
use crate::config::catalog::{self, Key, Plugin};
use crate::config::diagnostic::nearest;

/// Columns of the text.
const WIDTH: usize = 80;
/// Exit code for a name that nobody knows.
const USAGE: u8 = 2;

/// Prints the plugins and the keys of `[global]`, or all about `plugin`: its
/// name in any case, or ulogd2's file name (`/usr/lib/…/ulogd_inpflow_NFCT.so`).
///
/// The exit code is 2 when there is no such plugin.
///
/// # Errors
/// Standard output cannot be written to; a closed pipe is no error.
pub fn run(plugin: Option<&str>) -> anyhow::Result<ExitCode> {
    let text = match plugin {
        None => overview(),
        Some(name) => match catalog::plugin(&canonical(name)) {
            Some(plugin) => details(plugin),
            None => {
                // Without standard error the exit code has to do.
                let _ = writeln!(io::stderr(), "flowlog: {}", unknown(name));
                return Ok(ExitCode::from(USAGE));
            }
        },
    };
    print(&text).context("standard output cannot be written to")?;
    Ok(ExitCode::SUCCESS)
}

/// A name as the catalog has it: of a file, what stands between the last `_`
/// and `.so`.
fn canonical(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(name);
    let stem = file.strip_suffix(".so").unwrap_or(file);
    stem.rsplit('_').next().unwrap_or(stem).to_uppercase()
}

fn unknown(name: &str) -> String {
    let plugin = canonical(name);
    if catalog::FOREIGN_PLUGINS.contains(&plugin.as_str())
        || catalog::FOREIGN_SOURCES.contains(&plugin.as_str())
    {
        return format!("`{plugin}` is a plugin of ulogd2 that flowlog does not have; {ALL}");
    }
    let near = nearest(&plugin, catalog::PLUGINS.iter().map(|plugin| plugin.name));
    format!("there is no plugin `{name}`{near}; {ALL}")
}

const ALL: &str = "`flowlog info` names all there are";

fn overview() -> String {
    let mut text = String::from("Plugins, in the order in which they stand in a stack:\n\n");
    for plugin in catalog::PLUGINS {
        text += &format!("  {:<10} {:<7} {}\n", plugin.name, plugin.role.name(), plugin.summary);
    }
    text += "\n`flowlog info PLUGIN` tells its keys.\n\nKeys of [global]:\n";
    text += &keys(catalog::GLOBAL);
    text
}

fn details(plugin: &Plugin) -> String {
    let mut text = format!("{} ({}): {}\n\n", plugin.name, plugin.role.name(), plugin.summary);
    text += &list("Needs", plugin.needs);
    text += &list("Provides", plugin.provides);
    if plugin.keys.is_empty() {
        text += "\nIt has no keys and needs no section.\n";
        return text;
    }
    text += "\nKeys of its section:\n";
    text += &keys(plugin.keys);
    text += "\nExample, with the defaults:\n\n";
    text += &example(plugin);
    text
}

/// The stacks of the examples; the first that has the plugin is shown.
const STACKS: &[&str] = &[
    "ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU",
    "ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG",
    "ct1:NFCT,ip2str1:IP2STR,json1:JSON",
    "ct1:NFCT,db1:SQLITE3",
    "ct1:NFCT,ipfix1:IPFIX",
    "ct1:NFCT,arc1:PARQUET",
    "ct1:NFCT,nats1:NATS",
    "ct1:NFCT,kafka1:KAFKA",
    "ct1:NFCT,ch1:CLICKHOUSE",
    "ct1:NFCT,f1:FILTER,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU",
    "ct1:NFCT,pg1:PGSQL",
];

/// A stack, and the plugin's section.
fn example(plugin: &Plugin) -> String {
    let id = |stack: &'static str| {
        let elements = stack.split(',').filter_map(|element| element.split_once(':'));
        elements.into_iter().find(|(_, name)| *name == plugin.name).map(|(id, _)| (stack, id))
    };
    let (stack, id) = STACKS.iter().copied().find_map(id).unwrap_or((STACKS[0], "id1"));
    let mut text = format!("  [global]\n  stack={stack}\n  [{id}]\n");
    for key in plugin.keys.iter().filter(|key| key.is_expression()) {
        text += &format!("  {}=\"dst.port == 443\"\n", key.name);
    }
    for key in plugin.keys.iter().filter(|key| !key.default.is_empty()) {
        let word = key.default.starts_with(|c: char| c.is_ascii_digit());
        let quote = if word { "" } else { "\"" };
        text += &format!("  {}={quote}{}{quote}\n", key.name, key.default);
    }
    text
}

fn list(title: &str, names: &[&str]) -> String {
    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
    wrap(&format!("{title}: {names}"), "", "  ")
}

fn keys(keys: &[Key]) -> String {
    let mut text = String::new();
    for Key { name, kind, default, repeats, help } in keys {
        let default = match *default {
            "" => String::new(),
            default => format!(", default {default}"),
        };
        let repeats = if *repeats { ", may stand more than once" } else { "" };
        text += &format!("\n  {name}\n");
        text += &wrap(&format!("{kind}{default}{repeats}"), "      ", "      ");
        text += &wrap(help, "      ", "      ");
    }
    text
}

/// `text` in lines of at most [`WIDTH`] columns, words permitting.
fn wrap(text: &str, first: &str, others: &str) -> String {
    let mut wrapped = String::new();
    let mut line = first.to_owned();
    let mut empty = true;
    for word in text.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            wrapped += &line;
            wrapped.push('\n');
            line = others.to_owned();
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line += word;
        empty = false;
    }
    wrapped + &line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_any_case_and_a_file_of_ulogd2_are_known() {
        for name in [
            "NFCT",
            "nfct",
            "/usr/lib/x86_64-linux-gnu/ulogd/ulogd_inpflow_NFCT.so",
            "ulogd_inpflow_NFCT.so",
        ] {
            assert_eq!(canonical(name), "NFCT", "{name}");
        }
        assert_eq!(canonical("ulogd_output_LOGEMU.so"), "LOGEMU");
    }

    #[test]
    fn unknown_names_get_an_offer() {
        assert!(unknown("logem").contains("did you mean `LOGEMU`?"), "{}", unknown("logem"));
        assert!(unknown("ulogd_filter_PWSNIFF.so").contains("`PWSNIFF` is a plugin of ulogd2"));
        assert!(!unknown("xyzzy").contains("did you mean"));
    }

    #[test]
    fn everything_in_the_catalog_is_told() {
        let overview = overview();
        for plugin in catalog::PLUGINS {
            assert!(overview.contains(plugin.name) && overview.contains(plugin.summary));
            let details = details(plugin);
            for key in plugin.keys {
                assert!(details.contains(&format!("\n  {}\n", key.name)), "{}", key.name);
            }
        }
        for key in catalog::GLOBAL {
            assert!(overview.contains(&format!("\n  {}\n", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        for text in catalog::PLUGINS.iter().map(details).chain([overview()]) {
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn the_examples_are_sound() {
        for plugin in catalog::PLUGINS.iter().filter(|plugin| !plugin.keys.is_empty()) {
            let text = example(plugin);
            let outcome = crate::config::parse(std::path::Path::new("x"), &text);
            assert!(outcome.config.is_some(), "{text}{:?}", outcome.diagnostics);
            assert!(text.contains(&format!(":{}", plugin.name)), "{text}");
        }
    }
}
