//! The line of `conntrack -L -o extended`, as libnetfilter_conntrack 1.0.9
//! writes it.

use std::fmt::{self, Display, Formatter};

use super::entry::Entry;
use crate::flow::names::{family, protocol, state};
use crate::flow::{Counters, Family, Status, Tuple, proto};
use crate::plugin::ip2str::Text;

/// The line of an entry, without line feed.
pub(in crate::verb) struct Line<'a> {
    /// The entry.
    pub(in crate::verb) entry: &'a Entry,
    /// Nanoseconds since the epoch, for the age of the flow.
    pub(in crate::verb) now: u64,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { entry, now } = self;
        let flow = &entry.flow;
        let number = flow.orig.proto;
        write!(f, "{:<8} {} ", family(flow.orig.family), flow.orig.family as u8)?;
        write!(f, "{:<8} {number}", protocol(number).unwrap_or("unknown"))?;
        if let Some(timeout) = flow.timeout {
            write!(f, " {timeout}")?;
        }
        if let Some(name) = flow.l4_state.and_then(|value| state(number, value)) {
            write!(f, " {name}")?;
        }
        let counters =
            flow.counters.map_or([None, None], |[orig, reply]| [Some(orig), Some(reply)]);
        direction(f, &flow.orig, ("orig", entry.zones[0]), counters[0])?;
        if !flow.status.contains(Status::SEEN_REPLY) {
            f.write_str(" [UNREPLIED]")?;
        }
        direction(f, &flow.reply, ("reply", entry.zones[1]), counters[1])?;
        f.write_str(mark_of(flow.status))?;
        if entry.has_mark {
            write!(f, " mark={}", flow.mark)?;
        }
        if let Some(context) = &flow.secctx {
            write!(f, " secctx={context}")?;
        }
        if let Some(zone) = entry.zone {
            write!(f, " zone={zone}")?;
        }
        if let Some(start) = flow.start {
            // Whole seconds of both clocks, as libnetfilter_conntrack takes them.
            write!(f, " delta-time={}", seconds(*now).wrapping_sub(seconds(start)))?;
        }
        if let Some(helper) = &flow.helper {
            write!(f, " helper={}", String::from_utf8_lossy(helper.as_bytes()))?;
        }
        if let Some(uses) = flow.uses {
            write!(f, " use={uses}")?;
        }
        Ok(())
    }
}

fn seconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1_000_000_000
}

/// Only the strongest of three is shown.
fn mark_of(status: Status) -> &'static str {
    if status.contains(Status::HW_OFFLOAD) {
        " [HW_OFFLOAD]"
    } else if status.contains(Status::OFFLOAD) {
        " [OFFLOAD]"
    } else if status.contains(Status::ASSURED) {
        " [ASSURED]"
    } else {
        ""
    }
}

/// An address as glibc's `inet_ntop` writes it.
pub(in crate::verb) fn address(family: Family, bytes: &[u8; 16]) -> String {
    let mut text = Text::default();
    text.set(family, bytes);
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

fn direction(
    f: &mut Formatter<'_>,
    tuple: &Tuple,
    (name, zone): (&str, Option<u16>),
    counters: Option<Counters>,
) -> fmt::Result {
    write!(
        f,
        " src={} dst={}",
        address(tuple.family, &tuple.src),
        address(tuple.family, &tuple.dst)
    )?;
    let (src, dst) = (tuple.src_l4, tuple.dst_l4);
    match tuple.proto {
        _ if tuple.has_ports() => {
            write!(f, " sport={src} dport={dst}")?;
        }
        proto::GRE => write!(f, " srckey=0x{src:x} dstkey=0x{dst:x}")?,
        proto::ICMP | proto::ICMPV6 => {
            write!(f, " type={} code={} id={src}", tuple.icmp_type(), tuple.icmp_code())?;
        }
        _ => {}
    }
    if let Some(zone) = zone {
        write!(f, " zone-{name}={zone}")?;
    }
    if let Some(Counters { packets, bytes }) = counters {
        write!(f, " packets={packets} bytes={bytes}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
