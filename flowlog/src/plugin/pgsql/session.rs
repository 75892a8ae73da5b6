//! A session: connected, and the tables that are written looked at or made.
//!
//! Nothing of it stays with the server's side: a pooler (PgBouncer with
//! `pool_mode=transaction`) gives each transaction another one. So settings and
//! temporary tables end with their transaction, and no statement has a name that
//! lives longer.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls};
use tracing::debug;

use super::copy::Rows;
use super::encrypted::Rustls;
use super::failure::{self, Peer};
use super::own::{self, TABLES};
use super::{Target, greeting, quoted, ulogd};
use crate::plugin::compact::Record;
use crate::plugin::ship::{self, Appetite, Batch, Delivered, Trouble};

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(10);
/// Two daemons do not make tables at once: the lock of all that make flowlog's.
pub(super) const LOCK: &str = "SELECT pg_catalog.pg_advisory_xact_lock(7308895159371231097)";

/// Which tables are written.
#[derive(Debug)]
pub(super) enum Tables {
    /// flowlog's own, with the rows that are being made for each.
    Own(Box<[Rows; TABLES.len()]>),
    /// One of ulogd2.
    Ulogd(Box<ulogd::Table>, Box<Rows>),
}

/// A connection whose tables are known.
pub struct Session {
    pub(super) client: Client,
    /// What the connection runs in.
    connection: JoinHandle<()>,
    pub(super) target: Target,
    pub(super) server: String,
    pub(super) tables: Tables,
    pub(super) record: Record,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl ship::Client for Session {
    type Settings = Target;

    fn appetite(_: &Target) -> Appetite {
        super::appetite()
    }

