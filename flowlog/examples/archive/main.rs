//! Makes an archive of generated flows (`mix.rs`), for tests of those who read it:
//! `archive DIRECTORY FLOWS [HOURS [SEED]]`, within a day where no hours are said.
//! The same arguments make the same flows.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::Context as _;
use flowlog::archive::clock::Moment;
use flowlog::archive::{Archive, Host, Settings};
use flowlog::plugin::compact::Encoder;

mod mix;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().context("which directory? archive DIRECTORY FLOWS")?;
    let flows: u64 = number(arguments.next())?.context("how many flows?")?;
    let hours = number(arguments.next())?.unwrap_or(24.0);
    let seed = number(arguments.next())?.unwrap_or(1);
    generate(directory.into(), flows, flows as f64 / (hours * 3600.0), seed)
}

fn number<T: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: Option<String>,
) -> anyhow::Result<Option<T>> {
    text.map(|text| text.parse().with_context(|| format!("{text} is no number"))).transpose()
}

fn generate(directory: PathBuf, flows: u64, rate: f64, seed: u64) -> anyhow::Result<()> {
    let settings = Settings {
        directory,
        rotate_interval: Duration::from_mins(15),
        rotate_size: 128 << 20,
        keep_for: None,
        keep_bytes: None,
    };
    let host = Host { name: "gateway".to_owned(), hash: seed, origin: Default::default() };
    let mut archive =
        Archive::open(settings, host, mix::BEGIN, mix::BEGIN, Moment::at(mix::BEGIN))?;
    let mut mix = mix::Mix::new(seed, rate);
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for _ in 0..flows {
        let item = mix.next();
        if item.at >= archive.due() {
            let due = archive.due();
            close(&mut archive, due)?;
        }
        bytes.clear();
        encoder.encode(&item, None, &mut bytes);
        archive.push(item.at, &bytes)?;
        if archive.is_full() {
            close(&mut archive, item.at)?;
        }
    }
    let due = archive.due();
    close(&mut archive, due)?;
    Ok(())
}

/// Closes the file: all up to `time` is there.
fn close(archive: &mut Archive, time: u64) -> anyhow::Result<()> {
    archive.learn(Some(time));
    Ok(archive.close(Moment::at(time))?)
}
