//! The keys of the sinks that hand records to brokers.

use super::sinks::BUFFER_RANGE;
use super::tls::{TLS, TLS_CA, TLS_CERT, TLS_KEY};
use super::{Key, key};

const BUFFER: Key = key(
    "buffer_max_bytes",
    BUFFER_RANGE,
    "67108864",
    "records kept in memory while the spool cannot be written; beyond it they are lost and counted",
);
const FORMAT: Key = key(
    "format",
    "`json` or `protobuf`",
    "json",
    "what a message is: json: an object, as docs/flow.schema.json describes it; protobuf: Protocol \
     Buffers, as conf/fleet/flow.proto does, a quarter as large",
);
const USER: Key = key("user", "name", "", "who flowlog is, with its password in `pass`");
const PASS: Key = key("pass", "text", "", "the password of `user`");

pub(super) const NATS: &[Key] = &[
    key(
        "server",
        "list of nats://HOST:PORT",
        "nats://127.0.0.1:4222",
        "servers of one cluster, tried in this order",
    ),
    key(
        "subject",
        "words with dots between them",
        "flowlog.{host}",
        "the subject of messages; `{host}` is the name of this host, with `_` for each dot in it",
    ),
    key(
        "stream",
        "name of a stream",
        "",
        "the stream that is to have them: messages that another one would take are refused. \
         Empty: whichever takes the subject",
    ),
    key(
        "create_stream",
        "switch",
        "0",
        "1: make the stream if it is missing, in files, for the subjects of all hosts and without \
         limits",
    ),
    FORMAT,
    USER,
    PASS,
    key("token", "text", "", "a word that lets in, in place of a user"),
    key("creds", "path", "", "a file of credentials (a JWT and its key), in place of a user"),
    key("nkey", "path", "", "a file with the seed of a user's key, in place of a user"),
    TLS,
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    BUFFER,
];

pub(super) const KAFKA: &[Key] = &[
    key(
        "brokers",
        "list of HOST:PORT",
        "127.0.0.1:9092",
        "some brokers of the cluster; of the others these tell",
    ),
    key("topic", "name of a topic", "flowlog", "the topic of messages; the flow is their key"),
    FORMAT,
    key(
        "compression",
        "`zstd`, `lz4`, `snappy` or `none`",
        "zstd",
        "how messages that go together are compressed",
    ),
    USER,
    PASS,
    key(
        "mechanism",
        "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`",
        "PLAIN",
        "how the password is shown, by SASL; with `PLAIN` everybody on the way can read it, unless \
         tls=1; SCRAM takes a flowlog that is built with the feature kafka-tls",
    ),
    Key {
        help: "1: over TLS 1.2 or 1.3, in a flowlog that is built with the feature kafka-tls; the \
               brokers' certificates must be good for their names",
        ..TLS
    },
    TLS_CA,
    TLS_CERT,
    TLS_KEY,
    Key {
        name: "property",
        kind: "NAME=VALUE, in double quotes",
        default: "",
        repeats: true,
        help: "a further property of librdkafka, such as `linger.ms=50`; it goes before what flowlog \
               sets itself",
    },
    BUFFER,
];
