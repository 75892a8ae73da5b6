//! A NATS server with JetStream in a namespace, and the messages of its streams as a consumer
//! gets them.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::{self, consumer, stream};
use futures_util::StreamExt as _;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;
use crate::shipping::FarSide;

/// Where it listens, in the namespace of the test.
pub const URL: &str = "nats://127.0.0.1:4222";
/// A user who may do anything, besides those of a test.
const READER: (&str, &str) = ("reader", "reads");

/// A server. Dropped, it is killed and its files vanish.
#[derive(Debug)]
pub struct Server<'n> {
    namespace: &'n Namespace,
    directory: TempDir,
    process: RefCell<Option<Guarded>>,
}

impl<'n> Server<'n> {
    /// Starts one with `keys` in its configuration, in which `@DIR@` is its directory and
    /// `@READER@` a user for [`Server::messages`].
    ///
    /// # Errors
    /// It is missing or does not listen.
    pub fn start(namespace: &'n Namespace, keys: &str) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("flowlog-nats-").tempdir()?;
        let server = Self { namespace, directory, process: RefCell::default() };
        server.configure(keys)?;
        server.up()?;
        Ok(server)
    }

    /// JetStream on disk.
    pub const JETSTREAM: &'static str = "jetstream { store_dir: \"@DIR@/store\" }\n";

    /// Where it is.
    pub fn namespace(&self) -> &'n Namespace {
        self.namespace
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has it do otherwise from its next start on.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, keys: &str) -> Result<()> {
        let (user, password) = READER;
        let text = keys
            .replace("@DIR@", &self.directory.path().to_string_lossy())
            .replace("@READER@", &format!("{{ user: {user}, password: {password} }}"));
        let log = self.path("log");
        let text = format!("listen: 127.0.0.1:4222\nlog_file: \"{}\"\n{text}", log.display());
        Ok(fs::write(self.path("conf"), text)?)
    }

    /// Starts it again.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub fn up(&self) -> Result<()> {
        let before = self.log().matches("Server is ready").count();
        let mut command = self.namespace.command("nats-server");
        command.arg("-c").arg(self.path("conf"));
        let mut process = Guarded::spawn(&mut command).context("apt-get install nats-server")?;
        poll::until("nats-server to listen", || {
            if let Some(code) = process.ended()? {
                anyhow::bail!("nats-server ended with {code:?}");
            }
            Ok((self.log().matches("Server is ready").count() > before).then_some(()))
        })
        .with_context(|| self.log())?;
        self.process.replace(Some(process));
        Ok(())
    }

    /// Kills it.
    ///
    /// # Errors
    /// It does not end.
    pub fn down(&self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGKILL)?;
            process.wait()?;
        }
        Ok(())
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.process.borrow().as_ref().map(Guarded::pid)
    }

    /// Processor time that it has taken.
    ///
    /// # Errors
    /// It is down.
    pub fn cpu_time(&self) -> Result<Duration> {
        self.process.borrow().as_ref().context("the server is down")?.cpu_time()
    }

    /// How many messages a stream has.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn count(&self, stream: &str) -> Result<u64> {
        self.with(async |jetstream| {
            Ok(jetstream.get_stream(stream).await?.info().await?.state.messages)
        })
    }

    /// What it says.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Does something with its JetStream, as a user who may.
    ///
    /// # Errors
    /// It cannot be reached, or `work` fails.
    pub fn with<T: Send>(
        &self,
        work: impl AsyncFnOnce(jetstream::Context) -> Result<T> + Send,
    ) -> Result<T> {
        let namespace = self.namespace;
        namespace.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let (user, password) = READER;
                let options = async_nats::ConnectOptions::with_user_and_password(
                    user.to_owned(),
                    password.to_owned(),
                );
                work(jetstream::new(options.connect(URL).await?)).await
            })
        })
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// It is refused.
    pub fn make(&self, config: stream::Config) -> Result<()> {
        self.with(async |jetstream| Ok(jetstream.create_stream(config).await.map(drop)?))
    }

    /// All messages of a stream, each with its id, in order.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn messages(&self, stream: &str) -> Result<Vec<Message>> {
        let mut list = Vec::new();
        self.each_message(stream, |message| {
            list.push(message);
            Ok(())
        })?;
        Ok(list)
    }

    /// The same, one by one.
    ///
    /// # Errors
    /// The stream does not exist, or `take` fails.
    pub fn each_message(
        &self,
        stream: &str,
        mut take: impl FnMut(Message) -> Result<()> + Send,
    ) -> Result<()> {
        self.with(async |jetstream| {
            let mut stream = jetstream.get_stream(stream).await?;
            let total = stream.info().await?.state.messages;
            let config = consumer::pull::OrderedConfig::default();
            let mut messages = stream.create_consumer(config).await?.messages().await?;
            for _ in 0..total {
                let next = tokio::time::timeout(Duration::from_secs(10), messages.next());
                let message = next.await?.context("no further message")??;
                let headers = message.headers.as_ref().context("no headers")?;
                let id = headers.get("Nats-Msg-Id").context("no id")?.to_string();
                take(Message {
                    id,
                    subject: message.subject.to_string(),
                    body: message.payload.to_vec(),
                })?;
            }
            Ok(())
        })
    }
}

/// With the stream `FLOWS`, as the user of a test or as anybody.
impl FarSide for Server<'_> {
    fn plugin(&self) -> &'static str {
        "NATS"
    }

    fn keys(&self) -> String {
        "stream=FLOWS\nuser=flowlog\npass=secret".to_owned()
    }

    fn stop(&mut self) -> Result<()> {
        self.down()
    }

    fn start(&mut self) -> Result<()> {
        self.up()
    }

    fn records(&self) -> Result<Vec<(String, String)>> {
        let records = self.messages("FLOWS")?.into_iter().map(|message| {
            let record: Value = serde_json::from_slice(&message.body)?;
            ensure!(record["record"] == message.id.as_str(), "another id: {message:?}");
            let address = record["orig"]["dst"].as_str().context("no address")?;
            Ok((message.id, format!("{address}:{}", record["orig"]["dport"])))
        });
        records.collect()
    }
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its `Nats-Msg-Id`.
    pub id: String,
    /// Its subject.
    pub subject: String,
    /// What it says.
    pub body: Vec<u8>,
}
