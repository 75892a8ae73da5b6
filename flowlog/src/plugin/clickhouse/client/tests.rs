use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::event::{Kinds, Lost};
use crate::plugin::clickhouse::Url;
use crate::plugin::record_id::RecordId;
use crate::plugin::ship::{Record as Spooled, Shipping};
use crate::plugin::{Body, Item, compact};

const HEADERS: &str = "X-ClickHouse-Server-Display-Name: vm\r\n";

/// What a server does with its connections, one after the other: what it sends at once,
/// and what it answers to each request on it, then it closes.
type Script = Vec<(&'static str, Vec<String>)>;

/// Plays a server; what it was asked comes out of the channel.
fn server(script: Script) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for (greeting, answers) in script {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(greeting.as_bytes()).unwrap();
            for answer in answers {
                let Some(request) = request(&mut stream) else { break };
                let _ = sender.send(request);
                stream.write_all(answer.as_bytes()).unwrap();
            }
        }
    });
    (address, requests)
}

/// Head and body of a request.
fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, _)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap_or("0").parse().unwrap();
        if bytes.len() >= head.len() + 4 + length {
            return Some(text);
        }
    }
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The table as it should be.
fn described() -> String {
    let lines = COLUMNS.iter().map(|(name, kind)| format!("{name}\t{kind}\t\t\n"));
    answer("200 OK", HEADERS, &lines.collect::<String>())
}

fn ok() -> String {
    answer("200 OK", HEADERS, "")
}

fn settings(address: SocketAddr) -> Settings {
    Settings {
        shipping: Shipping { id: "ch1".to_owned(), buffer_max: 1 << 20 },
        url: Url {
            host: "127.0.0.1".to_owned(),
            port: address.port(),
            path: "/".to_owned(),
            tls: None,
        },
        database: "flowlog".to_owned(),
        table: "fl`ow".to_owned(),
        user: "me".to_owned(),
        password: "secret".to_owned(),
        hostname: Some("gate".to_owned()),
        compressed: false,
        settings: "async_insert=1".to_owned(),
        batch: 1 << 20,
        linger: Duration::ZERO,
    }
}

fn batch(encoding: &str) -> Batch {
    let lost = Lost::noticed("ebpf", 7, 1);
    let item = Item { tag: Kinds::empty(), at: 1, body: Body::Lost(lost) };
    let mut body = Vec::new();
    compact::Encoder::new().encode(&item, None, &mut body);
    let id = RecordId { time: 1, hash: 2 };
    let damaged = Spooled { id, flow: 0, body: b"\xff" };
    Batch::of(encoding, &[Spooled { id, flow: 0, body: &body }, damaged])
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(future)
}

fn connect(script: Script) -> Result<(), Trouble> {
    let (address, _requests) = server(script);
    block(Server::connect(&settings(address))).map(drop)
}

#[test]
fn records_are_inserted_with_what_the_server_wants() {
    let (address, requests) = server(vec![("", vec![described(), ok()])]);
    let delivered = block(async {
        let mut client = Server::connect(&settings(address)).await?;
        client.deliver(&batch(ENCODING)).await
    });
    let delivered = delivered.unwrap();
    assert_eq!((delivered.records, delivered.refused), (1, 1));
    let describe = requests.recv().unwrap();
    assert!(describe.contains("x-clickhouse-user: me\r\nx-clickhouse-key: secret\r\n"));
    assert!(describe.ends_with("DESCRIBE TABLE `flowlog`.`fl\\`ow` FORMAT TabSeparated"));
    let insert = requests.recv().unwrap();
    let line = insert.lines().next().unwrap();
    assert!(
        line.starts_with("POST /?wait_end_of_query=1&query=INSERT%20INTO%20%60flowlog%60.%60fl")
    );
    assert!(line.ends_with("events%29%20FORMAT%20RowBinary&async_insert=1 HTTP/1.1"), "{line}");
    assert!(insert.contains("gate") && insert.contains("ebpf"));
}

/// As ClickHouse does after 3 or 10 s.
#[test]
fn a_connection_that_was_closed_meanwhile_is_made_anew() {
    let script = vec![("", vec![described(), ok()]), ("", vec![ok()])];
    let (address, requests) = server(script);
    block(async {
        let mut client = Server::connect(&settings(address)).await.unwrap();
        client.deliver(&batch(ENCODING)).await.unwrap();
        client.deliver(&batch(ENCODING)).await.unwrap();
    });
    assert_eq!(requests.iter().take(3).count(), 3);
}

#[test]
fn an_insert_that_fails_is_told() {
    let exception = "Code: 243, e.displayText() = DB::Exception: Cannot reserve 1.00 MiB, not \
                     enough space, e.what() = DB::Exception";
    // Also where the status has been sent before.
    for status in ["500 Internal Server Error", "200 OK"] {
        let (address, _requests) =
            server(vec![("", vec![described(), answer(status, HEADERS, exception)])]);
        let result = block(async {
            let mut client = Server::connect(&settings(address)).await?;
            client.deliver(&batch(ENCODING)).await
        });
        let trouble = result.unwrap_err();
        assert!(!trouble.needs_a_person());
        let said = trouble.to_string();
        assert!(
            said.contains("(code 243): Cannot reserve") && said.contains("make room"),
            "{said}"
        );
    }
}

#[test]
fn records_of_another_version_wait() {
    let (address, _requests) = server(vec![("", vec![described()])]);
    let result = block(async {
        let mut client = Server::connect(&settings(address)).await?;
        client.deliver(&batch("compact 99")).await
    });
    let trouble = result.unwrap_err();
    assert!(trouble.needs_a_person() && trouble.to_string().contains("compact 99"), "{trouble}");
}

#[test]
fn servers_of_another_kind_are_told() {
    let native = "HTTP/1.0 400 Bad Request\r\n\r\nPort 9000 is for clickhouse-client program.\r\nYou \
                  must use port 8123 for HTTP.\r\n";
    for (greeting, answer, expected) in [
        ("SSH-2.0-OpenSSH_9.2\r\n", None, "does not speak HTTP"),
        ("INFO {\"server_id\":\"x\"}\r\n", None, "does not speak HTTP"),
        ("", Some(answer("200 OK", "Server: nginx\r\n", "<html>welcome")), "but is no ClickHouse"),
        ("", Some(answer("404 Not Found", "", "")), "but is no ClickHouse (status 404); name"),
        (
            "",
            Some(native.to_owned()),
            "(status 400: \"Port 9000 is for clickhouse-client program.\")",
        ),
    ] {
        let trouble = connect(vec![(greeting, answer.into_iter().collect())]).unwrap_err();
        let said = trouble.to_string();
        assert!(said.contains(expected) && said.contains("`url=`"), "{greeting:?}: {said}");
        assert!(trouble.needs_a_person(), "{said}");
    }
    // A proxy whose server is away.
    let trouble = connect(vec![("", vec![answer("502 Bad Gateway", "", "")])]).unwrap_err();
    assert!(!trouble.needs_a_person(), "{trouble}");
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let trouble = block(Server::connect(&settings(address))).map(drop).unwrap_err();
    assert!(!trouble.needs_a_person());
    assert!(trouble.to_string().contains("cannot be reached: Connection refused"), "{trouble}");
    let trouble = connect(vec![("", vec![])]).unwrap_err();
    assert!(!trouble.needs_a_person(), "{trouble}");
}
