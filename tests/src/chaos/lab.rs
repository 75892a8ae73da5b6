//! The lab: a namespace with the load, small disks, readers, servers, name servers, and flowlog
//! among them with all its sinks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::counters::{self, Counters};
use super::disk::{Disk, cover};
use super::file::LogFile;
use super::framing::Framing;
use super::inner::Inner;
use super::load::Load;
use super::names::{NameServer, RESOLV_CONF};
use super::peer::{Peer, Place};
use super::probe::Probe;
use super::received::Received;
use super::record::Form;
use super::servers::Servers;
use super::shim::{CONTROL, Shim};
use super::stacks::{Places, Source, Stack, configuration};
use super::store::Store;
use crate::daemon::{Daemon, Launch, Program};
use crate::lab::SingleNs;
use crate::namespace::Namespace;
use crate::poll;
use crate::{collector, metrics, python};

/// How soon TERM must end the daemon.
pub(super) const TERM: Duration = Duration::from_secs(8);
/// How long it is waited for beyond that, before it is killed.
const MERCY: Duration = Duration::from_secs(20);
/// The disks and their sizes, MiB.
const DISKS: [(&str, u64); 4] = [("logs", 768), ("db", 3072), ("spool", 384), ("archive", 1024)];
/// Where the reader of datagrams is.
pub(super) const UDP_PORT: u16 = 6514;
/// Rules that count the flows that were made.
const COUNT: &str = "table inet chaos {
    chain made {
        type filter hook output priority 10;
        ip daddr 198.19.0.0/16 ct state new counter
    }
}
";

/// A promise that was broken, and when.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    pub(super) at: Duration,
    pub(super) what: String,
}

/// What the daemons of a run have said and done.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// The sum of all counters.
    pub(super) counters: Counters,
    /// When each was ended by TERM, and how long that took.
    pub(super) terms: Vec<(Duration, Duration)>,
    /// When one had to be killed, or ended by itself: its totals are not known.
    pub(super) without_totals: Vec<Duration>,
}

/// Everything there is.
pub(super) struct Lab<'n> {
    pub(super) begin: Instant,
    pub(super) namespace: &'n Namespace,
    pub(super) directory: PathBuf,
    pub(super) disks: BTreeMap<&'static str, Disk>,
    pub(super) files: BTreeMap<&'static str, LogFile>,
    pub(super) peers: BTreeMap<&'static str, Peer>,
    pub(super) database: Store,
    pub(super) archive: Store,
    pub(super) servers: Servers<'n>,
    pub(super) names: NameServer,
    pub(super) shim: Shim,
    pub(super) inner: Option<Inner>,
    pub(super) load: Load,
    pub(super) probe: Probe,
    pub(super) broken: Vec<Broken>,
    pub(super) ended: Ended,
    /// Records that may be missing beyond what is counted, by stack, with what took them.
    pub(super) allowed: BTreeMap<&'static str, u64>,
    configuration: String,
    stacks: Vec<Stack>,
    daemon: Option<Daemon>,
    is_frozen: bool,
    starts: u32,
    /// Flows that were made when the daemon was started.
    base: (u32, u32),
    rate: u32,
}

/// The namespace of the lab.
///
/// # Errors
/// The caller is not root, or a tool is missing.
pub(super) fn namespace() -> Result<SingleNs> {
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    namespace.nft(COUNT)?;
    collector::leave_untracked(namespace)?;
    namespace.set_sysctls(&[
        ("net/netfilter/nf_conntrack_udp_timeout", 2),
        ("net/unix/max_dgram_qlen", 512),
    ])?;
    Ok(single)
}

