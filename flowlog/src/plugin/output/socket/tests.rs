//! Peers that go away, come back, and are slow.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::stats::SinkStats;

mod names;

struct Sender {
    output: SocketOutput,
    stats: SinkStats,
    next: u32,
}

impl Sender {
    fn new(address: Address, buffer_max: usize) -> Self {
        let stats = SinkStats::default();
        let output = SocketOutput::open(address, buffer_max, counted(&stats));
        Self::begun(output, stats)
    }

    /// To a name that a test answers for.
    fn named(address: Address, resolver: Resolver) -> Self {
        let stats = SinkStats::default();
        let output = SocketOutput::new(Route::new(address, resolver), 1 << 20, counted(&stats));
        Self::begun(output, stats)
    }

    fn begun(mut output: SocketOutput, stats: SinkStats) -> Self {
        output.begin();
        Self { output, stats, next: 0 }
    }

    /// Numbered records of 100 bytes.
    fn send(&mut self, records: u32) {
        for _ in 0..records {
            let front = format!("{:08} ", self.next);
            self.output.push(front.as_bytes(), &[&[b'x'; 90][..], b"\n"].concat());
            self.next += 1;
        }
        self.output.flush();
    }

    fn get(&self, measure: Measure) -> u64 {
        self.stats.get(measure)
    }

    /// Goes on as the engine does, until `done`.
    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            self.output.flush();
            std::thread::sleep(self.output.retry_in().unwrap_or(SOON).min(SOON));
        }
    }

    fn until_all_arrived(&mut self) {
        self.until("all to arrive", |sender| sender.output.backlog.is_empty());
    }
}

fn counted(stats: &SinkStats) -> Counted {
    Counted { noun: "records", stats: stats.clone() }
}

/// The numbers of whole records; the last one may have been cut.
fn numbers(text: &[u8]) -> Vec<u32> {
    let records = text.split_inclusive(|byte| *byte == b'\n').filter(|r| r.ends_with(b"\n"));
    records
        .map(|record| {
            assert_eq!(record.len(), 100, "torn: {:?}", String::from_utf8_lossy(record));
            String::from_utf8_lossy(&record[..8]).parse().unwrap()
        })
        .collect()
}

fn unix(path: &Path) -> Address {
    Address::UnixStream(path.to_owned())
}

#[test]
fn a_stream_peer_that_restarts_gets_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sender = Sender::new(unix(&path), 1 << 20);
    sender.send(100);
    let (mut peer, _) = listener.accept().unwrap();
    let mut first = vec![0; 10_000];
    peer.read_exact(&mut first).unwrap();
    drop((peer, listener));
    std::fs::remove_file(&path).unwrap();
    sender.send(100);
    sender.send(100);
    assert!(sender.output.retry_in().is_some());
    let listener = UnixListener::bind(&path).unwrap();
    sender.until("it to connect", |sender| sender.get(Measure::Reconnects) == 1);
    let (mut peer, _) = listener.accept().unwrap();
    let mut second = vec![0; 20_000];
    sender.output.flush();
    peer.read_exact(&mut second).unwrap();
    sender.until_all_arrived();
    assert_eq!(numbers(&[first, second].concat()), (0..300).collect::<Vec<_>>());
    assert_eq!(sender.get(Measure::Records), 300);
    assert_eq!(sender.get(Measure::Bytes), 30_000);
    assert_eq!(sender.get(Measure::Lost), 0);
    assert_eq!(sender.get(Measure::Repeated), 0);
}

