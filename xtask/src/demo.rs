//! `cargo xtask run --demo`: client, router and server in namespaces of their own, a round of
//! traffic every second, and flowlog in the router with its lines on the terminal. Nothing of the
//! host's own namespace changes.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ::tests::lab::{FLOW_TIMEOUT, Lab};
use ::tests::poll;
use ::tests::process::Guarded;
use ::tests::traffic::{PORTS, mix};
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use crate::say::say;
use crate::{interrupt, leftovers, privilege};

/// Beginning and end of each flow; everything goes to the terminal.
const CONFIG: &str = "\
[global]
logfile=\"stdout\"
loglevel=5
stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU
[ct1]
event_mask=0x00000005
hash_enable=0
[emu1]
file=\"/dev/stdout\"
sync=1
";

const EXPLANATION: &str = "\
Three network namespaces, which vanish at the end; the host's own is left alone:

  client 10.77.1.2, fd77:1::2  —  router  —  server 10.77.2.2, fd77:2::2

Every second the client makes TCP, UDP, ICMP and other flows through the router, which translates
some: what it sends to port 9001 leaves as 10.77.2.1 (masquerade), what it sends to port 8080 of
the router ends at the server's 9000 (DNAT). flowlog runs in the router. What to look at:

  [NEW]      a flow has begun               ORIG   as the client sent it
  [DESTROY]  it is over, with its counters  REPLY  the way back, where the translation shows

ICMP's TYPE and CODE are swapped, as ulogd2 writes them; icmp_labels=\"fixed\" turns them right.
";

/// Time from one round of traffic to the next.
const PERIOD: Duration = Duration::from_secs(1);
/// Source ports: from here on, so many rounds, then again.
const FIRST_PORT: u16 = 10_000;
const ROUNDS: u16 = 300;

/// Runs the demonstration until Ctrl-C or for `time`. Its exit code is that of flowlog.
///
/// # Errors
/// The namespaces cannot be made, or flowlog does not start.
pub(crate) fn run(flowlog: &Path, time: Option<Duration>, flags: &[String]) -> Result<ExitCode> {
    leftovers::sweep();
    say!("{EXPLANATION}");
    say!(
        "Idle flows expire after {FLOW_TIMEOUT} s here. {}\n",
        match time {
            Some(time) => format!("It ends after {} s, or with Ctrl-C.", time.as_secs_f64()),
            None => "Ctrl-C ends it.".to_owned(),
        }
    );
    let lab = Lab::new().context("the namespaces cannot be made")?;
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("flowlog.conf");
    fs::write(&config, CONFIG)?;
    let mut command = lab.router().command(flowlog);
    let mut process =
        Guarded::spawn(command.args(["run", "-c"]).arg(config).args(flags).stdin(Stdio::null()))?;
    let traffic = listens(&mut process, &lab).and_then(|()| {
        let end = time.map(|time| Instant::now() + time);
        rounds(&lab, flowlog, &mut process, end)
    });
    if process.ended()?.is_none() {
        // It may have ended by itself just now: Ctrl-C reaches it too.
        let _ = process.signal(Signal::SIGTERM);
    }
    let code = process.wait()?;
    // A tool that Ctrl-C ended as well is no fault.
    if !interrupt::asked() {
        traffic?;
    }
    Ok(privilege::code(code))
}

/// Waits until flowlog listens, so that the first flow is not missed.
fn listens(process: &mut Guarded, lab: &Lab) -> Result<()> {
    poll::until("flowlog to listen", || {
        if let Some(code) = process.ended()? {
            bail!("flowlog ended with {code:?}, see above");
        }
        interrupt::check()?;
        let sockets = process.netlink_sockets(lab.router())?;
        Ok(sockets.iter().any(|socket| socket.groups != 0).then_some(()))
    })
}

/// Makes traffic until the end, or until flowlog or the user ends it.
fn rounds(lab: &Lab, flowlog: &Path, process: &mut Guarded, end: Option<Instant>) -> Result<()> {
    let over = || interrupt::asked() || end.is_some_and(|end| Instant::now() >= end);
    let ports = (0..ROUNDS).map(|round| FIRST_PORT + round * PORTS).cycle();
    for port in ports {
        if over() || process.ended()?.is_some() {
            break;
        }
        let begin = Instant::now();
        mix(lab, port).context("the traffic did not go as it should")?;
        collect_expired(lab, flowlog)?;
        let rest = PERIOD.saturating_sub(begin.elapsed());
        let left = end.map_or(rest, |end| end.saturating_duration_since(Instant::now()));
        interrupt::pause(rest.min(left));
    }
    Ok(())
}

/// Lets the kernel collect the flows that have expired, which it otherwise does up to a minute
/// late: a dump of the table takes them out at once.
fn collect_expired(lab: &Lab, flowlog: &Path) -> Result<()> {
    let mut command: Command = lab.router().command(flowlog);
    command.arg("list").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().with_context(|| format!("cannot run {command:?}"))?;
    Ok(())
}
