//! What is served to Prometheus: the numbers are those of the log, promtool finds no fault with
//! them, and a real Prometheus reads them.

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::tagged;
use tests::metrics::{ADDRESS, get, scrape, sum};
use tests::namespace::Namespace;
use tests::poll;
use tests::process::Guarded;

mod health;

const PROMETHEUS: &str = "127.0.0.1:9090";
/// Where the alert rules are, and their unit tests.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/prometheus-rules.yml");
const RULE_TESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/prometheus-rules.test.yml");

/// The scrapes of the test are connections too, which the namespace tracks; they are by TCP.
fn served(ct: &str, emu: &str) -> String {
    let ct = format!("capture=netlink\naccept_proto_filter=udp\n{ct}");
    config(&ct, emu).replace("[ct1]", &format!("metrics=\"{ADDRESS}\"\n[ct1]"))
}

/// Every line of the log is in the numbers, by kind, and nothing else.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_numbers_are_those_of_the_log() -> Result<()> {
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let launch =
        Launch::new(Program::Flowlog, namespace, &served("event_mask=5\nhash_enable=0", ""))?;
    let daemon = launch.start()?;
    udp_burst(&single, 4000, 0, 500)?;
    daemon.wait_lines("the beginnings", |lines| lines.len() == 500)?;
    let page = scrape(namespace)?;
    ensure!(sum(&page, "flowlog_conntrack_entries", "ct1")? >= 500.0, "the table: {page}");
    namespace.flush_conntrack()?;
    udp_burst(&single, 4000, 1000, 70)?;
    daemon.wait_lines("all lines", |lines| tagged(lines, "DESTROY").len() == 500)?;
    let page = poll::until("570 beginnings", || {
        let page = scrape(namespace)?;
        Ok((sum(&page, "flowlog_events_total", "kind=\"new\"")? == 570.0).then_some(page))
    })?;
    let lines = daemon.wait_lines("570 beginnings", |l| tagged(l, "NEW").len() == 570)?;
    for (kind, tag) in [("new", "NEW"), ("destroy", "DESTROY")] {
        let told = sum(&page, "flowlog_events_total", &format!("kind=\"{kind}\""))?;
        ensure!(told == tagged(&lines, tag).len() as f64, "{tag}: {told}\n{page}");
    }
    let all =
        sum(&page, "flowlog_events_total", "")? + sum(&page, "flowlog_loss_reports_total", "")?;
    let written = sum(&page, "flowlog_sink_written_records_total", "")?;
    let log = daemon.text("flows.log");
    let length = sum(&page, "flowlog_sink_written_bytes_total", "")?;
    ensure!(all == lines.len() as f64 && written == all, "{all}, {written} of {}", lines.len());
    ensure!(length == log.len() as f64, "{length} of {} bytes", log.len());
    let (status, body) = get(namespace, ADDRESS, "/healthz")?;
    ensure!((status.as_str(), body.as_str()) == ("HTTP/1.1 200 OK", "ok\n"), "{status} {body}");
    ensure!(daemon.stop()?.code == Some(0), "the exit code");
    Ok(())
}

/// A file that cannot be written is no health, and is named.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_full_disk_is_not_healthy() -> Result<()> {
    let single = SingleNs::new()?;
    let text = served("event_mask=1\nhash_enable=0", "").replace("@DIR@/flows.log", "/dev/full");
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    udp_burst(&single, 4000, 0, 10)?;
    poll::until("bad health", || {
        let (status, body) = get(single.namespace(), ADDRESS, "/healthz")?;
        let bad = status.contains(" 503 ")
            && body.starts_with("ct1/1/emu1:LOGEMU: /dev/full cannot be written");
        Ok(bad.then_some(()))
    })?;
    let page = scrape(single.namespace())?;
    ensure!(sum(&page, "flowlog_sink_failing", "")? == 1.0, "{page}");
    ensure!(sum(&page, "flowlog_sink_buffer_bytes", "")? > 0.0, "{page}");
    daemon.stop()?;
    Ok(())
}

