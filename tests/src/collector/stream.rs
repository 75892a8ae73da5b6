//! Collectors of a stream, which keep its bytes, and what libfixbuf understands of them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::PORT;
use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

/// What came over one connection.
pub type Stream = Vec<u8>;

/// A collector over TCP. Dropped, it ends at once, whatever it has not read.
#[derive(Debug)]
pub struct TcpCollector {
    end: Arc<AtomicBool>,
    received: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Vec<Stream>>>>,
}

impl TcpCollector {
    /// Listens.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.enter(|| Ok(TcpListener::bind(("127.0.0.1", PORT))?))?;
        listener.set_nonblocking(true)?;
        let end = Arc::new(AtomicBool::new(false));
        let received = Arc::new(AtomicUsize::new(0));
        let (told, count) = (end.clone(), received.clone());
        let thread = std::thread::spawn(move || {
            let mut open: Vec<(TcpStream, Stream)> = Vec::new();
            // A look after it was told, so that what has come before is read.
            loop {
                let last = told.load(Ordering::Acquire);
                match listener.accept() {
                    Ok((stream, _)) => {
                        stream.set_nonblocking(true)?;
                        open.push((stream, Stream::new()));
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
                for (stream, bytes) in &mut open {
                    match stream.read_to_end(bytes) {
                        Err(error) if error.kind() != ErrorKind::WouldBlock => {
                            return Err(error.into());
                        }
                        _ => {}
                    }
                }
                count.store(open.iter().map(|(_, bytes)| bytes.len()).sum(), Ordering::Release);
                if last {
                    return Ok(open.into_iter().map(|(_, bytes)| bytes).collect());
                }
                sleep(Duration::from_millis(2));
            }
        });
        Ok(Self { end, received, thread: Some(thread) })
    }

    /// Bytes that it has read.
    pub fn received(&self) -> usize {
        self.received.load(Ordering::Acquire)
    }

    /// Ends it, whatever comes, and returns what it has read.
    ///
    /// # Errors
    /// A connection broke.
    pub fn stop(mut self) -> Result<Vec<Stream>> {
        self.end.store(true, Ordering::Release);
        let thread = self.thread.take().context("it has ended")?;
        thread.join().map_err(|_| anyhow!("the collector's thread has panicked"))?
    }
}

impl Drop for TcpCollector {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // What it read is of no interest any more.
            let _ = thread.join();
        }
    }
}

/// A collector over TLS: `openssl s_server`, which writes what it gets to a file.
#[derive(Debug)]
pub struct TlsCollector {
    process: Guarded,
    dir: TempDir,
}

impl TlsCollector {
    /// The port of IPFIX over TLS.
    pub const PORT: u16 = 4740;

    /// Makes a certificate for 127.0.0.1 and listens there.
    ///
    /// # Errors
    /// openssl is missing, or does not listen.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("flowlog-tls-").tempdir()?;
        let path = |name: &str| dir.path().join(name);
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj"]);
        command.args(["/CN=collector", "-addext", "subjectAltName=IP:127.0.0.1", "-addext"]);
        command.args(["basicConstraints=critical,CA:FALSE", "-keyout"]).arg(path("key.pem"));
        let made = command.arg("-out").arg(path("ca.pem")).output().context("openssl")?;
        ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = namespace.command("openssl");
        command.args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{}", Self::PORT)]);
        command.arg("-cert").arg(path("ca.pem")).arg("-key").arg(path("key.pem"));
        // The end of its input would end it.
        command.stdin(Stdio::piped()).stdout(fs::File::create(path("stream"))?);
        command.stderr(Stdio::null());
        let process = Guarded::spawn(&mut command)?;
        poll::until("openssl to listen", || {
            let table = fs::read_to_string(format!("/proc/{}/net/tcp", process.pid()))?;
            Ok(table
                .contains(&format!("0100007F:{:04X} 00000000:0000 0A", Self::PORT))
                .then_some(()))
        })?;
        Ok(Self { process, dir })
    }

    /// The file of whom to trust.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Ends it, and returns what it got.
    ///
    /// # Errors
    /// It cannot be ended.
    pub fn stop(mut self) -> Result<Stream> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait()?;
        Ok(fs::read(self.dir.path().join("stream"))?)
    }
}

/// What libfixbuf's `ipfixDump` understands of a stream, a record each: names and values. Options
/// are among them.
///
/// # Errors
/// It is missing, or does not understand it.
pub fn dumped(stream: &[u8]) -> Result<Vec<Vec<(String, String)>>> {
    let dir = tempfile::Builder::new().prefix("flowlog-stream-").tempdir()?;
    let file = dir.path().join("stream");
    fs::write(&file, stream)?;
    let output = Command::new("ipfixDump").arg("--in").arg(&file).output();
    let output = output.context("ipfixDump, of Debian's package libfixbuf-tools")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "ipfixDump: {said}");
    let text = String::from_utf8(output.stdout)?;
    let mut records = Vec::new();
    let mut fields = None;
    for line in text.lines() {
        if line.starts_with("---") || line.starts_with("***") {
            records.extend(fields.take());
            if line.starts_with("--- data record") {
                fields = Some(Vec::new());
            }
        } else if let Some(fields) = &mut fields
            && let Some((name, value)) = line.split_once(" : ")
        {
            let name = name.rsplit(' ').next().unwrap_or(name);
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }
    records.extend(fields);
    Ok(records)
}
