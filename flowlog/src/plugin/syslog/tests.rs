use std::io::Read as _;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::*;
use crate::stats::Measure;

const AT: u64 = 1_795_301_190_123_456_789;
const LINE: &[u8] = b"[NEW] ORIG: \n";

fn open(address: Address) -> (Syslog, SinkStats) {
    let output = OutputSettings { destination: Destination::Socket(address), buffer_max: 1 << 20 };
    let settings = Settings { output, priority: 13, ident: "flow log".to_owned() };
    let stats = SinkStats::default();
    let mut sink = Syslog::open(&settings, "vm.example.org", stats.clone()).unwrap();
    sink.output_mut().begin();
    if let Form::Local { style, .. } = &mut sink.form {
        style.zone = TimeZone::UTC;
    }
    (sink, stats)
}

#[test]
fn local_messages_are_those_of_libc() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let listener = UnixDatagram::bind(&path).unwrap();
    let (mut sink, stats) = open(Address::UnixDatagram(path));
    sink.push(AT, LINE);
    sink.output_mut().flush();
    let mut buffer = [0; 256];
    let length = listener.recv(&mut buffer).unwrap();
    let pid = std::process::id();
    assert_eq!(
        String::from_utf8_lossy(&buffer[..length]),
        format!("<13>Nov 21 22:46:30 flow log[{pid}]: [NEW] ORIG: \n")
    );
    assert_eq!(stats.get(Measure::Records), 1);
}

fn rfc5424() -> String {
    let pid = std::process::id();
    format!("<13>1 2026-11-21T22:46:30.123456Z vm.example.org flowlog {pid} - - [NEW] ORIG: ")
}

#[test]
fn datagrams_are_rfc_5424() {
    let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut sink, _) = open(Address::Udp("127.0.0.1".to_owned(), port));
    sink.push(AT, LINE);
    sink.output_mut().flush();
    let mut buffer = [0; 256];
    let length = listener.recv(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer[..length]), rfc5424());
}

#[test]
fn over_tcp_each_message_has_its_length_before_it() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut sink, stats) = open(Address::Tcp("127.0.0.1".to_owned(), port));
    let (mut peer, _) = listener.accept().unwrap();
    sink.push(AT, LINE);
    sink.push(AT, LINE);
    let start = Instant::now();
    while stats.get(Measure::Records) < 2 && start.elapsed() < Duration::from_secs(10) {
        sink.output_mut().flush();
    }
    sink.output_mut().close();
    drop(sink);
    let mut text = String::new();
    peer.read_to_string(&mut text).unwrap();
    let message = rfc5424();
    let counted = format!("{} {message}", message.len());
    assert_eq!(text, format!("{counted}{counted}"));
}
