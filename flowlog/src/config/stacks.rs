//! `stack=` lines → stacks: which plugin stands where, whether what each needs
//! is provided before it, and which sections nobody reads.

use super::grammar::Header;
use super::sections::Global;
use super::*;

/// A stack that flowlog cannot have any part in was met.
const FOREIGN: &str = "log packets or sums, not flows";

/// One `id:PLUGIN` of a stack line.
pub(super) struct Element {
    /// Names the plugin's section.
    pub(super) id: String,
    pub(super) plugin: &'static catalog::Plugin,
    /// Line of the stack.
    pub(super) line: usize,
}

pub(super) fn build<'a>(
    document: &Document<'a>,
    global: Global<'a>,
    found: &mut Diagnostics,
) -> Config {
    let mut config = Config {
        log: global.log,
        loglevel: global.loglevel,
        nice: global.nice,
        metrics: global.metrics,
        spool: global.spool,
        sources: Vec::new(),
        stacks: Vec::new(),
    };
    let mut ids = vec!["global".to_owned()];
    let mut lines = 0;
    for entry in global.values.all("stack") {
        lines += 1;
        let text = match entry.value {
            Value::Given(text) | Value::Unterminated(text) => joined(text, entry.rest),
            Value::Missing => String::new(),
        };
        ids.extend(ids_in(&text).map(str::to_owned));
        if let Some(elements) = elements(&text, entry.line, found) {
            stack(document, &elements, entry.line, &mut config, found);
        }
    }
    if lines == 0 {
        found.error(
            None,
            "[global] has no stack; add stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU"
                .to_owned(),
        );
    } else if config.stacks.is_empty() && !found.has_errors() {
        found.error(
            None,
            "no stack is left to run; add a stack that begins with ID:NFCT".to_owned(),
        );
    }
    filter::push_down(&mut config);
    collector::note_shared_domains(&config, found);
    sections_nobody_reads(document, &ids, found);
    config
}

/// A list that was broken by blanks: `stack=a:B, c:D`.
fn joined(text: &str, rest: &str) -> String {
    let goes_on = text.ends_with(',') || rest.starts_with(',');
    if goes_on && !rest.starts_with('#') { format!("{text}{rest}") } else { text.to_owned() }
}

fn ids_in(stack: &str) -> impl Iterator<Item = &str> {
    stack.split(',').filter_map(|element| element.split(':').next()).map(str::trim)
}

/// Splits a stack line; `None` if it is faulty or not for flowlog.
fn elements(text: &str, line: usize, found: &mut Diagnostics) -> Option<Vec<Element>> {
    let pairs: Vec<&str> = text.split(',').map(str::trim).collect();
    let first = pairs.first().and_then(|pair| pair.split_once(':')).map_or("", |pair| pair.1);
    if catalog::FOREIGN_SOURCES.contains(&first.trim()) {
        found.note(
            line,
            format!("the stack is left out: {first} and its kind {FOREIGN}; leave it to ulogd2"),
        );
        return None;
    }
    let mut elements = Vec::new();
    let mut good = true;
    for pair in pairs {
        match element(pair, line) {
            Ok(element) => elements.push(element),
            Err(why) => {
                good = false;
                found.error(line, why);
            }
        }
    }
    good.then_some(elements)
}

fn element(pair: &str, line: usize) -> Result<Element, String> {
    let Some((id, name)) = pair.split_once(':') else {
        return Err(format!("`{pair}` in the stack is not ID:PLUGIN; write for example ct1:NFCT"));
    };
    let (id, name) = (id.trim(), name.trim());
    if id.is_empty() {
        return Err(format!("`{pair}` in the stack has no id; write for example emu1:{name}"));
    }
    match catalog::plugin(name) {
        Some(plugin) => Ok(Element { id: id.to_owned(), plugin, line }),
        None if catalog::FOREIGN_PLUGINS.contains(&name) => Err(format!(
            "{name} is a plugin of ulogd2 that flowlog does not have; take it out of the stack \
             (`flowlog info` lists what there is)"
        )),
        None => Err(format!(
            "there is no plugin `{name}`{}; `flowlog info` lists them",
            nearest(name, catalog::PLUGINS.iter().map(|plugin| plugin.name))
        )),
    }
}

