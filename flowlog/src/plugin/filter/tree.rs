//! A checked expression, as it is asked of each event: no look-up by name, no
//! type to find out, nothing allocated.
//!
//! What is absent equals nothing: a test that needs an absent value is false.

use std::cmp::Ordering;

use super::fields::Get;
use super::value::Value;
use crate::capture::filter::Network;
use crate::plugin::Item;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A result that no 64 bits hold.
    Overflow,
    /// Division by zero, or the remainder of it.
    DivisionByZero,
}

impl Fault {
    /// The words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Overflow => "a number that is too large",
            Self::DivisionByZero => "division by zero",
        }
    }
}

/// What is true or false.
#[derive(Clone, Debug)]
pub(super) enum Test {
    Always(bool),
    /// The field is there.
    Has(Get),
    Not(Box<Self>),
    And(Box<[Self; 2]>),
    Or(Box<[Self; 2]>),
    /// Condition, then, else.
    If(Box<[Self; 3]>),
    /// Both are true, or both are false.
    Same(Box<[Self; 2]>),
    Compare(Comparison, Box<[Operand; 2]>),
    /// Equal to one of them.
    Among(Operand, Vec<Operand>),
    /// Of a set, one of these bits.
    Contains(Get, u32),
    /// An address in one of them.
    Within(Operand, Vec<Network>),
    Text(TextTest, Box<[Operand; 2]>),
}

/// What is compared.
#[derive(Clone, Debug)]
pub(super) enum Operand {
    Field(Get),
    /// A text as written.
    Text(Box<[u8]>),
    /// Anything else as written.
    Constant(Value<'static>),
    /// Characters of a text.
    Size(Box<Self>),
    Arithmetic(Operator, Box<[Self; 2]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

type Answer = Result<bool, Fault>;
type Found<'a> = Result<Option<Value<'a>>, Fault>;

impl Test {
    /// Whether it holds of `item`.
    pub(super) fn holds(&self, item: &Item<'_>) -> Answer {
        Ok(match self {
            Self::Always(answer) => *answer,
            Self::Has(get) => get.of(item).is_some(),
            Self::Not(test) => !test.holds(item)?,
            // As in CEL, one side that decides makes good for a fault in the other.
            Self::And(both) => return both_hold(both, item),
            Self::Or(both) => return either_holds(both, item),
            Self::If(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                return if condition.holds(item)? { then } else { otherwise }.holds(item);
            }
            Self::Same(both) => both[0].holds(item)? == both[1].holds(item)?,
            Self::Compare(comparison, both) => {
                let [left, right] = both.as_ref();
                let (left, right) = (left.value(item)?, right.value(item)?);
                pair(left, right).is_some_and(|(a, b)| comparison.holds(&a, &b))
            }
            Self::Among(operand, list) => return among(operand, list, item),
            Self::Contains(get, bits) => {
                matches!(get.of(item), Some(Value::Set(set)) if set & bits != 0)
            }
            Self::Within(operand, networks) => match operand.value(item)? {
                Some(Value::Address(family, address)) => {
                    networks.iter().any(|network| network.contains(family, &address))
                }
                _ => false,
            },
            Self::Text(test, both) => match pair(both[0].value(item)?, both[1].value(item)?) {
                Some((Value::Text(text), Value::Text(part))) => test.holds(text, part),
                _ => false,
            },
        })
    }
}

fn both_hold([left, right]: &[Test; 2], item: &Item<'_>) -> Answer {
    match left.holds(item) {
        Ok(true) => right.holds(item),
        Ok(false) => Ok(false),
        Err(fault) => {
            if right.holds(item) == Ok(false) {
                Ok(false)
            } else {
                Err(fault)
            }
        }
    }
}

fn either_holds([left, right]: &[Test; 2], item: &Item<'_>) -> Answer {
    match left.holds(item) {
        Ok(false) => right.holds(item),
        Ok(true) => Ok(true),
        Err(fault) => {
            if right.holds(item) == Ok(true) {
                Ok(true)
            } else {
                Err(fault)
            }
        }
    }
}

fn among(operand: &Operand, list: &[Operand], item: &Item<'_>) -> Answer {
    let Some(value) = operand.value(item)? else { return Ok(false) };
    for element in list {
        if element.value(item)?.is_some_and(|element| Comparison::Equal.holds(&value, &element)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn pair<'a>(left: Option<Value<'a>>, right: Option<Value<'a>>) -> Option<(Value<'a>, Value<'a>)> {
    left.zip(right)
}

impl Operand {
    /// Its value in `item`; absent where nobody knows it.
    fn value<'a>(&'a self, item: &Item<'a>) -> Found<'a> {
        match self {
            Self::Field(get) => Ok(get.of(item)),
            Self::Text(text) => Ok(Some(Value::Text(text))),
            Self::Constant(value) => Ok(Some(*value)),
            Self::Size(operand) => Ok(operand.value(item)?.and_then(size)),
            Self::Arithmetic(operator, both) => {
                let (left, right) = (both[0].value(item)?, both[1].value(item)?);
                match pair(left, right) {
                    Some((left, right)) => operator.of(left, right),
                    None => Ok(None),
                }
            }
        }
    }
}

/// Characters, as CEL counts them; what is no UTF-8 counts as one for each
/// faulty part.
fn size(value: Value<'_>) -> Option<Value<'static>> {
    match value {
        Value::Text(text) => {
            let parts = text.utf8_chunks();
            let characters = parts
                .map(|part| part.valid().chars().count() + usize::from(!part.invalid().is_empty()));
            Some(Value::Int(characters.sum::<usize>() as i64))
        }
        _ => None,
    }
}

impl Comparison {
    #[inline]
    fn holds(self, left: &Value<'_>, right: &Value<'_>) -> bool {
        let order = left.order(right);
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Less => order == Some(Ordering::Less),
            Self::LessOrEqual => order.is_some_and(Ordering::is_le),
            Self::Greater => order == Some(Ordering::Greater),
            Self::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
        }
    }
}

impl TextTest {
    fn holds(self, text: &[u8], part: &[u8]) -> bool {
        match self {
            Self::StartsWith => text.starts_with(part),
            Self::EndsWith => text.ends_with(part),
            Self::Contains => {
                part.is_empty() || text.windows(part.len()).any(|window| window == part)
            }
        }
    }
}

impl Operator {
    fn of(self, left: Value<'_>, right: Value<'_>) -> Found<'static> {
        match (left, right) {
            (Value::Int(a), Value::Int(b)) => self.of_integers(a, b).map(Value::Int).map(Some),
            (Value::Nanoseconds(a), Value::Nanoseconds(b)) => {
                self.of_integers(a, b).map(Value::Nanoseconds).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn of_integers(self, a: i64, b: i64) -> Result<i64, Fault> {
        let result = match self {
            Self::Divide | Self::Remainder if b == 0 => return Err(Fault::DivisionByZero),
            Self::Add => a.checked_add(b),
            Self::Subtract => a.checked_sub(b),
            Self::Multiply => a.checked_mul(b),
            Self::Divide => a.checked_div(b),
            Self::Remainder => a.checked_rem(b),
        };
        result.ok_or(Fault::Overflow)
    }
}
