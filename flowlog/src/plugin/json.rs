//! JSON: one object for each event, to a file or a socket: that of ulogd2, or
//! with `schema=full` all that is known.

use std::io;

pub use self::record::Records;
use self::text::Text;
use super::clock::{self, PerSecond};
use super::ip2str::{self, Addresses};
use super::output::{self, Counted, Output};
use super::record_id::Identifier;
use super::{Body, Item, Scratch};
use crate::flow::{Flow, Tuple};
use crate::stats::{SinkPlugin, SinkStats};
use crate::zone::Zone;

pub(crate) mod full;
mod record;
mod text;
mod ulogd;

/// Which members a record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// Those of ulogd2.
    Ulogd,
    /// All that there are, see docs/flow.schema.json.
    Full,
}

/// How JSON is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to.
    pub output: output::Settings,
    /// Which members.
    pub schema: Schema,
    /// ulogd2's record begins with a time.
    pub timestamp: bool,
    /// That time is called `@timestamp`, and `@version` stands before it.
    pub eventv1: bool,
    /// The value of `dvc` in ulogd2's record.
    pub device: String,
    /// Losses are records of their own.
    pub loss_records: bool,
}

/// The sink.
pub struct Json {
    style: Style,
    loss_records: bool,
    output: Output,
}

/// What writes a record.
enum Style {
    Ulogd { header: Box<Header>, text: Text },
    Full { identifier: Identifier, records: Box<Records> },
}

impl Json {
    /// Opens the file, or begins to connect. `host` is the name of this one.
    ///
    /// # Errors
    /// As [`Output::open`].
    pub fn open(settings: &Settings, host: &str, stats: SinkStats) -> io::Result<Self> {
        let Settings { output, schema, timestamp, eventv1, device, loss_records } = settings;
        let style = match schema {
            Schema::Ulogd => Style::Ulogd {
                header: Box::new(Header::new(*timestamp, *eventv1, device)),
                text: Text::spaced(),
            },
            Schema::Full => Style::Full {
                identifier: Identifier::of_this_host(),
                records: Box::new(Records::new(host)),
            },
        };
        let output = Output::open(output, Counted { noun: SinkPlugin::Json.noun(), stats })?;
        Ok(Self { style, loss_records: *loss_records, output })
    }

    /// Takes an item, with what the plugins before have made of it. Not inlined,
    /// as [`Addresses::set`] is not.
    #[inline(never)]
    pub fn push(&mut self, item: &Item<'_>, scratch: &Scratch) {
        if matches!(item.body, Body::Lost(_)) && !self.loss_records {
            return;
        }
        let record = match &mut self.style {
            Style::Ulogd { header, text } => {
                text.begin_with(header.at(item.at));
                ulogd::members(item, &scratch.addresses, text);
                close(scratch, text);
                text.as_bytes()
            }
            Style::Full { identifier, records } => {
                records.record(item, identifier.id(item), scratch)
            }
        };
        self.output.push(record, b"\n");
    }

    /// Whether losses have records of their own.
    pub fn shows_losses(&self) -> bool {
        self.loss_records
    }

    /// Where it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Where it writes, to be written to.
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }
}

/// Ends a record: with the line of PRINTFLOW, where there is one.
fn close(scratch: &Scratch, text: &mut Text) {
    if !scratch.print.is_empty() {
        text.string("print", scratch.print.as_bytes());
    }
    text.close();
}

/// An entry of the table as an object, with the members that its events have.
pub fn entry(flow: &Flow, out: &mut Vec<u8>) {
    let mut addresses = Addresses::default();
    addresses.set_flow(flow);
    let mut text = Text::compact();
    text.open();
    full::flow(flow, &addresses, flow.start, &mut text);
    text.close();
    out.extend_from_slice(text.as_bytes());
}

/// A tuple as the object that it is in records with `schema=full`.
pub fn direction(tuple: &Tuple, out: &mut Vec<u8>) {
    let mut texts = ip2str::Pair::default();
    texts.set(tuple);
    let mut text = Text::compact();
    text.open();
    full::tuple(tuple, &texts, &mut text);
    text.close();
    out.extend_from_slice(text.as_bytes());
}

/// How each record of ulogd2 begins: time and device, the same for a second.
struct Header {
    front: Front,
    text: PerSecond,
}

struct Front {
    /// Up to the time, the whole of it where there is none.
    front: Vec<u8>,
    /// What follows the time, where there is one.
    rest: Option<Vec<u8>>,
}

impl Header {
    fn new(timestamp: bool, eventv1: bool, device: &str) -> Self {
        let front = Front::new(timestamp, eventv1, device);
        Self { front, text: PerSecond::local() }
    }

    fn at(&mut self, nanoseconds: u64) -> &[u8] {
        let Self { front, text } = self;
        text.at(nanoseconds, |zone, second, out| front.write(zone, second, out))
    }
}

impl Front {
    fn new(timestamp: bool, eventv1: bool, device: &str) -> Self {
        let mut text = Text::spaced();
        text.open();
        if eventv1 {
            text.number("@version", 1_u8);
        }
        let name = if eventv1 { "@timestamp" } else { "timestamp" };
        let mut rest = None;
        if timestamp {
            text.string(name, b"");
            // Without the quote behind the time, which is the first of the rest.
            let front = text.as_bytes().len() - 1;
            text.string("dvc", device.as_bytes());
            rest = Some(text.as_bytes()[front..].to_vec());
            text.truncate(front);
        } else {
            text.string("dvc", device.as_bytes());
        }
        Self { front: text.as_bytes().to_vec(), rest }
    }

    #[cold]
    fn write(&self, zone: &Zone, second: u64, out: &mut Vec<u8>) {
        let Self { front, rest } = self;
        out.extend_from_slice(front);
        if let Some(rest) = rest {
            clock::ulogd(zone, second, out);
            out.extend_from_slice(rest);
        }
    }
}

#[cfg(test)]
mod tests;
