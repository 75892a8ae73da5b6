//! Keys → librdkafka's properties: whether TLS is spoken, and who flowlog says it is.

use std::path::Path;

use crate::plugin::ship::tls;

/// Whether TLS and SCRAM are built in: they take OpenSSL, which takes long to build.
pub const HAS_TLS: bool = cfg!(feature = "kafka-tls");
/// What to do where they are not.
pub const BUILD: &str = "this flowlog is built without TLS for Kafka: build it with \
                         `--features kafka-tls`, or put a TLS proxy such as stunnel on this host, \
                         or ship to NATS";

/// Who flowlog says it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Sasl {
    /// The name of the user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// How it is shown, in the words of SASL.
    pub mechanism: &'static str,
}

/// Both as properties, with their values.
pub(super) fn properties(
    tls: Option<&tls::Settings>,
    sasl: Option<&Sasl>,
) -> Vec<(&'static str, String)> {
    let protocol = match (tls, sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    let mut list = vec![("security.protocol", protocol.to_owned())];
    if let Some(tls) = tls {
        let path = |path: &Path| path.display().to_string();
        // An OpenSSL that is built in does not know where this host has its authorities.
        let ca = tls.ca.as_deref().map_or_else(|| "probe".to_owned(), path);
        list.push(("ssl.ca.location", ca));
        list.push(("ssl.endpoint.identification.algorithm", "https".to_owned()));
        if let Some(identity) = &tls.identity {
            list.push(("ssl.certificate.location", path(&identity.certificate)));
            list.push(("ssl.key.location", path(&identity.key)));
        }
    }
    if let Some(Sasl { user, password, mechanism }) = sasl {
        list.push(("sasl.mechanisms", (*mechanism).to_owned()));
        list.push(("sasl.username", user.clone()));
        list.push(("sasl.password", password.clone()));
    }
    list
}

/// The key that a property would undo, if it is set: properties go before keys.
pub(super) fn undone(name: &str, value: &str, tls: bool, sasl: bool) -> Option<&'static str> {
    let value = value.to_ascii_lowercase();
    match name {
        "security.protocol" if tls && !value.ends_with("ssl") => Some("tls"),
        "security.protocol" if sasl && !value.starts_with("sasl_") => Some("user"),
        "sasl.mechanism" | "sasl.mechanisms" if sasl => Some("mechanism"),
        "sasl.username" if sasl => Some("user"),
        "sasl.password" if sasl => Some("pass"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::ship::tls::{Identity, Settings};

    fn text(tls: Option<&Settings>, sasl: Option<&Sasl>) -> String {
        let list = properties(tls, sasl);
        list.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    #[test]
    fn keys_become_properties() {
        let sasl =
            Sasl { user: "u".to_owned(), password: "p".to_owned(), mechanism: "SCRAM-SHA-512" };
        let tls = Settings {
            ca: Some("/ca.pem".into()),
            identity: Some(Identity { certificate: "/c.pem".into(), key: "/k.pem".into() }),
        };
        let verified = "ssl.endpoint.identification.algorithm=https\n";
        let user = "sasl.mechanisms=SCRAM-SHA-512\nsasl.username=u\nsasl.password=p\n";
        assert_eq!(text(None, None), "security.protocol=plaintext\n");
        assert_eq!(
            text(Some(&Settings::default()), None),
            format!("security.protocol=ssl\nssl.ca.location=probe\n{verified}")
        );
        assert_eq!(text(None, Some(&sasl)), format!("security.protocol=sasl_plaintext\n{user}"));
        assert_eq!(
            text(Some(&tls), Some(&sasl)),
            format!(
                "security.protocol=sasl_ssl\nssl.ca.location=/ca.pem\n{verified}\
                 ssl.certificate.location=/c.pem\nssl.key.location=/k.pem\n{user}"
            )
        );
    }

    #[test]
    fn no_property_turns_off_what_a_key_wants() {
        for (name, value, tls, sasl, key) in [
            ("security.protocol", "plaintext", true, false, Some("tls")),
            ("security.protocol", "SASL_PLAINTEXT", true, true, Some("tls")),
            ("security.protocol", "ssl", true, true, Some("user")),
            ("security.protocol", "SASL_SSL", true, true, None),
            ("security.protocol", "sasl_ssl", true, false, None),
            ("security.protocol", "ssl", false, false, None),
            ("sasl.mechanism", "PLAIN", true, true, Some("mechanism")),
            ("sasl.username", "u", false, true, Some("user")),
            ("sasl.password", "p", false, true, Some("pass")),
            ("sasl.password", "p", true, false, None),
            ("linger.ms", "5", true, true, None),
        ] {
            assert_eq!(undone(name, value, tls, sasl), key, "{name}={value}");
        }
    }
}
