//! Collectors of IPFIX in a namespace, at 127.0.0.1 and the port of IPFIX: nfdump's nfcapd and
//! pmacct's nfacctd over UDP, and over TCP and TLS what keeps the bytes of a stream; Debian has no
//! collector that listens there. What they have got, as JSON or as records.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

pub use self::count::records;
pub use self::stream::{Stream, TcpCollector, TlsCollector, dumped};

mod count;
mod stream;

/// Where collectors listen.
pub const PORT: u16 = 4739;

/// What goes to a collector is no flow of the test.
const UNTRACKED: &str = "
table inet collector {
    chain sent { type filter hook output priority raw; ip daddr 127.0.0.0/8 notrack; }
    chain received { type filter hook prerouting priority raw; ip daddr 127.0.0.0/8 notrack; }
}
";

/// Has the kernel not track what goes to a collector in the namespace.
///
/// # Errors
/// nftables is missing.
pub fn leave_untracked(namespace: &Namespace) -> Result<()> {
    namespace.nft(UNTRACKED)
}

/// nfdump's collector, over UDP.
#[derive(Debug)]
pub struct Nfcapd {
    process: Guarded,
    at: Ipv4Addr,
    dir: TempDir,
}

/// What [`Nfcapd`] has got.
#[derive(Debug)]
pub struct Captured {
    /// Records, as `nfdump -o json` writes them.
    pub records: Vec<Value>,
    /// Records, as `nfdump -o csv` writes them, each by the names of its columns.
    pub rows: Vec<Vec<(String, String)>>,
    /// How often the sequence number was another than it had counted.
    pub sequence_errors: u64,
}

impl Nfcapd {
    /// Starts it at 127.0.0.1 and waits until it listens.
    ///
    /// # Errors
    /// It is missing, or never listens.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        Self::start_at(namespace, Ipv4Addr::LOCALHOST)
    }

    /// Starts it at another address.
    ///
    /// # Errors
    /// As [`Nfcapd::start`].
    pub fn start_at(namespace: &Namespace, at: Ipv4Addr) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-nfcapd-").tempdir()?;
        let mut command = namespace.command("nfcapd");
        command.args(["-b", &at.to_string(), "-p", &PORT.to_string(), "-t", "3600", "-w"]);
        command.arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        // What a burst brings has room: this is about what it understands.
        command.args(["-B", "33554432"]);
        let process = Guarded::spawn(&mut command).context("nfcapd, of Debian's package nfdump")?;
        let collector = Self { process, at, dir };
        wait_for_socket(&collector.process, at)?;
        Ok(collector)
    }

    /// Ends it when it has read everything.
    ///
    /// # Errors
    /// A datagram found no room, or nfdump cannot read what it wrote.
    pub fn stop(mut self) -> Result<Captured> {
        wait_until_read(&self.process, self.at)?;
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait()?;
        let nfdump = |args: &[&str]| read_by("nfdump", self.dir.path(), args);
        let records = nfdump(&["-o", "json"])?;
        let failures = nfdump(&["-I"])?;
        let failures = failures.lines().find_map(|line| line.strip_prefix("Sequence failures: "));
        Ok(Captured {
            records: serde_json::from_str(&records).with_context(|| records.clone())?,
            rows: csv(&nfdump(&["-o", "csv"])?)?,
            sequence_errors: failures.context("no number of failures")?.parse()?,
        })
    }
}

