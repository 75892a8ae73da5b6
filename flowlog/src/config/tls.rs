//! The keys `tls`, `tls_ca`, `tls_cert` and `tls_key`, which all sinks that ship
//! over TLS share.

use super::*;
use crate::plugin::ship::tls::{Identity, Settings};

/// Reads the keys; `None`: without TLS.
pub(super) fn read(values: &Values<'_>, found: &mut Diagnostics) -> Option<Settings> {
    let on = values.switch("tls", found).unwrap_or(false);
    files(values, on, "set tls=1", found)
}

/// Reads the keys that name files; `remedy` is how TLS is turned on.
pub(super) fn files(
    values: &Values<'_>,
    on: bool,
    remedy: &str,
    found: &mut Diagnostics,
) -> Option<Settings> {
    let [ca, certificate, key] = ["tls_ca", "tls_cert", "tls_key"]
        .map(|key| values.string(key, found).filter(|path| !path.is_empty()).map(PathBuf::from));
    // Whoever names them believes that nobody can read along.
    let named = [("tls_ca", &ca), ("tls_cert", &certificate), ("tls_key", &key)];
    let named = named.into_iter().find(|(_, file)| file.is_some());
    if let (false, Some((key, _))) = (on, named) {
        found.error(
            values.line(key),
            format!("`{key}` is for TLS, which is off; {remedy}, or remove it"),
        );
    }
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (None, None) => None,
        (certificate, _) => {
            let (there, missing) = match certificate {
                Some(_) => ("tls_cert", "tls_key"),
                None => ("tls_key", "tls_cert"),
            };
            found.error(
                values.line(there),
                format!(
                    "`{there}` needs `{missing}`: a certificate and its private key; name both"
                ),
            );
            None
        }
    };
    on.then_some(Settings { ca, identity })
}
