//! What an expression says of addresses, protocols and ports, for the kernel to
//! refuse what nobody wants. It may ask for too little, never for too much: the
//! whole expression is asked again of each event that comes.

use std::fmt;

use super::fields::{Direction, Get, Member};
use super::tree::{Comparison, Operand, Test};
use super::value::Value;
use crate::capture::filter::{Filter, Network, only_destinations, only_sources};
use crate::flow::names;

/// More networks than these cost the kernel more than they save: the socket
/// filter is a list, and a program may have 4096 instructions.
const MOST: usize = 64;

/// A condition on the original tuple. An empty list is met by none, a missing
/// one by all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    sources: Option<Vec<Network>>,
    destinations: Option<Vec<Network>>,
    protocols: Option<Vec<u8>>,
}

impl Bounds {
    fn nothing() -> Self {
        Self { protocols: Some(Vec::new()), ..Self::default() }
    }

    /// Both conditions.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            sources: both(self.sources, other.sources, common),
            destinations: both(self.destinations, other.destinations, common),
            protocols: both(self.protocols, other.protocols, |a, b| {
                a.iter().filter(|protocol| b.contains(protocol)).copied().collect()
            }),
        }
    }

    /// What follows if one of both holds.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if self.is_nothing() {
            return other;
        }
        if other.is_nothing() {
            return self;
        }
        let networks = |a: Option<Vec<Network>>, b: Option<Vec<Network>>| {
            a.zip(b).map(|(a, b)| without_covered([a, b].concat()))
        };
        Self {
            sources: networks(self.sources, other.sources),
            destinations: networks(self.destinations, other.destinations),
            protocols: self.protocols.zip(other.protocols).map(|(mut protocols, others)| {
                protocols.extend(others);
                protocols.sort_unstable();
                protocols.dedup();
                protocols
            }),
        }
    }

    /// Without the lists that are too long for the kernel.
    #[must_use]
    pub fn short(self) -> Self {
        let few = |list: Option<Vec<Network>>| list.filter(|list| list.len() <= MOST);
        Self { sources: few(self.sources), destinations: few(self.destinations), ..self }
    }

    /// No tuple meets it.
    fn is_nothing(&self) -> bool {
        let Self { sources, destinations, protocols } = self;
        sources.as_ref().is_some_and(Vec::is_empty)
            || destinations.as_ref().is_some_and(Vec::is_empty)
            || protocols.as_ref().is_some_and(Vec::is_empty)
    }

    /// What the `accept_*_filter`s ask for.
    fn of_filter(filter: &Filter) -> Self {
        // A list that names one family lets the other pass.
        let networks = |list: &[Network]| {
            let everything = ["0.0.0.0/0", "::/0"].map(str::parse::<Network>).into_iter().flatten();
            let unnamed = everything.filter(|all| !list.iter().any(|named| all.covers(named)));
            (!list.is_empty()).then(|| list.iter().copied().chain(unnamed).collect())
        };
        Self {
            sources: networks(&filter.sources),
            destinations: networks(&filter.destinations),
            protocols: (!filter.protocols.is_empty()).then(|| filter.protocols.clone()),
        }
    }

    /// `filter` with this condition added to it, as far as it goes there.
    pub fn added_to(self, filter: &Filter) -> Filter {
        let asked = self.clone();
        let all = Self::of_filter(filter).and(self);
        if all.is_nothing() {
            return Filter { sources: only_sources(Vec::new()), ..Filter::default() };
        }
        // What is not asked for stays as it is written.
        let few = |asked: Option<_>, list: Option<Vec<Network>>| {
            asked.and(list).filter(|list| list.len() <= MOST)
        };
        Filter {
            sources: few(asked.sources, all.sources)
                .map_or_else(|| filter.sources.clone(), only_sources),
            destinations: few(asked.destinations, all.destinations)
                .map_or_else(|| filter.destinations.clone(), only_destinations),
            protocols: all.protocols.unwrap_or_default(),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_nothing() {
            return f.write_str("nothing");
        }
        let protocol = |number: &u8| {
            names::protocol(*number).map_or_else(|| number.to_string(), str::to_owned)
        };
        let networks = |list: &Vec<Network>| list.iter().map(ToString::to_string).collect();
        let parts: [(&str, Option<Vec<String>>); 3] = [
            ("sources", self.sources.as_ref().map(networks)),
            ("destinations", self.destinations.as_ref().map(networks)),
            ("protocols", self.protocols.as_ref().map(|list| list.iter().map(protocol).collect())),
        ];
        let said = parts
            .into_iter()
            .filter_map(|(what, list)| list.map(|list| format!("{what} {}", list.join(", "))));
        f.write_str(&said.collect::<Vec<_>>().join("; "))
    }
}

fn both<T>(
    a: Option<Vec<T>>,
    b: Option<Vec<T>>,
    common: fn(&[T], &[T]) -> Vec<T>,
) -> Option<Vec<T>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(common(&a, &b)),
        (a, b) => a.or(b),
    }
}

