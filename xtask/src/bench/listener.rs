//! One program that listens to connection events and writes a line for each: how it is started,
//! when it has read all that there is, and what it saw and cost. All write to the same kind of
//! file system, in memory where there is one, so that no disk is measured.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ::tests::daemon::Program;
use ::tests::namespace::Namespace;
use ::tests::poll;
use ::tests::process::Guarded;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::interrupt;

/// How long a listener must have done nothing to count as done: longer than the second that
/// flowlog may hold lines back.
const QUIET: Duration = Duration::from_millis(1300);
/// How long a listener may take to read all that there is.
const DRAIN: Duration = Duration::from_secs(60);
/// A buffer that is roomy, bytes.
const LARGE: usize = 32 << 20;

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Programs {
    flowlog: PathBuf,
    ulogd: PathBuf,
}

impl Programs {
    /// flowlog as given, the others where their packages put them.
    ///
    /// # Errors
    /// ulogd2 is missing.
    pub(super) fn new(flowlog: PathBuf) -> Result<Self> {
        Ok(Self { flowlog, ulogd: Program::Ulogd.path()? })
    }
}

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listener {
    /// flowlog; whether it keeps flows and writes one line for each.
    Flowlog { hash: bool },
    /// ulogd2, likewise.
    Ulogd { hash: bool },
    /// `conntrack -E`.
    Conntrack,
}

impl Listener {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Flowlog { hash: false } => "flowlog, hash_enable=0",
            Self::Flowlog { hash: true } => "flowlog, hash_enable=1",
            Self::Ulogd { hash: false } => "ulogd2, hash_enable=0",
            Self::Ulogd { hash: true } => "ulogd2, hash_enable=1",
            Self::Conntrack => "conntrack -E",
        }
    }

    /// Whether it writes one line for each flow instead of one for each event.
    pub(super) fn hash(self) -> bool {
        matches!(self, Self::Flowlog { hash: true } | Self::Ulogd { hash: true })
    }
}

/// The receive buffer of the listener's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Buffers {
    /// Nothing is set.
    Default,
    /// [`LARGE`] for everybody.
    Large,
}

impl Buffers {
    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Large => "32 MiB",
        }
    }
}

/// What a listener said about losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// That there were some.
    Some,
    /// How many.
    Number(u64),
}

/// What a listener saw and cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    /// Lines it wrote.
    pub(super) lines: u64,
    /// Events that the kernel could not hand to it.
    pub(super) dropped: u64,
    /// What it said about that.
    pub(super) told: Told,
    /// Processor time of its process.
    pub(super) cpu: Duration,
    /// The most memory that was resident, KiB.
    pub(super) peak: u64,
}

/// A listener that listens.
#[derive(Debug)]
pub(super) struct Listening<'n> {
    listener: Listener,
    namespace: &'n Namespace,
    process: Guarded,
    directory: TempDir,
}

