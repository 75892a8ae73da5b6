//! Where metrics are served: the key `metrics`.

use std::net::{IpAddr, SocketAddr};

use super::*;

/// The port where none is written.
const PORT: u16 = 9470;

/// Reads the key; absent or empty: nowhere.
pub(super) fn read(values: &Values<'_>, found: &mut Diagnostics) -> Option<SocketAddr> {
    let text = values.string("metrics", found).filter(|text| !text.is_empty())?;
    let address = address(text);
    if address.is_none() {
        found.error(
            values.line("metrics"),
            format!(
                "`metrics={text}` is no address; write one with its port, such as \
                 127.0.0.1:{PORT} or [::1]:{PORT}, or 0.0.0.0:{PORT} to let other hosts read"
            ),
        );
    }
    address
}

fn address(text: &str) -> Option<SocketAddr> {
    let whole = text.parse::<SocketAddr>().ok();
    let bare = || {
        let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = match inner {
            Some(inner) => IpAddr::V6(inner.parse().ok()?),
            None => text.parse().ok()?,
        };
        Some(SocketAddr::new(ip, PORT))
    };
    whole.or_else(bare).filter(|address| address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn an_address_may_lack_its_port() {
        for (text, expected) in [
            ("127.0.0.1:9470", "127.0.0.1:9470"),
            ("127.0.0.1", "127.0.0.1:9470"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::1]:1234", "[::1]:1234"),
            ("[::1]", "[::1]:9470"),
            ("::1", "[::1]:9470"),
        ] {
            assert_eq!(address(text), Some(expected.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "9470",
            ":9470",
            "*:9470",
            "localhost:9470",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
            "[127.0.0.1]",
            "[127.0.0.1]:9470",
            "::1:",
            "[::1",
            "1.2.3.4:9470/m",
        ] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
