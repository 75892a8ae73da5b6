//! A PostgreSQL of the test's own: made, started, asked, stopped and started again, gone on drop.
//! It runs as the user of Debian's package, since it refuses root, on a socket in its directory
//! and, in a namespace, on 127.0.0.1.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::poll;
use crate::process::{Guarded, cpu_time_with_children};
use crate::shipping::FarSide;

/// The port of its socket, and that in its namespace.
pub const PORT: u16 = 5432;
/// The password of the user `flowlog`, where one is asked for.
pub const PASSWORD: &str = "correct horse";
const USER: &str = "postgres";
/// As Debian's package of ulogd2 has it.
const ULOGD_SCHEMA: &str = "/usr/share/doc/ulogd2/pgsql-ulogd2.sql.gz";

/// A server with a database `flowlog` that belongs to a user `flowlog`.
#[derive(Debug)]
pub struct Postgres<'n> {
    dir: TempDir,
    namespace: Option<&'n Namespace>,
    process: Option<Guarded>,
}

impl<'n> Postgres<'n> {
    /// Makes and starts one; in a namespace it also listens on 127.0.0.1.
    ///
    /// # Errors
    /// The package `postgresql` is missing, or it does not start.
    pub fn new(namespace: Option<&'n Namespace>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-postgres-").tempdir()?;
        let user =
            User::from_name(USER)?.context("no user postgres: apt-get install postgresql")?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        let mut server = Self { dir, namespace, process: None };
        let data = server.data();
        let mut make = server.command("initdb")?;
        make.args(["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-D"]);
        let made = make.arg(&data).output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.start()?;
        server.ask("postgres", &format!("CREATE ROLE flowlog LOGIN PASSWORD '{PASSWORD}'"))?;
        server.ask("postgres", "CREATE DATABASE flowlog OWNER flowlog")?;
        // As before version 15: tables are made in `public`.
        server.ask("flowlog", "ALTER SCHEMA public OWNER TO flowlog")?;
        Ok(server)
    }

    /// Its first process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.as_ref().map(Guarded::pid)
    }

    /// Its directory, which has the socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The directory of its data and configuration.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A program of the server's, as its user.
    fn command(&self, program: &str) -> Result<Command> {
        let path = program_path(program)?;
        let mut command = match self.namespace {
            Some(namespace) => namespace.command("setpriv"),
            None => Command::new("setpriv"),
        };
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(path);
        command.current_dir(self.dir.path());
        Ok(command)
    }

    /// Starts it, after it was stopped.
    ///
    /// # Errors
    /// It does not let anybody in; with its log.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.command("postgres")?;
        let listen = if self.namespace.is_some() { "127.0.0.1" } else { "" };
        command.arg("-D").arg(self.data()).arg("-k").arg(self.dir.path());
        command.args(["-p", &PORT.to_string(), "-c", &format!("listen_addresses={listen}")]);
        let log = File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        self.process = Some(Guarded::spawn(&mut command)?);
        poll::until("PostgreSQL", || Ok(self.ask("postgres", "SELECT 1").is_ok().then_some(())))
            .with_context(|| self.log())
    }

    /// Stops it: at once and without a word, as a crash does; or in order.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop(&mut self, at_once: bool) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(if at_once { Signal::SIGQUIT } else { Signal::SIGINT })?;
            process.wait()?;
        }
        Ok(())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What `psql` answers of a database, as its superuser: a row a line, columns parted by `|`.
    ///
    /// # Errors
    /// The server is away or does not like it.
    pub fn ask(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        let mut command = Command::new(program_path("psql")?);
        command.arg("-h").arg(self.dir.path()).args(["-p", &PORT.to_string(), "-U", USER]);
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        let output = command.output().context("psql")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{sql}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// A number that it answers.
    ///
    /// # Errors
    /// As [`Postgres::ask`], or it is none.
    pub fn number(&self, sql: &str) -> Result<u64> {
        Ok(self.ask("flowlog", sql)?.concat().parse()?)
    }

    /// Bytes of flowlog's own table `flow` in a schema: all partitions, with their indexes.
    ///
    /// # Errors
    /// There is none.
    pub fn own_bytes(&self, schema: &str) -> Result<u64> {
        self.number(&format!(
            "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits \
             WHERE inhparent = '{schema}.flow'::regclass"
        ))
    }

    /// Runs a file of SQL.
    ///
    /// # Errors
    /// As [`Postgres::ask`].
    pub fn run(&self, sql: &str) -> Result<()> {
        self.ask("flowlog", sql).map(drop)
    }

    /// Processor time of the server and of all sessions so far.
    ///
    /// # Errors
    /// It does not run.
    pub fn cpu_time(&self) -> Result<Duration> {
        let pid = self.process.as_ref().context("it does not run")?.pid();
        let mut sum = cpu_time_with_children(pid)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        for child in children.split_whitespace() {
            // A session may just have ended: then it is in the sum, or nearly.
            sum += cpu_time_with_children(child.parse()?).unwrap_or_default();
        }
        Ok(sum)
    }

    /// Replaces the rules of who is let in (`pg_hba.conf`); valid for whoever comes from now on.
    ///
    /// # Errors
    /// It cannot be written, or the server does not take it.
    pub fn let_in(&self, rules: &str) -> Result<()> {
        // The test itself is always let in.
        let text = format!("local all {USER} trust\n{rules}\n");
        fs::write(self.data().join("pg_hba.conf"), text)?;
        self.ask("postgres", "SELECT pg_reload_conf()")?;
        Ok(())
    }
}

