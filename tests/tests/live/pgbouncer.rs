//! PGSQL through PgBouncer with `pool_mode=transaction`: each transaction may run in another
//! session of the server, which keeps nothing of the one before.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::User;
use tempfile::TempDir;
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::poll;
use tests::postgres::{PORT, Postgres, ulogd_schema};
use tests::process::Guarded;
use tests::shipping::{self, FarSide};

const FLOWS: u32 = 20_000;

/// A PostgreSQL, and the pooler before it with a few sessions that take turns.
struct Bounced<'n> {
    server: Postgres<'n>,
    dir: TempDir,
    _bouncer: Guarded,
}

impl Bounced<'_> {
    fn new() -> Result<Self> {
        let server = Postgres::new(None)?;
        let dir = tempfile::Builder::new().prefix("flowlog-pgbouncer-").tempdir()?;
        let user = User::from_name("postgres")?.context("no user postgres")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let (at, upstream) = (dir.path().display(), server.dir().display());
        fs::write(
            dir.path().join("bouncer.ini"),
            format!(
                "[databases]\nflowlog = host={upstream} port={PORT} dbname=flowlog user=flowlog\n\
                 [pgbouncer]\nlisten_port={PORT}\nunix_socket_dir={at}\nauth_type=any\n\
                 pool_mode=transaction\nmin_pool_size=3\ndefault_pool_size=3\n\
                 server_round_robin=1\nserver_login_retry=1\nlogfile={at}/log\n"
            ),
        )?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]);
        command.arg("pgbouncer").arg(dir.path().join("bouncer.ini"));
        command.env("PATH", "/usr/sbin:/usr/bin:/bin");
        let mut bouncer = Guarded::spawn(&mut command)?;
        let socket = dir.path().join(format!(".s.PGSQL.{PORT}"));
        poll::until("pgbouncer", || {
            ensure!(bouncer.ended()?.is_none(), "pgbouncer ended: apt-get install pgbouncer");
            Ok(socket.exists().then_some(()))
        })?;
        Ok(Self { server, dir, _bouncer: bouncer })
    }

    fn keys_of(dir: &Path) -> String {
        format!("host=\"{}\"\nport={PORT}\ndb=flowlog\nuser=flowlog", dir.display())
    }
}

impl FarSide for Bounced<'_> {
    fn plugin(&self) -> &'static str {
        "PGSQL"
    }

    fn keys(&self) -> String {
        Self::keys_of(self.dir.path())
    }

    fn stop(&mut self) -> Result<()> {
        FarSide::stop(&mut self.server)
    }

    fn start(&mut self) -> Result<()> {
        FarSide::start(&mut self.server)
    }

    fn records(&self) -> Result<Vec<(String, String)>> {
        self.server.records()
    }
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_flow_arrives_once() -> Result<()> {
    let single = SingleNs::new()?;
    let mut far = Bounced::new()?;
    let twice = shipping::survives(&single, &mut far, FLOWS)?;
    ensure!(twice == 0, "{twice} rows have the record id of others");
    Ok(())
}

/// Three sinks whose sessions take turns: own tables, a function that is found by the search
/// path, and a view that rows reach through a temporary table.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn sinks_with_schemas_of_their_own_share_the_sessions() -> Result<()> {
    let single = SingleNs::new()?;
    let far = Bounced::new()?;
    for schema in ["by_function", "by_view"] {
        ulogd_schema(&far.server, schema)?;
    }
    let keys = Bounced::keys_of(far.dir.path());
    let sink = |schema: &str, procedure: &str| {
        format!("{keys}\nschema={schema}\ntable=ulog2_ct\nprocedure={procedure}\n")
    };
    let text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,own1:PGSQL\nstack=ct1:NFCT,function1:PGSQL\nstack=ct1:NFCT,view1:PGSQL\n\
         [ct1]\nevent_mask=1\nhash_enable=0\n{ROOMY}[own1]\n{keys}\n[function1]\n{}[view1]\n{}",
        sink("by_function", "INSERT_CT"),
        sink("by_view", "INSERT"),
    );
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    for part in 0..10 {
        udp_burst(&single, 4000, part * 200, 200)?;
        for table in ["flow", "by_function.ulog2_ct", "by_view.ulog2_ct"] {
            let rows = u64::from((part + 1) * 200);
            poll::until(table, || {
                // Its own tables are made with the first record.
                let count = far.server.number(&format!("SELECT count(*) FROM {table}"));
                Ok((count.unwrap_or_default() == rows).then_some(()))
            })
            .with_context(|| daemon.log())?;
        }
    }
    let log = daemon.log();
    ensure!(!log.contains("refused") && !log.contains("prepared statement"), "{log}");
    Ok(())
}
