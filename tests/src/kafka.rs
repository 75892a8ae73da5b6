//! Brokers of Kafka in a namespace: the mock that librdkafka brings, in a process of its own, and
//! what kcat, with a librdkafka of its own, reads there. No real broker can be had from Debian.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::cpu_time_with_children;
use crate::shipping::FarSide;

/// The topic of the tests. The mock keeps the last 5 MB of each partition.
pub const TOPIC: &str = "flows";
/// Its partitions.
pub const PARTITIONS: u32 = 8;

/// The brokers. Dropped, they are killed.
#[derive(Debug)]
pub struct Mock<'n> {
    namespace: &'n Namespace,
    child: Child,
    talk: RefCell<(ChildStdin, BufReader<ChildStdout>)>,
    /// Their address.
    pub address: String,
    /// Further keys that whoever writes to them needs, each after the end of a line.
    pub security: String,
}

impl Drop for Mock<'_> {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'n> Mock<'n> {
    /// Starts `program`, which is `kafka-mock`, with the topic.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(namespace: &'n Namespace, program: &Path) -> Result<Self> {
        let mut command = namespace.command(program);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("no input")?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut address = String::new();
        output.read_line(&mut address)?;
        let address = address.trim().to_owned();
        let mock = Self {
            namespace,
            child,
            talk: RefCell::new((input, output)),
            address,
            security: String::new(),
        };
        mock.say(&format!("topic {TOPIC} {PARTITIONS}"))?;
        Ok(mock)
    }

    /// The process of the brokers.
    pub fn pid(&self) -> i32 {
        // The kernel has no greater one.
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }

    /// Has it obey a command.
    ///
    /// # Errors
    /// It does not.
    pub fn say(&self, command: &str) -> Result<()> {
        let (input, output) = &mut *self.talk.borrow_mut();
        writeln!(input, "{command}")?;
        let mut answer = String::new();
        output.read_line(&mut answer)?;
        ensure!(answer == "done\n", "{command}: {answer:?}");
        Ok(())
    }

    /// How many messages the topic has got, also those that the mock keeps no longer: the end of
    /// each partition.
    ///
    /// # Errors
    /// kcat is missing, or cannot ask.
    pub fn count(&self) -> Result<u64> {
        let mut command = self.namespace.command("kcat");
        command.args(["-Q", "-b", &self.address]);
        for partition in 0..PARTITIONS {
            command.args(["-t", &format!("{TOPIC}:{partition}:-1")]);
        }
        let output = command.output().context("apt-get install kcat")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let ends = text.lines().filter_map(|line| line.rsplit_once("offset ")?.1.parse().ok());
        let ends: Vec<u64> = ends.collect();
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(ends.len() == PARTITIONS as usize, "kcat: {text}{said}");
        Ok(ends.iter().sum())
    }

    /// Processor time that the brokers have taken.
    ///
    /// # Errors
    /// They are gone.
    pub fn cpu_time(&self) -> Result<Duration> {
        cpu_time_with_children(i32::try_from(self.child.id())?)
    }

    /// What kcat reads of the topic, from its beginning to its end, each message in this form.
    ///
    /// # Errors
    /// It is missing, or cannot read.
    pub fn read(&self, form: &str) -> Result<Vec<u8>> {
        let mut command = self.namespace.command("kcat");
        command.args(["-C", "-q", "-e", "-o", "beginning", "-t", TOPIC, "-b", &self.address]);
        let output = command.args(["-f", form]).output().context("apt-get install kcat")?;
        ensure!(output.status.success(), "kcat: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }
}

impl FarSide for Mock<'_> {
    fn plugin(&self) -> &'static str {
        "KAFKA"
    }

    fn keys(&self) -> String {
        format!("brokers=\"{}\"\ntopic={TOPIC}{}", self.address, self.security)
    }

    fn stop(&mut self) -> Result<()> {
        self.say("down")
    }

    fn start(&mut self) -> Result<()> {
        self.say("up")
    }

    fn records(&self) -> Result<Vec<(String, String)>> {
        let text = String::from_utf8(self.read("%h %s\n")?)?;
        let records = text.lines().map(|line| {
            let (header, body) = line.split_once(' ').context("no header")?;
            let id = header.strip_prefix("record=").context("no id")?;
            let record: Value = serde_json::from_str(body)?;
            ensure!(record["record"] == id, "another id: {line}");
            let address = record["orig"]["dst"].as_str().context("no address")?;
            Ok((id.to_owned(), format!("{address}:{}", record["orig"]["dport"])))
        });
        records.collect()
    }
}