/// What lies in a network of both lists: of two networks that meet one covers
/// the other.
fn common(a: &[Network], b: &[Network]) -> Vec<Network> {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let narrower =
        pairs.filter_map(|(a, b)| if a.covers(b) { Some(*b) } else { b.covers(a).then_some(*a) });
    without_covered(narrower.collect())
}

fn without_covered(networks: Vec<Network>) -> Vec<Network> {
    let mut kept: Vec<Network> = Vec::new();
    for network in networks {
        if !kept.iter().any(|wider| wider.covers(&network)) {
            kept.retain(|narrower| !network.covers(narrower));
            kept.push(network);
        }
    }
    kept
}

/// What the original tuple must be wherever `test` holds, or has no answer:
/// such events are handed on too.
pub(super) fn of(test: &Test) -> Bounds {
    match test {
        Test::Always(false) => Bounds::nothing(),
        Test::And(both) => of(&both[0]).and(of(&both[1])),
        Test::Or(both) => of(&both[0]).or(of(&both[1])),
        Test::Has(get) | Test::Contains(get, _) => of_presence(get),
        Test::Compare(comparison, both) => {
            let [left, right] = both.as_ref();
            let present = of_operands([left, right]);
            match comparison {
                Comparison::Equal => present.and(equal(left, right)).and(equal(right, left)),
                _ => present,
            }
        }
        Test::Text(_, both) => of_operands(both.as_ref()),
        Test::Among(operand, list) => {
            if list.iter().any(can_fault) {
                return Bounds::default();
            }
            let each = list.iter().map(|element| equal(operand, element));
            of_operands([operand]).and(each.reduce(Bounds::or).unwrap_or_else(Bounds::nothing))
        }
        Test::Within(Operand::Field(get), networks) => of_networks(get, networks.clone()),
        Test::Always(true) | Test::Not(_) | Test::If(_) | Test::Same(_) | Test::Within(..) => {
            Bounds::default()
        }
    }
}

/// All of them must be there, as a test of what is absent is false; unless one
/// may have no answer, which comes first.
fn of_operands<'a>(operands: impl IntoIterator<Item = &'a Operand> + Clone) -> Bounds {
    if operands.clone().into_iter().any(can_fault) {
        return Bounds::default();
    }
    operands.into_iter().map(present).reduce(Bounds::and).unwrap_or_default()
}

fn can_fault(operand: &Operand) -> bool {
    match operand {
        Operand::Field(_) | Operand::Text(_) | Operand::Constant(_) => false,
        Operand::Size(operand) => can_fault(operand),
        Operand::Arithmetic(..) => true,
    }
}

/// The protocol must be one that has it.
fn present(operand: &Operand) -> Bounds {
    match operand {
        Operand::Field(get) => of_presence(get),
        Operand::Size(operand) => present(operand),
        Operand::Text(_) | Operand::Constant(_) | Operand::Arithmetic(..) => Bounds::default(),
    }
}

fn of_presence(get: &Get) -> Bounds {
    match get {
        Get::Tuple(Direction::Orig, member) => {
            Bounds { protocols: member.protocols().map(<[u8]>::to_vec), ..Bounds::default() }
        }
        Get::ProtocolName => {
            let named = (0..=u8::MAX).filter(|number| names::protocol(*number).is_some());
            Bounds { protocols: Some(named.collect()), ..Bounds::default() }
        }
        Get::Tuple(..) | Get::Protocol | Get::Item(_) => Bounds::default(),
    }
}

fn of_networks(get: &Get, networks: Vec<Network>) -> Bounds {
    match get {
        Get::Tuple(Direction::Orig, Member::Src) => {
            Bounds { sources: Some(networks), ..Bounds::default() }
        }
        Get::Tuple(Direction::Orig, Member::Dst) => {
            Bounds { destinations: Some(networks), ..Bounds::default() }
        }
        _ => Bounds::default(),
    }
}

/// The field at the left equals the constant at the right.
fn equal(left: &Operand, right: &Operand) -> Bounds {
    let Operand::Field(get) = left else { return Bounds::default() };
    let protocol = |number| Bounds { protocols: number, ..Bounds::default() };
    match (get, right) {
        (Get::Tuple(..), Operand::Constant(Value::Address(family, address))) => {
            of_networks(get, vec![Network::host(*family, *address)])
        }
        (Get::ProtocolName, Operand::Text(name)) => {
            let named = (0..=u8::MAX).filter(|number| {
                names::protocol(*number).is_some_and(|known| known.as_bytes() == &**name)
            });
            protocol(Some(named.collect()))
        }
        (Get::Protocol, Operand::Constant(Value::Int(number))) => {
            protocol(Some(u8::try_from(*number).into_iter().collect()))
        }
        _ => Bounds::default(),
    }
}
