//! A table as ulogd2 has it, such as its `ulog2_ct`: the names of its columns are
//! ulogd2's keys with `_` in place of `.`, and decide what is written; and how: into
//! the table, or by a function such as `INSERT_CT`.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::copy::Rows;
use super::failure::{self, Peer};
use super::quoted;
use super::record::has_ports;
use crate::flow::{Family, proto};
use crate::plugin::clock::SECOND;
use crate::plugin::compact::{self, Record};
use crate::plugin::ip2str::Text;
use crate::plugin::ship::Trouble;
use crate::plugin::ulogd_key::Direction::{self, Orig, Reply};
use crate::plugin::ulogd_key::End::{self, Source};
use crate::plugin::ulogd_key::Key;

/// The key `procedure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Procedure {
    /// Rows of the table.
    Insert,
    /// The beginning of a statement, up to its columns.
    Statement(String),
    /// A function that takes the columns in their order.
    Function(String),
}

impl Procedure {
    /// What ulogd2 understands.
    ///
    /// # Errors
    /// What the server would not.
    pub fn read(text: &str) -> Result<Self, &'static str> {
        let first = text.split(' ').next().unwrap_or_default();
        if text.is_empty() || text.eq_ignore_ascii_case("INSERT") {
            Ok(Self::Insert)
        } else if first.eq_ignore_ascii_case("INSERT") {
            Ok(Self::Statement(text.to_owned()))
        } else if text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case("CALL")) {
            Err("is no SQL: ulogd2 writes `CALL` before it once more; name a function instead")
        } else {
            Ok(Self::Function(text.to_owned()))
        }
    }
}

/// How a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Smallint,
    Integer,
    Bigint,
    Inet,
    Text,
}

impl Form {
    fn of(kind: u32) -> Option<Self> {
        match Type::from_oid(kind)? {
            Type::INT2 => Some(Self::Smallint),
            Type::INT4 => Some(Self::Integer),
            Type::INT8 => Some(Self::Bigint),
            Type::INET => Some(Self::Inet),
            Type::TEXT | Type::VARCHAR | Type::BPCHAR => Some(Self::Text),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    key: Key,
    form: Form,
}

/// A table of ulogd2.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// With its schema.
    name: String,
    columns: Vec<Column>,
    /// Takes rows of COPY itself.
    takes_copies: bool,
    procedure: Procedure,
    /// The types that the function takes.
    takes: Vec<String>,
}

impl Table {
    /// Looks for the table of that name.
    pub(super) async fn find(
        client: &Client,
        peer: &Peer<'_>,
        schema: &str,
        table: &str,
        procedure: &Procedure,
    ) -> Result<Option<Self>, Trouble> {
        let ask = "SELECT a.attname, a.atttypid, c.relkind FROM pg_catalog.pg_attribute a \
                   JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f') \
                   AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
        let found = client
            .query_typed(ask, &[(&schema, Type::NAME), (&table, Type::NAME)])
            .await
            .map_err(|why| failure::asking(peer, &why))?;
        let Some(first) = found.first() else { return Ok(None) };
        let relkind = first.get::<_, i8>(2) as u8;
        let name = format!("{}.{}", quoted(schema), quoted(table));
        let columns = columns(&name, &found)?;
        let takes = match procedure {
            Procedure::Function(function) => {
                takes(client, peer, function, columns.len(), &name).await?
            }
            _ => Vec::new(),
        };
        let takes_copies = relkind != b'v' && *procedure == Procedure::Insert;
        Ok(Some(Self { name, columns, takes_copies, procedure: procedure.clone(), takes }))
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.columns.iter().map(|column| quoted(&column.name)).collect();
        names.join(", ")
    }

    /// Where rows are copied to: its name and columns.
    pub(super) fn place(&self) -> String {
        let name = if self.takes_copies { &self.name } else { STAGE };
        format!("{name} ({})", self.names())
    }