fn read_by(program: &str, dir: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    let output = command.arg("-R").arg(dir).args(args).env("TZ", "UTC").output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {args:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The rows up to the summary.
fn csv(text: &str) -> Result<Vec<Vec<(String, String)>>> {
    let mut lines = text.lines();
    let names: Vec<_> = lines.next().context("no first line")?.split(',').collect();
    let rows = lines.take_while(|line| *line != "Summary").map(|line| {
        let cells = line.split(',').map(|cell| cell.trim().to_owned());
        names.iter().map(|name| (*name).to_owned()).zip(cells).collect()
    });
    Ok(rows.collect())
}

/// The line of /proc/PID/net/udp that is about the collector's socket.
fn udp_socket(process: &Guarded, at: Ipv4Addr) -> Result<Option<String>> {
    let table = fs::read_to_string(format!("/proc/{}/net/udp", process.pid()))?;
    let name = format!("{:08X}:{PORT:04X}", u32::from_ne_bytes(at.octets()));
    let is_ours = |line: &&str| line.split_whitespace().nth(1) == Some(&name);
    Ok(table.lines().find(is_ours).map(str::to_owned))
}

fn wait_for_socket(process: &Guarded, at: Ipv4Addr) -> Result<()> {
    poll::until("the collector to listen", || Ok(udp_socket(process, at)?.map(drop)))
}

/// Waits until nothing is left in its queue, into which everything fitted.
fn wait_until_read(process: &Guarded, at: Ipv4Addr) -> Result<()> {
    poll::until("the collector to read", || {
        let socket = udp_socket(process, at)?.context("the collector has no socket")?;
        let words: Vec<_> = socket.split_whitespace().collect();
        let (queued, drops) = (words.get(4).context("no queue")?, words.last());
        ensure!(drops == Some(&"0"), "{drops:?} datagrams found no room");
        Ok(queued.ends_with(":00000000").then_some(()))
    })
}

/// pmacct's collector, over UDP. Its plugin `print` writes a JSON object a line.
#[derive(Debug)]
pub struct Nfacctd {
    process: Guarded,
    dir: TempDir,
}

/// What nfacctd has no name for: counters of the reverse direction (RFC 5103), addresses of IPv6
/// behind NAT, why a flow ended, and what tells flows apart that it takes for one: it does not know
/// the types of ICMP.
const PRIMITIVES: &str = "name=reply_bytes field_type=29305:1 len=8 semantics=u_int
name=reply_packets field_type=29305:2 len=8 semantics=u_int
name=nat_src6 field_type=281 len=16 semantics=ip
name=nat_dst6 field_type=282 len=16 semantics=ip
name=reason field_type=136 len=1 semantics=u_int
name=event field_type=233 len=1 semantics=u_int
name=flow_id field_type=148 len=8 semantics=u_int
";

impl Nfacctd {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// It is missing, or never listens.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-nfacctd-").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let text = format!(
            "daemonize: false\nnfacctd_ip: 127.0.0.1\nnfacctd_port: {PORT}\nplugins: print[all]\n\
             aggregate_primitives: {}\nprint_output[all]: json\nprint_output_file[all]: {}\n\
             print_output_file_append[all]: true\nprint_refresh_time[all]: 1\n\
             aggregate[all]: src_host, dst_host, src_port, dst_port, proto, timestamp_start, \
             timestamp_end, post_nat_src_host, post_nat_dst_host, post_nat_src_port, \
             post_nat_dst_port, nat_event, reply_bytes, reply_packets, nat_src6, nat_dst6, reason, \
             event, flow_id\n",
            path("primitives").display(),
            path("flows.json").display()
        );
        fs::write(path("primitives"), PRIMITIVES)?;
        fs::write(path("nfacctd.conf"), text)?;
        let mut command = namespace.command("nfacctd");
        command.arg("-f").arg(path("nfacctd.conf")).env("TZ", "UTC");
        command.stdout(Stdio::null()).stderr(fs::File::create(path("log"))?);
        let process =
            Guarded::spawn(&mut command).context("nfacctd, of Debian's package pmacct")?;
        let collector = Self { process, dir };
        wait_for_socket(&collector.process, Ipv4Addr::LOCALHOST)?;
        Ok(collector)
    }

    /// Waits until it has written so many records, ends it, and returns all it has written.
    ///
    /// # Errors
    /// It never has; with its log.
    pub fn stop_with(mut self, records: usize) -> Result<Vec<Value>> {
        let file = self.dir.path().join("flows.json");
        let written = || -> Result<Vec<Value>> {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
        };
        let enough = || Ok((written()?.len() >= records).then_some(()));
        poll::until("nfacctd to write", enough).with_context(|| {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            format!("{} of {records}\n{log}", written().map_or(0, |all| all.len()))
        })?;
        wait_until_read(&self.process, Ipv4Addr::LOCALHOST)?;
        // Its plugin is a process of its own, which it ends itself.
        self.process.signal(Signal::SIGINT)?;
        self.process.wait()?;
        written()
    }
}
