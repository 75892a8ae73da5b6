//! Guest tests: capture by eBPF, on the kernel of a guest that nobody else uses. They look at all
//! network namespaces, change sysctls of the whole system and count what is loaded, so they run
//! one after another (`--test-threads=1`), as root, within `cargo xtask vm`; `cargo xtask test`
//! does that for each kernel. Without the feature `guest` they are listed as ignored.
//!
//! A kernel without BTF of its modules (Debian's 5.10) cannot have capture by eBPF. There each
//! test asserts just that it is refused, and says so.

mod attach;
mod audit;
mod causes;
mod clash;
mod crosscheck;
mod differential;
mod faults;
mod filters;
mod kernel;
mod layout;
mod load;
mod log;
mod masks;
mod mass;
mod metrics;
mod missed;
mod namespaces;
mod preexisting;
mod privileges;
mod refusals;
mod selfcheck;
mod silent;
mod softirq;
mod top;
mod trace;
mod verbs;
mod watch;

use std::io::Write;
use std::net::UdpSocket;

use anyhow::{Result, bail, ensure};
use tests::daemon::{Daemon, Finished, Launch, Program};
use tests::lab::SingleNs;
use tests::lines::{self, Line, totals};
use tests::namespace::Namespace;
use tests::sources;

/// Runs a test of capture by eBPF; on a kernel that cannot have it, the test that this is told.
fn by_ebpf(test: impl FnOnce() -> Result<()>) -> Result<()> {
    if kernel::has_module_btf() {
        return test();
    }
    // Not by a macro, which libtest would keep to itself.
    write!(std::io::stdout(), "(no BTF of modules: only its refusal) ")?;
    refusals::ensure_refused_without_btf()
}

/// flowlog on a configuration that says where events come from.
fn launch<'n>(namespace: &'n Namespace, config: &str) -> Result<Launch<'n>> {
    Ok(Launch::new(Program::Flowlog, namespace, config)?.as_configured())
}

/// Starts flowlog in `namespace` with several sources, see [`sources::config`]; `common` stands in
/// the section of each.
fn start<T: AsRef<str>>(
    namespace: &Namespace,
    common: &str,
    keys: &[T],
    print: &str,
) -> Result<Daemon> {
    let keys: Vec<_> = keys.iter().map(|keys| format!("{common}\n{}", keys.as_ref())).collect();
    launch(namespace, &sources::config(&keys, print))?.start()
}

/// The lines of a source of a daemon that has ended as it should.
fn lines_of(finished: &Finished, source: usize) -> Result<Vec<Line>> {
    lines::parse(&finished.text(&sources::file(source)))
}

/// The lines that a source of a running daemon has written so far.
fn lines_so_far(daemon: &Daemon, source: usize) -> Result<Vec<Line>> {
    let text = daemon.text(&sources::file(source));
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    lines::parse(&text[..whole])
}

/// Ends a daemon, which must have seen everything: no loss, no fault, no record that it could not
/// read.
fn stop(daemon: Daemon) -> Result<Finished> {
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    for name in FAULTS {
        ensure_total(&finished, name, 0)?;
    }
    Ok(finished)
}

/// Totals that are 0 when everything was seen.
const FAULTS: [&str; 7] = [
    "ebpf.lost_new",
    "ebpf.lost_update",
    "ebpf.lost_destroy",
    "ebpf.lost_expect",
    "ebpf.missed",
    "ebpf.malformed",
    "ebpf.faults",
];

/// A total of the daemon's log.
fn total(finished: &Finished, name: &str) -> Result<u64> {
    match totals(&finished.log).get(name) {
        Some(value) => Ok(*value),
        None => bail!("no total {name} in\n{}", finished.log),
    }
}

fn ensure_total(finished: &Finished, name: &str, expected: u64) -> Result<()> {
    let found = total(finished, name)?;
    ensure!(found == expected, "{name} is {found}, not {expected}\n{}", finished.log);
    Ok(())
}

/// The value of a field behind the flow, such as `CAUSE` or `NETNS`.
fn extra<'l>(line: &'l Line, key: &str) -> Option<&'l str> {
    line.text.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// The line without what `extras=1` adds.
fn bare(line: &Line) -> Line {
    let ends =
        [" CAUSE=", " NETNS=", " HEALED="].iter().filter_map(|key| line.text.find(key)).min();
    Line {
        text: line.text[..ends.map_or(line.text.len(), |end| end + 1)].to_owned(),
        ..line.clone()
    }
}

/// A question and its answer over the loopback, from the same ports each time.
fn answered(single: &SingleNs) -> Result<()> {
    single.namespace().enter(|| {
        let server = UdpSocket::bind("127.0.0.1:9053")?;
        let client = UdpSocket::bind("127.0.0.1:9054")?;
        client.send_to(b"question", server.local_addr()?)?;
        let (_, from) = server.recv_from(&mut [0; 16])?;
        server.send_to(b"answer", from)?;
        client.recv_from(&mut [0; 16])?;
        Ok(())
    })
}