/// The port is taken while root can take it, and serves on without root. A second daemon is
/// refused, with the remedy.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_low_port_goes_with_another_user() -> Result<()> {
    let single = SingleNs::new()?;
    let text = served("event_mask=1\nhash_enable=0", "").replace(ADDRESS, "127.0.0.1:947");
    let launch = || Launch::new(Program::Flowlog, single.namespace(), &text);
    let daemon = launch()?.args(&["-u", "nobody"]).start()?;
    let (status, _) = get(single.namespace(), "127.0.0.1:947", "/metrics")?;
    ensure!(status == "HTTP/1.1 200 OK", "{status}");
    let second = launch()?.run()?;
    ensure!(second.code == Some(1), "exit {:?}", second.code);
    let told = format!("{}{}", second.stderr, second.log);
    ensure!(told.contains("metrics cannot be served at 127.0.0.1:947"), "{told}");
    ensure!(told.contains("name another port with `metrics=`"), "{told}");
    daemon.stop()?;
    Ok(())
}

/// Clients that flood, stall or leave cost no event.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn bad_clients_cost_no_event() -> Result<()> {
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let text = served("event_mask=1\nhash_enable=0", "");
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    let address: SocketAddr = ADDRESS.parse()?;
    let stalled = namespace.enter(|| {
        let mut stalled = Vec::new();
        for number in 0..40 {
            // Further ones may be kept out: the backlog is short.
            if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200))
            {
                let _ = stream.write_all(&vec![b'x'; number * 1000]);
                stalled.push(stream);
            }
        }
        Ok(stalled)
    })?;
    ensure!(stalled.len() >= 8, "{} connections", stalled.len());
    let begin = Instant::now();
    scrape(namespace)?;
    ensure!(begin.elapsed() < Duration::from_secs(1), "a scrape took {:?}", begin.elapsed());
    udp_burst(&single, 4000, 0, 5000)?;
    daemon.wait_lines("all lines", |lines| lines.len() == 5000)?;
    drop(stalled);
    poll::until("a scrape again", || Ok(scrape(namespace).ok()))?;
    daemon.stop()?;
    Ok(())
}

fn promtool_accepts(page: &str) -> Result<()> {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("promtool is missing: apt-get install prometheus")?;
    promtool.stdin.take().context("no pipe")?.write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
    Ok(())
}

/// Each alert fires on a recorded loss, and none without one.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs promtool: cargo xtask test")]
fn alerts_fire_on_recorded_losses() -> Result<()> {
    for (verb, file) in [("check", RULES), ("test", RULE_TESTS)] {
        let mut promtool = Command::new("promtool");
        let output = promtool.args([verb, "rules", file]).output();
        let output = output.context("promtool is missing: apt-get install prometheus")?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success() && said.contains("SUCCESS"), "{verb}: {said}");
    }
    Ok(())
}

/// A real Prometheus, in the daemon's namespace, reads what the daemon counts.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn prometheus_reads_them() -> Result<()> {
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let text = served("event_mask=5\nhash_enable=1", "");
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    udp_burst(&single, 4000, 0, 300)?;
    promtool_accepts(&scrape(namespace)?)?;
    let _prometheus = prometheus(namespace, &daemon)?;
    let query = "/api/v1/query?query=flowlog_live_flows";
    poll::until("Prometheus to know of 300 live flows", || {
        // It takes a while to listen, and to scrape.
        let Ok((_, body)) = get(namespace, PROMETHEUS, query) else { return Ok(None) };
        Ok(body.contains("\"300\"").then_some(()))
    })
    .with_context(|| daemon.text("prometheus.log"))?;
    let (_, up) = get(namespace, PROMETHEUS, "/api/v1/query?query=up%7Bjob%3D%22flowlog%22%7D")?;
    ensure!(up.contains("\"1\""), "{up}");
    let (_, rules) = get(namespace, PROMETHEUS, "/api/v1/rules")?;
    ensure!(rules.contains("FlowlogRecordsDropped"), "no rules: {rules}");
    daemon.stop()?;
    Ok(())
}

/// Starts one with its files in the directory of the daemon; it ends when it is dropped.
fn prometheus(namespace: &Namespace, daemon: &Daemon) -> Result<Guarded> {
    let file = daemon.path("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 1s\nrule_files: [\"{RULES}\"]\nscrape_configs:\n  - job_name: flowlog\n    \
         static_configs:\n      - targets: [\"{ADDRESS}\"]\n"
    );
    fs::write(&file, text)?;
    let log = fs::File::create(daemon.path("prometheus.log"))?;
    let mut command = namespace.command("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", daemon.path("tsdb").display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"))
        .stdout(log.try_clone()?)
        .stderr(log);
    Guarded::spawn(&mut command)
}
