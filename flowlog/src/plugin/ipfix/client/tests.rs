//! The client against sockets of this host: what arrives, and when it counts as
//! arrived.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::plugin::ipfix::Refresh;
use crate::plugin::ipfix::tests::{Collector as Understood, ended, spooled, tcp};
use crate::plugin::ship::{Shipping, tls};

fn settings(at: SocketAddr, protocol: Protocol) -> Settings {
    let refresh = Refresh { every: Duration::from_secs(60), messages: 100 };
    let refresh = (protocol == Protocol::Udp).then_some(refresh);
    Settings {
        shipping: Shipping { id: "ipfix1".to_owned(), buffer_max: 1 << 20 },
        host: at.ip().to_string(),
        port: at.port(),
        protocol,
        domain: 7,
        mtu: 1400,
        refresh,
        nat_events: true,
    }
}

/// The ends of so many connections.
fn batch(encoding: &str, flows: u16) -> Batch {
    let bodies: Vec<Vec<u8>> = (1..=flows)
        .map(|port| {
            let mut body = Vec::new();
            ended(&tcp(port), None).write(&mut body);
            body
        })
        .collect();
    Batch::of(encoding, &bodies.iter().map(|body| spooled(body)).collect::<Vec<_>>())
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(future)
}

fn ports(understood: &Understood) -> Vec<u16> {
    let port = |fields: &std::collections::BTreeMap<String, String>| {
        fields["IANA(SourceTransportPort)"].parse().unwrap()
    };
    understood.records.iter().map(port).collect()
}

/// The messages of a connection, until it ends.
fn read(mut stream: impl Read) -> Understood {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut understood = Understood::default();
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        understood.take(&rest[..length]);
        rest = &rest[length..];
    }
    understood
}

#[test]
fn over_udp_what_nobody_refuses_has_arrived() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = settings(socket.local_addr().unwrap(), Protocol::Udp);
    let (delivered, settled) = run(async {
        let mut client = Collector::connect(&settings).await.unwrap();
        assert_eq!(client.due(), None);
        let delivered = client.deliver(&batch(ENCODING, 40)).await.unwrap();
        assert!(client.due().is_some());
        let settled = client.tick().await.unwrap();
        assert_eq!(client.due(), None);
        (delivered, settled)
    });
    assert_eq!(settled, Settled::All);
    let mut understood = Understood::default();
    let (mut sent, mut datagram) = (0, [0; 2000]);
    while understood.records.len() < 40 {
        let length = socket.recv(&mut datagram).unwrap();
        assert!(length <= 1400);
        sent += length as u64;
        understood.take(&datagram[..length]);
    }
    assert_eq!(ports(&understood), (1..=40).collect::<Vec<_>>());
    let expected = Delivered { records: 40, bytes: sent, held: true, ..Delivered::default() };
    assert_eq!(delivered, expected);
}

/// One datagram only, whose refusal comes behind it; and several.
#[test]
fn over_udp_a_refusal_is_noticed() {
    for flows in [1, 200] {
        let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let settings = settings(nobody, Protocol::Udp);
        let trouble = run(async {
            let mut client = Collector::connect(&settings).await.unwrap();
            client.deliver(&batch(ENCODING, flows)).await?;
            client.tick().await
        });
        let trouble = trouble.unwrap_err();
        assert!(!trouble.needs_a_person());
        let expected = format!(
            "the collector udp://{nobody} does not take records: Connection refused (os error 111); \
             start it, or correct `host=` and `port=`"
        );
        assert_eq!(trouble.to_string(), expected);
    }
}

#[test]
fn over_tcp_each_connection_has_its_templates_and_numbers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(listener.local_addr().unwrap(), Protocol::Tcp);
    for _ in 0..2 {
        let mut other = None;
        run(async {
            let mut client = Collector::connect(&settings).await.unwrap();
            other = Some(listener.accept().unwrap().0);
            for _ in 0..2 {
                client.deliver(&batch(ENCODING, 500)).await.unwrap();
            }
            assert_eq!(client.close().await, Ok(Settled::All));
            assert_eq!(client.close().await, Ok(Settled::No), "nothing is open any more");
        });
        let understood = read(other.unwrap());
        let twice: Vec<_> = (1..=500).chain(1..=500).collect();
        assert_eq!(ports(&understood), twice);
        assert_eq!(understood.templates.len(), 1);
        let mut records = 0;
        for (sequence, count) in understood.sequence {
            assert_eq!(sequence, records);
            records += count;
        }
    }
}

