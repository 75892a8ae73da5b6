//! Against the mock of brokers that librdkafka brings.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::plugin::record_id::RecordId;
#[cfg(feature = "kafka-tls")]
use crate::plugin::ship::tls::{Identity, Settings as Tls};

type Mock = MockCluster<'static, DefaultProducerContext>;

fn mock() -> (Mock, Far) {
    let mock = MockCluster::new(1).unwrap();
    mock.create_topic("flows", 2, 1).unwrap();
    let far = far(&mock.bootstrap_servers());
    (mock, far)
}

fn far(brokers: &str) -> Far {
    Far {
        brokers: brokers.to_owned(),
        topic: "flows".to_owned(),
        compression: "zstd",
        tls: None,
        sasl: None,
        properties: Vec::new(),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn batch(records: u64) -> Batch {
    let record = |time| Record { id: RecordId { time, hash: 7 }, flow: time % 5, body: b"{}" };
    Batch::of("json 1", &(0..records).map(record).collect::<Vec<_>>())
}

fn producer(far: &Far) -> Producer {
    Producer::new(&far.config()).unwrap()
}

fn connect(far: &Far) -> Result<Kafka, Trouble> {
    run(Kafka::connect(far))
}

#[test]
fn a_batch_is_delivered_when_the_brokers_have_all_of_it() {
    let (_mock, far) = mock();
    let delivered = run(async {
        let mut kafka = Kafka::connect(&far).await?;
        kafka.deliver(&batch(10)).await?;
        kafka.deliver(&batch(1000)).await
    });
    let delivered = delivered.unwrap();
    assert_eq!((delivered.records, delivered.refused), (1000, 0));
    assert_eq!(delivered.bytes, 1000 * (16 + 6 + 32 + 2));
}

#[test]
fn a_queue_that_is_too_small_is_waited_for() {
    let (_mock, mut far) = mock();
    far.properties.push(("queue.buffering.max.messages".to_owned(), "10".to_owned()));
    let delivered = run(async { Kafka::connect(&far).await?.deliver(&batch(100)).await });
    assert_eq!(delivered.unwrap().records, 100);
}

#[test]
fn brokers_that_go_away_and_come_back_are_noticed() {
    let (mock, far) = mock();
    run(async {
        let mut kafka = Kafka::connect(&far).await.unwrap();
        kafka.deliver(&batch(10)).await.unwrap();
        mock.broker_down(-1).unwrap();
        let trouble = kafka.deliver(&batch(10)).await.unwrap_err();
        assert!(!trouble.needs_a_person());
        assert!(trouble.to_string().contains("cannot be reached: "), "{trouble}");
        mock.broker_up(-1).unwrap();
        let mut kafka = Kafka::connect(&far).await.unwrap();
        assert_eq!(kafka.deliver(&batch(10)).await.unwrap().records, 10);
    });
}

/// The first address of a name may be one where nobody listens.
#[test]
fn a_name_may_have_several_addresses() {
    let (_mock, far) = mock();
    let far = Far { brokers: far.brokers.replace("127.0.0.1", "localhost"), ..far };
    let delivered = run(async { Kafka::connect(&far).await?.deliver(&batch(10)).await });
    assert_eq!(delivered.unwrap().records, 10);
}

#[test]
fn what_the_brokers_refuse_is_told_with_a_remedy() {
    let (mock, far) = mock();
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    mock.request_errors(RDKafkaApiKey::Produce, &[error]);
    let trouble = run(async { Kafka::connect(&far).await?.deliver(&batch(10)).await }).unwrap_err();
    assert!(trouble.needs_a_person());
    assert!(trouble.to_string().contains("allow its user Write and Describe"), "{trouble}");
    mock.topic_error("flows", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let trouble = connect(&far).err().unwrap();
    assert!(trouble.needs_a_person());
    assert!(trouble.to_string().contains("has no topic flows: make it"), "{trouble}");
}

#[test]
fn who_is_no_broker_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Write::write_all(&mut stream, b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
            // Until the other side has read it and hangs up.
            std::io::copy(&mut stream, &mut std::io::sink()).ok();
        }
    });
    let trouble = connect(&far(&address)).err().unwrap();
    assert!(trouble.needs_a_person(), "{trouble}");
    assert!(trouble.to_string().contains("what listens there is no Kafka"), "{trouble}");
}

/// As servers of TLS do, which may send an alert before, too short for an answer of Kafka.
#[test]
fn who_hangs_up_at_once_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::io::Read::read(&mut stream, &mut [0; 512]).unwrap();
            std::io::Write::write_all(&mut stream, &[21, 3, 3, 0, 2, 2, 50]).unwrap();
        }
    });
    let trouble = connect(&far(&address)).err().unwrap();
    assert!(!trouble.needs_a_person(), "{trouble}");
    let told = trouble.to_string();
    let remedy = if HAS_TLS {
        "if they speak TLS there, set tls=1"
    } else {
        "build it with `--features kafka-tls`"
    };
    assert!(told.contains("cannot be reached: ") && told.contains(remedy), "{trouble}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = connect(&far(&nobody.to_string())).err().unwrap();
    assert!(!trouble.needs_a_person(), "{trouble}");
    assert!(trouble.to_string().contains("Connection refused"), "{trouble}");
}

