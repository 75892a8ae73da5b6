//! A stack: the plugins behind a source, built from its line, and the way of
//! one item through them.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::archive::origin::Origin;
use crate::config::{self, Config, NetnsScope};
use crate::event::{Kinds, Lost};
use crate::plugin::filter::Filter;
use crate::plugin::json::Json;
use crate::plugin::logemu::LogEmu;
use crate::plugin::output::{Destination, Output};
use crate::plugin::ship::{Shipped, Spool, Start};
use crate::plugin::sqlite3::Sqlite3;
use crate::plugin::syslog::Syslog;
use crate::plugin::{
    Body, Downstream, Item, Scratch, clickhouse, ipfix, kafka, nats, parquet, pgsql, printflow,
};
use crate::stats::{Instance, SinkPlugin, SinkStats, Stats};

/// A plugin behind the source.
enum Stage {
    Ip2Str,
    PrintFlow(printflow::Settings),
    Filter(Box<Filter>),
    LogEmu(Box<LogEmu>),
    Syslog(Box<Syslog>),
    Json(Box<Json>),
    Sqlite3(Box<Sqlite3>),
    Shipped(Box<Shipped>),
}

/// What plugins need to start.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The name of this host.
    pub host: &'a str,
    /// Who counts.
    pub stats: &'a Stats,
    /// Where records wait for what is away; there where a stack needs it.
    pub spool: Option<&'a Spool>,
    /// The id of the source.
    pub source: &'a str,
    /// The number of the stack among those of the source, from 1 on.
    pub stack: usize,
    /// The id of the stack's sink.
    pub sink: &'a str,
    /// The network namespaces of the source.
    netns: &'a NetnsScope,
    /// The sink gets the beginning of each connection, and not its end alone.
    beginnings: bool,
}

impl<'a> Site<'a> {
    /// That of the daemon, before a source and a stack are known.
    pub fn of(host: &'a str, stats: &'a Stats, spool: Option<&'a Spool>) -> Self {
        Self {
            host,
            stats,
            spool,
            source: "",
            stack: 0,
            sink: "",
            netns: &NetnsScope::Own,
            beginnings: false,
        }
    }

    /// The labels of the stack's sink.
    pub fn instance(&self, plugin: SinkPlugin) -> Instance {
        let Self { source, stack, sink, .. } = *self;
        Instance { source: source.to_owned(), stack, sink: sink.to_owned(), plugin }
    }

    /// What archives state of the stack.
    fn origin(&self) -> Origin {
        let Self { host, source, sink, netns, beginnings, .. } = *self;
        let netns = match netns {
            NetnsScope::All => "all".into(),
            NetnsScope::Own => "self".into(),
            NetnsScope::Path(path) => path.to_string_lossy(),
        };
        Origin { sink: format!("{host} netns={netns} {source}/{sink}"), beginnings }
    }

    fn counters(&self, plugin: SinkPlugin) -> SinkStats {
        self.stats.sink(self.instance(plugin))
    }
}

/// The plugins behind a source, in order.
pub struct Stack {
    /// Its sink, which stands last.
    sink: Option<Instance>,
    stages: Vec<Stage>,
    scratch: Scratch,
}

impl Stack {
    /// Builds and starts the plugins of a stack: files are opened here.
    ///
    /// # Errors
    /// A plugin could not be started; the message says which and why.
    pub fn start(config: &config::Stack, site: Site<'_>) -> anyhow::Result<Self> {
        // What passes a FILTER may be ends alone.
        let filtered = config.stages.iter().any(|stage| matches!(stage, config::Stage::Filter(_)));
        let beginnings = site.beginnings && !filtered;
        let site = Site { sink: &config.sink, beginnings, ..site };
        let stages = config.stages.iter().map(|stage| start(stage, site));
        let stages = stages.collect::<anyhow::Result<_>>()?;
        let plugin = config.stages.last().and_then(config::Stage::sink);
        let sink = plugin.map(|plugin| site.instance(plugin));
        Ok(Self { sink, stages, scratch: Scratch::default() })
    }