impl<'n> Lab<'n> {
    /// Builds it, without a daemon.
    ///
    /// # Errors
    /// Something that is needed is missing.
    pub(super) fn build(
        namespace: &'n Namespace,
        stacks: &[Stack],
        rate: u32,
        mock: &Path,
        directory: &Path,
    ) -> Result<Self> {
        let sinks: Vec<_> = stacks.iter().map(|stack| stack.name).collect();
        if sinks.contains(&"parquet") {
            // Better now than when all is done.
            python::duckdb("SELECT 1")?;
        }
        let path = |name: &str| directory.join(name);
        fs::create_dir(path("run"))?;
        let mut disks = BTreeMap::new();
        for (name, size) in DISKS {
            disks.insert(name, Disk::new(path(name), size)?);
        }
        let names = NameServer::start(namespace)?;
        fs::write(path("resolv.conf"), RESOLV_CONF)?;
        cover(Path::new("/etc/resolv.conf"), &path("resolv.conf"))?;
        let servers = Servers::start(namespace, &sinks, mock, directory)?;
        let mut inner = sinks.contains(&"inner").then(Inner::new).transpose()?;
        let begin = Instant::now();
        inner.iter_mut().for_each(|inner| inner.begin(begin));
        let mut places: Vec<_> =
            disks.iter().map(|(name, disk)| (*name, disk.root().display().to_string())).collect();
        places.push(("run", path("run").display().to_string()));
        places.push(("kafka", servers.brokers()));
        let places = Places {
            places: &places,
            spool: &path("spool").join("live"),
            inner: inner.as_ref().map(Inner::name).unwrap_or_default(),
        };
        Ok(Self {
            begin,
            namespace,
            directory: directory.to_owned(),
            files: files(stacks, directory)?,
            peers: peers(stacks, namespace, directory)?,
            database: Store::new(&path("db"), path("kept-db"))?,
            archive: Store::new(&path("archive"), path("kept-archive"))?,
            servers,
            names,
            shim: Shim::build(directory)?,
            load: Load::start(namespace, rate, begin)?,
            probe: Probe::start(namespace, begin),
            broken: Vec::new(),
            ended: Ended::default(),
            allowed: BTreeMap::new(),
            configuration: configuration(stacks, &places),
            stacks: stacks.to_vec(),
            daemon: None,
            is_frozen: false,
            starts: 0,
            base: (0, 0),
            rate,
            inner,
            disks,
        })
    }

