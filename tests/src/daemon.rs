//! flowlog or ulogd2, run in a namespace on a configuration text with a directory of its own:
//! started, waited for until it really listens, signalled, stopped, and its files read.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::lines::{self, Line};
use crate::namespace::Namespace;
use crate::notify::{self, Notify};
use crate::poll;
use crate::process::Guarded;

/// How long a daemon may take to end.
pub const END: Duration = Duration::from_secs(8);

/// Keys of `[ct1]` that give ulogd2 and flowlog a buffer in which no test's events are lost.
/// ulogd2 takes the size only where it is below the maximum.
pub const ROOMY: &str =
    "netlink_socket_buffer_size=8388608\nnetlink_socket_buffer_maxsize=33554432\n";

/// The usual configuration: one stack, `ct` in its `[ct1]`, `emu` in its `[emu1]`. `@DIR@` is
/// the directory of the daemon, here as in any configuration given to [`Launch`].
pub fn config(ct: &str, emu: &str) -> String {
    format!(
        "[global]\n\
         logfile=\"@DIR@/daemon.log\"\n\
         loglevel=3\n\
         stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\n{ct}\n\
         [emu1]\nfile=\"@DIR@/flows.log\"\n{emu}\n"
    )
}

/// Which logger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The one under test.
    Flowlog,
    /// The one it replaces, Debian's package.
    Ulogd,
}

impl Program {
    /// Where it is: ulogd2 where its package puts it; flowlog where `FLOWLOG_BIN` says, else
    /// where cargo builds it beside this executable, release first.
    ///
    /// # Errors
    /// It is not there; says how to get it.
    pub fn path(self) -> Result<PathBuf> {
        match self {
            Self::Ulogd => {
                let path = PathBuf::from("/usr/sbin/ulogd");
                ensure!(path.exists(), "{} is missing: apt-get install ulogd2", path.display());
                Ok(path)
            }
            Self::Flowlog => flowlog(),
        }
    }
}

fn flowlog() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLOWLOG_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.exists(), "FLOWLOG_BIN={} is not there", path.display());
        return Ok(path.canonicalize()?);
    }
    let own = std::env::current_exe()?;
    // The directories above <target>/<profile>/deps/<test> or <target>/<profile>/<program>.
    let near = own.ancestors().skip(2).take(2);
    let mut built = near.flat_map(|dir| ["release/flowlog", "debug/flowlog"].map(|p| dir.join(p)));
    built.find(|path| path.is_file()).with_context(|| {
        format!(
            "no flowlog near {}: cargo build --release -p flowlog, or set FLOWLOG_BIN",
            own.display()
        )
    })
}

/// What a logger is started with. It works in a directory of its own, `@DIR@` in the
/// configuration, which everybody may write to, so that a daemon without rights still can.
#[derive(Debug)]
pub struct Launch<'n> {
    program: Program,
    namespace: Option<&'n Namespace>,
    verb: Option<&'static str>,
    args: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
    wrapper: Vec<String>,
    capture: &'static [&'static str],
    dir: TempDir,
}

/// Arguments that make flowlog see its own namespace only, as ulogd2 does, on every kernel.
const OVER_NETLINK: &[&str] = &["--capture", "netlink"];

impl<'n> Launch<'n> {
    /// `program` on `config`, to be started in `namespace`.
    ///
    /// # Errors
    /// The temporary directory cannot be written.
    pub fn new(program: Program, namespace: &'n Namespace, config: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-test-").tempdir()?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o777))?;
        let config = config.replace("@DIR@", &dir.path().to_string_lossy());
        fs::write(dir.path().join("ulogd.conf"), config)?;
        let is_flowlog = program == Program::Flowlog;
        Ok(Self {
            program,
            namespace: Some(namespace),
            verb: is_flowlog.then_some("run"),
            args: Vec::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            capture: if is_flowlog { OVER_NETLINK } else { &[] },
            dir,
        })
    }

    /// Leaves it to the configuration where events come from; else it is netlink.
    pub fn as_configured(mut self) -> Self {
        self.capture = &[];
        self
    }

    /// Starts it outside, in the namespace of the caller: for `--netns`.
    pub fn outside(mut self) -> Self {
        self.namespace = None;
        self
    }

    /// Leaves `run` out, as a command line for ulogd2 does.
    pub fn without_verb(mut self) -> Self {
        self.verb = None;
        self
    }

    /// Lets it live in another time zone, as `TZ` names it.
    pub fn time_zone(self, name: &'static str) -> Self {
        self.environment("TZ", name)
    }

