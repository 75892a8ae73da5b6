//! The keys of PRINTFLOW and of the sinks on this host, each plugin's in the
//! order in which they are told.

use super::tls::{TLS, TLS_CA, TLS_CERT, TLS_KEY};
use super::{Key, key};

pub(super) const PRINTFLOW: &[Key] = &[
    key(
        "icmp_labels",
        "`ulogd` or `fixed`",
        "ulogd",
        "ulogd: TYPE= holds the ICMP code and CODE= the type, as ulogd2 writes them; fixed: the \
         right way round",
    ),
    key(
        "ports",
        "`ulogd` or `all`",
        "ulogd",
        "all: SPT= and DPT= for SCTP, DCCP and UDP-Lite, TYPE= and CODE= for ICMPv6 too",
    ),
    key(
        "loss_lines",
        "switch",
        "1",
        "1: a loss of events stands in the log as a line `[LOST] EVENTS=number SOURCE=capture`; \
         0: it is counted and told in the daemon's own log only",
    ),
    key(
        "extras",
        "switch",
        "0",
        "1: lines go on with what ulogd2 does not know of, where it is known: `CAUSE=` at the \
         end of a flow, with `PORTID=`, `PID=` and `COMM=` of the process that deleted it, \
         `NETNS=`, the inode number of the namespace, `ID=`, the kernel's id of an eBPF flow that \
         netlink told too, and `HEALED=1` where the first source had missed it; 0: lines are \
         those of ulogd2",
    ),
];

pub(super) const LOGEMU: &[Key] = &[
    key("file", "path", "/var/log/flowlog/flowlog.log", "the file that lines are appended to"),
    key(
        "sync",
        "switch",
        "0",
        "1: lines are on disk (fdatasync) before further events are taken; 0: lines are in the \
         file within a second, on disk when the kernel writes them",
    ),
    key(
        "buffer_max_bytes",
        BUFFER_RANGE,
        "67108864",
        "lines kept while the file cannot be written (disk full); beyond it lines are lost and \
         counted",
    ),
];

pub(super) const SYSLOG: &[Key] = &[
    key(
        "facility",
        "`LOG_DAEMON`, `LOG_KERN`, `LOG_LOCAL0` to `LOG_LOCAL7` or `LOG_USER`",
        "LOG_KERN",
        "the facility of messages; LOG_KERN comes out as LOG_DAEMON, as with ulogd2: syslog(3) \
         keeps the kernel's for the kernel",
    ),
    key(
        "level",
        "`LOG_EMERG`, `LOG_ALERT`, `LOG_CRIT`, `LOG_ERR`, `LOG_WARNING`, `LOG_NOTICE`, `LOG_INFO` \
         or `LOG_DEBUG`",
        "LOG_NOTICE",
        "the severity of messages",
    ),
    key(
        "server",
        "`unix:PATH`, `udp://HOST:PORT` or `tcp://HOST:PORT`",
        "unix:/dev/log",
        "who takes the messages: a datagram socket of this host, in the form of syslog(3); or a \
         host, in that of RFC 5424, over TCP with the length of each message before it",
    ),
    key("ident", "name", "flowlog", "what messages are said to come from"),
    key("buffer_max_bytes", BUFFER_RANGE, "67108864", BUFFER_HELP),
];

pub(super) const BUFFER_RANGE: &str = "integer from 4096 to 4294967295, bytes";
const BUFFER_HELP: &str = "kept while nobody takes them or the disk is full; beyond it they are \
                           lost and counted";

pub(super) const JSON: &[Key] = &[
    key(
        "mode",
        "`file`, `stdout`, `tcp`, `udp`, `unix` or `unix-dgram`",
        "file",
        "where objects go: to a file; to standard output; to `host` and `port`; to the stream or \
         datagram socket of this host that `file` names",
    ),
    key(
        "file",
        "path, or `-` for standard output",
        "/var/log/flowlog/flowlog.json",
        "the file that objects are appended to, one a line, or the socket",
    ),
    key(
        "sync",
        "switch",
        "0",
        "1: objects are on disk (fdatasync) before further events are taken; 0: they are in the \
         file within a second",
    ),
    key("host", "name or address", "127.0.0.1", "with mode=tcp and mode=udp: who takes them"),
    key("port", "integer from 1 to 65535", "12345", "with mode=tcp and mode=udp: the port there"),
    key("buffer_max_bytes", BUFFER_RANGE, "67108864", BUFFER_HELP),
    key(
        "schema",
        "`ulogd` or `full`",
        "ulogd",
        "ulogd: the members that ulogd2 writes; full: all that is known of an event, as \
         docs/flow.schema.json describes it",
    ),
    key(
        "loss_records",
        "switch",
        "1",
        "1: a loss of events is an object of its own; 0: it is counted and told in the daemon's \
         own log only",
    ),
    key("timestamp", "switch", "1", "with schema=ulogd: 1: objects begin with the local time"),
    key(
        "eventv1",
        "switch",
        "0",
        "with schema=ulogd: 1: the time is called `@timestamp`, and `@version` stands before it",
    ),
    key("device", "text", "Netfilter", "with schema=ulogd: the value of `dvc`"),
    key("boolean_label", "switch", "0", "accepted and ignored: packets have labels, flows do not"),
];

