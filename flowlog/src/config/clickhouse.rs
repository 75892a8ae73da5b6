//! The sections of CLICKHOUSE → their typed settings.

use super::sections::section;
use super::sinks::{shipping, text};
use super::stacks::Element;
use super::*;
use crate::plugin::clickhouse::Url;

/// How long records may wait for more at most.
const LONGEST_LINGER: Duration = Duration::from_secs(3600);

pub(super) fn read(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> columns::Settings {
    let values = section(document, element, found);
    let linger = values.duration("linger", found).unwrap_or(Duration::from_secs(1));
    if linger > LONGEST_LINGER {
        found.error(values.line("linger"), "`linger` is longer than an hour; give less".to_owned());
    }
    let mut word = |key: &str| text(&values, element, key, found).to_owned();
    let [database, table, user] = ["database", "table", "user"].map(&mut word);
    let [password, hostname, settings] = ["password", "hostname", "settings"].map(&mut word);
    check_settings(&values, &settings, found);
    if user.is_empty() && !password.is_empty() {
        found.error(values.line("password"), "`password` without `user`; name both".to_owned());
    }
    columns::Settings {
        shipping: shipping(&values, element, found),
        url: url(&values, element, found),
        database,
        table,
        user,
        password,
        hostname: Some(hostname).filter(|name| !name.is_empty()),
        compressed: values.switch("compress", found).unwrap_or(true),
        settings,
        batch: values.integer("batch_max_bytes", 1 << 16..=1 << 28, found).unwrap_or(8 << 20)
            as usize,
        linger,
    }
}

/// What stands in a URL must be fit for one.
fn check_settings(values: &Values<'_>, settings: &str, found: &mut Diagnostics) {
    let good = |part: &str| {
        let name = part.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"#?&\"".contains(&b))
    };
    if !settings.is_empty() && !settings.split('&').all(good) {
        found.error(
            values.line("settings"),
            format!("`settings={settings}` are none; write NAME=VALUE, joined by `&`, in quotes"),
        );
        return;
    }
    for (name, value) in settings.split('&').filter_map(|part| part.split_once('=')) {
        if let Some(why) = weakens(name, value) {
            found.error(
                values.line("settings"),
                format!(
                    "`{name}={value}` in `settings`: {why}, and flowlog would take such rows for \
                     stored; remove it"
                ),
            );
        }
    }
}

/// Why ClickHouse would acknowledge rows that it has not stored; absent: it
/// would not.
fn weakens(name: &str, value: &str) -> Option<&'static str> {
    let off = matches!(value, "0" | "false" | "False");
    match name {
        "wait_for_async_insert" if off => {
            Some("ClickHouse acknowledges rows before it has stored them")
        }
        "insert_distributed_sync" | "distributed_foreground_insert" if off => {
            Some("ClickHouse acknowledges rows before their shard has them")
        }
        "wait_end_of_query" if off => Some("ClickHouse answers before it knows of an error"),
        "input_format_allow_errors_num" | "input_format_allow_errors_ratio"
            if value.parse::<f64>() != Ok(0.0) =>
        {
            Some("ClickHouse passes over rows that it cannot read")
        }
        _ => None,
    }
}

fn url(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> Url {
    let given = text(values, element, "url", found);
    let read = read_url(given);
    let url = read.unwrap_or_else(|why| {
        found.error(values.line("url"), format!("`url={given}` {why}"));
        read_url("http://127.0.0.1:8123").unwrap_or_default()
    });
    let tls = tls::files(values, url.tls.is_some(), "write https:// in `url=`", found);
    Url { tls, ..url }
}

/// Reads `http://HOST:PORT/PATH`.
fn read_url(text: &str) -> Result<Url, &'static str> {
    const FORM: &str = "is no URL; write for example http://clickhouse.example.org:8123";
    let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
    let (usual, tls) = match scheme {
        "http" => (8123, None),
        "https" => (8443, Some(Default::default())),
        _ => return Err("is not for HTTP; write http:// or https:// before the host"),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err("names a user; write `user=` and `password=` instead");
    }
    if path.contains(['?', '#']) {
        return Err("goes on behind its path; write settings of ClickHouse into `settings=`");
    }
    // The colons of an IPv6 address stand in brackets.
    let host_end = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = authority[host_end..].find(':').map(|place| host_end + place);
    let (host, port) = match colon {
        Some(colon) => (&authority[..colon], authority[colon + 1..].parse().map_err(|_| FORM)?),
        None => (authority, usual),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let good = |byte: u8| byte.is_ascii_graphic();
    if host.is_empty() || port == 0 || !text.bytes().all(good) {
        return Err(FORM);
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(Url { host: host.to_owned(), port, path: path.to_owned(), tls })
}