    /// What makes a table of that kind for the transaction, and hands what is in it on; none
    /// where rows are copied into the table itself.
    pub(super) fn stage(&self) -> Option<(String, String)> {
        if self.takes_copies {
            return None;
        }
        let Self { name, procedure, takes, .. } = self;
        let names = self.names();
        let make = format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS flowlog_stage ON COMMIT DROP AS SELECT {names} \
             FROM {name} WITH NO DATA"
        );
        let hand_on = match procedure {
            Procedure::Insert => {
                format!("INSERT INTO {name} ({names}) SELECT {names} FROM {STAGE}")
            }
            Procedure::Statement(begin) => format!("{begin} ({names}) SELECT {names} FROM {STAGE}"),
            Procedure::Function(function) => {
                let columns = self.columns.iter().zip(takes);
                let values: Vec<_> = columns
                    .map(|(column, kind)| format!("{}::{kind}", quoted(&column.name)))
                    .collect();
                format!("SELECT {function}({}) FROM {STAGE}", values.join(", "))
            }
        };
        Some((make, hand_on))
    }

    /// Makes the row of a flow; a value that its column cannot hold is told.
    pub(super) fn fill(
        &self,
        record: &Record,
        counted: bool,
        rows: &mut Rows,
    ) -> Result<(), String> {
        let reply = record.reply();
        rows.begin(self.columns.len());
        for column in &self.columns {
            let value = value(record, &reply, counted, column.key);
            write(column, value, rows)?;
        }
        rows.end();
        Ok(())
    }
}

/// The table of the transaction.
const STAGE: &str = "pg_temp.flowlog_stage";

fn columns(table: &str, found: &[Row]) -> Result<Vec<Column>, Trouble> {
    let mut columns = Vec::with_capacity(found.len());
    for (place, row) in found.iter().enumerate() {
        let name: String = row.get(0);
        // A sequence, to ulogd2.
        if place == 0 && name.starts_with('_') {
            continue;
        }
        let key = Key::of_column(&name).filter(|key| *key != Key::Print).ok_or_else(|| {
            Trouble::refused(format!(
                "the column {name} of {table} is no key that a flow has here; remove the column, \
                 or name another table with `table=` (`flowlog info NFCT` lists the keys, of which \
                 a column has `_` for `.`)"
            ))
        })?;
        let form = Form::of(row.get(1)).ok_or_else(|| {
            Trouble::refused(format!(
                "the column {name} of {table} has a type that flowlog does not write; make it \
                 smallint, integer, bigint, inet or text"
            ))
        })?;
        columns.push(Column { name, key, form });
    }
    Ok(columns)
}

/// The types that a function takes, of which there must be as many as columns.
async fn takes(
    client: &Client,
    peer: &Peer<'_>,
    function: &str,
    columns: usize,
    table: &str,
) -> Result<Vec<String>, Trouble> {
    let ask = "SELECT pg_catalog.format_type(kind, NULL), p.pronargdefaults \
               FROM pg_catalog.pg_proc p, unnest(p.proargtypes) WITH ORDINALITY AS of(kind, place) \
               WHERE p.oid = pg_catalog.to_regproc($1) ORDER BY place";
    let found = client.query_typed(ask, &[(&function, Type::TEXT)]).await;
    let found = found.map_err(|why| failure::asking(peer, &why))?;
    let optional = found.first().map_or(0, |row| row.get::<_, i16>(1)) as usize;
    if found.is_empty() {
        return Err(Trouble::refused(format!(
            "there is no function {function}, or more than one; make it as ulogd2's \
             pgsql-ulogd2.sql does, or set procedure=INSERT"
        )));
    }
    if columns > found.len() || columns + optional < found.len() {
        return Err(Trouble::refused(format!(
            "the function {function} takes {} values, and {table} has {columns} columns; name the \
             table that it is for with `table=`",
            found.len()
        )));
    }
    Ok(found.iter().take(columns).map(|row| row.get(0)).collect())
}

/// What a key is of a record.
enum Value<'a> {
    Nothing,
    Number(u64),
    Address(&'a [u8]),
    /// As ulogd2 has an address without IP2STR.
    Numeral(&'a [u8]),
}

impl<T: Into<u64>> From<Option<T>> for Value<'_> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, |value| Self::Number(value.into()))
    }
}

