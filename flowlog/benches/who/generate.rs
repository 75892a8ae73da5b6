//! An archive of a day, as PARQUET writes it.

use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use flowlog::archive::clock::Moment;
use flowlog::archive::{Archive, Host, Settings};
use flowlog::flow::Flow;
use flowlog::plugin::Body;
use flowlog::plugin::compact::Encoder;

use super::mix::{BEGIN, Mix};

const HOUR: u64 = 3600 * 1_000_000_000;
/// Of so many flows one is much older than others: no row group and hardly a page
/// is without one, so that none can be passed over because all in it is young.
const OLD: u64 = 5000;
/// Flows that are kept to be asked for.
const SAMPLES: u64 = 4000;

/// A flow that is in the archive.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// The flow.
    pub(crate) flow: Flow,
    /// When it began.
    pub(crate) start: u64,
    /// When it ended.
    pub(crate) end: u64,
}

/// Makes it, hour by hour, on all processors.
///
/// # Errors
/// It cannot be written.
pub(crate) fn archive(directory: &Path, flows: u64) -> anyhow::Result<Vec<Sample>> {
    std::fs::create_dir(directory)?;
    let hours = Mutex::new(0..24);
    let samples = Mutex::new(Vec::new());
    // Taken for a moment only.
    let next = || hours.lock().ok().and_then(|mut hours| hours.next());
    let work = || -> anyhow::Result<()> {
        while let Some(hour) = next() {
            let own = self::hour(&directory.join(format!("hour-{hour:02}")), hour, flows / 24)?;
            if let Ok(mut samples) = samples.lock() {
                samples.extend(own);
            }
        }
        Ok(())
    };
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => anyhow::bail!("a thread of the generator has ended"),
        })
    })?;
    let mut samples = samples.into_inner().unwrap_or_default();
    samples.sort_by_key(|sample: &Sample| sample.end);
    Ok(samples)
}

fn hour(directory: &Path, hour: u64, flows: u64) -> anyhow::Result<Vec<Sample>> {
    // The mix begins at midnight.
    let later = hour * HOUR;
    let begin = BEGIN + later;
    let settings = Settings {
        directory: directory.to_owned(),
        rotate_interval: Duration::from_secs(900),
        rotate_size: u64::MAX,
        keep_for: None,
        keep_bytes: None,
    };
    let host = Host { name: "gateway".to_owned(), hash: 7, origin: Default::default() };
    let mut archive = Archive::open(settings, host, begin, begin, Moment::at(begin))?;
    // A little more than fits, so that the hour is full.
    let mut mix = Mix::new(hour + 1, flows as f64 * 1.01 / 3600.0);
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    let mut samples = Vec::new();
    for number in 0..flows {
        let mut item = mix.next();
        let Body::Flow { flow, start: Some(began), .. } = item.body else { continue };
        let old = number % OLD == OLD - 1;
        let age = if old { 1 + number / OLD % 20 } else { 0 };
        let start = began + later - age * HOUR;
        let at = item.at + later;
        item.at = at;
        if let Body::Flow { start: told, end, .. } = &mut item.body {
            (*told, *end) = (Some(start), Some(at));
        }
        if number % (flows * 24 / SAMPLES).max(1) == 7 || old && number % (OLD * 20) == OLD - 1 {
            samples.push(Sample { flow: flow.clone(), start, end: at });
        }
        while at >= archive.due() {
            let due = archive.due();
            close(&mut archive, due)?;
        }
        bytes.clear();
        encoder.encode(&item, None, &mut bytes);
        archive.push(at, &bytes)?;
    }
    close(&mut archive, begin + HOUR)?;
    Ok(samples)
}

/// Closes the file: all up to `time` is there.
fn close(archive: &mut Archive, time: u64) -> anyhow::Result<()> {
    archive.learn(Some(time));
    Ok(archive.close(Moment::at(time))?)
}
