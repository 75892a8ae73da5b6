//! The crate's own interpreter gives the same answers: expressions and events
//! by chance.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Env, Value as Theirs};
use proptest::prelude::*;

use super::random::{event, expression, key};
use super::*;
use crate::capture::filter::Network;
use crate::plugin::filter::value::{Type, Value};

/// An address written by the standard library.
fn written(family: Family, bytes: [u8; 16]) -> String {
    let tuple = Tuple { family, src: bytes, ..Tuple::default() };
    tuple.src_ip().to_string()
}

/// Each field that is known, under its name.
fn fields_of(made: &Made) -> HashMap<String, Theirs> {
    let item = made.item();
    let known = fields::all().into_iter().filter_map(|field| {
        let value = match (field.get.of(&item)?, field.kind) {
            (Value::Int(number) | Value::Nanoseconds(number), _) => Theirs::Int(number),
            (Value::Double(number), _) => Theirs::Float(number),
            (Value::Text(text), _) => String::from_utf8_lossy(text).into_owned().into(),
            (Value::Set(bits), Type::Set(words)) => {
                let names = words.names().into_iter();
                let set = names.filter(|name| words.bit(name).is_some_and(|bit| bits & bit != 0));
                Theirs::from(set.map(str::to_owned).collect::<Vec<String>>())
            }
            (Value::Address(family, bytes), _) => written(family, bytes).into(),
            (Value::Labels(_) | Value::Set(_), _) => return None,
        };
        Some((key(&field.name), value))
    });
    known.collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// By the standard library, not by our lists of networks.
fn theirs(text: &str, made: &Made) -> Option<bool> {
    let env = Arc::new(Env::stdlib());
    let program = env.compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let mut context = Context::with_env(env);
    context.add_variable_from_value("e", fields_of(made));
    let mut add = |name: &str, test: fn(IpAddr) -> bool| {
        let asked = move |This(text): This<Arc<String>>| test(address(&text));
        context.add_function(name, asked).unwrap();
    };
    add("is_private", |address| match address {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    });
    add("is_loopback", |address| address.is_loopback());
    add("is_multicast", |address| address.is_multicast());
    add("is_v4", |address| address.is_ipv4());
    add("is_v6", |address| address.is_ipv6());
    let in_net = |This(text): This<Arc<String>>, network: Arc<String>| {
        let network: Network = network.parse().unwrap();
        match (address(&text), network.address()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(network.length());
                u64::from(u32::from(a)) >> shift == u64::from(u32::from(b)) >> shift
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(network.length());
                u128::from(a).checked_shr(shift) == u128::from(b).checked_shr(shift)
            }
            _ => false,
        }
    };
    context.add_function("in_net", in_net).unwrap();
    match program.execute(&context) {
        Ok(Theirs::Bool(answer)) => Some(answer),
        Ok(other) => panic!("{text} is {other:?}"),
        Err(cel::ExecutionError::DivisionByZero(_) | cel::ExecutionError::RemainderByZero(_)) => {
            None
        }
        Err(error) => panic!("{text}: {error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_interpreter_agrees(twin in expression(), made in event()) {
        let ours = answer(&twin.ours, &made).ok();
        prop_assert_eq!(ours, theirs(&twin.theirs, &made), "{} {}", twin.ours, twin.theirs);
    }
}

/// Chance makes expressions of all answers.
#[test]
fn all_answers_are_met() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut met = [0; 3];
    for _ in 0..500 {
        let twin = expression().new_tree(&mut runner).unwrap().current();
        let made = event().new_tree(&mut runner).unwrap().current();
        met[match answer(&twin.ours, &made) {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        }] += 1;
    }
    assert!(met.iter().all(|count| *count > 2), "{met:?}");
}
