//! By what events are counted: the keys of the tables, and their texts.

use crate::event::{Event, Process};
use crate::flow::names::protocol;
use crate::flow::{Family, Netns, to_ip};
use crate::verb::watch::line::{deleted_by, escaped};
use crate::verb::watch::names::Names;

/// A table of the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Table {
    /// Sources, before NAT.
    #[default]
    Sources,
    /// Destinations, before NAT.
    Destinations,
    /// Destination ports, before NAT.
    Ports,
    /// Network namespaces.
    Namespaces,
    /// Processes that have deleted flows.
    Processes,
}

impl Table {
    /// All of them, in order.
    pub(super) const ALL: [Self; 5] =
        [Self::Sources, Self::Destinations, Self::Ports, Self::Namespaces, Self::Processes];

    /// What the screen calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sources => "Sources",
            Self::Destinations => "Destinations",
            Self::Ports => "Ports",
            Self::Namespaces => "Namespaces",
            Self::Processes => "Processes",
        }
    }

    /// What its rows are.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Self::Sources => "SOURCE",
            Self::Destinations => "DESTINATION",
            Self::Ports => "PORT",
            Self::Namespaces => "NAMESPACE",
            Self::Processes => "DELETED BY",
        }
    }

    /// Netlink tells nothing of it.
    pub(super) fn needs_ebpf(self) -> bool {
        matches!(self, Self::Namespaces | Self::Processes)
    }
}

/// An address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Address(Family, [u8; 16]);

/// A protocol, and a port where it has such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Port(u8, Option<u16>);

/// What a row of one of the tables is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Of sources and destinations.
    Address(Address),
    /// Of ports.
    Port(Port),
    /// Of namespaces.
    Netns(Netns),
    /// Of processes.
    Process(Process),
}

/// Where an event is counted.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) port: Port,
    pub(super) netns: Option<Netns>,
    pub(super) process: Option<Process>,
}

impl Keys {
    pub(super) fn of(event: &Event) -> Self {
        let orig = &event.flow.orig;
        Self {
            source: Address(orig.family, orig.src),
            destination: Address(orig.family, orig.dst),
            port: Port(orig.proto, orig.has_ports().then_some(orig.dst_l4)),
            netns: event.flow.netns,
            process: event.end.as_ref().and_then(deleted_by).copied(),
        }
    }
}

impl Key {
    /// As a row shows it.
    pub(super) fn text(&self, names: &Names) -> String {
        match self {
            Self::Address(Address(family, bytes)) => to_ip(*family, bytes).to_string(),
            Self::Port(Port(number, port)) => {
                let name = protocol(*number).map_or_else(|| number.to_string(), str::to_owned);
                port.map_or_else(|| name.clone(), |port| format!("{name}/{port}"))
            }
            Self::Netns(netns) => names.known(*netns).to_string(),
            Self::Process(Process { pid, comm }) => {
                format!("{pid} {}", escaped(comm.as_bytes()))
            }
        }
    }
}

impl From<Address> for Key {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<Port> for Key {
    fn from(port: Port) -> Self {
        Self::Port(port)
    }
}

impl From<Netns> for Key {
    fn from(netns: Netns) -> Self {
        Self::Netns(netns)
    }
}

impl From<Process> for Key {
    fn from(process: Process) -> Self {
        Self::Process(process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cause, Kinds};
    use crate::flow::proto;
    use crate::verb::watch::tests::{ended, tcp, udp6};

    #[test]
    fn an_event_has_a_key_in_each_table_that_it_tells_of() {
        let names = Names::of(|| [(4_026_532_210, "blue".to_owned())].into());
        let text = |key: Key| key.text(&names);
        let keys = Keys::of(&ended(Cause::Deleted));
        assert_eq!(text(keys.source.into()), "10.77.1.2");
        assert_eq!(text(keys.destination.into()), "10.77.1.1");
        assert_eq!(text(keys.port.into()), "tcp/8080");
        // Nobody has looked for its name.
        assert_eq!(text(keys.netns.unwrap().into()), "4026532210");
        assert_eq!(text(keys.process.unwrap().into()), r"1712 my\x20tool");
        let mut names = names;
        names.named(keys.netns.unwrap());
        assert_eq!(Key::from(keys.netns.unwrap()).text(&names), "4026532210(blue)");
    }

    #[test]
    fn what_is_not_known_has_no_key() {
        // A process was at work there, but did not delete it.
        assert!(Keys::of(&ended(Cause::Reset)).process.is_none());
        let mut event = udp6(Kinds::NEW);
        event.flow.netns = None;
        let names = Names::new();
        let keys = Keys::of(&event);
        assert_eq!(keys.netns, None);
        assert_eq!(Key::from(keys.source).text(&names), "fd77:1::2");
        assert_eq!(Key::from(keys.port).text(&names), "udp/9053");
        let mut ping = tcp(Kinds::NEW);
        for (number, name) in [(proto::ICMP, "icmp"), (89, "89")] {
            ping.flow.orig.proto = number;
            assert_eq!(Key::from(Keys::of(&ping).port).text(&names), name);
        }
    }
}
