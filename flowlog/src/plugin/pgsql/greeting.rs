//! What listens where PostgreSQL should, when nobody there lets us in: an SSH or
//! HTTP server is named, so that nobody has to guess.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::config::{Config, Host};

use crate::plugin::ship::Trouble;

/// The question for TLS, as a client of PostgreSQL begins: each server of it answers
/// with one letter, `S` or `N`.
const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
/// Servers that read lines answer to an empty one.
const LINE: &[u8] = b"\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a greeting that are told.
const TOLD: usize = 40;

/// Who is there, if it is somebody else; asked only after a connection has failed.
pub(super) async fn stranger(config: &Config) -> Option<Trouble> {
    let Host::Tcp(name) = config.get_hosts().first()? else { return None };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let greeting = greeting(name, port).await?;
    let words = words(&greeting)?;
    Some(Trouble::refused(format!(
        "what listens at {name}:{port} is no PostgreSQL: it says \"{words}\"; see to `host=` and \
         `port=`"
    )))
}

async fn greeting(name: &str, port: u16) -> Option<Vec<u8>> {
    let connected = timeout(PATIENCE, TcpStream::connect((name, port))).await;
    let mut stream = connected.ok()?.ok()?;
    stream.write_all(&QUESTION).await.ok()?;
    if let Some(greeting) = read(&mut stream).await {
        return Some(greeting);
    }
    stream.write_all(LINE).await.ok()?;
    read(&mut stream).await
}

async fn read(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; TOLD];
    let length = timeout(PATIENCE, stream.read(&mut bytes)).await.ok()?.ok()?;
    bytes.truncate(length);
    (length > 0).then_some(bytes)
}

/// The first line of a greeting, if it is text and not the letter of PostgreSQL.
fn words(greeting: &[u8]) -> Option<String> {
    let line = greeting.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let is_text = line.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    (line.len() > 2 && is_text).then(|| String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_known_by_their_words() {
        assert_eq!(words(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap(), "SSH-2.0-OpenSSH_9.2p1");
        assert_eq!(
            words(b"HTTP/1.1 400 Bad Request\r\nServer").unwrap(),
            "HTTP/1.1 400 Bad Request"
        );
        for postgres in [&b"S"[..], b"N", b"E\0\0\0\x08SFATAL\0", b"", b"\r\n"] {
            assert_eq!(words(postgres), None);
        }
    }
}