/// It dies with records unread, one of them cut: they come again, whole.
#[test]
fn what_a_peer_had_not_read_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sender = Sender::new(unix(&path), 8 << 20);
    sender.send(20_000);
    assert!(sender.output.full, "the socket takes less than that");
    let (mut peer, _) = listener.accept().unwrap();
    let mut first = vec![0; 1050];
    peer.read_exact(&mut first).unwrap();
    drop(peer);
    sender.until("the break", |sender| sender.get(Measure::Errors) == 1);
    sender.until("it to connect", |sender| sender.get(Measure::Reconnects) == 1);
    let (mut peer, _) = listener.accept().unwrap();
    let reader = std::thread::spawn(move || {
        let mut second = vec![0; 2_000_000];
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        peer.read_exact(&mut second).unwrap();
        second
    });
    sender.until_all_arrived();
    assert_eq!(numbers(&reader.join().unwrap()), (0..20_000).collect::<Vec<_>>());
    assert!(sender.get(Measure::Repeated) > 10);
    assert_eq!(sender.get(Measure::Records), 20_000);
}

/// What it says is ignored, and keeps nobody.
#[test]
fn a_peer_that_never_stops_talking_gets_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sender = Sender::new(unix(&path), 1 << 20);
    sender.send(100);
    let (mut peer, _) = listener.accept().unwrap();
    let mut talker = peer.try_clone().unwrap();
    let talk = std::thread::spawn(move || while talker.write_all(&[b'!'; 64 << 10]).is_ok() {});
    let mut first = vec![0; 10_000];
    peer.read_exact(&mut first).unwrap();
    for _ in 0..50 {
        let begin = Instant::now();
        sender.output.flush();
        assert!(begin.elapsed() < Duration::from_secs(1), "after {:?}", begin.elapsed());
    }
    sender.until_all_arrived();
    peer.shutdown(Shutdown::Both).unwrap();
    talk.join().unwrap();
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
}

#[test]
fn a_full_buffer_loses_exactly_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let mut sender = Sender::new(unix(&path), 4096);
    sender.send(1000);
    assert_eq!(sender.get(Measure::Lost), 1000 - 40, "40 of 100 bytes fit");
    let listener = UnixListener::bind(&path).unwrap();
    sender.until("it to connect", |sender| sender.get(Measure::Reconnects) == 1);
    let (mut peer, _) = listener.accept().unwrap();
    let mut text = vec![0; 4000];
    sender.output.flush();
    peer.read_exact(&mut text).unwrap();
    sender.until_all_arrived();
    assert_eq!(numbers(&text), (0..40).collect::<Vec<_>>());
    assert_eq!(sender.get(Measure::Records), 40);
    // There is room again.
    sender.send(1);
    let mut text = vec![0; 100];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(numbers(&text), [1000]);
}

#[test]
fn nobody_there_at_exit_is_counted() {
    let mut sender = Sender::new(unix(Path::new("/nonexistent/peer")), 1 << 20);
    sender.send(7);
    sender.output.close();
    assert_eq!(sender.get(Measure::Lost), 7);
    assert_eq!(sender.output.retry_in(), None);
}

#[test]
fn datagrams_wait_for_their_listener() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let mut sender = Sender::new(Address::UnixDatagram(path.clone()), 1 << 20);
    sender.send(3);
    let receive = |listener: &UnixDatagram, sender: &mut Sender, expected: std::ops::Range<u32>| {
        listener.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let mut got = Vec::new();
        sender.until("datagrams", |_| {
            let mut buffer = [0; 200];
            while let Ok(length) = listener.recv(&mut buffer) {
                got.extend(numbers(&buffer[..length]));
            }
            got.len() == expected.len()
        });
        assert_eq!(got, expected.collect::<Vec<_>>());
    };
    let listener = UnixDatagram::bind(&path).unwrap();
    receive(&listener, &mut sender, 0..3);
    // More than its queue holds, then it goes away with the queue read.
    sender.send(500);
    receive(&listener, &mut sender, 3..503);
    drop(listener);
    sender.send(10);
    std::fs::remove_file(&path).unwrap();
    let listener = UnixDatagram::bind(&path).unwrap();
    receive(&listener, &mut sender, 503..513);
    assert_eq!(sender.get(Measure::Reconnects), 2);
    assert_eq!(sender.get(Measure::Records), 513);
    assert_eq!(sender.get(Measure::Lost), 0);
}

