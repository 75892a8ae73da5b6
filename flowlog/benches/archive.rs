//! Flows of a realistic mix (`examples/archive/mix.rs`) → closed files of the
//! archive: flows per second of one processor, from the item of a stack to the
//! file, and bytes per flow; once without the spool, and once as the sink does
//! it, with the spool in TMPDIR. Prints one JSON object.
//!
//! ```text
//! cargo bench -p flowlog --bench archive
//! ```

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use flowlog::archive::clock::Moment;
use flowlog::archive::{self, Archive, Closed, Host};
use flowlog::plugin::compact::Encoder;
use flowlog::plugin::output::Output;
use flowlog::plugin::ship::{Full, Shipping, Spool, Start};
use flowlog::plugin::{Scratch, parquet, ship};
use flowlog::stats::{Instance, Measure, SinkPlugin, SinkStats, Stats};

#[path = "../examples/archive/mix.rs"]
mod mix;

use mix::{BEGIN, Mix};

/// Flows of the mix.
const FLOWS: u64 = 2_000_000;
/// As many a second as make 50 million a day.
const RATE: f64 = 578.7;

fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let making = making()?;
    let mut cases = serde_json::Map::new();
    cases.insert("archive".to_owned(), written(directory.path().join("archive"), making)?);
    cases.insert("sink".to_owned(), shipped(directory.path(), making)?);
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::Value::Object(cases))?;
    Ok(())
}

/// What it takes to make the mix.
fn making() -> anyhow::Result<Duration> {
    let mut mix = Mix::new(1, RATE);
    let start = processor_time()?;
    for _ in 0..FLOWS {
        std::hint::black_box(mix.next());
    }
    Ok(processor_time()? - start)
}

fn settings(directory: PathBuf) -> archive::Settings {
    archive::Settings {
        directory,
        rotate_interval: Duration::from_mins(15),
        rotate_size: 128 << 20,
        keep_for: None,
        keep_bytes: None,
    }
}

fn written(directory: PathBuf, making: Duration) -> anyhow::Result<serde_json::Value> {
    let host = Host { name: "gateway".to_owned(), hash: 7, origin: Default::default() };
    let mut archive = Archive::open(settings(directory), host, BEGIN, BEGIN, Moment::at(BEGIN))?;
    let mut mix = Mix::new(1, RATE);
    let mut encoder = Encoder::new();
    let mut body = Vec::new();
    let mut encoded = 0;
    let start = processor_time()?;
    for _ in 0..FLOWS {
        let item = mix.next();
        if item.at >= archive.due() {
            close(&mut archive)?;
        }
        body.clear();
        encoder.encode(&item, None, &mut body);
        encoded += body.len();
        archive.push(item.at, &body)?;
    }
    close(&mut archive)?;
    let spent = processor_time()? - start - making;
    let Closed { files, records, bytes, .. } = archive.take_closed();
    ensure!(records == FLOWS, "{records} records were written");
    Ok(serde_json::json!({
        "flows": FLOWS,
        "files": files,
        "flows_per_second_of_a_core": per_second(spent),
        "bytes_per_flow": bytes as f64 / FLOWS as f64,
        "encoded_bytes_per_flow": encoded as f64 / FLOWS as f64,
    }))
}

/// On three threads; a core that is free does not make it look faster.
fn shipped(directory: &Path, making: Duration) -> anyhow::Result<serde_json::Value> {
    let spool = Spool::open(&ship::Settings {
        directory: directory.join("spool"),
        max_bytes: 1 << 30,
        full: Full::DropNewest,
    })?;
    let settings = parquet::Settings {
        shipping: Shipping { id: "arc1".to_owned(), buffer_max: 64 << 20 },
        archive: settings(directory.join("shipped")),
        held_max: 256 << 20,
    };
    let run = parquet::Run::begin();
    let start = Start {
        instance: Instance {
            source: "ct1".to_owned(),
            stack: 1,
            sink: "arc1".to_owned(),
            plugin: SinkPlugin::Parquet,
        },
        encoding: &run.encoding(),
        buffer_max: settings.shipping.buffer_max,
        spool: &spool,
        stats: &Stats::default(),
    };
    let mut sink = parquet::open(&start, &settings, "gateway", Default::default(), run)?;
    sink.output_mut().begin();
    let mut mix = Mix::new(1, RATE);
    let scratch = Scratch::default();
    let begun = Instant::now();
    let start = processor_time()?;
    for number in 0..FLOWS {
        sink.push(&mix.next(), &scratch);
        if number % 1000 == 0 {
            sink.output_mut().flush();
            while sink.output().fill().0 > 16 << 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    // The rest of a chunk is handed over when it is old enough.
    while stats(sink.output())?.get(Measure::Records) < FLOWS {
        std::thread::sleep(Duration::from_millis(10));
        sink.output_mut().flush();
    }
    sink.output_mut().close();
    let spent = processor_time()? - start - making;
    ensure!(stats(sink.output())?.kept().records == 0, "records are left in the spool");
    Ok(serde_json::json!({
        "flows": FLOWS,
        "flows_per_second_of_a_core": per_second(spent),
        "seconds": begun.elapsed().as_secs_f64(),
    }))
}

fn stats(output: &Output) -> anyhow::Result<&SinkStats> {
    let Output::Shipped(shipment) = output else { anyhow::bail!("it does not ship") };
    Ok(shipment.stats())
}

fn per_second(spent: Duration) -> f64 {
    (FLOWS as f64 / spent.as_secs_f64()).round()
}

/// Time that this process has had of processors.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Closes the file when it is due: all up to then is there.
fn close(archive: &mut Archive) -> anyhow::Result<()> {
    let due = archive.due();
    archive.learn(Some(due));
    Ok(archive.close(Moment::at(due))?)
}
