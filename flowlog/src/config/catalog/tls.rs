//! The keys of TLS, which all sinks that ship over it share.

use super::{Key, key};

pub(super) const TLS: Key = key(
    "tls",
    "switch",
    "0",
    "1: over TLS 1.2 or 1.3; the server's certificate must be good for the name that is written \
     here",
);
pub(super) const TLS_CA: Key = key(
    "tls_ca",
    "path",
    "",
    "the authorities that the server's certificate may come from, in PEM; a self-signed one may \
     stand there itself. Empty: those that this host trusts",
);
pub(super) const TLS_CERT: Key = key(
    "tls_cert",
    "path",
    "",
    "a certificate of flowlog, in PEM, for servers that want one; needs tls_key",
);
pub(super) const TLS_KEY: Key =
    key("tls_key", "path", "", "its private key, in PEM and without a password");
