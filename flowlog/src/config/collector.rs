//! The section of IPFIX → its typed settings.

use super::sections::section;
use super::sinks::text;
use super::stacks::Element;
use super::*;
use crate::plugin::ipfix::{Protocol, Refresh, Settings};

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendTemplate {
    Once,
    Always,
    Never,
}

const SEND_TEMPLATE: [(&str, SendTemplate); 3] = [
    ("once", SendTemplate::Once),
    ("always", SendTemplate::Always),
    ("never", SendTemplate::Never),
];

pub(super) fn ipfix(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> Settings {
    let values = section(document, element, found);
    let protocol = protocol(&values, found);
    let port = if matches!(protocol, Protocol::Tls(_)) { 4740 } else { 4739 };
    let mtu = values.integer("mtu", 512..=65507, found).unwrap_or(1400);
    let shipping = sinks::shipping(&values, element, found);
    Settings {
        shipping,
        host: hosts::read(&values, text(&values, element, "host", found), found),
        port: values.integer("port", 1..=65535, found).unwrap_or(port) as u16,
        domain: values.integer("oid", 0..=i64::from(u32::MAX), found).unwrap_or(1) as u32,
        mtu: mtu as usize,
        refresh: refresh(&values, &protocol, found),
        protocol,
        nat_events: values.switch("nat_events", found).unwrap_or(true),
    }
}

fn protocol(values: &Values<'_>, found: &mut Diagnostics) -> Protocol {
    let udp = values.choice("proto", &[("tcp", false), ("udp", true)], found).unwrap_or(false);
    match (udp, tls::read(values, found)) {
        (false, Some(tls)) => Protocol::Tls(tls),
        (false, None) => Protocol::Tcp,
        (true, None) => Protocol::Udp,
        (true, Some(_)) => {
            found.error(
                values.line("tls"),
                "there is no TLS over UDP; set proto=tcp, or remove tls".to_owned(),
            );
            Protocol::Udp
        }
    }
}

/// When templates are told again, if ever.
fn refresh(values: &Values<'_>, protocol: &Protocol, found: &mut Diagnostics) -> Option<Refresh> {
    let every = values.duration("template_refresh", found).unwrap_or(Duration::from_secs(60));
    let messages = values.integer("template_refresh_messages", 1..=i64::from(u32::MAX), found);
    match values.choice("send_template", &SEND_TEMPLATE, found) {
        Some(SendTemplate::Always) => return Some(Refresh { every: Duration::ZERO, messages: 1 }),
        Some(SendTemplate::Never) => found.note(
            values.line("send_template"),
            "`send_template=never`: templates are sent all the same, as with `once`: no collector \
             can know those of flowlog; write send_template=once"
                .to_owned(),
        ),
        Some(SendTemplate::Once) | None => {}
    }
    let messages = messages.unwrap_or(100) as u32;
    (*protocol == Protocol::Udp).then_some(Refresh { every, messages })
}

/// Two stacks that send to one collector as one observation domain: each counts
/// its records for itself, and the collector takes them for one stream.
pub(super) fn note_shared_domains(config: &Config, found: &mut Diagnostics) {
    let domains = config.stacks.iter().flat_map(|stack| {
        let ipfix = stack.stages.iter().filter_map(|stage| match stage {
            Stage::Ipfix(settings) => Some(settings),
            _ => None,
        });
        ipfix.map(move |settings| (stack.line, settings))
    });
    let mut seen: Vec<(usize, String, u32)> = Vec::new();
    for (line, settings) in domains {
        let (collector, domain) = (settings.collector().to_string(), settings.domain);
        if let Some((first, ..)) = seen.iter().find(|(_, c, d)| *c == collector && *d == domain) {
            found.note(
                line,
                format!(
                    "this stack and that of line {first} send to {collector} with one `oid={domain}`: \
                     the collector sees gaps in their sequence numbers; give [{}] an oid of its own",
                    settings.shipping.id
                ),
            );
        }
        seen.push((line, collector, domain));
    }
}
