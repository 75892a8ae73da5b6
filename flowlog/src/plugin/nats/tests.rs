use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;
use crate::plugin::record_id::RecordId;

/// What a server says first.
const INFO: &str = r#"INFO {"server_id":"S","server_name":"s","version":"2.9.10","proto":1,"host":"0.0.0.0","port":4222,"headers":true,"max_payload":1048576,"jetstream":true,"client_id":1}"#;

/// A server that says `greeting`, then answers each line by `answer`, and ends after an empty one.
fn server(
    greeting: &str,
    answer: impl Fn(&str) -> Option<String> + Send + 'static,
) -> (ServerAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("nats://{}", listener.local_addr().unwrap()).parse().unwrap();
    let greeting = greeting.to_owned();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(greeting.as_bytes()).unwrap();
        let mut heard = Vec::new();
        for line in BufReader::new(stream.try_clone().unwrap()).lines() {
            let Ok(line) = line else { break };
            if let Some(answer) = answer(&line) {
                if answer.is_empty() {
                    break;
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
            heard.push(line);
        }
        heard
    });
    (address, thread)
}

fn target(server: ServerAddr) -> Target {
    let far = Far {
        servers: vec![server],
        tls: None,
        auth: Auth::Password("flowlog".to_owned(), "secret".to_owned()),
        subject: "flowlog.{host}".to_owned(),
        stream: Some("FLOWS".to_owned()),
        create_stream: false,
    };
    Target { subject: "flowlog.fw1".to_owned(), far }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn refused(server: ServerAddr) -> Trouble {
    run(Nats::connect(&target(server))).err().unwrap()
}

fn greets(line: &str) -> Option<String> {
    (line == "PING").then(|| "PONG\r\n".to_owned())
}

#[test]
fn a_server_that_is_none_is_told() {
    let (address, _) = server("SSH-2.0-OpenSSH_9.2p1\r\n", |_| None);
    let trouble = refused(address);
    assert!(trouble.needs_a_person());
    assert!(trouble.to_string().contains("what listens there is no NATS"), "{trouble}");
    let (address, _) = server(&format!("{INFO}\r\n").replace("\"jetstream\":true,", ""), greets);
    let trouble = refused(address);
    assert!(trouble.to_string().contains("has no JetStream"), "{trouble}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = refused(format!("nats://{nobody}").parse().unwrap());
    assert!(!trouble.needs_a_person());
    assert!(trouble.to_string().contains("cannot be reached: "), "{trouble}");
}

#[test]
fn who_flowlog_is_may_be_refused() {
    let (address, heard) = server(&format!("{INFO}\r\n"), |line| {
        (line == "PING").then(|| "-ERR 'Authorization Violation'\r\n".to_owned())
    });
    let trouble = refused(address);
    assert!(trouble.needs_a_person());
    assert!(trouble.to_string().ends_with("in: see `user=` and `pass=`"), "{trouble}");
    let heard = heard.join().unwrap().concat();
    assert!(heard.contains(r#""user":"flowlog","pass":"secret""#), "{heard}");
}

#[test]
fn a_file_that_says_who_flowlog_is_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    let sign = |auth: Auth| auth.sign(ConnectOptions::new()).map(drop);
    let missing = sign(Auth::Nkey(file.clone())).unwrap_err().to_string();
    assert!(missing.starts_with("`nkey=") && missing.contains("put it there"), "{missing}");
    std::fs::write(&file, "nothing\n").unwrap();
    let none = sign(Auth::Nkey(file.clone())).unwrap_err().to_string();
    assert!(none.contains("no line with the seed of a user"), "{none}");
    let none = sign(Auth::Credentials(file.clone())).unwrap_err().to_string();
    assert!(none.contains("has no credentials"), "{none}");
    std::fs::write(&file, "# user\nSUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n")
        .unwrap();
    sign(Auth::Nkey(file)).unwrap();
}

/// Each message has the id of its record; a batch is delivered when all are
/// acknowledged, and one that the stream had is known.
#[test]
fn a_message_has_the_id_of_its_record() {
    let (address, heard) = server(&format!("{INFO}\r\n"), |line| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["PING"] => Some("PONG\r\n".to_owned()),
            ["HPUB", "flowlog.fw1", reply, ..] => {
                let known = r#"{"stream":"FLOWS","seq":1,"duplicate":true}"#;
                let length = known.len();
                Some(format!("MSG {reply} 0 {length}\r\n{known}\r\n"))
            }
            _ => None,
        }
    });
    let records =
        [1, 2].map(|time| Record { id: RecordId { time, hash: 7 }, flow: 9, body: b"{}" });
    let delivered = run(async {
        let mut nats = Nats::connect(&target(address)).await.unwrap();
        nats.deliver(&Batch::of("json 1", &records)).await.unwrap()
    });
    assert_eq!((delivered.records, delivered.known, delivered.refused), (2, 2, 0));
    let heard = heard.join().unwrap();
    let ids: Vec<_> = heard.iter().filter(|line| line.starts_with("Nats-Msg-Id: ")).collect();
    let expected = records.map(|record| format!("Nats-Msg-Id: {}", record.id));
    assert_eq!(ids, expected.iter().collect::<Vec<_>>());
    assert_eq!(heard.iter().filter(|line| *line == "Nats-Expected-Stream: FLOWS").count(), 2);
    // HPUB tells how long headers are, and with the body.
    let told = heard.iter().find(|line| line.starts_with("HPUB")).unwrap();
    let total: u64 = told.rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(delivered.bytes, 2 * (total + "flowlog.fw1".len() as u64));
}

#[test]
fn a_connection_that_breaks_is_told_at_once() {
    let (address, _) = server(&format!("{INFO}\r\n"), |line| {
        if line.starts_with("HPUB") { Some(String::new()) } else { greets(line) }
    });
    let record = Record { id: RecordId { time: 1, hash: 7 }, flow: 9, body: b"{}" };
    let trouble = run(async {
        let mut nats = Nats::connect(&target(address)).await.unwrap();
        nats.deliver(&Batch::of("json 1", &[record])).await.unwrap_err()
    });
    assert!(trouble.to_string().ends_with(" broke"), "{trouble}");
}
