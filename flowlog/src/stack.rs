//! A stack: the plugins behind a source, built from its line, and the way of
//! one item through them.

use std::io;

use crate::config;
use crate::plugin::logemu::LogEmu;
use crate::plugin::{Body, Downstream, Item, Scratch, printflow};
use crate::stats::Stats;

/// A plugin behind the source.
enum Stage {
    Ip2Str,
    PrintFlow(printflow::Settings),
    LogEmu(Box<LogEmu>),
}

/// The plugins behind a source, in order.
pub struct Stack {
    stages: Vec<Stage>,
    scratch: Scratch,
}

impl Stack {
    /// Builds and starts the plugins of a stack: files are opened here.
    ///
    /// # Errors
    /// A plugin could not be started; the message says which and why.
    pub fn start(config: &config::Stack, host: &str, stats: &Stats) -> anyhow::Result<Self> {
        let stages = config.stages.iter().map(|stage| start(stage, host, stats));
        Ok(Self { stages: stages.collect::<anyhow::Result<_>>()?, scratch: Scratch::default() })
    }

    #[inline]
    fn push(&mut self, item: &Item<'_>) {
        let Self { stages, scratch } = self;
        for stage in stages {
            match stage {
                Stage::Ip2Str => scratch.addresses.set(item),
                Stage::PrintFlow(settings) => {
                    settings.print(item, &scratch.addresses, &mut scratch.print);
                }
                Stage::LogEmu(sink) if !scratch.print.is_empty() => {
                    sink.push(item.at, scratch.print.as_bytes());
                }
                Stage::LogEmu(_) => {}
            }
        }
    }

    fn sinks(&mut self) -> impl Iterator<Item = &mut LogEmu> {
        self.stages.iter_mut().filter_map(|stage| match stage {
            Stage::LogEmu(sink) => Some(sink.as_mut()),
            Stage::Ip2Str | Stage::PrintFlow(_) => None,
        })
    }
}

fn start(stage: &config::Stage, host: &str, stats: &Stats) -> anyhow::Result<Stage> {
    Ok(match stage {
        config::Stage::Ip2Str => Stage::Ip2Str,
        config::Stage::PrintFlow(settings) => Stage::PrintFlow(*settings),
        config::Stage::LogEmu(settings) => {
            let sink = LogEmu::open(settings.clone(), host, stats.clone());
            Stage::LogEmu(Box::new(sink.map_err(|error| cannot_open(settings, &error))?))
        }
    })
}

fn cannot_open(settings: &crate::plugin::logemu::Settings, error: &io::Error) -> anyhow::Error {
    let file = settings.file.display();
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
    /// Ends a batch: what has gathered is written.
    pub fn flush(&mut self) {
        self.sinks().for_each(LogEmu::flush);
    }

    /// Opens files anew.
    pub fn reopen(&mut self) {
        self.sinks().for_each(LogEmu::reopen);
    }

    /// Writes what can be written, and counts what cannot as lost.
    pub fn close(&mut self) {
        self.sinks().for_each(LogEmu::close);
    }

    /// Lines wait for a file that could not be written.
    pub fn is_waiting(&mut self) -> bool {
        self.sinks().any(|sink| sink.is_waiting())
    }

    /// The sinks, each with the number of its stack, from 1 on.
    pub fn each_sink(&self) -> impl Iterator<Item = (usize, &LogEmu)> {
        self.0.iter().enumerate().flat_map(|(index, stack)| {
            stack.stages.iter().filter_map(move |stage| match stage {
                Stage::LogEmu(sink) => Some((index + 1, sink.as_ref())),
                Stage::Ip2Str | Stage::PrintFlow(_) => None,
            })
        })
    }

    /// Hands the files that flowlog has created to a user.
    pub fn give_to(&mut self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        self.sinks().for_each(|sink| sink.give_to(uid, gid));
    }

    fn sinks(&mut self) -> impl Iterator<Item = &mut LogEmu> {
        self.0.iter_mut().flat_map(Stack::sinks)
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