#[test]
fn properties_are_checked_before_anything_is_sent() {
    let mut far = far("127.0.0.1:1");
    far.check().unwrap();
    for (name, value) in [("no.such", "1"), ("linger.ms", "soon"), ("compression.codec", "rar")] {
        far.properties = vec![(name.to_owned(), value.to_owned())];
        let told = far.check().unwrap_err().to_string();
        assert!(told.contains(&format!("does not take `{name}={value}`: ")), "{told}");
    }
}

#[test]
#[cfg(not(feature = "kafka-tls"))]
fn plain_passwords_need_no_openssl_and_tls_does() {
    let mut far = far("127.0.0.1:1");
    let (user, password) = ("flowlog".to_owned(), "secret".to_owned());
    far.sasl = Some(Sasl { user, password, mechanism: "PLAIN" });
    drop(producer(&far));
    far.properties = vec![("security.protocol".to_owned(), "sasl_ssl".to_owned())];
    let told = far.check().unwrap_err().to_string();
    assert!(told.contains("build it with `--features kafka-tls`"), "{told}");
    far.properties = vec![("ssl.key.password".to_owned(), "hidden".to_owned())];
    let told = far.check().unwrap_err().to_string();
    assert!(told.contains("`ssl.key.password=…`") && !told.contains("hidden"), "{told}");
}

/// Both when flowlog starts, and when a producer begins anew.
#[test]
#[cfg(feature = "kafka-tls")]
fn files_of_tls_are_looked_at_before_anything_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(path(&format!("{name}.pem")), made.cert.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    };
    write("a");
    write("b");
    let identity = |key| Some(Identity { certificate: path("a.pem"), key: path(key) });
    let mut far = far("127.0.0.1:1");
    far.tls = Some(Tls { ca: Some(path("b.pem")), identity: identity("a.key") });
    far.check().unwrap();
    // OpenSSL takes them as well.
    drop(producer(&far));
    for (ca, key, told) in [
        ("missing.pem", "a.key", "missing.pem` cannot be read: No such file"),
        ("a.key", "a.key", "has no certificate in PEM"),
        ("a.pem", "b.key", "is not the key of the certificate in"),
    ] {
        far.tls = Some(Tls { ca: Some(path(ca)), identity: identity(key) });
        for trouble in [far.check().unwrap_err(), connect(&far).err().unwrap()] {
            assert!(trouble.needs_a_person() && trouble.to_string().contains(told), "{trouble}");
        }
    }
}

#[test]
#[cfg(feature = "kafka-tls")]
fn librdkafka_has_every_mechanism() {
    let mut far = far("127.0.0.1:1");
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let (user, password) = ("flowlog".to_owned(), "secret".to_owned());
        far.sasl = Some(Sasl { user, password, mechanism });
        drop(producer(&far));
    }
}

/// In the words of OpenSSL 3.6 and librdkafka 2.12, as servers had them say.
#[test]
fn what_is_wrong_with_tls_is_told_with_a_remedy() {
    use RDKafkaErrorCode::{BadMessage, BrokerTransportFailure as Transport, SSL};
    const WANTED: &str = "it wants a certificate of flowlog that it trusts";
    let remedies = Remedies::of(&far("kafka1:9093"));
    for (code, why, person, told) in [
        (
            BadMessage,
            "kafka1:9093/bootstrap: Receive failed: Invalid response size 352518912 \
             (0..100000000): increase receive.message.max.bytes (after 1ms in state \
             APIVERSION_QUERY)",
            true,
            "Kafka at kafka1:9093 speaks TLS: ",
        ),
        (BadMessage, "Invalid response size 1397966893 (0..100000000)", true, "is no Kafka"),
        (
            SSL,
            "SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker \
             certificate could not be verified",
            true,
            "name its file with `tls_ca=`",
        ),
        (SSL, "error:0A00010B:SSL routines::wrong version number", true, "or set tls=0"),
        (SSL, "error:0A00042E:SSL routines::tlsv1 alert protocol version", true, "TLS 1.2 and 1.3"),
        (SSL, "error:0A000410:SSL routines::ssl/tls alert handshake failure", true, WANTED),
        (
            Transport,
            "ssl://kafka1:9093/bootstrap: Receive failed: error:0A00045C:SSL routines::tlsv13 \
             alert certificate required: SSL alert number 116 (after 0ms in state APIVERSION_QUERY)",
            true,
            WANTED,
        ),
        (SSL, "SSL handshake failed: something new", true, "see what its own log says"),
        (
            Transport,
            "ssl://kafka1:9093/bootstrap: SSL handshake failed: Disconnected: connection reset by \
             peer: connecting to a PLAINTEXT broker listener? (after 0ms in state SSL_HANDSHAKE)",
            false,
            "name their port for TLS, or set tls=0",
        ),
        (
            Transport,
            "ssl://kafka1:9093/bootstrap: Disconnected: SSL connection closed by peer (after 0ms \
             in state APIVERSION_QUERY)",
            false,
            "if they want a certificate of flowlog, name one",
        ),
        (
            Transport,
            "ssl://kafka1:9093/1: Disconnected: SSL connection closed by peer (after 3ms in state \
             UP)",
            false,
            "if they want a user, name one with `user=`",
        ),
        (
            Transport,
            "sasl_ssl://kafka1:9093/1: Disconnected: SSL connection closed by peer (after 3ms in \
             state UP)",
            false,
            "or name them with `brokers=`",
        ),
    ] {
        let trouble = remedies.code(code, Some(why.to_owned()));
        assert_eq!(trouble.needs_a_person(), person, "{trouble}");
        assert!(trouble.to_string().contains(told), "{trouble}");
    }
}
