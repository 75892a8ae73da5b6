//! PGSQL: rows of a PostgreSQL database: of a table of ulogd2 if there is one, else
//! of tables of its own, with all that is known. They go there by COPY, a
//! transaction for each batch.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::config::Host;

pub use self::record::ENCODING;
use self::record::Encoder;
pub use self::session::Session;
pub use self::ulogd::Procedure;
use super::ship::{self, Appetite, Shipped, Start};

mod copy;
mod deliver;
mod encrypted;
mod failure;
mod greeting;
mod own;
mod partition;
mod record;
mod session;
#[cfg(test)]
mod tests;
mod ulogd;

/// How PGSQL is to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What all sinks have that ship.
    pub shipping: ship::Shipping,
    /// Where to.
    pub target: Target,
}

/// The server and the tables there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where the server is, and who flowlog is there.
    pub server: tokio_postgres::Config,
    /// Whom to trust; `None`: not over TLS.
    pub tls: Option<ship::tls::Settings>,
    /// The schema of the tables.
    pub schema: String,
    /// The table that is written if it is there; empty: none.
    pub table: String,
    /// How it is written.
    pub procedure: Procedure,
}

impl Target {
    /// The servers and the database, for messages.
    pub fn place(&self) -> String {
        let database = self.server.get_dbname().unwrap_or_default();
        format!("the database {database} at {}", self.address())
    }

    /// Where the servers are, for messages.
    fn address(&self) -> String {
        let hosts = self.server.get_hosts().iter().enumerate();
        let names = hosts.map(|(place, host)| match host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", self.port(place)),
            Host::Tcp(name) => format!("{name}:{}", self.port(place)),
            Host::Unix(directory) => self.socket_in(directory, place).display().to_string(),
        });
        names.collect::<Vec<_>>().join(", ")
    }

    /// The socket of the first server, if that is one of this host.
    pub fn socket(&self) -> Option<PathBuf> {
        match self.server.get_hosts().first()? {
            Host::Unix(directory) => Some(self.socket_in(directory, 0)),
            Host::Tcp(_) => None,
        }
    }

    fn socket_in(&self, directory: &Path, place: usize) -> PathBuf {
        directory.join(format!(".s.PGSQL.{}", self.port(place)))
    }

    /// The port of a server: each has one, or all have the same.
    fn port(&self, place: usize) -> u16 {
        let ports = self.server.get_ports();
        ports.get(place).or(ports.first()).copied().unwrap_or(5432)
    }
}

/// Bytes that make a batch: the more rows a transaction has, the less each costs.
const BATCH: usize = 4 << 20;
/// How long fewer wait for more.
const LINGER: Duration = Duration::from_millis(100);

/// The sink.
pub fn open(start: &Start<'_>, settings: &Settings) -> Shipped {
    Shipped::open::<Session>(start, Encoder::default(), settings.target.clone())
}

fn appetite() -> Appetite {
    Appetite { bytes: BATCH, linger: LINGER }
}

/// A name as SQL takes any.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
