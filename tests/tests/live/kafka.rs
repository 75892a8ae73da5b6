//! KAFKA: every record arrives at librdkafka's mock of brokers, which runs in another process,
//! through restarts of both sides, and is read there by kcat; what is wrong is told with its remedy,
//! and nothing is lost by it.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::chaos::shim::{CONTROL, Shim};
use tests::daemon::{Launch, Program};
use tests::kafka::Mock;
use tests::lab::SingleNs;
use tests::namespace::Namespace;
use tests::poll;
use tests::shipping::{self, FarSide as _, Site};

use super::nats::place;

pub(super) fn mock(single: &SingleNs) -> Result<Mock<'_>> {
    mock_in(single.namespace())
}

pub(super) fn mock_in(namespace: &Namespace) -> Result<Mock<'_>> {
    Mock::start(namespace, Path::new(env!("CARGO_BIN_EXE_kafka-mock")))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn nothing_is_lost_while_brokers_are_away_and_the_daemon_is_killed() -> Result<()> {
    let single = place()?;
    let mut mock = mock(&single)?;
    shipping::survives(&single, &mut mock, 100_000).map(drop)
}

/// All that is told of a flow has its key, and so goes to one partition; time is the event's.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_flow_is_the_key_and_stays_in_one_partition() -> Result<()> {
    let single = place()?;
    let mock = mock(&single)?;
    let mut site = Site::new(&single)?;
    for (compression, round) in [("zstd", 1), ("lz4", 2), ("snappy", 3), ("none", 4)] {
        let keys = format!("{}\ncompression={compression}", mock.keys());
        let text = site.config("KAFKA", &keys).replace("event_mask=1", "event_mask=5");
        let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
        let daemon = launch.start()?;
        site.make(500)?;
        single.namespace().flush_conntrack()?;
        site.wait_spooled(1000)?;
        site.wait_delivered()?;
        daemon.stop()?;
        let read = String::from_utf8(mock.read("%k %p %T %h\n")?)?;
        let mut flows: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in read.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [key, partition, time, header] = words[..] else { anyhow::bail!("{line}") };
            let id = header.strip_prefix("record=").context("no id")?;
            let nanoseconds = u64::from_str_radix(&id[..16], 16)?;
            ensure!(time.parse::<u64>()? == nanoseconds / 1_000_000, "{line}");
            flows.entry(key).or_default().push(partition);
        }
        ensure!(flows.len() == 500 * round, "{} flows with {compression}", flows.len());
        for (key, partitions) in flows {
            ensure!(
                partitions.len() == 2 && partitions[0] == partitions[1],
                "{key} {partitions:?}"
            );
        }
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_brokers_refuse_is_told_and_nothing_is_lost() -> Result<()> {
    let single = place()?;
    let mock = mock(&single)?;
    mock.say("forbid")?;
    let told = ["does not let flowlog write to flows", "allow its user Write and Describe on it"];
    shipping::waits_for_a_person(&single, &mock, &mock.keys(), &told, || mock.say("allow"))?;

    let single = place()?;
    let mock = self::mock(&single)?;
    mock.say("unknown flows")?;
    let told = ["has no topic flows: make it (`kafka-topics.sh --create --topic flows`)"];
    shipping::waits_for_a_person(&single, &mock, &mock.keys(), &told, || mock.say("known flows"))
}

/// Whoever listens there, and is no Kafka.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn brokers_of_the_wrong_kind_are_told() -> Result<()> {
    let single = place()?;
    let mock = mock(&single)?;
    let listener = single.namespace().enter(|| Ok(TcpListener::bind("127.0.0.1:2222")?))?;
    // Until the test's process ends.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n").ok();
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        }
    });
    let told = ["Kafka at 127.0.0.1:2222: what listens there is no Kafka, or wants TLS"];
    let keys = "brokers=127.0.0.1:2222\ntopic=flows";
    shipping::waits_for_a_person(&single, &mock, keys, &told, || Ok(()))
}

/// librdkafka's threads wait by the time of day: those that have begun to wait sleep for two days
/// more, and a producer whose threads do so is replaced at once.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_clock_that_is_set_back_holds_up_nothing() -> Result<()> {
    const DAYS: i64 = 2 * 86_400;
    let single = place()?;
    let mock = mock(&single)?;
    let mut site = Site::new(&single)?;
    let shim = Shim::build(&site.path(""))?;
    let text = site.config("KAFKA", &mock.keys());
    let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
    let launch = launch
        .environment("LD_PRELOAD", &shim.library().to_string_lossy())
        .environment(CONTROL, &shim.control().to_string_lossy());
    let daemon = launch.start()?;
    site.make(500)?;
    site.wait_delivered()?;
    let threads = || -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", daemon.process.pid()))?.count())
    };
    let at_first = threads()?;
    // With flows under way, and with none.
    for flows in [0, 2000] {
        shim.step_clock(DAYS)?;
        site.make(500)?;
        site.wait_spooled(site.made())?;
        site.wait_delivered()?;
        site.make(flows)?;
        shim.step_clock(0)?;
        site.make(500)?;
        site.wait_spooled(site.made())?;
        poll::within(Duration::from_secs(8), "delivery after the clock was set back", || {
            Ok((site.metric("flowlog_sink_spool_records")? == 0).then_some(()))
        })?;
    }
    daemon.wait_log("the clock of this host was set")?;
    // No producer of before sleeps on.
    poll::until("the threads of before to end", || Ok((threads()? <= at_first).then_some(())))?;
    daemon.stop()?;
    site.ensure_all(&mock)?;
    Ok(())
}
