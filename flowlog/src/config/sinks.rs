//! The sections of sinks → their typed settings.

use super::sections::section;
use super::stacks::Element;
use super::*;
use crate::plugin::output::{self, Address, Destination};

/// Paths of sockets are shorter (unix(7)).
const SOCKET_PATH: usize = 108;
/// syslog(3)'s facilities by the names that ulogd2 takes. The kernel's own is
/// not to be had: syslog(3) puts the one in its place that ulogd2 has opened it
/// with, the daemon's.
const FACILITIES: [(&str, u8); 11] = [
    ("LOG_DAEMON", 3),
    ("LOG_KERN", 3),
    ("LOG_LOCAL0", 16),
    ("LOG_LOCAL1", 17),
    ("LOG_LOCAL2", 18),
    ("LOG_LOCAL3", 19),
    ("LOG_LOCAL4", 20),
    ("LOG_LOCAL5", 21),
    ("LOG_LOCAL6", 22),
    ("LOG_LOCAL7", 23),
    ("LOG_USER", 1),
];
/// syslog(3)'s levels.
const LEVELS: [(&str, u8); 8] = [
    ("LOG_EMERG", 0),
    ("LOG_ALERT", 1),
    ("LOG_CRIT", 2),
    ("LOG_ERR", 3),
    ("LOG_WARNING", 4),
    ("LOG_NOTICE", 5),
    ("LOG_INFO", 6),
    ("LOG_DEBUG", 7),
];
const DAEMON: u8 = 3;
const NOTICE: u8 = 5;

pub(super) fn logemu(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> logemu::Settings {
    let values = section(document, element, found);
    logemu::Settings {
        file: text(&values, element, "file", found).into(),
        sync: values.switch("sync", found).unwrap_or(false),
        buffer_max: buffer_max(&values, found),
    }
}

/// A text that is not empty, or the default.
pub(super) fn text<'a>(
    values: &Values<'a>,
    element: &Element,
    key: &str,
    found: &mut Diagnostics,
) -> &'a str {
    let given = values.string(key, found).filter(|text| !text.is_empty());
    given.unwrap_or_else(|| {
        let known = element.plugin.keys.iter().find(|known| known.name == key);
        known.map_or("", |known| known.default)
    })
}

pub(super) fn buffer_max(values: &Values<'_>, found: &mut Diagnostics) -> usize {
    let bytes = values.integer("buffer_max_bytes", 4096..=i64::from(u32::MAX), found);
    bytes.unwrap_or(64 << 20) as usize
}

/// What all sinks that ship have.
pub(super) fn shipping(
    values: &Values<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> ship::Shipping {
    ship::Shipping { id: element.id.clone(), buffer_max: buffer_max(values, found) }
}

pub(super) fn syslog(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> syslog::Settings {
    let values = section(document, element, found);
    let facility = values.choice("facility", &FACILITIES, found).unwrap_or(DAEMON);
    let level = values.choice("level", &LEVELS, found).unwrap_or(NOTICE);
    let ident = text(&values, element, "ident", found);
    if !ident.bytes().all(|byte| byte.is_ascii_graphic()) {
        found.error(
            values.line("ident"),
            format!("`ident={ident}` is no name: write ASCII letters, digits and signs"),
        );
    }
    let server = text(&values, element, "server", found);
    let address = server_address(server).unwrap_or_else(|why| {
        found.error(values.line("server"), format!("`server={server}` {why}"));
        Address::UnixDatagram(PathBuf::new())
    });
    syslog::Settings {
        output: output::Settings {
            destination: Destination::Socket(address),
            buffer_max: buffer_max(&values, found),
        },
        priority: facility << 3 | level,
        ident: ident.to_owned(),
    }
}

/// Reads `unix:PATH`, `udp://HOST:PORT` or `tcp://HOST:PORT`.
fn server_address(text: &str) -> Result<Address, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        // unix:///dev/log means the same.
        let path = path.strip_prefix("//").unwrap_or(path);
        return socket_path(path).map(Address::UnixDatagram);
    }
    let make: fn(String, u16) -> Address;
    let rest = if let Some(rest) = text.strip_prefix("udp://") {
        make = Address::Udp;
        rest
    } else if let Some(rest) = text.strip_prefix("tcp://") {
        make = Address::Tcp;
        rest
    } else {
        return Err("is no server; write unix:PATH, udp://HOST:PORT or tcp://HOST:PORT".to_owned());
    };
    let port = rest.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match port {
        Some((host, port @ 1..)) if !host.is_empty() => {
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            Ok(make(host.to_owned(), port))
        }
        _ => Err("has no port; write for example tcp://log.example.org:514".to_owned()),
    }
}

