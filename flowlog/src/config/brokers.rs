//! The sections of brokers → their typed settings.

use async_nats::ServerAddr;

use super::sections::section;
use super::stacks::Element;
use super::*;
use crate::plugin::format::Format;
use crate::plugin::kafka;
use crate::plugin::nats::{self, Auth, Far, subject};
use crate::plugin::ship::Shipping;

/// What all sinks that ship have.
fn shipping(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> Shipping {
    Shipping { id: element.id.clone(), buffer_max: sinks::buffer_max(values, found) }
}

fn format(values: &Values<'_>, found: &mut Diagnostics) -> Format {
    const FORMATS: [(&str, Format); 2] = [("json", Format::Json), ("protobuf", Format::Protobuf)];
    values.choice("format", &FORMATS, found).unwrap_or(Format::Json)
}

pub(super) fn nats(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> nats::Settings {
    let values = section(document, element, found);
    let mut servers = values.list("server", server, found);
    if servers.is_empty() {
        servers.extend("127.0.0.1".parse::<ServerAddr>());
    }
    let subject = sinks::text(&values, element, "subject", found);
    if let Err(why) = subject::check(subject) {
        found.error(values.line("subject"), format!("`subject={subject}` {why}"));
    }
    nats::Settings {
        shipping: shipping(&values, element, found),
        format: format(&values, found),
        far: Far {
            servers,
            tls: tls::read(&values, found),
            auth: auth(&values, found),
            subject: subject.to_owned(),
            stream: stream(&values, found),
            create_stream: create_stream(&values, found),
        },
    }
}

/// Reads `nats://HOST:PORT`, of which the host alone is enough.
fn server(text: &str) -> Result<ServerAddr, String> {
    let example = "write for example nats://nats1.example.org:4222";
    let server: ServerAddr =
        text.parse().map_err(|error| format!("`{text}` is no server ({error}); {example}"))?;
    match server.scheme() {
        _ if server.has_user_pass() => {
            Err(format!("`{}` is for the keys `user` and `pass`; {example}", server.host()))
        }
        "nats" if server.host().is_empty() => Err(format!("`{text}` has no host; {example}")),
        "nats" => Ok(server),
        "tls" => Err(format!("`{text}`: {example}, and tls=1")),
        scheme => Err(format!("`{scheme}` is not what flowlog speaks; {example}")),
    }
}

/// A text that is there and not empty.
fn given(values: &Values<'_>, key: &str, found: &mut Diagnostics) -> Option<String> {
    values.string(key, found).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A user, and its password.
fn password(values: &Values<'_>, found: &mut Diagnostics) -> (Option<String>, String) {
    let user = given(values, "user", found);
    let pass = given(values, "pass", found);
    if let (None, Some(_)) = (&user, &pass) {
        found.error(
            values.line("pass"),
            "`pass` is the password of nobody; name the user with `user=`".to_owned(),
        );
    }
    (user, pass.unwrap_or_default())
}

/// At most one way to say who flowlog is.
fn auth(values: &Values<'_>, found: &mut Diagnostics) -> Auth {
    let (user, pass) = password(values, found);
    let ways = [
        user.map(|user| Auth::Password(user, pass)),
        given(values, "token", found).map(Auth::Token),
        given(values, "creds", found).map(|path| Auth::Credentials(path.into())),
        given(values, "nkey", found).map(|path| Auth::Nkey(path.into())),
    ];
    let mut ways = ways.into_iter().flatten();
    let first = ways.next().unwrap_or(Auth::Nobody);
    if let Some(second) = ways.next() {
        found.error(
            values.line(second.key()),
            format!(
                "`{}` and `{}` both say who flowlog is; remove one of them",
                first.key(),
                second.key()
            ),
        );
    }
    first
}

fn stream(values: &Values<'_>, found: &mut Diagnostics) -> Option<String> {
    let name = given(values, "stream", found)?;
    let bad = |c: char| !c.is_ascii_graphic() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    if name.contains(bad) {
        found.error(
            values.line("stream"),
            format!("`stream={name}` is no name of a stream: write one word, such as FLOWS"),
        );
    }
    Some(name)
}

fn create_stream(values: &Values<'_>, found: &mut Diagnostics) -> bool {
    let create = values.switch("create_stream", found).unwrap_or(false);
    if create && values.line("stream").is_none() {
        found.error(
            values.line("create_stream"),
            "`create_stream=1` needs a name: add stream=FLOWS".to_owned(),
        );
    }
    create
}

pub(super) fn kafka(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> kafka::Settings {
    const COMPRESSIONS: [(&str, &str); 4] =
        [("zstd", "zstd"), ("lz4", "lz4"), ("snappy", "snappy"), ("none", "none")];
    let values = section(document, element, found);
    let far = kafka::Far {
        brokers: brokers(&values, element, found),
        topic: topic(&values, element, found),
        compression: values.choice("compression", &COMPRESSIONS, found).unwrap_or("zstd"),
        tls: kafka_tls(&values, found),
        sasl: sasl(&values, found),
        properties: properties(&values, found),
    };
    if let Some((name, key)) = far.contradiction() {
        found.error(
            values.line("property"),
            format!("the property `{name}` is what `{key}` sets otherwise; remove one of them"),
        );
    }
    kafka::Settings {
        shipping: shipping(&values, element, found),
        format: format(&values, found),
        far,
    }
}

/// TLS, where it is built in.
fn kafka_tls(values: &Values<'_>, found: &mut Diagnostics) -> Option<ship::tls::Settings> {
    if kafka::HAS_TLS {
        return tls::read(values, found);
    }
    let on = values.switch("tls", found).unwrap_or(false).then_some("tls");
    let mut files = ["tls_ca", "tls_cert", "tls_key"].into_iter();
    if let Some(key) = on.or_else(|| files.find(|key| given(values, key, found).is_some())) {
        found.error(values.line(key), format!("`{key}` is of no use: {}", kafka::BUILD));
    }
    None
}

/// A user with its password, and how it is shown.
fn sasl(values: &Values<'_>, found: &mut Diagnostics) -> Option<kafka::Sasl> {
    const MECHANISMS: [(&str, &str); 3] = [
        ("PLAIN", "PLAIN"),
        ("SCRAM-SHA-256", "SCRAM-SHA-256"),
        ("SCRAM-SHA-512", "SCRAM-SHA-512"),
    ];
    let (user, password) = password(values, found);
    let mechanism = values.choice_in_any_case("mechanism", &MECHANISMS, found).unwrap_or("PLAIN");
    if user.is_none() && mechanism != "PLAIN" {
        found.error(
            values.line("mechanism"),
            "`mechanism` is for a user; name it with `user=`, and its password with `pass=`"
                .to_owned(),
        );
    }
    let user = user?;
    if !kafka::HAS_TLS && mechanism != "PLAIN" {
        found.error(
            values.line("mechanism"),
            format!(
                "`mechanism={mechanism}` takes OpenSSL, and this flowlog is built without: build \
                 it with `--features kafka-tls`, or write mechanism=PLAIN, or ship to NATS"
            ),
        );
    }
    Some(kafka::Sasl { user, password, mechanism })
}

/// A list of `HOST:PORT`, of which librdkafka takes the host alone as well.
fn brokers(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> String {
    let given = sinks::text(values, element, "brokers", found);
    let bad = |broker: &str| broker.contains("://") || broker.contains(' ');
    let listed: Vec<&str> = values::items(given).collect();
    if listed.is_empty() || listed.iter().copied().any(bad) {
        found.error(
            values.line("brokers"),
            format!(
                "`brokers={given}` is no list of brokers; write for example \
                 kafka1.example.org:9092,kafka2.example.org:9092"
            ),
        );
    }
    listed.join(",")
}

fn topic(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> String {
    let topic = sinks::text(values, element, "topic", found);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.len() > 249 || !topic.chars().all(plain) {
        found.error(
            values.line("topic"),
            format!("`topic={topic}` is no topic: write ASCII letters, digits, `.`, `_` and `-`"),
        );
    }
    topic.to_owned()
}

/// `property="NAME=VALUE"`, as often as there are properties.
fn properties(values: &Values<'_>, found: &mut Diagnostics) -> Vec<(String, String)> {
    let mut properties = Vec::new();
    for entry in values.all("property") {
        let text = match entry.value {
            Value::Given(text) | Value::Unterminated(text) => text,
            Value::Missing => continue,
        };
        match text.split_once('=') {
            Some((name, value)) => {
                properties.push((name.trim().to_owned(), value.trim().to_owned()));
            }
            None => found.error(
                entry.line,
                format!("`property={text}` has no value; write property=\"linger.ms=50\""),
            ),
        }
    }
    properties
}