#[test]
fn a_refused_datagram_is_sent_again() {
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut sender = Sender::new(Address::Udp("127.0.0.1".to_owned(), address.port()), 1 << 20);
    drop(listener);
    sender.send(5);
    sender.until("a refusal", |sender| sender.get(Measure::Errors) > 0);
    let listener = UdpSocket::bind(address).unwrap();
    sender.until_all_arrived();
    listener.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 200];
    while got.len() < 5 {
        let length = listener.recv(&mut buffer).unwrap();
        got.extend(numbers(&buffer[..length]));
    }
    assert_eq!(got, [0, 1, 2, 3, 4]);
    assert_eq!(sender.get(Measure::Reconnects), 1);
}

#[test]
fn tcp_is_confirmed_and_connected_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut sender = Sender::new(Address::Tcp("127.0.0.1".to_owned(), address.port()), 8 << 20);
    let read = |peer: &mut TcpStream, bytes: usize| {
        peer.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut text = vec![0; bytes];
        peer.read_exact(&mut text).unwrap();
        numbers(&text)
    };
    let (mut peer, _) = listener.accept().unwrap();
    sender.send(100);
    sender.until_all_arrived();
    assert_eq!(read(&mut peer, 10_000), (0..100).collect::<Vec<_>>());
    drop((peer, listener));
    sender.send(100);
    sender.until("the break", |sender| sender.get(Measure::Errors) > 1);
    let listener = TcpListener::bind(address).unwrap();
    sender.until("it to connect", |sender| sender.get(Measure::Reconnects) == 1);
    let (mut peer, _) = listener.accept().unwrap();
    sender.until_all_arrived();
    assert_eq!(read(&mut peer, 10_000), (100..200).collect::<Vec<_>>());
    assert_eq!(sender.get(Measure::Lost), 0);
    assert_eq!(sender.get(Measure::Records), 200);
}

/// A process of this host may end before it has read what the kernel took for it.
#[test]
fn what_a_stream_of_this_host_has_not_read_at_exit_is_unsure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut sender = Sender::new(Address::UnixStream(path), 64 << 20);
    sender.send(50_000);
    let (peer, _) = listener.accept().unwrap();
    sender.until("its queue to be full", |sender| sender.output.full);
    let begin = Instant::now();
    sender.output.close();
    assert!(begin.elapsed() < 2 * GRACE, "{:?}", begin.elapsed());
    let [records, unsure, lost] =
        [Measure::Records, Measure::Unsure, Measure::Lost].map(|measure| sender.get(measure));
    assert!(records == 0 && unsure > 0 && lost > 0, "{records}, {unsure}, {lost}");
    assert_eq!(unsure + lost, 50_000);
    drop(peer);
}

/// What the peer's host has not confirmed may be lost with it.
#[test]
fn what_is_not_confirmed_at_exit_is_unsure() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp("127.0.0.1".to_owned(), listener.local_addr().unwrap().port());
    let mut sender = Sender::new(address, 64 << 20);
    // More than all buffers between them hold.
    sender.send(400_000);
    sender.until("the buffers to be full", |sender| sender.output.full);
    let (mut peer, _) = listener.accept().unwrap();
    sender.output.close();
    let [records, unsure, lost] =
        [Measure::Records, Measure::Unsure, Measure::Lost].map(|measure| sender.get(measure));
    assert!(records > 0 && unsure > 0 && lost > 0, "{records}, {unsure}, {lost}");
    assert_eq!(records + unsure + lost, 400_000);
    drop(sender);
    let mut text = Vec::new();
    peer.read_to_end(&mut text).unwrap();
    let read = numbers(&text).len() as u64;
    assert!((records..=records + unsure).contains(&read), "{read}: {records} and {unsure}");
}
