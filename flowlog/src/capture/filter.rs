//! `accept_src_filter`, `accept_dst_filter`, `accept_proto_filter`: which flows
//! are logged at all. They match the original tuple; addresses within a list
//! are alternatives, and every list must match. A list that names addresses of
//! one family only lets the other family pass.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::flow::{Family, Tuple, to_ip};

/// A network as written: `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    family: Family,
    address: [u8; 16],
    length: u8,
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((address, length)) = text.split_once('/') else {
            return Err(format!("`{text}` has no prefix length: write `{text}/32` for one host"));
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("`{address}` is no IP address"))?;
        let (family, bytes, most) = match address {
            IpAddr::V4(v4) => {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&v4.octets());
                (Family::V4, bytes, 32)
            }
            IpAddr::V6(v6) => (Family::V6, v6.octets(), 128),
        };
        match length.parse::<u8>() {
            Ok(length) if length <= most => Ok(Self { family, address: bytes, length }),
            _ => Err(format!("`/{length}` is no prefix length: it goes from 0 to {most}")),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl Network {
    /// The network of one host.
    pub fn host(family: Family, address: [u8; 16]) -> Self {
        let length = match family {
            Family::V4 => 32,
            Family::V6 => 128,
        };
        Self { family, address, length }
    }

    /// Whether all addresses of `other` are in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.contains(other.family, &other.address)
    }

    /// Its address, of which only the first [`Network::length`] bits count.
    pub fn address(&self) -> IpAddr {
        to_ip(self.family, &self.address)
    }

    /// Length of the prefix, in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Whether an address of `family` is in it.
    pub fn contains(&self, family: Family, address: &[u8; 16]) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(*address);
        self.family == family && (self.length == 0 || differing >> (128 - self.length) == 0)
    }
}

/// The three filters together; empty lists accept everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Networks of the source.
    pub sources: Vec<Network>,
    /// Networks of the destination, before NAT.
    pub destinations: Vec<Network>,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
}

impl Filter {
    /// All flows are to be logged.
    pub fn accepts_all(&self) -> bool {
        let Self { sources, destinations, protocols } = self;
        sources.is_empty() && destinations.is_empty() && protocols.is_empty()
    }

    /// Whether a flow with this original tuple is to be logged.
    #[inline]
    pub fn accepts(&self, orig: &Tuple) -> bool {
        accepts(&self.sources, orig.family, &orig.src)
            && accepts(&self.destinations, orig.family, &orig.dst)
            && (self.protocols.is_empty() || self.protocols.contains(&orig.proto))
    }
}

/// Networks of the source of which none is to pass that is not named: as a list
/// that names one family lets the other pass, it gets an address there that no
/// packet has.
pub fn only_sources(networks: Vec<Network>) -> Vec<Network> {
    of_both_families(networks, "255.255.255.255/32")
}

/// The same for destinations.
pub fn only_destinations(networks: Vec<Network>) -> Vec<Network> {
    of_both_families(networks, "0.0.0.0/32")
}

fn of_both_families(mut networks: Vec<Network>, no_v4: &str) -> Vec<Network> {
    for (other, family) in [(no_v4, Family::V4), ("::/128", Family::V6)] {
        if !networks.iter().any(|network| network.family == family) {
            networks.extend(other.parse::<Network>());
        }
    }
    networks
}

fn accepts(networks: &[Network], family: Family, address: &[u8; 16]) -> bool {
    let mut same_family = networks.iter().filter(|n| n.family == family).peekable();
    same_family.peek().is_none() || same_family.any(|n| n.contains(family, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> (Family, [u8; 16]) {
        let network: Network = format!("{text}/0").parse().unwrap();
        (network.family, network.address)
    }

    fn accepted(list: &[&str], text: &str) -> bool {
        let networks: Vec<Network> = list.iter().map(|n| n.parse().unwrap()).collect();
        let (family, bytes) = address(text);
        accepts(&networks, family, &bytes)
    }

    #[test]
    fn prefixes_of_every_length_match_to_the_bit() {
        assert!(accepted(&["10.1.2.0/23"], "10.1.3.255"));
        assert!(!accepted(&["10.1.2.0/23"], "10.1.4.0"));
        assert!(accepted(&["0.0.0.0/0"], "255.1.1.1"));
        assert!(accepted(&["10.0.0.1/32"], "10.0.0.1"));
        assert!(!accepted(&["10.0.0.1/32"], "10.0.0.0"));
        assert!(accepted(&["fd77:1::/32"], "fd77:1:ffff::1"));
        assert!(!accepted(&["fd77:1::1/128"], "fd77:1::"));
    }

    #[test]
    fn a_list_of_one_family_lets_the_other_pass() {
        assert!(accepted(&["10.0.0.0/8"], "fd77::1"));
        assert!(!accepted(&["10.0.0.0/8", "fd00::/16"], "fd77::1"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_remedy() {
        let refused = |text: &str| text.parse::<Network>().unwrap_err();
        assert_eq!(
            refused("10.0.0.1"),
            "`10.0.0.1` has no prefix length: write `10.0.0.1/32` for one host"
        );
        assert!(refused("10.0.0.1/33").contains("from 0 to 32"));
        assert!(refused("10.0.0/8").contains("no IP address"));
    }
}
