//! The keys of the sinks that ship to others, each plugin's in the order in which
//! they are told.

use super::tls::{TLS, TLS_CA, TLS_CERT, TLS_KEY};
use super::{Key, key};

/// Of all of them.
const BUFFER: Key = key(
    "buffer_max_bytes",
    "integer from 4096 to 4294967295, bytes",
    "67108864",
    "records kept in memory while the spool cannot be written (disk full); beyond it they are \
     lost and counted",
);
const RECONNECT_HELP: &str = "accepted and ignored: what waits for the server is in the spool, \
                              and the server is tried again by itself";

pub(super) const PGSQL: &[Key] = &[
    key(
        "host",
        "name, address, or directory of a socket",
        "/var/run/postgresql",
        "where the server is; more than one with commas, the first that answers",
    ),
    key("port", "integer from 1 to 65535", "5432", "its port"),
    key("db", "name", "flowlog", "the database"),
    key("user", "name", "flowlog", "who flowlog is there"),
    key("pass", "text", "", "the password, where one is asked for"),
    key("schema", "name", "public", "the schema of the tables"),
    key(
        "table",
        "name of a table, or nothing",
        "",
        "a table of ulogd2, such as `ulog2_ct`: the names of its columns are ulogd2's keys with `_` \
         for `.`, and decide what is written. Nothing, or a table that is not there: flowlog's own \
         tables `flow`, `expectation` and `lost`, which it makes, with all that is known",
    ),
    key(
        "procedure",
        "`INSERT`, the beginning of an INSERT, or a function",
        "INSERT",
        "how a table of ulogd2 is written, as there: `INSERT_CT` is called with the columns in \
         their order",
    ),
    key(
        "connstring",
        "connection string of libpq",
        "",
        "all of the connection in one, such as `host=db1,db2 user=flowlog \
         target_session_attrs=read-write`; goes before the keys above",
    ),
    TLS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    BUFFER,
    key("reconnect", "integer", "2", RECONNECT_HELP),
    key("connect_timeout", "integer", "0", RECONNECT_HELP),
    key("backlog_memcap", "integer", "0", RECONNECT_HELP),
    key("backlog_oneshot_requests", "integer", "10", RECONNECT_HELP),
    key("ring_buffer_size", "integer", "0", RECONNECT_HELP),
];