    /// The time since the start of the traffic.
    pub(super) fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// The names of the stacks.
    pub(super) fn stack_names(&self) -> Vec<&'static str> {
        self.stacks.iter().map(|stack| stack.name).collect()
    }

    /// Whether there is a daemon.
    pub(super) fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Notes that a promise was broken.
    pub(super) fn breaks(&mut self, what: impl Into<String>) {
        self.broken.push(Broken { at: self.now(), what: what.into() });
    }

    /// Records that a fault may take unseen: those of a few seconds.
    pub(super) fn allow(&mut self, sink: &'static str, seconds: u32) {
        let records = u64::from(self.rate) * 2 * u64::from(seconds);
        *self.allowed.entry(sink).or_default() += records;
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn start(&mut self) -> Result<()> {
        let library = self.shim.library().display().to_string();
        let control = self.shim.control().display().to_string();
        let launch = Launch::new(Program::Flowlog, self.namespace, &self.configuration)?
            .as_configured()
            .environment("LD_PRELOAD", &library)
            .environment(CONTROL, &control);
        let inner = self.inner.as_ref().map_or(0, |inner| inner.made.flows);
        self.base = (self.load.made(), inner);
        let daemon = launch.start()?;
        self.probe.watch(daemon.process.pid());
        self.daemon = Some(daemon);
        self.starts += 1;
        if let Some(inner) = &mut self.inner {
            inner.is_entered();
            inner.pause(false);
        }
        self.load.resume();
        Ok(())
    }

    /// Sends a signal to the daemon.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        self.daemon.as_ref().context("no daemon")?.process.signal(signal)
    }

    /// Has the daemon stand still, or go on.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn freeze(&mut self, frozen: bool) -> Result<()> {
        let process = &self.daemon.as_ref().context("no daemon")?.process;
        if frozen { process.freeze() } else { process.thaw() }?;
        self.is_frozen = frozen;
        Ok(())
    }

    /// Does something while the daemon stands still.
    ///
    /// # Errors
    /// It cannot be done.
    pub(super) fn while_frozen<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        let is_ours = self.daemon.is_some() && !self.is_frozen;
        if is_ours {
            self.freeze(true)?;
        }
        let done = work(self);
        if is_ours {
            self.freeze(false)?;
        }
        done
    }

    /// Ends the daemon by TERM, once all that was made has been read, and adds up its counters.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.load.pause();
        if let Some(inner) = &mut self.inner {
            inner.pause(true);
        }
        if self.is_frozen {
            self.freeze(false)?;
        }
        self.wait_read()?;
        let last = self.last_counters()?;
        let scraped = self.scrape().ok().filter(Counters::is_whole).or(last).unwrap_or_default();
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        self.probe.watch(0);
        let (at, asked) = (self.now(), Instant::now());
        daemon.process.signal(Signal::SIGTERM)?;
        let ended = poll::within(TERM + MERCY, "the end", || daemon.process.ended());
        let took = asked.elapsed();
        self.ended.terms.push((at, took));
        if took > TERM {
            self.breaks(format!("TERM did not end the daemon within {} s", TERM.as_secs()));
        }
        let mut counters = Counters { sinks: BTreeMap::new(), ..scraped.clone() };
        match ended {
            Ok(code) => {
                if code != Some(0) {
                    self.breaks(format!("the daemon ended with {code:?} after TERM"));
                }
                counters.sinks = Counters::of_log(&daemon.log(), &self.stacks).sinks;
            }
            Err(_) => {
                self.ended.without_totals.push(at);
                counters.sinks = scraped.sinks;
            }
        }
        self.keep_log(&daemon)?;
        self.ended.counters += &counters;
        Ok(())
    }

    /// Keeps the log of a daemon that has ended.
    fn keep_log(&self, daemon: &Daemon) -> Result<()> {
        let path = self.directory.join(format!("daemon-{}.log", self.starts));
        Ok(fs::write(path, format!("{}{}", daemon.log(), daemon.text("stderr")))?)
    }

    /// What the daemon has said last of all its counters.
    fn last_counters(&self) -> Result<Option<Counters>> {
        let Some(daemon) = &self.daemon else { return Ok(None) };
        self.probe.last_counters(daemon.process.pid())
    }

    /// What the daemon says of its counters.
    pub(super) fn scrape(&self) -> Result<Counters> {
        Counters::of_page(&self.page()?)
    }

    fn page(&self) -> Result<String> {
        let path = self.namespace.path();
        Ok(metrics::get_within(&path, metrics::ADDRESS, "/metrics", Duration::from_secs(5))?.1)
    }

    /// Waits until all flows have ended and every event was read or counted as lost.
    fn wait_read(&mut self) -> Result<()> {
        let expired = poll::within(Duration::from_secs(20), "all flows to end", || {
            Ok((self.namespace.conntrack_count()? == 0).then_some(()))
        });
        expired?;
        let flows = u64::from(self.load.made() - self.base.0);
        let inner = self.inner.as_ref().map_or(0, |inner| inner.made.flows - self.base.1);
        let optional = self.inner.as_ref().is_some_and(|inner| !inner.made.optional.is_empty());
        let mut known = (0, 0);
        let read = poll::within(Duration::from_secs(15), "events to be read", || {
            let Some(counters) = self.scrape().ok().filter(Counters::is_whole) else {
                return Ok(None);
            };
            known = (counters.known_to(Source::Events), counters.known_to(Source::Inner));
            // How many of the optional ones there are is not known.
            let enough = known.0 >= flows * 2 && (optional || known.1 >= u64::from(inner));
            Ok(enough.then_some(()))
        });
        if read.is_err() {
            let (events, begun) = known;
            self.breaks(format!(
                "{} events were made, {events} were read or counted as lost; in the inner \
                 namespace {inner}, {begun}",
                flows * 2
            ));
        }
        Ok(())
    }

    /// Waits until nothing waits any more, in the spool or in memory. Says what still does.
    ///
    /// # Errors
    /// What the daemon says is torn.
    pub(super) fn wait_idle(&mut self, time: Duration) -> Result<()> {
        let mut waits = vec!["no answer".to_owned()];
        let idle = poll::within(time, "nothing to wait", || {
            if let Ok(page) = self.page() {
                waits = counters::waiting(&page)?;
            }
            Ok(waits.is_empty().then_some(()))
        });
        if idle.is_err() {
            let seconds = time.as_secs();
            self.breaks(format!(
                "{seconds} s after all faults there still wait: {}",
                waits.join("; ")
            ));
        }
        Ok(())
    }

    /// What has to be done all along. An error is the end of the run: the daemon has ended, or
    /// answers nothing any more.
    ///
    /// # Errors
    /// As said.
    pub(super) fn tick(&mut self) -> Result<()> {
        const SILENT: Duration = Duration::from_secs(40);
        for file in self.files.values_mut() {
            file.tick()?;
        }
        let is_new = self.inner.as_ref().is_some_and(Inner::is_new);
        let file = self.files.get("inner").filter(|_| is_new);
        let logged = file.and_then(|file| file.newest(Form::Line));
        if let Some(inner) = &mut self.inner
            && let Some(what) = inner.tick(logged)?
        {
            self.breaks(what);
        }
        if let Some(daemon) = &mut self.daemon
            && let Some(code) = daemon.process.ended()?
        {
            let said = daemon.log() + &daemon.text("stderr");
            let last: Vec<_> = said.lines().rev().take(3).collect();
            let what = format!("the daemon ended by itself with {code:?}: {}", last.join(" / "));
            let last = self.probe.last_counters(daemon.process.pid())?;
            self.ended.counters += &last.unwrap_or_default();
            self.ended.without_totals.push(self.now());
            if let Some(daemon) = self.daemon.take() {
                self.keep_log(&daemon)?;
            }
            self.breaks(what.clone());
            bail!(what);
        }
        if self.load.has_failed() {
            bail!("the traffic generator has ended");
        }
        if self.daemon.is_none() {
            bail!("there is no daemon any more");
        }
        if self.probe.silence()? > SILENT {
            let what = format!("/metrics has not answered for {} s", SILENT.as_secs());
            self.breaks(what.clone());
            bail!(what);
        }
        Ok(())
    }

    /// Flows that conntrack has accepted, as nftables counts them.
    ///
    /// # Errors
    /// nft has no such counter.
    pub(super) fn accepted(&self) -> Result<u64> {
        let text = self.namespace.run("nft list chain inet chaos made")?;
        let (_, rest) = text.split_once("counter packets ").context("no counter")?;
        Ok(rest.split_whitespace().next().context("no number")?.parse()?)
    }
}