    /// Sets a variable of its environment.
    pub fn environment(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// Has it run by another program, which replaces itself by what its last arguments are:
    /// `setpriv …`, `unshare … sh -c '… exec "$@"' sh`.
    pub fn wrapped_by(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Adds arguments after `-c FILE`; `@DIR@` is replaced here too.
    pub fn args(mut self, args: &[&str]) -> Self {
        let dir = self.dir.path().to_string_lossy().into_owned();
        self.args.extend(args.iter().map(|arg| arg.replace("@DIR@", &dir).into()));
        self
    }

    /// The directory of the daemon.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self) -> Result<Command> {
        let program = self.program.path()?.into_os_string();
        let mut words = self.wrapper.iter().map(OsString::from).chain([program]);
        let first = words.next().context("no program")?;
        let mut command = match self.namespace {
            Some(namespace) => namespace.command(first),
            None => Command::new(first),
        };
        command.args(words).args(self.verb).arg("-c").arg(self.dir.path().join("ulogd.conf"));
        command.args(self.capture).args(&self.args);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let file = |name: &str| File::create(self.dir.path().join(name));
        command.stdout(file("stdout")?).stderr(file("stderr")?);
        Ok(command)
    }

    /// Runs it to its end, for what ends by itself: a refusal, or the parent of a daemon (`-d`).
    ///
    /// # Errors
    /// It does not end.
    pub fn run(self) -> Result<Finished> {
        let code = Guarded::spawn(&mut self.command()?)?.wait()?;
        Finished::read(code, self.dir)
    }

    /// Starts it in the foreground and waits until it listens. What ulogd2 tells nobody is seen
    /// by its socket; flowlog tells it as a systemd service of `Type=notify` does.
    ///
    /// # Errors
    /// It ends at once, or never listens; with its log.
    pub fn start(self) -> Result<Daemon> {
        let notify_path = self.dir.path().join("notify");
        let notify = Notify::bind(&notify_path)?;
        let process = Guarded::spawn(self.command()?.env(notify::VARIABLE, &notify_path))?;
        let mut daemon = Daemon { process, notify, dir: self.dir };
        let namespace = self.namespace;
        poll::until("the logger to listen", || {
            if let Some(code) = daemon.process.ended()? {
                bail!("the logger ended with {code:?}\n{}", daemon.describe());
            }
            let ready = match (self.program, namespace) {
                (Program::Ulogd, Some(namespace)) => {
                    let sockets = daemon.process.netlink_sockets(namespace)?;
                    sockets.iter().any(|socket| socket.groups != 0)
                }
                _ => daemon.notify.has("READY=1")?,
            };
            Ok(ready.then_some(()))
        })
        .with_context(|| daemon.describe())?;
        Ok(daemon)
    }
}

/// A logger that listens. Dropped, it is killed and its files vanish.
#[derive(Debug)]
pub struct Daemon {
    /// Its process, to be signalled or looked at.
    pub process: Guarded,
    /// What it tells as a service.
    pub notify: Notify,
    dir: TempDir,
}

impl Daemon {
    /// Starts `program` on `config` in `namespace`, see [`Launch::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(program: Program, namespace: &Namespace, config: &str) -> Result<Self> {
        Launch::new(program, namespace, config)?.start()
    }

    /// A file in the directory of the daemon, its text; empty if it is not there.
    pub fn text(&self, name: &str) -> String {
        text(self.dir.path(), name)
    }

    /// The path of a file in the directory of the daemon.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lines so far in `flows.log`, whole ones: the last may just be being written.
    ///
    /// # Errors
    /// A line is torn.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let text = self.text("flows.log");
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        lines::parse(&text[..whole])
    }

    /// The log of the daemon itself.
    pub fn log(&self) -> String {
        self.text("daemon.log")
    }

    /// Waits until the lines in `flows.log` are as `enough` wants them.
    ///
    /// # Errors
    /// They never are; with the log and the last lines.
    pub fn wait_lines(&self, what: &str, enough: impl Fn(&[Line]) -> bool) -> Result<Vec<Line>> {
        poll::until(what, || Ok(Some(self.lines()?).filter(|lines| enough(lines))))
            .with_context(|| self.describe())
    }

    /// Waits until the log of the daemon holds `words`.
    ///
    /// # Errors
    /// It never does.
    pub fn wait_log(&self, words: &str) -> Result<()> {
        let what = format!("{words:?} in the log");
        poll::until(&what, || Ok(self.log().contains(words).then_some(())))
            .with_context(|| self.describe())
    }

    /// Ends it (TERM) and returns what it left. It has [`END`] for that, whatever is wrong around
    /// it; guests are emulated, and have longer.
    ///
    /// # Errors
    /// It does not end in time, or left a torn line.
    pub fn stop(self) -> Result<Finished> {
        let begin = Instant::now();
        self.process.signal(Signal::SIGTERM)?;
        let finished = self.wait()?;
        let time = begin.elapsed();
        ensure!(time < END || !cfg!(feature = "live"), "TERM took {time:?}\n{}", finished.log);
        Ok(finished)
    }

    /// Waits until it ends by itself and returns what it left.
    ///
    /// # Errors
    /// As [`Daemon::stop`].
    pub fn wait(mut self) -> Result<Finished> {
        let code = self.process.wait().with_context(|| self.describe())?;
        Finished::read(code, self.dir)
    }

    /// The ends of its files, for a message.
    fn describe(&self) -> String {
        let end = |name: &str| {
            let text = self.text(name);
            let lines: Vec<_> = text.lines().collect();
            format!(
                "{name} ({} lines): …\n{}\n",
                lines.len(),
                lines[lines.len().saturating_sub(12)..].join("\n")
            )
        };
        ["flows.log", "daemon.log", "stderr"].map(end).concat()
    }
}

/// What a logger left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code.
    pub code: Option<i32>,
    /// Every line of `flows.log`.
    pub lines: Vec<Line>,
    /// Its own log.
    pub log: String,
    /// What it said on the terminal.
    pub stderr: String,
    dir: TempDir,
}

impl Finished {
    fn read(code: Option<i32>, dir: TempDir) -> Result<Self> {
        Ok(Self {
            code,
            lines: lines::parse(&text(dir.path(), "flows.log"))?,
            log: text(dir.path(), "daemon.log"),
            stderr: text(dir.path(), "stderr"),
            dir,
        })
    }

    /// Another file of its directory, its text; empty if it is not there.
    pub fn text(&self, name: &str) -> String {
        text(self.dir.path(), name)
    }

    /// The path of another file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn text(dir: &Path, name: &str) -> String {
    fs::read(dir.join(name))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}
