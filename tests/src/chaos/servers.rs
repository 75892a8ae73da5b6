//! The servers of the lab, and what happens to them: they stand still, are killed and started
//! again, or something else listens in their place and answers with garbage.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::stream;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::broker::Broker;
use super::random::Random;
use super::received::Received;
use super::record::Form;
use crate::namespace::Namespace;
use crate::postgres::Postgres;
use crate::{clickhouse, nats};

/// Those that run.
pub(super) struct Servers<'n> {
    namespace: &'n Namespace,
    pg: Option<Postgres<'n>>,
    nats: Option<nats::Server<'n>>,
    ch: Option<clickhouse::Server<'n>>,
    broker: Option<Broker<'n>>,
    garbage: Vec<(&'static str, Garbage)>,
}

impl<'n> Servers<'n> {
    /// Starts those of these sinks. `mock` is the program of Kafka's brokers.
    ///
    /// # Errors
    /// One does not start.
    pub(super) fn start(
        namespace: &'n Namespace,
        sinks: &[&str],
        mock: &Path,
        directory: &Path,
    ) -> Result<Self> {
        let has = |name| sinks.contains(&name);
        let pg = has("pg").then(|| Postgres::new(Some(namespace))).transpose()?;
        let nats = if has("nats") {
            let server = nats::Server::start(namespace, nats::Server::JETSTREAM)?;
            server.make(stream::Config {
                name: "FLOWS".to_owned(),
                subjects: vec!["flowlog.>".to_owned()],
                ..stream::Config::default()
            })?;
            Some(server)
        } else {
            None
        };
        let ch = has("ch").then(|| clickhouse::Server::with_table(namespace)).transpose()?;
        let broker = if has("kafka") {
            let received = Received::new(directory, "kafka", Form::Json)?;
            Some(Broker::start(namespace, mock, received)?)
        } else {
            None
        };
        Ok(Self { namespace, pg, nats, ch, broker, garbage: Vec::new() })
    }

    /// The address of Kafka's brokers.
    pub(super) fn brokers(&self) -> String {
        self.broker.as_ref().map(|broker| broker.mock().address.clone()).unwrap_or_default()
    }

    /// The processes of a server.
    fn processes(&self, name: &str) -> Result<Vec<i32>> {
        let pid = match name {
            "pg" => self.pg.as_ref().and_then(Postgres::pid),
            "nats" => self.nats.as_ref().and_then(nats::Server::pid),
            "ch" => self.ch.as_ref().and_then(|ch| Some(ch.process().ok()?.pid())),
            "kafka" => self.broker.as_ref().map(|broker| broker.mock().pid()),
            _ => None,
        };
        let Some(pid) = pid else { bail!("{name} does not run") };
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(std::iter::once(pid).chain(children).collect())
    }

    /// Has a server stand still, or go on.
    ///
    /// # Errors
    /// It does not run.
    pub(super) fn freeze(&self, name: &str, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        for pid in self.processes(name)? {
            // A session may have just ended.
            let _ = kill(Pid::from_raw(pid), signal);
        }
        Ok(())
    }

    /// Kills a server; Kafka's brokers hang up instead, since they keep nothing.
    ///
    /// # Errors
    /// It does not end.
    pub(super) fn kill(&mut self, name: &str) -> Result<()> {
        match name {
            "pg" => self.pg.as_mut().context("no PostgreSQL")?.stop(true),
            "nats" => self.nats.as_ref().context("no NATS")?.down(),
            "ch" => self.ch.as_mut().context("no ClickHouse")?.down(),
            "kafka" => self.broker.as_ref().context("no Kafka")?.mock().say("down"),
            _ => bail!("{name} is no server"),
        }
    }