fn files(stacks: &[Stack], directory: &Path) -> Result<BTreeMap<&'static str, LogFile>> {
    let mut files = BTreeMap::new();
    for (name, path) in [
        ("emu", "logs/emu/flows.log"),
        ("jfile", "logs/json/flows.json"),
        ("inner", "run/inner.log"),
        ("hash", "run/hash.log"),
    ] {
        if let Some(stack) = stacks.iter().find(|stack| stack.name == name) {
            let received = Received::new(directory, name, stack.form)?;
            let file = LogFile::new(directory.join(path), received);
            file.make_directory()?;
            files.insert(name, file);
        }
    }
    Ok(files)
}

fn peers(
    stacks: &[Stack],
    namespace: &Namespace,
    directory: &Path,
) -> Result<BTreeMap<&'static str, Peer>> {
    let run = directory.join("run");
    let mut peers = BTreeMap::new();
    for (name, place, framing) in [
        ("pipe", Place::Fifo(run.join("pipe")), Framing::Lines),
        ("junix", Place::Unix(run.join("junix")), Framing::Lines),
        ("jtcp", Place::Tcp(6000), Framing::Lines),
        ("sdgram", Place::UnixDatagram(run.join("sdgram")), Framing::Lines),
        ("sudp", Place::Udp(UDP_PORT), Framing::Lines),
        ("stcp", Place::Tcp(6515), Framing::Octets),
        ("ipfix", Place::Tcp(collector::PORT), Framing::Ipfix),
    ] {
        if let Some(stack) = stacks.iter().find(|stack| stack.name == name) {
            let form: Form = stack.form;
            let received = Received::new(directory, name, form)?;
            peers.insert(name, Peer::start(namespace, place, framing, received)?);
        }
    }
    Ok(peers)
}
