//! Live tests: flowlog, and ulogd2 beside it, on real flows in network namespaces. One binary, so
//! that all of them run side by side. They need root and run with `cargo xtask test`, which turns
//! the feature `live` on; without it they are listed as ignored.

mod activate;
mod archive_gaps;
mod check_sandbox;
mod clickhouse;
mod differential;
mod disk_full;
mod failing_reads;
mod filter_stage;
mod filters;
mod ipfix;
mod json;
mod kafka;
#[cfg(feature = "kafka-tls")]
mod kafka_tls;
mod lifecycle;
mod list;
mod masks;
mod mass;
mod metrics;
mod migrating;
mod names;
mod nat_log;
mod nats;
mod netns_anew;
mod output;
mod overrun;
mod parquet;
mod pgbouncer;
mod pgsql;
mod pgsql_rates;
mod pgsql_ulogd;
mod preexisting;
mod readers;
mod replaced;
mod reply_zone;
mod signals;
mod silent;
mod spool_faults;
mod sqlite3;
mod sqlite3_faults;
mod sync;
mod syslog;
mod top;
mod watch;
mod watchdog;
mod who;

use anyhow::Result;
use tests::burst::burst_lines;
use tests::daemon::{Daemon, Program, config};
use tests::lines::uncounted;
use tests::namespace::Namespace;

/// Starts flowlog with these keys in `[ct1]`, each line on disk at once.
fn flowlog(namespace: &Namespace, ct: &str) -> Result<Daemon> {
    let ct = format!("capture=netlink\n{ct}");
    Daemon::start(Program::Flowlog, namespace, &config(&ct, "sync=1"))
}
