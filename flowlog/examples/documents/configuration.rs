//! flowlog.conf(5), from the list of plugins and keys that the parser reads too.

use clap_mangen::roff::{Roff, bold, italic, roman};
use flowlog::config::catalog::{GLOBAL, Key, PLUGINS, Plugin, Role};

use crate::text::{marked, paragraphs, see_also, title};

/// Its file.
pub(crate) const NAME: &str = "flowlog.conf.5";

const DESCRIPTION: &str = "\
The configuration of flowlog, in the grammar of ulogd.conf: a file of ulogd2 can be used as it is.

A section begins with its name in brackets. In it stand keys and their values, `KEY=VALUE` or \
`KEY=\"VALUE\"`, one a line; what follows a `#` at the start of a line is a comment. Switches are 0 \
or 1.

The section `[global]` concerns the daemon, and has the stacks: each names plugins in the order in \
which an event goes through them, from a source through filters to a sink, as `ID:PLUGIN`. The \
section of the name ID has the keys of that plugin.

`flowlog check -c` FILE tells what is wrong with a file, and what is missing on this host. Signal \
HUP has files opened anew; for changes of the configuration flowlog is to be restarted.";

const EXAMPLE: &str = "  \
[global]
  stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU

  [ct1]
  event_mask=0x00000005
  hash_enable=0

  [emu1]
  file=\"/var/log/flowlog/flowlog.log\"";

/// The page; `others` are those to read as well.
pub(crate) fn page(others: &[&str]) -> String {
    let mut roff = Roff::new();
    title(&mut roff, "flowlog.conf", "5");
    roff.control("SH", ["NAME"]);
    roff.text([roman("flowlog.conf - configuration of flowlog")]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut roff, DESCRIPTION);
    roff.control("SH", ["SECTION [global]"]);
    keys(&mut roff, GLOBAL);
    roff.control("SH", ["PLUGINS"]);
    for plugin in PLUGINS {
        self::plugin(&mut roff, plugin);
    }
    roff.control("SH", ["EXAMPLE"]);
    roff.text([roman("A line for the beginning and one for the end of each connection:")]);
    roff.control("PP", []);
    roff.control("nf", []);
    roff.text([roman(EXAMPLE)]);
    roff.control("fi", []);
    roff.control("SH", ["FILES"]);
    roff.text([
        italic("/etc/flowlog.conf"),
        roman(", and where it is not there "),
        italic("/etc/ulogd.conf"),
    ]);
    see_also(&mut roff, others.iter().copied());
    roff.render()
}

fn plugin(roff: &mut Roff, plugin: &Plugin) {
    let role = match plugin.role {
        Role::Source => "source",
        Role::Filter => "filter",
        Role::Sink => "sink",
    };
    roff.control("SS", [format!("{} ({role})", plugin.name).as_str()]);
    roff.text(marked(&format!("{}.", sentence(plugin.summary))));
    if plugin.keys.is_empty() {
        roff.text([roman("It has no keys and needs no section.")]);
    }
    keys(roff, plugin.keys);
}

fn keys(roff: &mut Roff, keys: &[Key]) {
    for key in keys {
        roff.control("TP", []);
        let mut head = vec![bold(key.name), roman("=")];
        head.extend(marked(key.kind));
        if key.repeats {
            head.push(roman("; may be given several times"));
        } else if !key.default.is_empty() {
            head.extend([roman("; default: "), bold(key.default)]);
        }
        roff.text(head);
        roff.text(marked(&format!("{}.", sentence(key.help))));
    }
}

/// With a capital letter at its beginning.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
