//! What an error of the server means, and what to do about it.

use std::error::Error as _;
use std::fmt;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use crate::plugin::ship::{Trouble, tls};

/// The server as messages name it, and what was asked of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer<'a> {
    /// `db.example.org:5432`.
    pub(super) server: &'a str,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    pub(super) schema: &'a str,
}

impl fmt::Display for Peer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgreSQL at {}", self.server)
    }
}

/// Why rows were not taken.
#[derive(Debug)]
pub(super) enum Failed {
    /// One of them cannot be taken, now or ever.
    Row(String),
    /// One of them is there already.
    Known(String),
    /// There is no partition for the time of one.
    NoPartition(String),
    Trouble(Trouble),
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// An error of the server as text, with its state.
pub(super) fn words(error: &DbError) -> String {
    let detail = error.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}{detail} [{}]", error.message(), error.code().code())
}

/// An error in its own words: that of the client tells its kind, its source the rest.
fn chain(error: &Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A connection could not be had, or a question has no answer.
pub(super) fn asking(peer: &Peer<'_>, error: &Error) -> Trouble {
    if let Some(trouble) = tls::trouble(peer.server, error) {
        return trouble;
    }
    match error.as_db_error() {
        Some(error) => refused(peer, error),
        None => unsaid(peer, &chain(error)),
    }
}

/// What the client says by itself. It tells what it lacks in words only.
fn unsaid(peer: &Peer<'_>, words: &str) -> Trouble {
    let remedy = if words.contains("password missing") {
        format!("it asks for the password of {}: set it with `pass=`", peer.user)
    } else if words.contains("does not support TLS") {
        "set ssl=on there, or tls=0 here".to_owned()
    } else {
        return Trouble::passing(format!("{peer}: {words}"));
    };
    Trouble::refused(format!("{peer}: {words}; {remedy}"))
}

/// What the server says, and the remedy.
fn refused(peer: &Peer<'_>, error: &DbError) -> Trouble {
    let Peer { user, database, schema, .. } = peer;
    let code = error.code();
    let remedy = if *code == SqlState::INVALID_PASSWORD {
        format!("set the password of {user} with `pass=`")
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        let plain = error.message().contains("no encryption");
        let tls = if plain { ", or set tls=1" } else { "" };
        format!("let {user} in (pg_hba.conf, CREATE ROLE … LOGIN){tls}")
    } else if *code == SqlState::INVALID_CATALOG_NAME {
        format!("make the database {database}, or name another with `db=`")
    } else if *code == SqlState::INVALID_SCHEMA_NAME {
        format!("CREATE SCHEMA {schema}, or name another with `schema=`")
    } else if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        format!(
            "GRANT CREATE, USAGE ON SCHEMA {schema} TO {user}, and let the tables be owned by \
             {user} (docs/pgsql.md)"
        )
    } else if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        "it is a standby, or read-only: name the primary with `host=`".to_owned()
    } else if *code == SqlState::UNDEFINED_TABLE
        || *code == SqlState::UNDEFINED_COLUMN
        || *code == SqlState::UNDEFINED_FUNCTION
        || *code == SqlState::DATATYPE_MISMATCH
    {
        return Trouble::passing(format!(
            "{peer}: {}; its tables are looked at anew",
            words(error)
        ));
    } else if *code == SqlState::DISK_FULL {
        return Trouble::passing(format!("{peer}: {}; make room there", words(error)));
    } else if passes(code) {
        return Trouble::passing(format!("{peer}: {}", words(error)));
    } else {
        "see what its log says".to_owned()
    };
    Trouble::refused(format!("{peer}: {}; {remedy}", words(error)))
}

/// It starts, ends, is full of others, or others were faster.
fn passes(code: &SqlState) -> bool {
    let code = code.code();
    // Connections, transactions, resources, operators, the system.
    ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// Classes of errors that are a row's: its data, a constraint, what a function says.
const ROWS: [&str; 3] = ["22", "23", "P0"];

/// Rows were not taken.
pub(super) fn storing(peer: &Peer<'_>, error: &Error) -> Failed {
    let Some(why) = error.as_db_error() else {
        return Failed::Trouble(asking(peer, error));
    };
    let code = why.code();
    if *code == SqlState::UNIQUE_VIOLATION {
        Failed::Known(words(why))
    } else if *code == SqlState::CHECK_VIOLATION && why.constraint().is_none() {
        Failed::NoPartition(words(why))
    } else if ROWS.iter().any(|class| code.code().starts_with(class)) {
        Failed::Row(words(why))
    } else {
        Failed::Trouble(refused(peer, why))
    }
}