/// Checks the order of a stack and adds it to `config`.
fn stack(
    document: &Document<'_>,
    elements: &[Element],
    line: usize,
    config: &mut Config,
    found: &mut Diagnostics,
) {
    if !check_order(elements, line, found) {
        return;
    }
    let Some((first, rest)) = elements.split_first() else { return };
    let source = match config.sources.iter().position(|source| source.id == first.id) {
        Some(known) => known,
        None => {
            config.sources.push(sections::nfct(document, first, found));
            config.sources.len() - 1
        }
    };
    let spool = config.spool.max_bytes;
    let stages = rest.iter().map(|element| stage(document, element, spool, found)).collect();
    let sink = rest.last().map(|element| element.id.clone()).unwrap_or_default();
    config.stacks.push(Stack { line, source, sink, stages });
}

fn stage(document: &Document<'_>, element: &Element, spool: u64, found: &mut Diagnostics) -> Stage {
    match element.plugin.name {
        "PRINTFLOW" => Stage::PrintFlow(sections::printflow(document, element, found)),
        "FILTER" => Stage::Filter(filter::read(document, element, found)),
        "LOGEMU" => Stage::LogEmu(sinks::logemu(document, element, found)),
        "SYSLOG" => Stage::Syslog(sinks::syslog(document, element, found)),
        "JSON" => Stage::Json(sinks::json(document, element, found)),
        "KAFKA" => Stage::Kafka(brokers::kafka(document, element, found)),
        "NATS" => Stage::Nats(brokers::nats(document, element, found)),
        "SQLITE3" => Stage::Sqlite3(sinks::sqlite3(document, element, found)),
        "IPFIX" => Stage::Ipfix(collector::ipfix(document, element, found)),
        "PARQUET" => Stage::Parquet(parquet::read(document, element, spool, found)),
        "PGSQL" => Stage::Pgsql(Box::new(network::pgsql(document, element, found))),
        "CLICKHOUSE" => Stage::Clickhouse(Box::new(clickhouse::read(document, element, found))),
        _ => Stage::Ip2Str,
    }
}

/// Source first, sink last, filters between, needs provided.
fn check_order(elements: &[Element], line: usize, found: &mut Diagnostics) -> bool {
    let mut good = true;
    let mut refuse = |why: String| {
        good = false;
        found.error(line, why);
    };
    let last = elements.len() - 1;
    for (place, Element { id, plugin, .. }) in elements.iter().enumerate() {
        let name = plugin.name;
        match plugin.role {
            Role::Source if place > 0 => {
                refuse(format!("{id}:{name} is a source; put it first in the stack"));
            }
            Role::Filter | Role::Sink if place == 0 => refuse(format!(
                "the stack begins with {id}:{name}, which is no source; begin with ct1:NFCT"
            )),
            Role::Sink if place < last => {
                refuse(format!("{id}:{name} is a sink; put it last in the stack"));
            }
            Role::Source | Role::Filter if place == last => refuse(format!(
                "the stack ends with {id}:{name}, which is no sink; end with emu1:LOGEMU"
            )),
            _ => {}
        }
        let before = &elements[..place];
        let missing = plugin
            .needs
            .iter()
            .find(|need| !before.iter().any(|element| element.plugin.provides.contains(need)));
        if let (Some(need), true) = (missing, place > 0) {
            let giver = catalog::PLUGINS.iter().find(|plugin| plugin.provides.contains(need));
            refuse(format!(
                "{id}:{name} needs `{need}`, which nothing before it provides; put {} before it",
                giver.map_or("its source", |plugin| plugin.name)
            ));
        }
    }
    good
}

fn sections_nobody_reads(document: &Document<'_>, ids: &[String], found: &mut Diagnostics) {
    let headers = document.headers();
    let disabled: Vec<&str> = document.disabled_stacks().flat_map(ids_in).collect();
    // A name in a stack without a section, and a section without a stack, may be
    // one name with a mistake in it.
    let homeless: Vec<&str> =
        ids.iter().map(String::as_str).filter(|id| !has(&headers, id)).collect();
    for header in &headers {
        let Header { line, name, first } = *header;
        if let Some(first) = first {
            found.note(
                line,
                format!(
                    "[{name}] stands here for the second time; only the first one, in line \
                     {first}, is read. Move its keys there"
                ),
            );
        } else if ids.iter().any(|id| id == name) {
            if !found.readings.contains_key(&line) {
                found.read(line, Reading::Unread("the stack that names it is left out"));
            }
        } else if disabled.contains(&name) {
            found.read(line, Reading::Unread("the stack that names it is commented out"));
        } else {
            let nearest = nearest(name, &homeless);
            let severity = if nearest.is_empty() { Severity::Note } else { Severity::Unknown };
            let what = format!("no stack names [{name}], so it is not read{nearest}");
            found.add(severity, line, what);
        }
    }
}

fn has(headers: &[Header<'_>], id: &str) -> bool {
    headers.iter().any(|header| header.name == id)
}
