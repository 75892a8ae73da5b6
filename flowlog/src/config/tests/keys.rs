//! What the catalog says of keys: the numbers that it allows are those that are
//! taken, and docs/keys.md is made of it.

use std::path::PathBuf;

use super::*;
use crate::config::catalog::{GLOBAL, Key, PLUGINS, Plugin};

/// With this variable set the page is written anew instead of compared.
const WRITE: &str = "FLOWLOG_WRITE_PAGES";

const HEAD: &str = "\
# Every key

What may stand in the configuration, `/etc/flowlog.conf`, else `/etc/ulogd.conf`. `flowlog info`
says the same on the terminal, `flowlog check -c FILE` what is wrong with a file, and
[conf/flowlog.conf](../conf/flowlog.conf) is a file with all of them.

A section begins with `[NAME]`; in it stand `KEY=VALUE` or `KEY=\"VALUE\"`, one a line, and comments
behind `#`. The sections of plugins have the names that a stack line gives: `ct1:NFCT` has its keys
in `[ct1]`. An integer is decimal, hexadecimal behind `0x` or octal behind `0`; a switch is off with
0 and on with 1; a list has commas between its members. What stands for another
value, and what differs from ulogd2, is in [compatibility.md](compatibility.md).

This page is made from `flowlog/src/config/catalog.rs`, the list that the parser reads too: change
that, and run

```
FLOWLOG_WRITE_PAGES=1 cargo test -p flowlog docs_keys
```
";

#[test]
fn docs_keys_is_made_of_the_catalog() {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/keys.md"));
    let expected = page();
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    let different = expected.lines().zip(written.lines().chain(std::iter::repeat("")));
    let different = different.into_iter().find(|(expected, written)| expected != written);
    assert!(
        expected == written,
        "docs/keys.md is not what the catalog says, first {different:#?}; run\n  {WRITE}=1 cargo \
         test -p flowlog docs_keys"
    );
}

fn page() -> String {
    let mut text = HEAD.to_owned();
    text += "\n## `[global]`: the daemon and its stacks\n\n";
    text += &table(GLOBAL);
    for plugin in PLUGINS {
        let Plugin { name, role, summary, keys, .. } = plugin;
        text += &format!("\n## {name}: {summary}\n\nA {}", role.name());
        text += if keys.is_empty() { ". It has no keys and needs no section.\n" } else { ".\n\n" };
        if !keys.is_empty() {
            text += &table(keys);
        }
    }
    text
}

fn table(keys: &[Key]) -> String {
    let mut text = "| key | value | default | meaning |\n|---|---|---|---|\n".to_owned();
    for Key { name, kind, default, repeats, help } in keys {
        let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
        let more = if *repeats { "; may stand more than once" } else { "" };
        let row = [format!("`{name}`"), format!("{kind}{more}"), default, (*help).to_owned()];
        text += &format!("| {} |\n", row.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

/// The bounds in `integer from A to B`.
fn bounds(key: &Key) -> Option<[i64; 2]> {
    let numbers = key.kind.strip_prefix("integer from ")?.split(',').next()?;
    let (from, to) = numbers.split_once(" to ")?;
    Some([from.parse().ok()?, to.parse().ok()?])
}

#[test]
fn integers_have_the_bounds_that_are_told() {
    let mut seen = 0;
    let sections = PLUGINS.iter().map(|plugin| (plugin.name, plugin.keys));
    for (plugin, keys) in sections.chain([("global", GLOBAL)]) {
        for (key, [from, to]) in keys.iter().filter_map(|key| Some((key, bounds(key)?))) {
            seen += 1;
            let refused = |number: i64| {
                let of = |section| {
                    if section == plugin {
                        format!("{}={number}\n", key.name)
                    } else {
                        String::new()
                    }
                };
                let text = format!(
                    "[global]\n{}stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
                     stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,sys1:SYSLOG\n\
                     stack=ct1:NFCT,json1:JSON\nstack=ct1:NFCT,db1:SQLITE3\n\
                     stack=ct1:NFCT,ipfix1:IPFIX\n\
                     stack=ct1:NFCT,arc1:PARQUET\n\
                     stack=ct1:NFCT,pg1:PGSQL\n\
                     stack=ct1:NFCT,nats1:NATS\nstack=ct1:NFCT,kafka1:KAFKA\n\
                     stack=ct1:NFCT,ch1:CLICKHOUSE\n\
                     [ct1]\n{}[emu1]\n{}[sys1]\n{}[json1]\n{}[db1]\n{}[ipfix1]\n{}[arc1]\n{}[pg1]\n{}\
                     [nats1]\n{}[kafka1]\n{}[ch1]\n{}",
                    of("global"),
                    of("NFCT"),
                    of("LOGEMU"),
                    of("SYSLOG"),
                    of("JSON"),
                    of("SQLITE3"),
                    of("IPFIX"),
                    of("PARQUET"),
                    of("PGSQL"),
                    of("NATS"),
                    of("KAFKA"),
                    of("CLICKHOUSE"),
                );
                messages(&text).iter().any(|message| message.contains("out of range"))
            };
            let wrong = [from - 1, from, to, to + 1].map(refused);
            assert_eq!(wrong, [true, false, false, true], "{plugin}: {}: {}", key.name, key.kind);
        }
    }
    assert!(seen > 10, "{seen} keys have bounds");
}
