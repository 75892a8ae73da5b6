//! Values that are written as texts in an expression.

use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};

use super::value::Value;
use crate::flow::Family;

/// An IP address.
pub(super) fn address(text: &str) -> Result<Value<'static>, String> {
    match text.parse() {
        Ok(IpAddr::V4(v4)) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            Ok(Value::Address(Family::V4, bytes))
        }
        Ok(IpAddr::V6(v6)) => Ok(Value::Address(Family::V6, v6.octets())),
        Err(_) if text.contains('/') => {
            Err(format!("`{text}` is a network, no address; write ADDRESS.in_net('{text}')"))
        }
        Err(_) => Err(format!("`{text}` is no IP address; names are not looked up")),
    }
}

/// Connection labels.
pub(super) fn labels(text: &str) -> Result<Value<'static>, String> {
    let wrong = || format!("`{text}` is no 32 hexadecimal digits, as JSON writes labels");
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let (pairs, _) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    <[u8; 16]>::try_from(bytes)
        .ok()
        .filter(|_| digits.len() == 32)
        .map(Value::Labels)
        .ok_or_else(wrong)
}

/// A length of time.
pub(super) fn duration(text: &str) -> Result<Value<'static>, String> {
    let duration = text.parse::<SignedDuration>().ok();
    duration
        .and_then(|duration| i64::try_from(duration.as_nanos()).ok())
        .map(Value::Nanoseconds)
        .ok_or_else(|| format!("`{text}` is no length of time; write such as 90s, 1.5h or 2h30m"))
}

/// A moment.
pub(super) fn timestamp(text: &str) -> Result<Value<'static>, String> {
    let moment = text.parse::<Timestamp>().ok();
    moment
        .and_then(|moment| i64::try_from(moment.as_nanosecond()).ok())
        .map(Value::Nanoseconds)
        .ok_or_else(|| format!("`{text}` is no moment; write it as RFC 3339: 2026-01-31T12:00:00Z"))
}