fn value<'a>(record: &'a Record, reply: &compact::Reply<'a>, counted: bool, key: Key) -> Value<'a> {
    let protocol = record.protocol.unwrap_or_default();
    let icmp = protocol == u32::from(proto::ICMP);
    match key {
        Key::Family => Value::Number(family(&record.orig_src) as u64),
        Key::OobProtocol => Value::Number(0),
        Key::Address(direction, end) => Value::Numeral(address(record, reply, direction, end)),
        Key::Text(direction, end) => Value::Address(address(record, reply, direction, end)),
        Key::Protocol(_) => Value::Number(protocol.into()),
        Key::Port(direction, end) => {
            let port = match (direction, end) {
                (Orig, Source) => record.orig_sport,
                (Orig, _) => record.orig_dport,
                (Reply, Source) => reply.sport,
                (Reply, _) => reply.dport,
            };
            port.filter(|_| has_ports(record)).into()
        }
        Key::Bytes(Orig) => count(record.orig_bytes, counted),
        Key::Bytes(Reply) => count(record.reply_bytes, counted),
        Key::Packets(Orig) => count(record.orig_packets, counted),
        Key::Packets(Reply) => count(record.reply_packets, counted),
        Key::IcmpCode => record.icmp_code.filter(|_| icmp).into(),
        Key::IcmpType => record.icmp_type.filter(|_| icmp).into(),
        Key::Mark => Value::Number(record.mark.into()),
        Key::Id => record.ct_id.into(),
        Key::Event => Value::Number(record.kinds.into()),
        Key::StartSeconds => known(record.start).map(|at| at / SECOND).into(),
        Key::StartMicroseconds => known(record.start).map(|at| at % SECOND / 1000).into(),
        Key::EndSeconds => known(record.stop).map(|at| at / SECOND).into(),
        Key::EndMicroseconds => known(record.stop).map(|at| at % SECOND / 1000).into(),
        Key::Print => Value::Nothing,
    }
}

fn known(at: Option<u64>) -> Option<u64> {
    at.filter(|at| *at >= SECOND)
}

fn count(counter: Option<u64>, counted: bool) -> Value<'static> {
    Value::Number(counter.filter(|_| counted).unwrap_or_default())
}

fn family(address: &[u8]) -> Family {
    if address.len() == 4 { Family::V4 } else { Family::V6 }
}

fn address<'a>(
    record: &'a Record,
    reply: &compact::Reply<'a>,
    direction: Direction,
    end: End,
) -> &'a [u8] {
    match (direction, end) {
        (Orig, Source) => &record.orig_src,
        (Orig, _) => &record.orig_dst,
        (Reply, Source) => reply.src,
        (Reply, _) => reply.dst,
    }
}

fn write(column: &Column, value: Value<'_>, rows: &mut Rows) -> Result<(), String> {
    let Column { name, form, .. } = column;
    match (value, form) {
        (Value::Nothing, _) => rows.null(),
        (Value::Number(number), _) => return write_number(name, *form, number, rows),
        (Value::Address(bytes) | Value::Numeral(bytes), Form::Inet) => rows.inet(bytes),
        (Value::Address(bytes), Form::Text) => {
            let mut long = [0; 16];
            long[..bytes.len()].copy_from_slice(bytes);
            let mut text = Text::default();
            text.set(family(bytes), &long);
            rows.bytes(text.as_bytes());
        }
        (Value::Address(_), _) => return Err(format!("the column {name} takes no addresses")),
        // ulogd2 reads the bytes of the network as a number of this host, and has none
        // for IPv6.
        (Value::Numeral(bytes), form) => match <[u8; 4]>::try_from(bytes) {
            Ok(bytes) => {
                return write_number(name, *form, u32::from_ne_bytes(bytes).into(), rows);
            }
            Err(_) => rows.null(),
        },
    }
    Ok(())
}

fn write_number(name: &str, form: Form, number: u64, rows: &mut Rows) -> Result<(), String> {
    let fits = match form {
        Form::Smallint => i16::try_from(number).map(|number| rows.smallint(number)).is_ok(),
        Form::Integer => i32::try_from(number).map(|number| rows.integer(number)).is_ok(),
        Form::Bigint => i64::try_from(number).map(|number| rows.bigint(number)).is_ok(),
        Form::Text => {
            rows.bytes(itoa::Buffer::new().format(number).as_bytes());
            true
        }
        Form::Inet => false,
    };
    if fits { Ok(()) } else { Err(format!("the column {name} does not hold {number}")) }
}