    async fn connect(target: &Target) -> Result<Self, Trouble> {
        let server = target.address();
        let (client, connection) = match timeout(PATIENCE, connect(target, &server)).await {
            Ok(Ok(connected)) => connected,
            // Some that speak something else say so, others wait.
            Ok(Err(trouble)) => {
                return Err(greeting::stranger(&target.server).await.unwrap_or(trouble));
            }
            Err(_) => {
                let silent = Trouble::passing(format!(
                    "PostgreSQL at {server}: nothing answers for {} s; if that is another server, \
                     see to `host=` and `port=`",
                    PATIENCE.as_secs()
                ));
                return Err(greeting::stranger(&target.server).await.unwrap_or(silent));
            }
        };
        let peer = peer(&server, target);
        let prepared = prepare(&client, &peer, target).await;
        let tables = match prepared {
            Ok(tables) => tables,
            Err(trouble) => {
                connection.abort();
                return Err(trouble);
            }
        };
        Ok(Self {
            client,
            connection,
            target: target.clone(),
            server,
            tables,
            record: Record::default(),
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        self.store(batch).await
    }
}

impl Session {
    pub(super) fn peer(&self) -> Peer<'_> {
        peer(&self.server, &self.target)
    }
}

pub(super) fn peer<'a>(server: &'a str, target: &'a Target) -> Peer<'a> {
    let user = target.server.get_user().unwrap_or_default();
    Peer {
        server,
        user,
        database: target.server.get_dbname().unwrap_or(user),
        schema: &target.schema,
    }
}

async fn connect(target: &Target, server: &str) -> Result<(Client, JoinHandle<()>), Trouble> {
    let failed = |error| failure::asking(&peer(server, target), &error);
    let Some(tls) = &target.tls else {
        let (client, connection) = target.server.connect(NoTls).await.map_err(failed)?;
        return Ok((client, spawn(connection)));
    };
    let tls = Rustls::new(tls.client_config()?);
    let (client, connection) = target.server.connect(tls).await.map_err(failed)?;
    Ok((client, spawn(connection)))
}

/// Its end is told by whoever waits for an answer then.
fn spawn(
    connection: impl Future<Output = Result<(), tokio_postgres::Error>> + Send + 'static,
) -> JoinHandle<()> {
    tokio::spawn(async {
        if let Err(error) = connection.await {
            debug!("a connection to PostgreSQL ended: {error}");
        }
    })
}

/// Begins a transaction, in which what functions of the schema name without it is
/// found, as ulogd2 has it.
pub(super) fn begin(schema: &str) -> String {
    format!("BEGIN; SET LOCAL search_path = {}, \"$user\", public", quoted(schema))
}

/// Finds the tables, or makes them.
async fn prepare(client: &Client, peer: &Peer<'_>, target: &Target) -> Result<Tables, Trouble> {
    let Target { schema, table, procedure, .. } = target;
    run(client, peer, &begin(schema)).await?;
    let there = "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1";
    let there = client.query_typed(there, &[(schema, Type::NAME)]).await;
    let there = there.map_err(|why| failure::asking(peer, &why))?;
    if there.is_empty() {
        return Err(Trouble::refused(format!(
            "{peer} has no schema {schema} in the database {}: make it, or name another with \
             `schema=`",
            peer.database
        )));
    }
    let found = match table.as_str() {
        "" => None,
        table => ulogd::Table::find(client, peer, schema, table, procedure).await?,
    };
    run(client, peer, "COMMIT").await?;
    if let Some(table) = found {
        return Ok(Tables::Ulogd(Box::new(table), Box::default()));
    }
    make_own(client, peer).await?;
    Ok(Tables::Own(Box::default()))
}

/// Makes flowlog's own tables where there are none, and looks at those that are there.
async fn make_own(client: &Client, peer: &Peer<'_>) -> Result<(), Trouble> {
    let missing = missing(client, peer).await?;
    if !missing.is_empty() {
        let schema = quoted(peer.schema);
        run(client, peer, "BEGIN").await?;
        run(client, peer, LOCK).await?;
        // Another daemon may have made them meanwhile.
        for table in self::missing(client, peer).await? {
            run(client, peer, &table.create(&schema)).await?;
        }
        run(client, peer, "COMMIT").await?;
    }
    for table in &TABLES {
        check(client, peer, table).await?;
    }
    Ok(())
}

async fn missing(client: &Client, peer: &Peer<'_>) -> Result<Vec<&'static own::Table>, Trouble> {
    let ask = "SELECT c.relname::text FROM pg_catalog.pg_class c \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1";
    let found = client.query_typed(ask, &[(&peer.schema, Type::NAME)]).await;
    let found = found.map_err(|why| failure::asking(peer, &why))?;
    let there: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    Ok(TABLES.iter().filter(|table| !there.iter().any(|name| name == table.name)).collect())
}

/// Whether a table that is there is flowlog's: it may have more columns, not fewer.
async fn check(client: &Client, peer: &Peer<'_>, table: &own::Table) -> Result<(), Trouble> {
    let ask = "SELECT a.attname::text, pg_catalog.format_type(a.atttypid, NULL) \
               FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
    let found = client
        .query_typed(ask, &[(&peer.schema, Type::NAME), (&table.name, Type::NAME)])
        .await
        .map_err(|why| failure::asking(peer, &why))?;
    let there: Vec<(String, String)> = found.iter().map(|row| (row.get(0), row.get(1))).collect();
    for (name, kind) in table.columns() {
        let kind = kind.trim_end_matches(" NOT NULL");
        let found = there.iter().find(|(found, _)| found == name).map(|(_, kind)| kind.as_str());
        if found != Some(kind) {
            let what = match found {
                Some(found) => format!("has {found} in the column {name}, not {kind}"),
                None => format!("has no column {name}"),
            };
            return Err(Trouble::refused(format!(
                "{peer}: the table {}.{} is not flowlog's: it {what}; rename it, or name another \
                 schema with `schema=`",
                peer.schema, table.name
            )));
        }
    }
    Ok(())
}

/// Runs statements that answer nothing.
pub(super) async fn run(client: &Client, peer: &Peer<'_>, sql: &str) -> Result<(), Trouble> {
    client.batch_execute(sql).await.map_err(|why| failure::asking(peer, &why))
}
