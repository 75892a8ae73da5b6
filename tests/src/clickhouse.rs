//! A ClickHouse server in a namespace, with the table of conf/fleet, and what it answers.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::metrics;
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;
use crate::shipping::FarSide;

/// Where it speaks HTTP, in the namespace of the test.
pub const ADDRESS: &str = "127.0.0.1:8123";
/// The files that make the table.
const TABLE: &str = include_str!("../../conf/fleet/clickhouse.sql");

/// Connections to it are no flows of a test.
const UNTRACKED: &str = "table ip clickhouse {\n\
    chain from { type filter hook output priority raw; ip daddr 127.0.0.0/8 notrack; }\n\
    chain to { type filter hook prerouting priority raw; ip saddr 127.0.0.0/8 notrack; }\n}\n";

/// The users: one who may do all, one with a password, one who may only read. ClickHouse 18.16
/// knows no other element around all than `yandex`.
const USERS: &str = "<yandex>\
    <profiles><default/><readonly><readonly>1</readonly></readonly></profiles>\
    <users>\
    <default><password/><networks><ip>::/0</ip></networks><profile>default</profile>\
    <quota>default</quota></default>\
    <flowlog><password>secret</password><networks><ip>::/0</ip></networks>\
    <profile>default</profile><quota>default</quota></flowlog>\
    <reader><password>reads</password><networks><ip>::/0</ip></networks>\
    <profile>readonly</profile><quota>default</quota></reader>\
    </users><quotas><default/></quotas></yandex>";

/// A server. Dropped, it is killed and its files vanish.
#[derive(Debug)]
pub struct Server<'n> {
    namespace: &'n Namespace,
    // Before its files.
    process: Option<Guarded>,
    directory: TempDir,
}

impl<'n> Server<'n> {
    /// Starts one without tables; `more` is added to its configuration, in which `@DIR@` is its
    /// directory.
    ///
    /// # Errors
    /// It is missing or does not listen.
    pub fn empty(namespace: &'n Namespace, more: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("flowlog-clickhouse-").tempdir()?;
        let dir = directory.path().to_string_lossy().into_owned();
        let config = format!(
            "<yandex><logger><level>warning</level><log>{dir}/log</log>\
             <errorlog>{dir}/errors</errorlog></logger>\
             <http_port>8123</http_port><tcp_port>9000</tcp_port>\
             <interserver_http_port>9009</interserver_http_port>\
             <interserver_http_host>127.0.0.1</interserver_http_host>\
             <listen_host>127.0.0.1</listen_host>\
             <path>{dir}/data/</path><tmp_path>{dir}/tmp/</tmp_path>\
             <mark_cache_size>67108864</mark_cache_size>\
             <users_config>users.xml</users_config><default_profile>default</default_profile>\
             <default_database>default</default_database>{}</yandex>",
            more.replace("@DIR@", &dir)
        );
        fs::write(directory.path().join("config.xml"), config)?;
        fs::write(directory.path().join("users.xml"), USERS)?;
        namespace.nft(UNTRACKED)?;
        let mut server = Self { namespace, process: None, directory };
        server.up()?;
        Ok(server)
    }

    /// Starts one with the table of conf/fleet.
    ///
    /// # Errors
    /// As [`Server::empty`], or the file is refused.
    pub fn with_table(namespace: &'n Namespace) -> Result<Self> {
        let server = Self::empty(namespace, "")?;
        server.make_table()?;
        Ok(server)
    }

    /// Makes the table as conf/fleet has it.
    ///
    /// # Errors
    /// The file is refused.
    pub fn make_table(&self) -> Result<()> {
        self.ask(TABLE).map(drop)
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Its process.
    ///
    /// # Errors
    /// It is down.
    pub fn process(&self) -> Result<&Guarded> {
        self.process.as_ref().context("the server is down")
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It is missing or does not listen.
    pub fn up(&mut self) -> Result<()> {
        let mut command = self.namespace.command("clickhouse-server");
        command.arg(format!("--config-file={}", self.path("config.xml").display()));
        command.stdout(Stdio::null()).stderr(Stdio::null()).current_dir(self.directory.path());
        let mut process =
            Guarded::spawn(&mut command).context("apt-get install clickhouse-server")?;
        poll::until("clickhouse-server to answer", || {
            if let Some(code) = process.ended()? {
                bail!("clickhouse-server ended with {code:?}: {}", self.log());
            }
            let answer = metrics::get(self.namespace, ADDRESS, "/ping");
            Ok(answer.is_ok_and(|(status, _)| status.ends_with("200 OK")).then_some(()))
        })
        .with_context(|| self.log())?;
        self.process = Some(process);
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It does not end.
    pub fn down(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL)?;
            process.wait()?;
        }
        Ok(())
    }

    /// What it says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What it answers to statements, a row a line, its values parted by tabs.
    ///
    /// # Errors
    /// It refuses them.
    pub fn ask(&self, sql: &str) -> Result<Vec<String>> {
        let mut command = self.namespace.command("clickhouse-client");
        command.args(["--host", "127.0.0.1", "--multiquery", "--query", sql]);
        answer(&mut command).with_context(|| self.log())
    }

    /// Bytes of the table's parts.
    ///
    /// # Errors
    /// It does not answer.
    pub fn bytes_on_disk(&self) -> Result<u64> {
        self.number("SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND table = 'flow'")
    }

    /// The first value of the first row.
    ///
    /// # Errors
    /// It is no number.
    pub fn number(&self, sql: &str) -> Result<u64> {
        let rows = self.ask(sql)?;
        Ok(rows.first().context("no row")?.parse()?)
    }
}

fn answer(command: &mut Command) -> Result<Vec<String>> {
    let output = command.output().context("apt-get install clickhouse-client")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {error}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

impl FarSide for Server<'_> {
    fn plugin(&self) -> &'static str {
        "CLICKHOUSE"
    }

    fn keys(&self) -> String {
        "user=flowlog\npassword=secret".to_owned()
    }

    fn stop(&mut self) -> Result<()> {
        self.down()
    }

    fn start(&mut self) -> Result<()> {
        self.up()
    }

    fn records(&self) -> Result<Vec<(String, String)>> {
        let rows = self.ask(
            "SELECT toString(time), toString(hash), concat(orig_dst_ip, ':', toString(orig_dport)) \
             FROM flowlog.flow WHERE type = 'flow'",
        )?;
        rows.iter()
            .map(|row| {
                let (id, flow) = row.rsplit_once('\t').context("three values")?;
                Ok((id.to_owned(), flow.to_owned()))
            })
            .collect()
    }
}
