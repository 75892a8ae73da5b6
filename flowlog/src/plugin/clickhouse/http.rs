//! One connection to a server over HTTP/1.1, kept between requests.

use std::error::Error as _;
use std::io;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::exception::Exception;
use super::{Settings, Url, authority};
use crate::plugin::ship::{Trouble, tls};

/// The most of an answer that is read, bytes: a table of a thousand columns.
const ANSWER: usize = 256 << 10;
/// Each answer of ClickHouse has a header that begins so.
const HEADER: &str = "x-clickhouse-";
/// Who asks, as ClickHouse reads it.
const USER: &str = "x-clickhouse-user";
const PASSWORD: &str = "x-clickhouse-key";
const CODE: &str = "x-clickhouse-exception-code";

/// A server, and the connection to it while there is one.
pub(super) struct Http {
    url: Url,
    /// Whom errors name.
    server: String,
    headers: HeaderMap,
    connection: Option<Connection>,
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes.
    driver: JoinHandle<hyper::Result<()>>,
    /// It has answered before.
    proven: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Http {
    pub(super) fn new(settings: &Settings) -> Result<Self, Trouble> {
        let Settings { url, user, password, .. } = settings;
        let value = |key: &str, text: &str| {
            let value = HeaderValue::from_bytes(text.as_bytes());
            value.map_err(|_| {
                Trouble::refused(format!("`{key}=` holds control characters: remove them"))
            })
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value("url", &authority(&url.host, url.port))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if !user.is_empty() {
            let mut password = value("password", password)?;
            password.set_sensitive(true);
            headers.insert(USER, value("user", user)?);
            headers.insert(PASSWORD, password);
        }
        Ok(Self { server: url.shown(), url: url.clone(), headers, connection: None })
    }

    /// Whom errors name.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Has the server carry out what `query`, the part of an URL behind `?`, and `body`
    /// say; returns what it answers.
    pub(super) async fn post(&mut self, query: &str, body: Bytes) -> Result<String, Trouble> {
        // A server closes a connection that has been idle for some seconds, maybe just
        // now. What was sent twice is known by its ids.
        if let Some(connection) = self.connection.take()
            && connection.proven
            && let Ok(answer) = self.ask(connection, query, body.clone()).await
        {
            return answer;
        }
        let connection = self.connect().await?;
        match self.ask(connection, query, body).await {
            Ok(answer) => answer,
            Err(error) => Err(self.broken(&error)),
        }
    }

    /// Asks by that connection, which is kept if it may be used again. The outer error
    /// is that of the connection.
    async fn ask(
        &mut self,
        mut connection: Connection,
        query: &str,
        body: Bytes,
    ) -> hyper::Result<Result<String, Trouble>> {
        if let Err(error) = connection.sender.ready().await {
            // The connection says itself why it has ended.
            let ended = (&mut connection.driver).await;
            return Err(ended.ok().and_then(Result::err).unwrap_or(error));
        }
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = hyper::Method::POST;
        *request.headers_mut() = self.headers.clone();
        let target = format!("{}?{query}", self.url.path);
        match target.parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => {
                let what =
                    format!("`{target}` is no target ({error}): correct `url=` and `settings=`");
                return Ok(Err(Trouble::refused(what)));
            }
        }
        let response = connection.sender.send_request(request).await?;
        let answer = self.read(response).await?;
        connection.proven = true;
        self.connection = Some(connection);
        Ok(answer)
    }

    async fn read(&self, response: Response<Incoming>) -> hyper::Result<Result<String, Trouble>> {
        let (head, body) = response.into_parts();
        let body = match Limited::new(body, ANSWER).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            Err(error) => match error.downcast::<hyper::Error>() {
                Ok(error) => return Err(*error),
                Err(_) => return Ok(Err(self.stranger(head.status, "its answer does not end"))),
            },
        };
        if !head.headers.keys().any(|name| name.as_str().starts_with(HEADER)) {
            return Ok(Err(self.stranger(head.status, &body)));
        }
        let code = head.headers.get(CODE).and_then(|code| code.to_str().ok()?.parse().ok());
        Ok(match Exception::read(&body, code) {
            Some(exception) => Err(exception.trouble(&self.server)),
            None if head.status.is_success() => Ok(body),
            None => Err(self.stranger(head.status, &body)),
        })
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let Url { host, port, path: _, tls } = &self.url;
        let stream = TcpStream::connect((host.as_str(), *port)).await;
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        // Requests are written whole.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else { return self.handshake(stream).await };
        let name = rustls::pki_types::ServerName::try_from(host.clone());
        let name = name.map_err(|_| {
            Trouble::refused(format!(
                "`{host}` is no name that a certificate could have: correct `url=`"
            ))
        })?;
        let connector = TlsConnector::from(tls.client_config()?);
        match connector.connect(name, stream).await {
            Ok(stream) => self.handshake(stream).await,
            Err(error) => {
                Err(tls::trouble(&self.server, &error).unwrap_or_else(|| self.unreachable(&error)))
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> Result<Connection, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.broken(&error))?;
        let driver = tokio::spawn(connection);
        Ok(Connection { sender, driver, proven: false })
    }

    fn unreachable(&self, error: &io::Error) -> Trouble {
        Trouble::passing(format!(
            "ClickHouse at {} cannot be reached: {error}; start it, or correct `url=`",
            self.server
        ))
    }

    /// What a connection means that has broken before it has ever answered.
    fn broken(&self, error: &hyper::Error) -> Trouble {
        let source = error.source();
        let why = source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
        // `canceled` is a connection that was closed before the request was under way.
        let closed = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        // It has said something before it was asked, for which hyper has no question of its own.
        let greeted = why.contains("unexpected message");
        if closed && !greeted || source.is_some_and(|source| source.is::<io::Error>()) {
            return Trouble::passing(format!(
                "ClickHouse at {} has broken the connection ({why}); see what its own log says, and \
                 whether `url=` names its port for {}",
                self.server,
                if self.url.tls.is_some() { "HTTPS" } else { "HTTP" }
            ));
        }
        Trouble::refused(format!(
            "{} does not speak HTTP ({why}): name the port of ClickHouse for HTTP with `url=`, 8123 \
             unless it was changed, or write https:// if it has TLS there",
            self.server
        ))
    }

    /// An answer that is not of ClickHouse.
    fn stranger(&self, status: StatusCode, body: &str) -> Trouble {
        let first = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let first = &first[..first.floor_char_boundary(first.len().min(200))];
        let said = if first.is_empty() { String::new() } else { format!(": {first:?}") };
        let what = format!(
            "{} speaks HTTP, but is no ClickHouse (status {}{said}); name ClickHouse's port for HTTP \
             with `url=`",
            self.server,
            status.as_u16()
        );
        // A proxy before it, while it is away.
        match status {
            StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS => Trouble::passing(what),
            _ => Trouble::refused(what),
        }
    }
}
