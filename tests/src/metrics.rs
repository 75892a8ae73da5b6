//! A scrape of what flowlog serves to Prometheus, and the samples in it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::namespace::{Namespace, within};

/// In a namespace of the test, so nobody else has it.
pub const ADDRESS: &str = "127.0.0.1:9470";

/// How long a page may take, whatever is wrong around the daemon.
pub const ANSWER: Duration = Duration::from_secs(1);

/// Status line and body, within [`ANSWER`]; guests are emulated, and have longer.
///
/// # Errors
/// Nobody answers in time, or something else.
pub fn get(namespace: &Namespace, address: &str, path: &str) -> Result<(String, String)> {
    let begin = Instant::now();
    let answer = get_within(&namespace.path(), address, path, Duration::from_secs(30))?;
    let time = begin.elapsed();
    ensure!(time < ANSWER || !cfg!(feature = "live"), "{path} took {time:?}");
    Ok(answer)
}

/// The same in the namespace of this file, if nothing takes longer than `patience`.
///
/// # Errors
/// As [`get`].
pub fn get_within(
    namespace: &Path,
    address: &str,
    path: &str,
    patience: Duration,
) -> Result<(String, String)> {
    let address: SocketAddr = address.parse()?;
    let answer = within(namespace, || {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

/// The page of numbers.
///
/// # Errors
/// Nobody answers, or something else.
pub fn scrape(namespace: &Namespace) -> Result<String> {
    let (status, page) = get(namespace, ADDRESS, "/metrics")?;
    ensure!(status == "HTTP/1.1 200 OK", "{status}");
    Ok(page)
}

/// Each sample by its name with labels.
///
/// # Errors
/// A line has no value.
pub fn samples(page: &str) -> Result<BTreeMap<&str, f64>> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("no value")?;
            Ok((name, value.parse()?))
        })
        .collect()
}

/// The sum of all samples of a metric whose labels hold `label`.
///
/// # Errors
/// As [`samples`].
pub fn sum(page: &str, metric: &str, label: &str) -> Result<f64> {
    let of = |name: &str| name.split('{').next() == Some(metric) && name.contains(label);
    Ok(samples(page)?.iter().filter(|(name, _)| of(name)).map(|(_, value)| value).sum())
}