    /// Starts it again.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn revive(&mut self, name: &str) -> Result<()> {
        match name {
            "pg" => self.pg.as_mut().context("no PostgreSQL")?.start(),
            "nats" => self.nats.as_ref().context("no NATS")?.up(),
            "ch" => self.ch.as_mut().context("no ClickHouse")?.up(),
            "kafka" => self.broker.as_ref().context("no Kafka")?.mock().say("up"),
            _ => bail!("{name} is no server"),
        }
    }

    /// Kills a server, and answers with garbage in its place.
    ///
    /// # Errors
    /// It does not end.
    pub(super) fn impersonate(&mut self, name: &'static str, seed: u64) -> Result<()> {
        self.kill(name)?;
        let port = match name {
            "pg" => crate::postgres::PORT,
            "nats" => 4222,
            "ch" => 8123,
            _ => bail!("{name} has no port of its own"),
        };
        self.garbage.push((name, Garbage::start(self.namespace, port, seed)?));
        Ok(())
    }

    /// Ends that, and starts the server again.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn unmask(&mut self, name: &'static str) -> Result<()> {
        self.garbage.retain(|(other, _)| *other != name);
        self.revive(name)
    }

    /// The records of a server; everything must have been delivered.
    ///
    /// # Errors
    /// It cannot be asked.
    pub(super) fn received(&mut self, name: &str, directory: &Path) -> Result<Received> {
        match name {
            "pg" => self.rows_of_postgres(directory),
            "ch" => self.rows_of_clickhouse(directory),
            "nats" => {
                let mut received = Received::new(directory, name, Form::Json)?;
                let server = self.nats.as_ref().context("no NATS")?;
                server.each_message("FLOWS", |message| received.take(&message.body))?;
                Ok(received)
            }
            "kafka" => self.broker.take().context("no Kafka")?.finish(),
            _ => bail!("{name} is no server"),
        }
    }

    fn rows_of_postgres(&self, directory: &Path) -> Result<Received> {
        let server = self.pg.as_ref().context("no PostgreSQL")?;
        // The server writes it, as its own user.
        let file = server.dir().join("rows.csv");
        server.run(&format!(
            "COPY (SELECT kind, host(orig_dst), orig_dport, record_id::text FROM flow \
             UNION ALL SELECT 'lost', '', events, '' FROM lost) TO '{}' CSV",
            file.display()
        ))?;
        super::rows::of_csv(&file, Received::new(directory, "pg", Form::Columns)?)
    }

    fn rows_of_clickhouse(&self, directory: &Path) -> Result<Received> {
        let file = directory.join("ch.csv");
        let mut command = self.namespace.command("clickhouse-client");
        command.args(["--host", "127.0.0.1", "--query"]);
        command.arg(
            "SELECT if(type = 'lost', 'lost', kind), orig_dst_ip, \
             if(type = 'lost', events, toUInt64(orig_dport)), \
             concat(toString(time), toString(hash)) \
             FROM flowlog.flow WHERE type IN ('flow', 'lost') FORMAT CSV",
        );
        let status = command.stdout(std::fs::File::create(&file)?).status()?;
        anyhow::ensure!(status.success(), "clickhouse-client: {status}");
        super::rows::of_csv(&file, Received::new(directory, "ch", Form::Columns)?)
    }
}

/// What listens in the place of a server. Dropped, it ends.
struct Garbage {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Garbage {
    fn start(namespace: &Namespace, port: u16, seed: u64) -> Result<Self> {
        let listener = namespace.enter(|| Ok(TcpListener::bind(("127.0.0.1", port))?))?;
        listener.set_nonblocking(true)?;
        let end = Arc::new(AtomicBool::new(false));
        let ending = end.clone();
        let thread = std::thread::spawn(move || {
            let mut random = Random::new(seed);
            let mut open = Vec::new();
            while !ending.load(Ordering::Acquire) {
                if let Ok((mut stream, _)) = listener.accept() {
                    // Who connected may be gone.
                    let _ = stream.write_all(&garbage(&mut random));
                    // Every other one is hung up on.
                    if random.below(2) == 0 {
                        open.push(stream);
                    }
                }
                sleep(Duration::from_millis(5));
            }
        });
        Ok(Self { end, thread: Some(thread) })
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

/// Bytes of any value, or lines with control characters.
fn garbage(random: &mut Random) -> Vec<u8> {
    const TEXT: &[u8] = b"abc \x1b[31m\0\r\n-ERR+OK";
    let length = 1 + random.below(4096);
    let is_text = random.below(2) == 0;
    let byte = |random: &mut Random| {
        let byte = random.next() as u8;
        if is_text { TEXT[usize::from(byte) % TEXT.len()] } else { byte }
    };
    (0..length).map(|_| byte(random)).collect()
}
