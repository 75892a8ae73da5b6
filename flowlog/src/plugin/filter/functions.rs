//! The functions that an expression may call: one list for the checker and for
//! docs/filter.md.

use crate::capture::filter::Network;

/// A function, as the page shows it.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// How it is written.
    pub form: &'static str,
    /// What it says.
    pub help: &'static str,
}

impl Function {
    /// Its name.
    pub fn name(&self) -> &'static str {
        let front = self.form.split('(').next().unwrap_or_default();
        front.rsplit('.').next().unwrap_or_default()
    }
}

const fn function(form: &'static str, help: &'static str) -> Function {
    Function { form, help }
}

/// All functions.
pub const ALL: &[Function] = &[
    function("has(FIELD)", "the field is known of this event"),
    function("ADDRESS.in_net('NETWORK', …)", "it lies in one of these networks"),
    function("ADDRESS.is_private()", "in 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or fc00::/7"),
    function("ADDRESS.is_loopback()", "in 127.0.0.0/8, or ::1"),
    function("ADDRESS.is_link_local()", "in 169.254.0.0/16 or fe80::/10"),
    function("ADDRESS.is_multicast()", "in 224.0.0.0/4 or ff00::/8"),
    function("ADDRESS.is_v4()", "an IPv4 address"),
    function("ADDRESS.is_v6()", "an IPv6 address"),
    function("STRING.startsWith('…')", "the text begins with this"),
    function("STRING.endsWith('…')", "it ends with this"),
    function("STRING.contains('…')", "it has this in it"),
    function("size(STRING)", "how many characters it has"),
    function("duration('…')", "a length of time such as 90s, 1.5h or 2h30m"),
    function("timestamp('…')", "a moment, by RFC 3339: 2026-01-31T12:00:00Z"),
];

/// The networks that a function of addresses without arguments asks for.
pub(super) fn networks(name: &str) -> Option<Vec<Network>> {
    let networks: &[&str] = match name {
        "is_private" => &["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        "is_loopback" => &["127.0.0.0/8", "::1/128"],
        "is_link_local" => &["169.254.0.0/16", "fe80::/10"],
        "is_multicast" => &["224.0.0.0/4", "ff00::/8"],
        "is_v4" => &["0.0.0.0/0"],
        "is_v6" => &["::/0"],
        _ => return None,
    };
    Some(networks.iter().filter_map(|network| network.parse().ok()).collect())
}
