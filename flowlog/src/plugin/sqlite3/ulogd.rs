//! A table as ulogd2 has it, such as its `ulog_ct`: the names of its columns are
//! ulogd2's keys with `_` in place of `.`, and decide what is written.

use rusqlite::{Connection, OptionalExtension as _};

use super::failure::Failure;
use super::row::{self, Row};
use crate::flow::{Family, Flow, Tuple, proto};
use crate::plugin::clock::SECOND;
use crate::plugin::ip2str::{self, Addresses};
use crate::plugin::ulogd_key::Direction::{self, Orig, Reply};
use crate::plugin::ulogd_key::End::{self, Source};
use crate::plugin::ulogd_key::Key;
use crate::plugin::{Body, Item, Scratch};

/// A table of ulogd2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What made it, so that it can be made in a new file.
    pub(super) create: String,
    insert: String,
    columns: Vec<Key>,
}

impl Table {
    /// Looks for the table of that name.
    ///
    /// # Errors
    /// The database cannot be read, or a column has a name that no key has.
    pub(super) fn find(connection: &Connection, name: &str) -> Result<Option<Self>, Failure> {
        let found = connection
            .query_row(
                "SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND name = ?1 \
                 COLLATE NOCASE",
                [name],
                |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
            )
            .optional()?;
        let Some((name, create)) = found else { return Ok(None) };
        let mut names = connection.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let names: Vec<String> =
            names.query_map([&name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let columns = names
            .iter()
            .map(|column| Key::of_column(column).ok_or_else(|| Failure::column(&name, column)))
            .collect::<Result<_, _>>()?;
        let quoted: Vec<_> = names.iter().map(|name| quoted(name)).collect();
        let places = vec!["?"; quoted.len()].join(", ");
        let insert = format!(
            "INSERT INTO {} ({}) VALUES ({places})",
            self::quoted(&name),
            quoted.join(", ")
        );
        Ok(Some(Self { create, insert, columns }))
    }

    /// One that has every key, for rows that are made before it is known which of them it wants.
    pub(super) fn of_all_keys() -> Self {
        Self { create: String::new(), insert: String::new(), columns: Key::all().collect() }
    }

    /// Makes a row of one that has every key.
    pub(super) fn select(&self, all: &[u8], row: &mut Row) {
        let values: Vec<_> = Key::all().zip(row::read(all).1).collect();
        row.begin(0);
        for column in &self.columns {
            match values.iter().find(|(key, _)| key == column) {
                Some((_, value)) => row.value(*value),
                None => row.null(),
            }
        }
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn inserts(&self) -> Vec<String> {
        vec![self.insert.clone()]
    }

    /// Makes the row of a flow; nothing else has one.
    pub(super) fn fill(
        &self,
        item: &Item<'_>,
        scratch: &Scratch,
        addresses: &Addresses,
        row: &mut Row,
    ) -> bool {
        let Body::Flow { flow, start, end, counted, .. } = item.body else { return false };
        row.begin(0);
        for column in &self.columns {
            match column {
                Key::Event => row.number(item.tag.bits()),
                Key::StartSeconds => row.optional(seconds(start)),
                Key::StartMicroseconds => row.optional(microseconds(start)),
                Key::EndSeconds => row.optional(seconds(end)),
                Key::EndMicroseconds => row.optional(microseconds(end)),
                Key::Bytes(direction) => row.number(counters(flow, counted, *direction).bytes),
                Key::Packets(direction) => row.number(counters(flow, counted, *direction).packets),
                Key::Text(direction, end) => row.text(text(addresses, *direction, *end)),
                Key::Print => {
                    let line = scratch.print.as_bytes();
                    row.optional_text((!line.is_empty()).then_some(line));
                }
                of_flow => self::of_flow(flow, *of_flow, row),
            }
        }
        true
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What the entry itself tells.
fn of_flow(flow: &Flow, key: Key, row: &mut Row) {
    let icmp = flow.orig.proto == proto::ICMP;
    match key {
        Key::Family => row.number(flow.orig.family as u8),
        Key::OobProtocol => row.number(0_u8),
        Key::Address(direction, end) => address(tuple(flow, direction), end, row),
        Key::Protocol(direction) => row.number(tuple(flow, direction).proto),
        Key::Port(direction, end) => {
            let tuple = tuple(flow, direction);
            let port = if end == Source { tuple.src_l4 } else { tuple.dst_l4 };
            row.optional(tuple.has_ports().then_some(port));
        }
        Key::IcmpCode => row.optional(icmp.then(|| flow.orig.icmp_code())),
        Key::IcmpType => row.optional(icmp.then(|| flow.orig.icmp_type())),
        // ulogd2 binds both as int: what is above comes out negative.
        Key::Mark => row.integer(i64::from(flow.mark as i32)),
        Key::Id => match flow.id {
            Some(id) => row.integer(i64::from(id as i32)),
            None => row.null(),
        },
        _ => row.null(),
    }
}

fn tuple(flow: &Flow, direction: Direction) -> &Tuple {
    if direction == Orig { &flow.orig } else { &flow.reply }
}

/// ulogd2 reads the bytes of the network as a number of this host. It has no
/// number for IPv6, and writes garbage up to 2.0.8, nothing from then on.
fn address(tuple: &Tuple, end: End, row: &mut Row) {
    let bytes = if end == Source { &tuple.src } else { &tuple.dst };
    match tuple.family {
        Family::V4 => row.number(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        Family::V6 => row.null(),
    }
}

fn counters(flow: &Flow, counted: bool, direction: Direction) -> crate::flow::Counters {
    let both = flow.counters.filter(|_| counted).unwrap_or_default();
    both[usize::from(direction == Reply)]
}

fn text(addresses: &Addresses, direction: Direction, end: End) -> &[u8] {
    let ip2str::Pair { src, dst } =
        if direction == Orig { &addresses.orig } else { &addresses.reply };
    if end == Source { src.as_bytes() } else { dst.as_bytes() }
}

fn seconds(at: Option<u64>) -> Option<u64> {
    at.filter(|at| *at >= SECOND).map(|at| at / SECOND)
}

fn microseconds(at: Option<u64>) -> Option<u64> {
    at.filter(|at| *at >= SECOND).map(|at| at % SECOND / 1000)
}
