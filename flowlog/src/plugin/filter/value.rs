//! What an expression is about: types, and values of them as they stand in an
//! event. Nothing is copied but numbers and addresses.

use std::cmp::Ordering;
use std::fmt;

use crate::event::{Cause, ExpectAction, Witness};
use crate::flow::{Family, names};
use crate::plugin::json::full::KINDS;

/// What a part of an expression is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// Any text.
    Text,
    /// One word out of a list.
    Word(Words),
    /// Some words out of a list.
    Set(Words),
    /// An IP address.
    Address,
    /// Connection labels.
    Labels,
    /// A moment.
    Time,
    /// A length of time.
    Duration,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int => "integer",
            Self::Double => "double",
            Self::Text => "string",
            Self::Word(_) => "word",
            Self::Set(_) => "list of words",
            Self::Address => "address",
            Self::Labels => "labels",
            Self::Time => "timestamp",
            Self::Duration => "duration",
        })
    }
}

/// Lists of words that a field may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Flow or expectation.
    Records,
    /// What happened.
    Kinds,
    /// What happened to an expectation.
    Actions,
    /// Address families.
    Families,
    /// Protocols with a name.
    Protocols,
    /// States of the protocols that have some.
    States,
    /// Status bits.
    Status,
    /// Why a flow ended.
    Causes,
    /// Who told it.
    Witnesses,
}

/// The records that are asked; losses are not.
pub(super) const FLOW: &str = "flow";
pub(super) const EXPECTATION: &str = "expectation";

impl Words {
    /// The words, those of a set in the order of the bits in a [`Value::Set`].
    pub fn names(self) -> Vec<&'static str> {
        use ExpectAction::{Destroy, New, Update};
        match self {
            Self::Records => vec![FLOW, EXPECTATION],
            Self::Kinds => KINDS.map(|(_, name)| name).to_vec(),
            Self::Actions => [New, Update, Destroy].map(ExpectAction::name).to_vec(),
            Self::Families => [Family::V4, Family::V6].map(names::family).to_vec(),
            Self::Protocols => (0..=u8::MAX).filter_map(names::protocol).collect(),
            Self::States => names::states().collect(),
            Self::Status => names::STATUS.map(|(_, name)| name).to_vec(),
            Self::Causes => Cause::ALL.map(Cause::name).to_vec(),
            Self::Witnesses => [Witness::Both, Witness::Ebpf, Witness::Healed]
                .into_iter()
                .filter_map(Witness::name)
                .collect(),
        }
    }

    /// The bit that stands for `name` in a [`Value::Set`].
    pub(super) fn bit(self, name: &str) -> Option<u32> {
        match self {
            Self::Kinds => bit(&KINDS, name).map(|kind| kind.bits()),
            Self::Status => bit(&names::STATUS, name).map(|status| status.bits()),
            _ => None,
        }
    }
}

fn bit<T: Copy>(table: &[(T, &str)], wanted: &str) -> Option<T> {
    table.iter().find(|(_, name)| *name == wanted).map(|(bit, _)| *bit)
}

/// A value; text need not be UTF-8.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Of [`Type::Int`].
    Int(i64),
    /// Of [`Type::Double`].
    Double(f64),
    /// Of [`Type::Text`] and [`Type::Word`].
    Text(&'a [u8]),
    /// Of [`Type::Set`].
    Set(u32),
    /// Of [`Type::Address`].
    Address(Family, [u8; 16]),
    /// Of [`Type::Labels`].
    Labels([u8; 16]),
    /// Of [`Type::Time`] and [`Type::Duration`]: nanoseconds.
    Nanoseconds(i64),
}

impl Value<'_> {
    /// The order of two values of types that can be compared; absent where
    /// there is none, as for NaN.
    #[inline]
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) | (Self::Nanoseconds(a), Self::Nanoseconds(b)) => {
                Some(a.cmp(b))
            }
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Double(b)) => order_mixed(*a, *b),
            (Self::Double(a), Self::Int(b)) => order_mixed(*b, *a).map(Ordering::reverse),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Address(a, x), Self::Address(b, y)) => {
                Some((*a as u8).cmp(&(*b as u8)).then_with(|| x.cmp(y)))
            }
            (Self::Labels(a), Self::Labels(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Exact: a double holds integers up to 2⁵³ only.
fn order_mixed(int: i64, double: f64) -> Option<Ordering> {
    /// 2⁶³, which no integer reaches.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if double.is_nan() {
        return None;
    }
    if double >= LIMIT {
        return Some(Ordering::Less);
    }
    if double < -LIMIT {
        return Some(Ordering::Greater);
    }
    let whole = double.trunc();
    Some((int.cmp(&(whole as i64))).then_with(|| whole.total_cmp(&double)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_doubles_are_compared_exactly() {
        let order = |int, double: f64| Value::Int(int).order(&Value::Double(double));
        assert_eq!(order(2, 2.5), Some(Ordering::Less));
        assert_eq!(order(-2, -2.5), Some(Ordering::Greater));
        assert_eq!(order(3, 3.0), Some(Ordering::Equal));
        assert_eq!(order(0, -0.5), Some(Ordering::Greater));
        assert_eq!(order(i64::MAX, i64::MAX as f64), Some(Ordering::Less));
        assert_eq!(order(i64::MIN, i64::MIN as f64), Some(Ordering::Equal));
        assert_eq!(order((1 << 53) + 1, (1_u64 << 53) as f64), Some(Ordering::Greater));
        assert_eq!(order(1, f64::NAN), None);
        assert_eq!(Value::Double(2.5).order(&Value::Int(2)), Some(Ordering::Greater));
    }

    #[test]
    fn sets_have_a_bit_for_each_word() {
        for words in [Words::Kinds, Words::Status] {
            let bits: Vec<u32> = words.names().iter().filter_map(|name| words.bit(name)).collect();
            assert_eq!(bits.len(), words.names().len());
            assert!(bits.iter().all(|bit| bit.is_power_of_two()));
        }
    }
}