pub(super) const SQLITE3: &[Key] = &[
    key("db", "path", "/var/log/flowlog/flowlog.db", "the database; it is made if it is missing"),
    key(
        "table",
        "name of a table, or nothing",
        "",
        "a table of ulogd2, such as `ulog_ct`: the names of its columns are ulogd2's keys with `_` \
         for `.`, and decide what is written. Nothing, or a table that is not there: flowlog's own \
         tables `flow`, `expectation` and `lost`, which it makes, with all that is known",
    ),
    key(
        "sync",
        "switch",
        "0",
        "1: a batch is committed, and on disk, as soon as the one before is, and its rows count as \
         written only then (synchronous=FULL); 0: they gather for a quarter of a second, and a loss \
         of power may take the last commits (synchronous=NORMAL)",
    ),
    key(
        "buffer_max_bytes",
        BUFFER_RANGE,
        "67108864",
        "rows kept until they are committed (the disk is slow or full, the database locked); beyond \
         it they are lost and counted",
    ),
    key(
        "buffer",
        "integer",
        "10",
        "accepted and ignored, as by ulogd2: what arrives together is one transaction",
    ),
];

pub(super) const IPFIX: &[Key] = &[
    key("host", "name or address", "127.0.0.1", "the collector"),
    key("port", "integer from 1 to 65535", "4739", "its port; with tls=1 it is 4740 by default"),
    key(
        "proto",
        "`tcp` or `udp`",
        "tcp",
        "how records go there: tcp tells when they have arrived; over udp what the way or a busy \
         collector drops is lost unseen",
    ),
    key(
        "oid",
        "integer from 0 to 4294967295",
        "1",
        "the observation domain: what tells this flowlog from others on the same address",
    ),
    key(
        "mtu",
        "integer from 512 to 65507, bytes",
        "1400",
        "with proto=udp: how long a message may be, without the headers of IP and UDP",
    ),
    key(
        "send_template",
        "`once` or `always`",
        "once",
        "once: a connection is told each template once, over udp again as template_refresh says; \
         always: each message that has records has their templates too. ulogd2's `never` is taken \
         for `once`",
    ),
    key(
        "template_refresh",
        "time such as 60s; ms, s, m, h or d, a plain number is seconds",
        "60s",
        "with proto=udp: templates are told again after so long",
    ),
    key(
        "template_refresh_messages",
        "integer from 1 to 4294967295",
        "100",
        "with proto=udp: and after so many messages",
    ),
    key(
        "nat_events",
        "switch",
        "1",
        "1: beginning and end of a translated IPv4 flow are NAT events too (natEvent, RFC 8158); 0: \
         only the addresses and ports behind NAT are told. pmacct does not count packets and bytes \
         of NAT events",
    ),
    TLS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    key("buffer_max_bytes", BUFFER_RANGE, "67108864", SPOOL_BUFFER_HELP),
];

const SPOOL_BUFFER_HELP: &str = "records kept in memory while the spool cannot be written; beyond \
                                 it they are lost and counted";

pub(super) const PARQUET: &[Key] = &[
    key(
        "directory",
        "directory",
        "/var/lib/flowlog/archive",
        "where the files are; one sink writes there. It is made if it is missing",
    ),
    key(
        "rotate_interval",
        "time from 1s to 1d",
        "15m",
        "a file is closed at each multiple of it; only then it can be read",
    ),
    key(
        "rotate_size",
        "integer from 1048576 to 1099511627776, bytes",
        "134217728",
        "a file of about so many bytes is closed before; as is one whose records take a quarter \
         of spool_max_bytes",
    ),
    key(
        "keep_for",
        "time up to 366d, or 0",
        "0",
        "files are removed when all in them is older; 0: never",
    ),
    key(
        "keep_bytes",
        "integer from 0 to 1125899906842624, bytes",
        "0",
        "the oldest files are removed until all together have no more bytes; 0: never",
    ),
    key(
        "buffer_max_bytes",
        BUFFER_RANGE,
        "67108864",
        "records kept in memory while the spool cannot be written; beyond it they are lost and \
         counted",
    ),
];
