//! A server on a free port, with an engine that answers each question alike.

use std::time::Instant;

use super::*;
use crate::metrics::{Answer, Question, Topic};
use crate::stats::Stats;

/// Serves, and returns where.
fn start() -> SocketAddr {
    let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = bound.address;
    let mut questions = serve(bound, Stats::default().readings()).unwrap();
    tokio::spawn(async move {
        while let Some(Question { topic, answer }) = questions.recv().await {
            let _ = answer.send(match topic {
                Topic::Metrics => Answer::Page("a 1\n".to_owned()),
                Topic::Health => Answer::Unfit("no\n".to_owned()),
            });
        }
    });
    address
}

async fn ask(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn questions_are_answered() {
    let address = start();
    let page = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("\r\n\r\na 1\n"), "{page}");
    let health = ask(address, b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(health.starts_with("HTTP/1.1 503 ") && health.ends_with("no\n"), "{health}");
    let other = ask(address, b"GET /etc/passwd HTTP/1.0\r\n\r\n").await;
    assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let address = start();
    let mut stream = TcpStream::connect(address).await.unwrap();
    for piece in ["GET /met", "rics HTTP/1.1\r\nHo", "st: x\r\n", "\r\n"] {
        stream.write_all(piece.as_bytes()).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\n\r\na 1\n"), "{answer}");
}

/// More than fits is refused, and the refusal is not lost in a reset.
#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let address = start();
    let mut request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
    request.resize(4 * LONGEST, b'a');
    let answer = ask(address, &request).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

/// Clients that say nothing, more than there are places, do not delay a scrape.
#[tokio::test]
async fn silent_clients_keep_no_scrape_waiting() {
    let address = start();
    let mut silent = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let begin = Instant::now();
    let page = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.contains("\r\n\r\na 1\n"), "{page}");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

/// One that says nothing is sent away.
#[tokio::test]
async fn a_silent_client_is_sent_away() {
    let mut silent = TcpStream::connect(start()).await.unwrap();
    let begin = Instant::now();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
    let waited = begin.elapsed();
    assert!(waited > CONNECTION_TIMEOUT / 2 && waited < 5 * CONNECTION_TIMEOUT, "{waited:?}");
}

/// What is asked last is answered even if others left without reading.
#[tokio::test]
async fn clients_that_leave_do_no_harm() {
    let address = start();
    for request in ["", "GET", "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "\0\0\0\0"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let page = ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(page.contains("\r\n\r\na 1\n"), "{page}");
}

#[tokio::test]
async fn a_port_that_is_taken_names_the_remedy() {
    let taken = start();
    let error = bind(taken).unwrap_err().to_string();
    let expected = format!("metrics cannot be served at {taken}: ");
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.ends_with("name another port with `metrics=`"), "{error}");
    let nowhere = bind("192.0.2.1:9470".parse().unwrap()).unwrap_err().to_string();
    assert!(nowhere.ends_with("name one of this host's with `metrics=`"), "{nowhere}");
}

#[tokio::test]
async fn nobody_can_connect_before_it_is_served() {
    let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(TcpStream::connect(bound.address).await.is_err());
}

#[test]
fn only_other_hosts_are_worth_a_word() {
    for (address, open) in [
        ("127.0.0.1:1", false),
        ("127.8.8.8:1", false),
        ("[::1]:1", false),
        ("[::ffff:127.0.0.1]:1", false),
        ("0.0.0.0:1", true),
        ("[::]:1", true),
        ("10.0.0.1:1", true),
    ] {
        assert_eq!(!exposure(address.parse().unwrap()).is_empty(), open, "{address}");
    }
}
