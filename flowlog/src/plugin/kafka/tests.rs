//! Against the mock of brokers that librdkafka brings.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::plugin::record_id::RecordId;

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
