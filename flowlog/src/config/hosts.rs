//! The names and addresses of hosts that keys such as `host=` hold, for all
//! sinks alike. An IPv6 address may stand in brackets; a port has a key of its
//! own.

use std::net::Ipv6Addr;

use super::*;

/// A host as it is looked up: without brackets.
///
/// # Errors
/// It is none, and what to write.
pub(super) fn host(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.contains("://") {
        return Err("is a URL; write the host alone".to_owned());
    }
    if let Some(rest) = text.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((inner, "")) if is_ipv6(inner) => Ok(inner.to_owned()),
            Some((inner, port)) if is_ipv6(inner) && port.starts_with(':') => {
                Err(with_port(inner, &port[1..]))
            }
            _ => {
                Err("is no host; in brackets stands an IPv6 address, such as [2001:db8::1]"
                    .to_owned())
            }
        };
    }
    match text.split_once(':') {
        Some(_) if is_ipv6(text) => Ok(text.to_owned()),
        Some((host, port)) if !port.contains(':') => Err(with_port(host, port)),
        Some(_) => Err("is no host; write a name, an IPv4 or an IPv6 address".to_owned()),
        None if text.is_empty() || text.contains(char::is_whitespace) => {
            Err("is no host; write a name, an IPv4 or an IPv6 address".to_owned())
        }
        None => Ok(text.to_owned()),
    }
}

fn with_port(host: &str, port: &str) -> String {
    format!("names a port too; write host={host} and port={port}")
}

/// An IPv6 address, also one with the name of an interface.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// The host of the key `host`; where it is refused, the text as it stands.
pub(super) fn read(values: &Values<'_>, text: &str, found: &mut Diagnostics) -> String {
    host(text).unwrap_or_else(|why| {
        found.error(values.line("host"), format!("`host={text}` {why}"));
        text.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn names_and_addresses_are_hosts_brackets_or_not() {
        for (text, expected) in [
            ("db1.example.org", "db1.example.org"),
            ("192.0.2.7", "192.0.2.7"),
            ("::1", "::1"),
            ("[::1]", "::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[fe80::1%eth0]", "fe80::1%eth0"),
            (" db1 ", "db1"),
        ] {
            assert_eq!(host(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_port_is_refused_with_the_key_that_it_belongs_to() {
        for (text, remedy) in [
            ("db1:5433", "write host=db1 and port=5433"),
            ("192.0.2.7:4739", "write host=192.0.2.7 and port=4739"),
            ("[::1]:4739", "write host=::1 and port=4739"),
            ("tcp://a", "write the host alone"),
            ("[db1]", "is no host"),
            ("[::1", "is no host"),
            ("a b", "is no host"),
            ("a:b:c", "is no host"),
            ("", "is no host"),
        ] {
            let why = host(text).unwrap_err();
            assert!(why.contains(remedy), "{text}: {why}");
        }
    }
}