#[test]
fn over_tcp_what_a_collector_leaves_unread_has_not_arrived() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = settings(listener.local_addr().unwrap(), Protocol::Tcp);
    let collector = settings.collector();
    let trouble = run(async {
        let mut client = Collector::connect(&settings).await.unwrap();
        let other = listener.accept().unwrap().0;
        client.deliver(&batch(ENCODING, 500)).await.unwrap();
        drop(other);
        client.tick().await.unwrap_err()
    });
    let trouble = trouble.to_string();
    let begin = format!("the collector {collector} does not take records: ");
    assert!(trouble.starts_with(&begin), "{trouble}");
    assert!(trouble.ends_with("; see to the collector"), "{trouble}");
}

#[test]
fn a_collector_that_is_away_is_told_with_the_remedy() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settings = settings(nobody, Protocol::Tcp);
    let trouble = run(Collector::connect(&settings)).err().unwrap().to_string();
    let expected = format!(
        "the collector tcp://{nobody} cannot be reached: Connection refused (os error 111); start \
         it, or correct `host=` and `port=`"
    );
    assert_eq!(trouble, expected);
}

#[test]
fn records_of_another_version_are_lost_by_name() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let settings = settings(socket.local_addr().unwrap(), Protocol::Udp);
    let (delivered, before, refused) = run(async {
        let mut client = Collector::connect(&settings).await.unwrap();
        let delivered = client.deliver(&batch("ipfix 0", 3)).await.unwrap();
        let before = client.take_refused();
        assert_eq!(client.tick().await, Ok(Settled::All));
        (delivered, before, client.take_refused())
    });
    assert_eq!((delivered.records, delivered.refused, delivered.bytes), (0, 0, 0));
    assert_eq!(before, Refused::default(), "they may come again");
    let why = Some("another version encoded them as ipfix 0".to_owned());
    assert_eq!(refused, Refused { records: 3, why });
}

/// A server's certificate for this host, signed by itself, and the file that a
/// client is to trust.
fn server(directory: &Path) -> (Arc<ServerConfig>, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = directory.join("ca.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (Arc::new(config), file)
}

#[test]
fn over_tls_records_arrive_at_whom_it_trusts() {
    let directory = tempfile::tempdir().unwrap();
    let (config, ca) = server(directory.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let other = std::thread::spawn(move || {
        let stream = listener.accept().unwrap().0;
        let session = ServerConnection::new(config.clone()).unwrap();
        let understood = read(StreamOwned::new(session, stream));
        // The next client trusts others.
        let stream = listener.accept().unwrap().0;
        let session = ServerConnection::new(config).unwrap();
        let refused = StreamOwned::new(session, stream).read(&mut [0]).is_err();
        (understood, refused)
    });
    let trusting = |ca| settings(at, Protocol::Tls(tls::Settings { ca: Some(ca), identity: None }));
    let delivered = run(async {
        let mut client = Collector::connect(&trusting(ca)).await.unwrap();
        let delivered = client.deliver(&batch(ENCODING, 500)).await.unwrap();
        assert_eq!(client.tick().await, Ok(Settled::All), "it says tickets, which is no harm");
        client.deliver(&batch(ENCODING, 3)).await.unwrap();
        assert_eq!(client.close().await, Ok(Settled::All));
        delivered
    });
    assert_eq!(delivered.records, 500);
    std::fs::create_dir(directory.path().join("others")).unwrap();
    let (_, stranger) = server(&directory.path().join("others"));
    let trouble = run(Collector::connect(&trusting(stranger))).err().unwrap();
    assert!(trouble.needs_a_person());
    let said = trouble.to_string();
    assert!(
        said.starts_with(&format!("no TLS with tcp://{at}: invalid peer certificate")),
        "{said}"
    );
    let (understood, refused) = other.join().unwrap();
    assert!(refused);
    let expected: Vec<_> = (1..=500).chain(1..=3).collect();
    assert_eq!(ports(&understood), expected);
}