    #[inline]
    fn push(&mut self, item: &Item<'_>) {
        let Self { sink: _, stages, scratch } = self;
        for stage in stages {
            match stage {
                Stage::Ip2Str => scratch.addresses.set(item),
                Stage::PrintFlow(settings) => {
                    settings.print(item, &scratch.addresses, &mut scratch.print);
                }
                Stage::Filter(filter) => {
                    if !filter.passes(item) {
                        return;
                    }
                }
                Stage::LogEmu(sink) if !scratch.print.is_empty() => {
                    sink.push(item.at, scratch.print.as_bytes());
                }
                Stage::Syslog(sink) if !scratch.print.is_empty() => {
                    sink.push(item.at, scratch.print.as_bytes());
                }
                Stage::LogEmu(_) | Stage::Syslog(_) => {}
                Stage::Json(sink) => sink.push(item, scratch),
                Stage::Sqlite3(sink) => sink.push(item, scratch),
                Stage::Shipped(sink) => sink.push(item, scratch),
            }
        }
    }

    /// Whether losses stand in its output.
    fn shows_losses(&self) -> bool {
        self.stages.iter().any(|stage| match stage {
            Stage::PrintFlow(settings) => settings.loss_lines,
            Stage::Json(sink) => sink.shows_losses(),
            _ => false,
        })
    }

    fn outputs(&self) -> impl Iterator<Item = &Output> {
        self.stages.iter().filter_map(|stage| match stage {
            Stage::LogEmu(sink) => Some(sink.output()),
            Stage::Syslog(sink) => Some(sink.output()),
            Stage::Json(sink) => Some(sink.output()),
            Stage::Sqlite3(sink) => Some(sink.output()),
            Stage::Shipped(sink) => Some(sink.output()),
            Stage::Ip2Str | Stage::PrintFlow(_) | Stage::Filter(_) => None,
        })
    }

    fn outputs_mut(&mut self) -> impl Iterator<Item = &mut Output> {
        self.stages.iter_mut().filter_map(|stage| match stage {
            Stage::LogEmu(sink) => Some(sink.output_mut()),
            Stage::Syslog(sink) => Some(sink.output_mut()),
            Stage::Json(sink) => Some(sink.output_mut()),
            Stage::Sqlite3(sink) => Some(sink.output_mut()),
            Stage::Shipped(sink) => Some(sink.output_mut()),
            Stage::Ip2Str | Stage::PrintFlow(_) | Stage::Filter(_) => None,
        })
    }
}

fn start(stage: &config::Stage, site: Site<'_>) -> anyhow::Result<Stage> {
    let host = site.host;
    Ok(match stage {
        config::Stage::Ip2Str => Stage::Ip2Str,
        config::Stage::PrintFlow(settings) => Stage::PrintFlow(*settings),
        config::Stage::Filter(settings) => {
            Stage::Filter(Box::new(Filter::new(settings, site.stats.clone())))
        }
        config::Stage::LogEmu(settings) => {
            let sink = LogEmu::open(settings, host, site.counters(SinkPlugin::Logemu));
            Stage::LogEmu(Box::new(sink.map_err(|error| cannot_open(&settings.file, &error))?))
        }
        config::Stage::Syslog(settings) => {
            let sink = Syslog::open(settings, host, site.counters(SinkPlugin::Syslog));
            Stage::Syslog(Box::new(sink.map_err(|error| no_output(&settings.output, &error))?))
        }
        config::Stage::Json(settings) => {
            let sink = Json::open(settings, host, site.counters(SinkPlugin::Json));
            Stage::Json(Box::new(sink.map_err(|error| no_output(&settings.output, &error))?))
        }
        config::Stage::Sqlite3(settings) => {
            let sink = Sqlite3::open(settings, site.counters(SinkPlugin::Sqlite3))?;
            Stage::Sqlite3(Box::new(sink.stating(&site.origin())))
        }
        config::Stage::Ipfix(settings) => {
            let start = Start::of(&settings.shipping, SinkPlugin::Ipfix, ipfix::ENCODING, site)?;
            Stage::Shipped(Box::new(ipfix::open(&start, settings)))
        }
        config::Stage::Parquet(settings) => {
            let run = parquet::Run::begin();
            let encoding = run.encoding();
            let start = Start::of(&settings.shipping, SinkPlugin::Parquet, &encoding, site)?;
            Stage::Shipped(Box::new(parquet::open(&start, settings, host, site.origin(), run)?))
        }
        config::Stage::Pgsql(settings) => {
            let start = Start::of(&settings.shipping, SinkPlugin::Pgsql, pgsql::ENCODING, site)?;
            Stage::Shipped(Box::new(pgsql::open(&start, settings)))
        }
        config::Stage::Kafka(settings) => Stage::Shipped(Box::new(kafka::open(settings, site)?)),
        config::Stage::Nats(settings) => Stage::Shipped(Box::new(nats::open(settings, site)?)),
        config::Stage::Clickhouse(settings) => {
            let encoding = clickhouse::ENCODING;
            let start = Start::of(&settings.shipping, SinkPlugin::Clickhouse, encoding, site)?;
            Stage::Shipped(Box::new(clickhouse::open(&start, settings, host)))
        }
    })
}

