//! CLICKHOUSE: rows of a table of ClickHouse, inserted over HTTP in its format
//! RowBinary. The table is made by conf/fleet/clickhouse.sql, not by flowlog.

use std::time::Duration;

use self::client::Server;
use super::compact;
use super::record_id::RecordId;
use super::ship::{Encode, Shipped, Shipping, Start, tls};
use super::{Item, Scratch};

mod client;
mod exception;
mod frame;
mod http;
mod row;
mod table;

/// How records wait in the spool: as [`compact`] makes them, so that the columns may
/// be others when they leave it.
pub const ENCODING: &str = "compact 1";

/// How CLICKHOUSE is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What all sinks that ship have.
    pub shipping: Shipping,
    /// Where the server listens.
    pub url: Url,
    /// Its database.
    pub database: String,
    /// The table there.
    pub table: String,
    /// Who flowlog is there; empty: nobody in particular.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// What the column `host` says; absent: the name of this host.
    pub hostname: Option<String>,
    /// What is sent is compressed.
    pub compressed: bool,
    /// Settings of ClickHouse for each insert, as in a URL.
    pub settings: String,
    /// Bytes of records from which on they are inserted.
    pub batch: usize,
    /// How long fewer of them wait for more.
    pub linger: Duration,
}

/// A server that speaks HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What stands before the query, for servers behind others: `/`.
    pub path: String,
    /// Over TLS.
    pub tls: Option<tls::Settings>,
}

impl Url {
    /// As it would be written.
    pub fn shown(&self) -> String {
        let Self { host, port, path, tls } = self;
        let scheme = if tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", authority(host, *port))
    }
}

/// An address of IPv6 stands in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Prepares the sink, on the host of that name.
pub fn open(start: &Start<'_>, settings: &Settings, host: &str) -> Shipped {
    let mut settings = settings.clone();
    settings.hostname.get_or_insert_with(|| host.to_owned());
    Shipped::open::<Server>(start, Encoder(compact::Encoder::new()), settings)
}

struct Encoder(compact::Encoder);

impl Encode for Encoder {
    fn encode(&mut self, item: &Item<'_>, _: RecordId, _: &Scratch, out: &mut Vec<u8>) -> bool {
        self.0.encode(item, None, out);
        true
    }
}