/// The keys by which flowlog reaches it, through the socket in its directory.
pub fn keys(server: &Postgres<'_>) -> String {
    format!("host=\"{}\"\nport={PORT}", server.dir().display())
}

/// The keys by which ulogd2 and flowlog write a table of ulogd2.
pub fn ulogd_keys(server: &Postgres<'_>, schema: &str, procedure: &str) -> String {
    format!(
        "{}\ndb=flowlog\nuser=flowlog\nschema={schema}\ntable=ulog2_ct\nprocedure={procedure}\n",
        keys(server)
    )
}

/// Makes ulogd2's own tables in a schema, as its package has them.
///
/// # Errors
/// The package `ulogd2-pgsql` is missing.
pub fn ulogd_schema(server: &Postgres<'_>, schema: &str) -> Result<()> {
    let output = Command::new("zcat").arg(ULOGD_SCHEMA).output()?;
    let sql = String::from_utf8(output.stdout)?;
    // It drops and makes whatever it likes in the first schema of the path; its tables were
    // written for versions that had OIDs.
    let sql = sql.replace("WITH (OIDS=FALSE)", "").replace("\n-- ", "\n--");
    let file = server.dir().join("ulogd.sql");
    fs::write(&file, format!("CREATE SCHEMA {schema};\nSET search_path={schema};\n{sql}"))?;
    let psql = format!("-X -q -h {} -U postgres -d flowlog -f", server.dir().display());
    let output = Command::new("psql").args(psql.split(' ')).arg(&file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    server.run(&format!(
        "GRANT ALL ON SCHEMA {schema} TO flowlog; \
         GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO flowlog; \
         GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO flowlog"
    ))
}

impl FarSide for Postgres<'_> {
    fn plugin(&self) -> &'static str {
        "PGSQL"
    }

    fn keys(&self) -> String {
        keys(self)
    }

    fn stop(&mut self) -> Result<()> {
        Postgres::stop(self, true)
    }

    fn start(&mut self) -> Result<()> {
        Postgres::start(self)
    }

    fn records(&self) -> Result<Vec<(String, String)>> {
        let rows = self.ask(
            "flowlog",
            "SELECT record_id, host(orig_dst) || ':' || orig_dport FROM flow \
             WHERE orig_dst << '198.19.0.0/16'",
        )?;
        let pair = |row: &String| {
            let (id, flow) = row.split_once('|').context("no pair")?;
            Ok((id.to_owned(), flow.to_owned()))
        };
        rows.iter().map(pair).collect()
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        // Killed, it would leave shared memory behind.
        if let Some(mut process) = self.process.take() {
            let begin = Instant::now();
            let _ = process.signal(Signal::SIGQUIT);
            while begin.elapsed() < Duration::from_secs(10)
                && !matches!(process.ended(), Ok(Some(_)) | Err(_))
            {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// A program of the newest server that is installed.
fn program_path(program: &str) -> Result<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let path = entry.path().join("bin").join(program);
            path.exists().then_some((version, path))
        })
        .collect();
    found.sort();
    let (_, path) = found.pop().context("no PostgreSQL: apt-get install postgresql")?;
    Ok(path)
}
