//! As much of HTTP/1.1 as a scraper needs: GET and HEAD of two paths, one request
//! a connection, no body. httparse, hyper's own parser, reads the head; the rest
//! of hyper would bring a dozen crates for what is left to do here.

use super::page::CONTENT_TYPE;
use super::{Answer, Topic};

/// Bytes of a request's head at most.
pub const LONGEST: usize = 8 << 10;
/// Lines of it at most.
const HEADERS: usize = 64;

/// What a head asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What.
    pub topic: Topic,
    /// HEAD: the answer is to have no body.
    pub head_only: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no HTTP/1.
    Malformed,
    /// The head is too long.
    TooLong,
    /// Neither GET nor HEAD.
    Method,
    /// There is nothing at this path.
    NotFound,
}

/// Reads the head of a request; absent: it is not complete yet.
///
/// # Errors
/// Why it is refused.
pub fn parse(bytes: &[u8]) -> Result<Option<Asked>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(status) if status.is_complete() => {}
        Ok(_) if bytes.len() < LONGEST => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::Malformed),
    }
    let hosts = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("host")).count();
    // RFC 9112, 3.2: one Host, which HTTP/1.0 may leave out.
    if hosts > 1 || (hosts == 0 && request.version != Some(0)) {
        return Err(Refusal::Malformed);
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Err(Refusal::Method),
    };
    let path = request.path.unwrap_or_default();
    let topic = match path.split_once('?').map_or(path, |(path, _query)| path) {
        "/metrics" => Topic::Metrics,
        "/healthz" => Topic::Health,
        _ => return Err(Refusal::NotFound),
    };
    Ok(Some(Asked { topic, head_only }))
}

/// The answer as it is sent.
pub fn answered(answer: &Answer, head_only: bool) -> Vec<u8> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match answer {
        Answer::Page(page) => ("200 OK", CONTENT_TYPE, page),
        Answer::Fit(text) => ("200 OK", PLAIN, text),
        Answer::Unfit(text) => ("503 Service Unavailable", PLAIN, text),
    };
    response(status, kind, "", body, head_only)
}

/// A refusal as it is sent.
pub fn refused(refusal: Refusal) -> Vec<u8> {
    let (status, more, body) = match refusal {
        Refusal::Malformed => ("400 Bad Request", "", "this is no HTTP/1.1 request\n"),
        Refusal::TooLong => {
            ("431 Request Header Fields Too Large", "", "the request is too long\n")
        }
        Refusal::Method => {
            ("405 Method Not Allowed", "Allow: GET, HEAD\r\n", "only GET and HEAD are known\n")
        }
        Refusal::NotFound => ("404 Not Found", "", "there are /metrics and /healthz\n"),
    };
    response(status, "text/plain; charset=utf-8", more, body, false)
}

fn response(status: &str, kind: &str, more: &str, body: &str, head_only: bool) -> Vec<u8> {
    let length = body.len();
    let shown = if head_only { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n{more}\r\n{shown}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn asked(topic: Topic) -> Result<Option<Asked>, Refusal> {
        Ok(Some(Asked { topic, head_only: false }))
    }

    #[test]
    fn two_paths_are_known() {
        let metrics = asked(Topic::Metrics);
        assert_eq!(parse(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"), metrics);
        assert_eq!(parse(b"GET /metrics?a=b HTTP/1.1\r\nhost: a\r\nX: y\r\n\r\n"), metrics);
        assert_eq!(parse(b"GET /metrics HTTP/1.0\r\n\r\n"), metrics);
        assert_eq!(parse(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"), asked(Topic::Health));
        let head = parse(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head, Ok(Some(Asked { topic: Topic::Metrics, head_only: true })));
    }

    #[test]
    fn half_a_request_is_waited_for() {
        let whole = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), Ok(None), "{length}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let host = "Host: a\r\n";
        let many = "X: y\r\n".repeat(HEADERS);
        for (text, refusal) in [
            (format!("POST /metrics HTTP/1.1\r\n{host}\r\n"), Refusal::Method),
            (format!("get /metrics HTTP/1.1\r\n{host}\r\n"), Refusal::Method),
            (format!("GET / HTTP/1.1\r\n{host}\r\n"), Refusal::NotFound),
            (format!("GET /metrics/ HTTP/1.1\r\n{host}\r\n"), Refusal::NotFound),
            (format!("GET /../metrics HTTP/1.1\r\n{host}\r\n"), Refusal::NotFound),
            ("GET /metrics HTTP/1.1\r\n\r\n".to_owned(), Refusal::Malformed),
            (format!("GET /metrics HTTP/1.1\r\n{host}{host}\r\n"), Refusal::Malformed),
            (format!("GET /metrics HTTP/2.0\r\n{host}\r\n"), Refusal::Malformed),
            ("GET /metrics\r\n\r\n".to_owned(), Refusal::Malformed),
            ("\u{16}\u{3}\u{1}\u{2}".to_owned(), Refusal::Malformed),
            (format!("GET /metrics HTTP/1.1\r\nHo st: a\r\n{host}\r\n"), Refusal::Malformed),
            (format!("GET /metrics HTTP/1.1\r\n{host}{many}\r\n"), Refusal::TooLong),
            (format!("GET /{}", "a".repeat(LONGEST)), Refusal::TooLong),
        ] {
            assert_eq!(parse(text.as_bytes()), Err(refusal), "{text:.60}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..LONGEST)) {
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn answers_tell_their_length() {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let page = text(answered(&Answer::Page("a 1\n".to_owned()), false));
        assert!(page.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"));
        assert!(page.contains("\r\nContent-Length: 4\r\n"));
        assert!(page.ends_with("\r\nConnection: close\r\n\r\na 1\n"), "{page}");
        let head = text(answered(&Answer::Page("a 1\n".to_owned()), true));
        assert!(head.contains("\r\nContent-Length: 4\r\n") && head.ends_with("\r\n\r\n"));
        let unfit = text(answered(&Answer::Unfit("no\n".to_owned()), false));
        assert!(unfit.starts_with("HTTP/1.1 503 ") && unfit.ends_with("\r\n\r\nno\n"));
        let method = text(refused(Refusal::Method));
        assert!(method.contains("\r\nAllow: GET, HEAD\r\n\r\nonly"), "{method}");
    }
}
