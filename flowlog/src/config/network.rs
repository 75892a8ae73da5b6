//! The sections of sinks that ship to others → their typed settings.

use tokio_postgres::config::{Config, Host, SslMode};

use super::sections::section;
use super::sinks::{buffer_max, text};
use super::stacks::Element;
use super::*;
use crate::plugin::pgsql::{self, Procedure};

fn shipping(values: &Values<'_>, element: &Element, found: &mut Diagnostics) -> ship::Shipping {
    ship::Shipping { id: element.id.clone(), buffer_max: buffer_max(values, found) }
}

pub(super) fn pgsql(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> pgsql::Settings {
    let values = section(document, element, found);
    // Said, and without effect.
    for ignored in [
        "reconnect",
        "connect_timeout",
        "backlog_memcap",
        "backlog_oneshot_requests",
        "ring_buffer_size",
    ] {
        values.integer(ignored, i64::from(i32::MIN)..=i64::from(u32::MAX), found);
    }
    let tls = tls::read(&values, found);
    let procedure = text(&values, element, "procedure", found);
    let procedure = Procedure::read(procedure).unwrap_or_else(|why| {
        found.error(values.line("procedure"), format!("`procedure={procedure}` {why}"));
        Procedure::Insert
    });
    pgsql::Settings {
        shipping: shipping(&values, element, found),
        target: pgsql::Target {
            server: server(&values, element, tls.is_some(), found),
            tls,
            schema: text(&values, element, "schema", found).to_owned(),
            table: text(&values, element, "table", found).to_owned(),
            procedure,
        },
    }
}

/// Where the server is. A key that `connstring` has too is that of `connstring`.
fn server(values: &Values<'_>, element: &Element, tls: bool, found: &mut Diagnostics) -> Config {
    let given = values.string("connstring", found).unwrap_or_default();
    let mut server: Config = given.parse().unwrap_or_else(|error| {
        let why = std::error::Error::source(&error).map_or(String::new(), |why| format!(": {why}"));
        found.error(
            values.line("connstring"),
            format!(
                "`connstring` cannot be read{why}; write KEY=VALUE, such as `host=db1 \
                 user=flowlog dbname=flowlog`; for TLS set tls=1"
            ),
        );
        Config::new()
    });
    for given in server.get_hosts() {
        let Host::Tcp(name) = given else { continue };
        if hosts::host(name).as_ref() != Ok(name) {
            found.error(
                values.line("connstring"),
                format!(
                    "`host={name}` in `connstring` is no host; write it without brackets and \
                     blanks, and a port as `port=`"
                ),
            );
        }
    }
    if server.get_hosts().is_empty() {
        for host in values::items(text(values, element, "host", found)) {
            // The directory of a socket stands as it is.
            match host.starts_with('/') {
                true => server.host(host),
                false => server.host(hosts::read(values, host, found)),
            };
        }
    }
    if server.get_ports().is_empty() {
        let port = values.integer("port", 1..=65535, found).unwrap_or(5432) as u16;
        server.port(port);
    }
    if server.get_dbname().is_none() {
        server.dbname(text(values, element, "db", found));
    }
    if server.get_user().is_none() {
        server.user(text(values, element, "user", found));
    }
    let password = values.string("pass", found).filter(|password| !password.is_empty());
    if let (None, Some(password)) = (server.get_password(), password) {
        server.password(password);
    }
    if server.get_application_name().is_none() {
        server.application_name("flowlog");
    }
    transport(&mut server, values, tls, found);
    server
}

/// TLS is had when it is asked for, and always with the server's certificate looked at.
fn transport(server: &mut Config, values: &Values<'_>, tls: bool, found: &mut Diagnostics) {
    let unix = server.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
    if server.get_ssl_mode() == SslMode::Require && !tls {
        found.error(
            values.line("connstring"),
            "`connstring` asks for TLS; set tls=1, and tls_ca= for the authority that the \
             server's certificate comes from"
                .to_owned(),
        );
    } else if tls && unix {
        found.error(
            values.line("tls"),
            "`tls=1`: there is none through a socket of this host; name the server with `host=`, \
             or remove tls"
                .to_owned(),
        );
    }
    server.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
}
