//! `flowlog watch` or `flowlog trace` in a namespace: started, waited for until it really listens,
//! and what it shows.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::daemon::Program;
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

/// A watch that listens.
#[derive(Debug)]
pub struct Watch {
    /// Its process, to be signalled or looked at.
    pub process: Guarded,
    dir: TempDir,
}

/// What it left.
#[derive(Debug)]
pub struct Watched {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it showed.
    pub lines: Vec<String>,
    /// What it said besides.
    pub stderr: String,
}

impl Watch {
    /// Starts it in `namespace`, with these arguments, parted by blanks.
    ///
    /// # Errors
    /// It ends at once; with what it said.
    pub fn start(namespace: &Namespace, args: &str) -> Result<Self> {
        let (dir, stdout) = Self::directory()?;
        Self::start_to(&[], namespace, ("watch", args), stdout, dir)
    }

    /// Starts a trace, by a program that runs it if there are words for one.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn trace(wrapper: &[&str], namespace: &Namespace, args: &str) -> Result<Self> {
        let (dir, stdout) = Self::directory()?;
        Self::start_to(wrapper, namespace, ("trace", args), stdout, dir)
    }

    fn directory() -> Result<(TempDir, Stdio)> {
        let dir = tempfile::tempdir()?;
        let stdout = File::create(dir.path().join("stdout"))?;
        Ok((dir, stdout.into()))
    }

    /// The same, with something else than a file to show events on.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn start_on(namespace: &Namespace, args: &str, stdout: Stdio) -> Result<Self> {
        Self::start_to(&[], namespace, ("watch", args), stdout, tempfile::tempdir()?)
    }

    fn start_to(
        wrapper: &[&str],
        namespace: &Namespace,
        (verb, args): (&str, &str),
        stdout: Stdio,
        dir: TempDir,
    ) -> Result<Self> {
        let mut command = command(wrapper, namespace)?;
        command.arg(verb).args(args.split_whitespace()).stdout(stdout);
        command.stderr(File::create(dir.path().join("stderr"))?);
        let process = Guarded::spawn(&mut command)?;
        let mut watch = Self { process, dir };
        poll::until("the watch to listen", || {
            let stderr = watch.stderr()?;
            if let Some(code) = watch.process.ended()? {
                bail!("the watch ended with {code:?}\n{stderr}");
            }
            let listens = ["flowlog watches ", "flowlog traces "];
            Ok(listens.iter().any(|words| stderr.contains(words)).then_some(()))
        })?;
        Ok(watch)
    }

    /// What it has said besides.
    ///
    /// # Errors
    /// It is no text.
    pub fn stderr(&self) -> Result<String> {
        text(self.dir.path(), "stderr")
    }

    /// The lines so far, whole ones.
    ///
    /// # Errors
    /// They are no text.
    pub fn lines(&self) -> Result<Vec<String>> {
        let text = text(self.dir.path(), "stdout")?;
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        Ok(text[..whole].lines().map(str::to_owned).collect())
    }

    /// Waits until the lines are as `enough` wants them.
    ///
    /// # Errors
    /// They never are.
    pub fn wait_lines(
        &self,
        what: &str,
        enough: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        poll::until(what, || Ok(Some(self.lines()?).filter(|lines| enough(lines))))
            .with_context(|| format!("{:#?}\n{:?}", self.lines(), self.stderr()))
    }

    /// Ends it and returns what it left.
    ///
    /// # Errors
    /// It does not end, or not with success.
    pub fn end(self, signal: Signal) -> Result<Watched> {
        self.process.signal(signal)?;
        self.wait()
    }

    /// Waits until it ends by itself and returns what it left.
    ///
    /// # Errors
    /// As [`Watch::end`].
    pub fn wait(mut self) -> Result<Watched> {
        let code = self.process.wait()?;
        let watched = Watched { code, lines: self.lines()?, stderr: self.stderr()? };
        ensure!(code == Some(0), "exit {code:?}\n{}", watched.stderr);
        Ok(watched)
    }
}

impl Watched {
    /// The lines that hold all of these words.
    pub fn with(&self, words: &[&str]) -> Vec<&str> {
        let has = |line: &&str| words.iter().all(|words| line.contains(words));
        self.lines.iter().map(String::as_str).filter(has).collect()
    }

    /// How many events were shown, filtered and lost, by its own word.
    ///
    /// # Errors
    /// It has not said so.
    pub fn summary(&self) -> Result<[u64; 3]> {
        let last = self.stderr.lines().last().unwrap_or_default();
        let numbers = last.split([' ', ':', '.', ',']).filter_map(|word| word.parse().ok());
        let numbers: Vec<_> = numbers.collect();
        numbers.try_into().ok().with_context(|| format!("no summary: {}", self.stderr))
    }

    /// The events that `[LOST]` lines tell of.
    pub fn lost(&self) -> u64 {
        let count = |line: &str| {
            line.split_once("[LOST]")?.1.split_whitespace().next()?.parse::<u64>().ok()
        };
        self.lines.iter().filter_map(|line| count(line)).sum()
    }
}

/// flowlog in a namespace, run by what these words run.
///
/// # Errors
/// There is no flowlog.
pub fn command(wrapper: &[&str], namespace: &Namespace) -> Result<Command> {
    let flowlog = Program::Flowlog.path()?;
    let Some((program, args)) = wrapper.split_first() else {
        return Ok(namespace.command(flowlog));
    };
    let mut command = namespace.command(program);
    command.args(args).arg(flowlog);
    Ok(command)
}

fn text(dir: &Path, name: &str) -> Result<String> {
    let path = dir.join(name);
    if path.exists() { Ok(fs::read_to_string(path)?) } else { Ok(String::new()) }
}

/// `conntrack -E -o extended` in a namespace, the same way.
#[derive(Debug)]
pub struct Conntrack {
    process: Guarded,
    dir: TempDir,
}

impl Conntrack {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = namespace.command("conntrack");
        command.args(["-E", "-o", "extended", "-b", "8388608"]);
        command.stdout(File::create(dir.path().join("stdout"))?);
        command.stderr(File::create(dir.path().join("stderr"))?);
        let mut process = Guarded::spawn(&mut command)?;
        poll::until("conntrack to listen", || {
            if let Some(code) = process.ended()? {
                bail!("conntrack ended with {code:?}: {}", text(dir.path(), "stderr")?);
            }
            let sockets = process.netlink_sockets(namespace)?;
            Ok(sockets.iter().any(|socket| socket.groups != 0).then_some(()))
        })?;
        Ok(Self { process, dir })
    }

    /// Ends it and returns its lines, of which the last must be as `complete` wants it.
    ///
    /// # Errors
    /// They never are.
    pub fn end(self, complete: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let lines = || -> Result<Vec<String>> {
            let text = text(self.dir.path(), "stdout")?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        let lines = poll::until("all events in conntrack", || {
            Ok(Some(lines()?).filter(|lines| complete(lines)))
        })
        .with_context(|| format!("{:#?}", lines()))?;
        self.process.signal(Signal::SIGKILL)?;
        Ok(lines)
    }
}