fn no_output(settings: &crate::plugin::output::Settings, error: &io::Error) -> anyhow::Error {
    match &settings.destination {
        Destination::File { path, sync: _ } => cannot_open(path, error),
        Destination::Socket(address) => anyhow::anyhow!("{address} cannot be used: {error}"),
    }
}

fn cannot_open(file: &Path, error: &io::Error) -> anyhow::Error {
    let file = file.display();
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "make its directory, or name another file with `file=`",
        io::ErrorKind::PermissionDenied => "make it writable, or name another file with `file=`",
        _ => "name another file with `file=`",
    };
    anyhow::anyhow!("the log file {file} cannot be opened: {error}; {remedy}")
}

/// The stacks of one source: each gets every item.
pub struct Stacks(pub Vec<Stack>);

impl Stacks {
    /// Builds and starts the stacks of a source, by its index in the configuration. `site` is
    /// that of the daemon.
    ///
    /// # Errors
    /// As [`Stack::start`].
    pub fn start(config: &Config, source: usize, site: Site<'_>) -> anyhow::Result<Self> {
        let site = match config.sources.get(source) {
            Some(source) => Site {
                source: &source.id,
                netns: &source.netns,
                beginnings: source.nfct.hands_on_beginnings(),
                ..site
            },
            None => site,
        };
        let stacks = config.stacks.iter().filter(|stack| stack.source == source);
        let start = |(index, stack)| Stack::start(stack, Site { stack: index + 1, ..site });
        Ok(Self(stacks.enumerate().map(start).collect::<anyhow::Result<_>>()?))
    }

    /// Ends a batch: what has gathered is written.
    pub fn flush(&mut self) {
        self.outputs_mut().for_each(Output::flush);
    }

    /// Starts the threads that sinks need: when no process is forked and no privilege
    /// dropped any more.
    pub fn begin(&mut self) {
        self.outputs_mut().for_each(Output::begin);
    }

    /// Everything that happened before `complete` was pushed, see [`Output::caught_up`].
    pub fn caught_up(&mut self, complete: u64) {
        self.outputs_mut().for_each(|output| output.caught_up(complete));
    }

    /// Opens files anew, and looks for peers that are away.
    pub fn reopen(&mut self) {
        self.outputs_mut().for_each(Output::reopen);
    }

    /// The daemon ends: what waits is written until `deadline`, by all sinks at once.
    pub fn end(&mut self, deadline: Instant) {
        self.outputs_mut().for_each(|output| output.end(deadline));
    }

    /// A sink is behind what it gets, see [`Output::is_behind`].
    pub fn are_behind(&self) -> bool {
        self.each_sink().any(|(_, output)| output.is_behind())
    }

