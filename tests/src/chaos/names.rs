//! A name server of the lab: every name is 127.0.0.1, and while it is silent it answers nothing.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;

use crate::namespace::Namespace;

/// What a resolver is configured with to ask it: three servers, as hosts have them.
pub(super) const RESOLV_CONF: &str =
    "nameserver 127.0.0.1\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n";
const PORT: u16 = 53;
const HEADER: usize = 12;
/// Types of questions: A.
const A: u16 = 1;

/// The server. Dropped, it ends.
#[derive(Debug)]
pub(super) struct NameServer {
    silent: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// Listens in this namespace, on all addresses.
    ///
    /// # Errors
    /// The port is taken.
    pub(super) fn start(namespace: &Namespace) -> Result<Self> {
        let bind = || Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?);
        let socket = namespace.enter(bind)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let silent = Arc::new(AtomicBool::new(false));
        let (asked, end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let shared = (silent.clone(), asked.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            let (silent, asked, end) = shared;
            let mut question = [0; 512];
            while !end.load(Ordering::Acquire) {
                let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
                asked.fetch_add(1, Ordering::Relaxed);
                if !silent.load(Ordering::Acquire) {
                    reply(&socket, from, &question[..length]);
                }
            }
        });
        Ok(Self { silent, asked, end, thread: Some(thread) })
    }

    /// Answers nothing, or answers again.
    pub(super) fn silence(&self, silent: bool) {
        self.silent.store(silent, Ordering::Release);
    }

    /// How many questions have come.
    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // It has nothing to say.
            let _ = thread.join();
        }
    }
}

fn reply(socket: &UdpSocket, to: SocketAddr, question: &[u8]) {
    if let Some(answer) = answer(question) {
        // Who asked may be gone.
        let _ = socket.send_to(&answer, to);
    }
}

/// The answer to a question with one name; nothing to what is no question.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut at = HEADER;
    while *question.get(at)? != 0 {
        at += usize::from(question[at]) + 1;
    }
    let end = at + 5;
    let kind = u16::from_be_bytes([*question.get(at + 1)?, *question.get(at + 2)?]);
    let is_address = kind == A;
    let mut answer = question.get(..end)?.to_vec();
    // An answer, with recursion; no error, no further sections.
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..12].copy_from_slice(&[0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        // The name of the question, A, IN, for a second, four bytes.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_loopback() {
        let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        question.extend(b"\x03log\x05chaos\x00\x00\x01\x00\x01");
        let whole = question.len();
        // An option of EDNS follows.
        question.extend([0, 0, 41, 4, 0, 0, 0, 0, 0, 0, 0]);
        let reply = answer(&question).unwrap_or_default();
        assert_eq!(reply[..4], [0x12, 0x34, 0x81, 0x80]);
        assert_eq!(reply[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(reply.ends_with(&[127, 0, 0, 1]) && reply.len() == whole + 16);
        question[whole - 3] = 28;
        assert_eq!(answer(&question).map(|reply| reply.len()), Some(whole));
        assert_eq!(answer(&question[..14]), None);
    }
}