fn socket_path(path: &str) -> Result<PathBuf, String> {
    if !path.starts_with('/') {
        return Err("has no absolute path; write for example /run/collector.sock".to_owned());
    }
    if path.len() >= SOCKET_PATH {
        return Err(format!("is longer than the {} bytes of a socket's path", SOCKET_PATH - 1));
    }
    Ok(path.into())
}

pub(super) fn sqlite3(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> sqlite3::Settings {
    let values = section(document, element, found);
    // Said, and without effect, as in ulogd2.
    values.integer("buffer", i64::from(i32::MIN)..=i64::from(u32::MAX), found);
    sqlite3::Settings {
        db: text(&values, element, "db", found).into(),
        table: text(&values, element, "table", found).to_owned(),
        sync: values.switch("sync", found).unwrap_or(false),
        buffer_max: buffer_max(&values, found),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    File,
    Stdout,
    Tcp,
    Udp,
    Unix,
    UnixDgram,
}

const MODES: [(&str, Mode); 6] = [
    ("file", Mode::File),
    ("stdout", Mode::Stdout),
    ("tcp", Mode::Tcp),
    ("udp", Mode::Udp),
    ("unix", Mode::Unix),
    ("unix-dgram", Mode::UnixDgram),
];

pub(super) fn json(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> json::Settings {
    let values = section(document, element, found);
    let schema = values
        .choice("schema", &[("ulogd", json::Schema::Ulogd), ("full", json::Schema::Full)], found)
        .unwrap_or(json::Schema::Ulogd);
    // Said, and without effect: flows have no label.
    values.switch("boolean_label", found);
    json::Settings {
        output: output::Settings {
            destination: destination(&values, element, found),
            buffer_max: buffer_max(&values, found),
        },
        schema,
        timestamp: values.switch("timestamp", found).unwrap_or(true),
        eventv1: values.switch("eventv1", found).unwrap_or(false),
        device: text(&values, element, "device", found).to_owned(),
        loss_records: values.switch("loss_records", found).unwrap_or(true),
    }
}

fn destination(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> Destination {
    let mode = values.choice_in_any_case("mode", &MODES, found).unwrap_or(Mode::File);
    let file = text(values, element, "file", found);
    let sync = values.switch("sync", found).unwrap_or(false);
    let host = hosts::read(values, text(values, element, "host", found), found);
    let port = values.integer("port", 1..=65535, found).unwrap_or(12345) as u16;
    let mut socket = |make: fn(PathBuf) -> Address| {
        let given = values.line("file").is_some();
        let path = if given { socket_path(file) } else { Err("is no socket; name it".to_owned()) };
        Destination::Socket(make(path.unwrap_or_else(|why| {
            found.error(
                values.line("file").or(values.line("mode")),
                format!("`file={file}`, the socket, {why}"),
            );
            PathBuf::new()
        })))
    };
    match mode {
        Mode::File if file != "-" => Destination::File { path: file.into(), sync },
        Mode::File | Mode::Stdout => Destination::File { path: "/dev/stdout".into(), sync },
        Mode::Unix => socket(Address::UnixStream),
        Mode::UnixDgram => socket(Address::UnixDatagram),
        Mode::Tcp => Destination::Socket(Address::Tcp(host, port)),
        Mode::Udp => Destination::Socket(Address::Udp(host, port)),
    }
}