    /// Writes what can be written, and counts what cannot as lost.
    pub fn close(&mut self) {
        self.outputs_mut().for_each(Output::close);
    }

    /// When to flush again though nothing new has come; `None`: nothing waits.
    pub fn retry_in(&self) -> Option<Duration> {
        self.each_sink().filter_map(|(_, output)| output.retry_in()).min()
    }

    /// Where the sinks write, each with the labels of its metrics.
    pub fn each_sink(&self) -> impl Iterator<Item = (&Instance, &Output)> {
        self.0.iter().flat_map(|stack| stack.outputs().zip(&stack.sink).map(|(o, i)| (i, o)))
    }

    /// Whether losses stand in the output of a stack, by its number.
    pub fn shows_losses(&self, stack: usize) -> bool {
        let stack = stack.checked_sub(1).and_then(|index| self.0.get(index));
        stack.is_some_and(Stack::shows_losses)
    }

    /// Has a stack, by its number, write that its own output has lost records. No other stack
    /// has lost them.
    pub fn report_loss(&mut self, stack: usize, records: u64) {
        let Some(stack) = stack.checked_sub(1).and_then(|index| self.0.get_mut(index)) else {
            return;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let lost = Lost::noticed("output", records, at);
        stack.push(&Item { tag: Kinds::empty(), at, body: Body::Lost(lost) });
    }

    /// Hands the files that flowlog has created to a user.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        self.each_sink().for_each(|(_, output)| output.give_to(uid, gid));
    }

    fn outputs_mut(&mut self) -> impl Iterator<Item = &mut Output> {
        self.0.iter_mut().flat_map(Stack::outputs_mut)
    }
}

impl Downstream for Stacks {
    #[inline]
    fn push(&mut self, item: &Item<'_>) {
        debug_assert!(matches!(item.body, Body::Lost(_)) || !item.tag.is_empty());
        for stack in &mut self.0 {
            stack.push(item);
        }
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// What a database states of itself that a stack of this source has written.
    fn stated(stages: &str, source: &str) -> Origin {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("flow.db");
        let text = format!(
            "[global]\nstack=ct1:NFCT,{stages}db1:SQLITE3\n[ct1]\n{source}\n[db1]\ndb={db:?}\n\
             [f1]\nexpr=\"dst.port == 80\"\n"
        );
        let outcome = config::parse(Path::new("u.conf"), &text);
        let config = outcome.config.unwrap_or_else(|| panic!("{:?}", outcome.diagnostics));
        let stats = Stats::default();
        let mut stacks = Stacks::start(&config, 0, Site::of("gate", &stats, None)).unwrap();
        stacks.begin();
        stacks.close();
        let connection = Connection::open(db).unwrap();
        let detail = "SELECT detail FROM coverage WHERE kind = 'run'";
        let detail: String = connection.query_row(detail, [], |row| row.get(0)).unwrap();
        Origin::parse(&detail).unwrap()
    }

    #[test]
    fn an_archive_states_its_stack_and_whether_beginnings_are_recorded() {
        for (stages, source, beginnings) in [
            ("", "event_mask=5\nhash_enable=0", true),
            ("", "event_mask=1\nhash_enable=0", true),
            ("", "event_mask=6\nhash_enable=0", false),
            ("", "event_mask=5\nhash_enable=1", false),
            ("", "event_mask=5\npollinterval=5", false),
            // It may let ends pass alone.
            ("f1:FILTER,", "event_mask=5\nhash_enable=0", false),
        ] {
            let origin = stated(stages, &format!("{source}\nnetns=self"));
            assert_eq!(origin.sink, "gate netns=self ct1/db1");
            assert_eq!(origin.beginnings, beginnings, "{stages} {source}");
        }
        let of_another = stated("", "event_mask=5\nhash_enable=0\nnetns=blue\ncapture=netlink");
        assert_eq!(of_another.sink, "gate netns=blue ct1/db1");
    }
}
