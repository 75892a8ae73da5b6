//! The keys of CLICKHOUSE.

use super::sinks::BUFFER_RANGE;
use super::tls::{TLS_CA, TLS_CERT, TLS_KEY};
use super::{Key, key};

const BUFFER_HELP: &str = "records kept in memory while the spool cannot be written (disk full); \
                           beyond it they are lost and counted";

pub(super) const CLICKHOUSE: &[Key] = &[
    key(
        "url",
        "URL",
        "http://127.0.0.1:8123",
        "where ClickHouse speaks HTTP; with https:// over TLS, port 8443 if none is named. The \
         server's certificate must be good for the name that is written here",
    ),
    key("database", "name", "flowlog", "its database"),
    key(
        "table",
        "name",
        "flow",
        "the table there, which conf/fleet/clickhouse.sql makes. Its columns are compared at each \
         connection",
    ),
    key("user", "name, or nothing", "", "a user of ClickHouse; empty: its user `default`"),
    key("password", "text", "", "the password of `user`"),
    key(
        "hostname",
        "text, or nothing",
        "",
        "what the column `host` says; empty: the name of this host",
    ),
    key(
        "linger",
        "time: a number with `s`, `m`, `h` or `d`; without a unit seconds",
        "1s",
        "how long records wait for more of them, so that inserts are few and large; at most an \
         hour. A thousand hosts want 30s and more, see docs/fleet.md",
    ),
    key(
        "batch_max_bytes",
        "integer from 65536 to 268435456, bytes",
        "8388608",
        "records from which on they are inserted at once, as they are in the spool; the rows are \
         twice as large, and both are in memory then",
    ),
    key("compress", "switch", "1", "1: what is sent is compressed by zstd, in ClickHouse's blocks"),
    key(
        "settings",
        "NAME=VALUE, joined by `&`",
        "",
        "settings of ClickHouse for each insert, such as \
         \"async_insert=1&wait_for_async_insert=1\"",
    ),
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    key("buffer_max_bytes", BUFFER_RANGE, "67108864", BUFFER_HELP),
];