impl<'n> Listening<'n> {
    /// Starts `listener` in `namespace` and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(
        programs: &Programs,
        listener: Listener,
        buffers: Buffers,
        namespace: &'n Namespace,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("flowlog-bench-").tempdir_in(memory())?;
        let mut command = command(programs, listener, buffers, namespace, directory.path())?;
        let stdout = match listener {
            Listener::Conntrack => "flows.log",
            _ => "stdout",
        };
        let file = |name: &str| File::create(directory.path().join(name));
        command.stdin(Stdio::null()).stdout(file(stdout)?).stderr(file("stderr")?);
        let process = Guarded::spawn(&mut command)?;
        let mut listening = Self { listener, namespace, process, directory };
        poll::until("it to listen", || {
            if let Some(code) = listening.process.ended()? {
                bail!("it ended with {code:?}: {}", listening.text("stderr"));
            }
            Ok((listening.queue()?.is_some()).then_some(()))
        })
        .with_context(|| listener.name())?;
        Ok(listening)
    }

    /// Waits until nothing waits to be read.
    ///
    /// # Errors
    /// It does not read on.
    pub(super) fn read(&self) -> Result<()> {
        poll::within(DRAIN, "it to read all events", || {
            interrupt::check()?;
            let (queued, _) = self.queue()?.context("it listens no more")?;
            Ok((queued == 0).then_some(()))
        })
        .with_context(|| self.listener.name())
    }

    /// Waits until it has read all that there is and done all that follows from it.
    ///
    /// # Errors
    /// It does not come to rest.
    pub(super) fn drain(&self) -> Result<()> {
        let mut rest = (self.process.cpu_time()?, Instant::now());
        poll::within(DRAIN, "it to come to rest", || {
            interrupt::check()?;
            let cpu = self.process.cpu_time()?;
            let (queued, _) = self.queue()?.context("it listens no more")?;
            if queued > 0 || cpu != rest.0 {
                rest = (cpu, Instant::now());
            }
            Ok((rest.1.elapsed() >= QUIET).then_some(()))
        })
        .with_context(|| self.listener.name())
    }

    /// Memory that is resident now, KiB.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn memory(&self) -> Result<u64> {
        self.process.memory()
    }

    /// Events that the kernel could not hand to it so far.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn dropped(&self) -> Result<u64> {
        Ok(self.queue()?.context("it listens no more")?.1)
    }

    /// Ends it, once drained, and tells what it saw and cost.
    ///
    /// # Errors
    /// It does not end in peace.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        let dropped = self.dropped()?;
        let cpu = self.process.cpu_time()?;
        let peak = self.process.peak_memory()?;
        self.process.signal(Signal::SIGTERM)?;
        let code = self.process.wait()?;
        ensure!(code == Some(0), "{} ended with {code:?}", self.listener.name());
        let lines = count_lines(&self.directory.path().join("flows.log"))?;
        Ok(Outcome { lines, dropped, told: self.told(), cpu, peak })
    }

    /// Bytes that wait in its event socket, and events that found it full.
    fn queue(&self) -> Result<Option<(u64, u64)>> {
        let sockets = self.process.netlink_sockets(self.namespace)?;
        let mut events = sockets.iter().filter(|socket| socket.groups != 0);
        Ok(events.next().map(|socket| (socket.queued, socket.drops)))
    }

    fn told(&self) -> Told {
        let (file, words): (_, &[&str]) = match self.listener {
            Listener::Flowlog { .. } => {
                let log = self.text("daemon.log");
                let total = log.rsplit_once("total netlink.lost: ").map(|(_, rest)| rest);
                let number = total.and_then(|rest| rest.split(' ').next()?.parse().ok());
                return number.map_or(Told::Nothing, Told::Number);
            }
            // The second where the buffer may not grow.
            Listener::Ulogd { .. } => ("daemon.log", &["losing events", "Maximum buffer size"]),
            Listener::Conntrack => ("stderr", &["ENOBUFS"]),
        };
        let text = self.text(file);
        if words.iter().any(|words| text.contains(words)) { Told::Some } else { Told::Nothing }
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn command(
    programs: &Programs,
    listener: Listener,
    buffers: Buffers,
    namespace: &Namespace,
    directory: &Path,
) -> Result<Command> {
    let (program, hash, verb) = match listener {
        Listener::Flowlog { hash } => (&programs.flowlog, hash, Some("run")),
        Listener::Ulogd { hash } => (&programs.ulogd, hash, None),
        Listener::Conntrack => {
            // Its -b is of no use: conntrack 1.4.7 sets it on the socket that it does not listen on.
            let mut command = namespace.command("conntrack");
            command.args(["-E", "-e", "NEW,DESTROY"]);
            return Ok(command);
        }
    };
    let file = directory.join("ulogd.conf");
    fs::write(&file, config(hash, buffers, directory))?;
    let mut command = namespace.command(program);
    command.args(verb).arg("-c").arg(file);
    Ok(command)
}

/// One configuration for flowlog and ulogd2. The table is as large as the load needs, and
/// ulogd2's short chains are given to it.
fn config(hash: bool, buffers: Buffers, directory: &Path) -> String {
    let directory = directory.display();
    let table = if hash { "hash_max_entries=300000\nhash_buckets=65536\n" } else { "" };
    let buffers = match buffers {
        Buffers::Default => String::new(),
        // ulogd2 takes a size only where it is below the maximum.
        Buffers::Large => format!(
            "netlink_socket_buffer_size={}\nnetlink_socket_buffer_maxsize={LARGE}\n",
            LARGE - 1
        ),
    };
    format!(
        "[global]\n\
         logfile=\"{directory}/daemon.log\"\n\
         loglevel=3\n\
         stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\n\
         event_mask=0x00000005\n\
         hash_enable={}\n{table}{buffers}\
         [emu1]\n\
         file=\"{directory}/flows.log\"\n\
         sync=0\n",
        u8::from(hash)
    )
}

/// A file system in memory, else the directory for temporary files.
pub(super) fn memory() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() { shared } else { std::env::temp_dir() }
}

/// Lines that tell the beginning or the end of a flow.
fn count_lines(file: &Path) -> Result<u64> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    let has = |line: &[u8], tag: &[u8]| line.windows(tag.len()).any(|part| part == tag);
    let tells = |line: &&[u8]| has(line, b"[NEW]") || has(line, b"[DESTROY]");
    Ok(u64::try_from(text.split(|&byte| byte == b'\n').filter(tells).count())?)
}
