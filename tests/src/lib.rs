//! What the live tests, the demo and the benchmark share: network namespaces that vanish with
//! their guard, a known mix of traffic, loggers run on that traffic, and the lines they write.
//!
//! Everything here needs root. Nothing leaves the namespaces it made, and everything (namespaces,
//! processes, files) is removed on drop, also when a test fails.
//!
//! | module | its one job |
//! |---|---|
//! | [`namespace`] | one network namespace: commands, threads, sysctls and conntrack in it |
//! | [`lab`] | client – router – server with NAT and a FTP helper; one namespace for loads |
//! | [`traffic`] | a mix of flows whose log lines are known beforehand |
//! | [`packet`] | the raw packets of that mix |
//! | [`burst`] | as many new flows as one core makes |
//! | [`mass`] | as many mixed flows through the lab as frames can make |
//! | [`daemon`] | flowlog or ulogd2 in a namespace, from a configuration to its exit code |
//! | [`sources`] | one configuration with several sources, each with a log of its own |
//! | [`filters`] | `accept_*_filter`s, and which flows of the mix each accepts |
//! | [`shipping`] | a sink whose far side goes away, and what arrives in the end |
//! | [`process`] | a child that does not outlive its guard; what /proc tells about it |
//! | [`postgres`] | a PostgreSQL server |
//! | [`shipping`] | faults of the far side, for all sinks that ship |
//! | [`stopped`] | a daemon whose engine stands still |
//! | [`metrics`] | a scrape of what flowlog serves to Prometheus |
//! | [`tags`] | which flows of the mix have lines with which tag |
//! | [`kafka`] | brokers as librdkafka mocks them, and what kcat reads there |
//! | [`lines`] | a log file as lines, their multiset, and the difference of two |
//! | [`terminal`] | a program in a pseudo-terminal: its screen, and keys for it |
//! | [`top`] | `flowlog top` on a terminal or as text, and its numbers |
//! | [`page`] | pages of docs, of which tests run the commands |
//! | [`pictures`] | the pictures of docs/pictures, and the traffic in them |
//! | [`watch`] | `flowlog watch` in a namespace, and what it shows |
//! | [`nats`] | a NATS server, and the messages of its streams |
//! | [`notify`] | what a service tells its manager |
//! | [`debian`] | a Debian to install the package in |
//! | [`booted`] | systemd as init of that Debian |
//! | [`collector`] | collectors of IPFIX, and what they have got |
//! | [`python`] | DuckDB and pyarrow, which read archives |
//! | [`shipping`] | faults of the far side, for every sink that ships |
//! | [`chaos`] | flowlog with all its sinks under random faults, and whether it kept its promises |
//! | [`clickhouse`] | a ClickHouse server in a namespace |
//! | [`sqlite`] | what Debian's `sqlite3` answers, and ulogd2's table |
//! | [`rates`] | flowlog and ulogd2 into the same kind of sink: rates, and what a row costs |
//! | [`tls`] | an authority with certificates, and a proxy that speaks TLS for a server |
//! | [`poll`] | waiting for a condition instead of sleeping |

pub mod booted;
pub mod burst;
pub mod chaos;
pub mod clickhouse;
pub mod collector;
pub mod daemon;
pub mod debian;
pub mod filters;
pub mod kafka;
pub mod lab;
pub mod lines;
pub mod mass;
pub mod metrics;
pub mod namespace;
pub mod nats;
pub mod notify;
pub mod packet;
pub mod page;
pub mod pictures;
pub mod poll;
pub mod postgres;
pub mod process;
pub mod python;
pub mod rates;
pub mod shipping;
pub mod slow_disk;
pub mod sources;
pub mod sqlite;
pub mod stopped;
pub mod tags;
pub mod terminal;
pub mod tls;
pub mod top;
pub mod traffic;
pub mod watch;
