//! Destinations that accept a connection and then say nothing: `/healthz` names each of them soon,
//! other stacks go on, and the records stay in the spool.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::burst::{burst_lines, uncounted_burst};
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset, totals};
use tests::metrics::{ADDRESS, get};
use tests::poll;

const FLOWS: u32 = 1200;
/// The sinks, each with its port and its other keys.
const SINKS: [(&str, u16, &str); 4] = [
    ("NATS", 4222, "stream=FLOWS"),
    ("KAFKA", 9092, "brokers=\"127.0.0.1:9092\"\ntopic=flows"),
    ("CLICKHOUSE", 8123, "user=flowlog"),
    ("PGSQL", 5432, "host=127.0.0.1\nport=5432"),
];
/// 10 s without an answer, and what a slow machine takes.
const REPORTED: Duration = Duration::from_secs(14);

/// Accepts everything, reads it, and says nothing. Returns who connects.
fn silent(port: u16) -> Result<Receiver<()>> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    let (connected, connections) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if connected.send(()).is_err() {
                break;
            }
            thread::spawn(move || swallow(stream));
        }
    });
    Ok(connections)
}

fn swallow(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while stream.read(&mut bytes).is_ok_and(|length| length > 0) {}
}

fn config() -> String {
    let mut text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics={ADDRESS}\n\
         spool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n"
    );
    for (plugin, _, _) in SINKS {
        text += &format!("stack=ct1:NFCT,{}:{plugin}\n", plugin.to_lowercase());
    }
    text += &format!(
        "[ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n{ROOMY}\
         [emu1]\nfile=\"@DIR@/flows.log\"\nsync=1\n"
    );
    for (plugin, _, keys) in SINKS {
        text += &format!("[{}]\n{keys}\n", plugin.to_lowercase());
    }
    text
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_destination_that_hangs_is_reported() -> Result<()> {
    let single = SingleNs::new()?;
    let silent = single
        .namespace()
        .enter(|| SINKS.iter().map(|(_, port, _)| silent(*port)).collect::<Result<Vec<_>>>())?;
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &config())?.start()?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    let begin = Instant::now();
    daemon.wait_lines("the other stack", |lines| lines.len() >= FLOWS as usize)?;
    for ((plugin, _, _), connected) in SINKS.iter().zip(&silent) {
        connected.recv_timeout(REPORTED).with_context(|| format!("{plugin} does not connect"))?;
    }
    let healthz = || get(single.namespace(), ADDRESS, "/healthz");
    poll::within(REPORTED, "all of them in /healthz", || {
        let asked = Instant::now();
        let (_, page) = healthz()?;
        ensure!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
        let named = |plugin: &str| page.contains(&format!("{}:{plugin}: ", plugin.to_lowercase()));
        Ok(SINKS.iter().all(|(plugin, _, _)| named(plugin)).then_some(()))
    })
    .with_context(|| format!("{:?}", healthz()))?;
    ensure!(begin.elapsed() < REPORTED, "after {:?}", begin.elapsed());
    let stopped = Instant::now();
    let finished = daemon.stop()?;
    ensure!(stopped.elapsed() < Duration::from_secs(8), "its end took {:?}", stopped.elapsed());
    ensure_equal("lines", &burst_lines("NEW", 4000, 0..FLOWS), &multiset(&finished.lines))?;
    let totals = totals(&finished.log);
    for (plugin, _, _) in SINKS {
        let name = format!("{}.spooled_records", plugin.to_lowercase());
        ensure!(totals.get(&name) == Some(&u64::from(FLOWS)), "{name}: {totals:?}");
        let waits = format!("1200 records for {}:{plugin} wait in ", plugin.to_lowercase());
        ensure!(finished.log.contains(&waits), "{waits}: {}", finished.log);
    }
    Ok(())
}
