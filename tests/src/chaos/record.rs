//! A record as a sink has it: of which flow, of its beginning or its end, and with which record id.
//! All forms of all sinks are read here.

use std::net::Ipv4Addr;

use crate::burst::flow_number;

/// A record of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The number of the flow.
    pub flow: u32,
    /// It is about the end.
    pub end: bool,
    /// What of the record id tells records apart, never 0; 0 where there is none.
    pub id: u32,
}

const END: u64 = 1 << 31;

impl Seen {
    /// As one number, for files.
    pub fn packed(self) -> u64 {
        u64::from(self.id) << 32 | if self.end { END } else { 0 } | u64::from(self.flow)
    }

    /// The reverse of [`Seen::packed`].
    pub fn unpacked(number: u64) -> Self {
        let low = (number & (END - 1)) as u32;
        Self { flow: low, end: number & END != 0, id: (number >> 32) as u32 }
    }
}

/// What a piece of a sink's output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A record of a flow.
    Flow(Seen),
    /// A record of a number of lost events.
    Lost(u64),
    /// Nothing that anybody wrote.
    Strange,
}

/// How records of a sink look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Lines of PRINTFLOW, with whatever stands before them.
    Line,
    /// Objects with all that is known.
    Json,
    /// Four columns joined by commas: kind, destination, its port, record id.
    Columns,
}

impl Form {
    /// Reads a record.
    pub fn parse(self, record: &[u8]) -> Parsed {
        let parsed = std::str::from_utf8(record).ok().and_then(|text| match self {
            Self::Line => line(text),
            Self::Json => json(text),
            Self::Columns => columns(text),
        });
        parsed.unwrap_or(Parsed::Strange)
    }
}

/// The text after `key` up to `end`.
fn between<'t>(text: &'t str, key: &str, end: char) -> Option<&'t str> {
    let (_, rest) = text.split_once(key)?;
    Some(&rest[..rest.find(end)?])
}

fn flow(address: &str, port: &str, end: bool, id: u32) -> Option<Parsed> {
    let address: Ipv4Addr = address.parse().ok()?;
    let flow = flow_number(address, port.parse().ok()?)?;
    Some(Parsed::Flow(Seen { flow, end, id }))
}

fn line(text: &str) -> Option<Parsed> {
    // Messages for a syslog daemon may end with it.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let tag = between(text, "[", ']')?;
    // The header of a message may have a number in brackets.
    let tag = if tag.bytes().all(|byte| byte.is_ascii_digit()) {
        between(text.split_once("]")?.1, "[", ']')?
    } else {
        tag
    };
    if tag == "LOST" {
        return Some(Parsed::Lost(between(text, "EVENTS=", ' ')?.parse().ok()?));
    }
    let end = match tag {
        "NEW" => false,
        "DESTROY" => true,
        _ => return None,
    };
    // A whole line: both directions, and its end.
    if text.matches(" ORIG: ").count() != 1 || !text.ends_with(' ') {
        return None;
    }
    text.split_once(", REPLY: SRC=")?.1.split_once("BYTES=")?;
    flow(between(text, " DST=", ' ')?, between(text, " DPT=", ' ')?, end, 0)
}

fn json(text: &str) -> Option<Parsed> {
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    if text.starts_with("{\"type\":\"lost\"") {
        let (_, rest) = text.split_once("\"events\":")?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        return Some(Parsed::Lost(rest[..digits].parse().ok()?));
    }
    let end = match between(text, "\"kinds\":[", ']')? {
        "\"new\"" => false,
        "\"destroy\"" => true,
        _ => return None,
    };
    let (_, orig) = text.split_once("\"orig\":{")?;
    let port = between(orig, "\"dport\":", '}')?;
    let port = port.split(',').next()?;
    flow(
        between(orig, "\"dst\":\"", '"')?,
        port,
        end,
        id(between(text, "\"record\":\"", '"')?.as_bytes()),
    )
}

fn columns(text: &str) -> Option<Parsed> {
    let mut columns = text.split(',').map(|column| column.trim_matches('"'));
    let (kind, address, port) = (columns.next()?, columns.next()?, columns.next()?);
    if kind == "lost" {
        return Some(Parsed::Lost(port.parse().ok()?));
    }
    let end = match kind {
        "new" => false,
        "destroy" => true,
        _ => return None,
    };
    flow(address, port, end, columns.next().map_or(0, |column| id(column.as_bytes())))
}

/// 32 bits of a record id: FNV-1a, and 1 in place of 0.
pub fn id(bytes: &[u8]) -> u32 {
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let hash = bytes.iter().copied().fold(0xcbf2_9ce4_8422_2325, mix);
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::burst::destination;

    const LINE: &str = "Nov 29 17:34:32 vm [DESTROY] ORIG: SRC=198.18.0.1 DST=198.19.0.5 PROTO=UDP \
        SPT=4000 DPT=1025 PKTS=0 BYTES=0 , REPLY: SRC=198.19.0.5 DST=198.18.0.1 PROTO=UDP SPT=1025 \
        DPT=4000 PKTS=0 BYTES=0 ";
    const JSON: &str = "{\"type\":\"flow\",\"kinds\":[\"new\"],\"time\":\"x\",\"orig\":{\"src\":\
        \"198.18.0.1\",\"dst\":\"198.19.0.5\",\"sport\":4000,\"dport\":1025},\"reply\":{\"src\":\
        \"198.19.0.5\",\"dst\":\"198.18.0.1\",\"sport\":1025,\"dport\":4000},\"record\":\"18ec\"}";

    fn seen(flow: u32, end: bool, id: u32) -> Parsed {
        Parsed::Flow(Seen { flow, end, id })
    }

    #[test]
    fn records_of_all_forms_are_read() {
        let flow = 0x1_0005;
        assert_eq!(destination(flow).to_string(), "198.19.0.5:1025");
        assert_eq!(Form::Line.parse(LINE.as_bytes()), seen(flow, true, 0));
        let sent = format!("<29>1 2026-11-29T17:34:32Z vm flowlog 861 - - {}", &LINE[19..]);
        assert_eq!(Form::Line.parse(sent.as_bytes()), seen(flow, true, 0));
        let local = format!("<29>Nov 29 17:34:32 flowlog[861]: {}", &LINE[19..]);
        assert_eq!(Form::Line.parse(local.as_bytes()), seen(flow, true, 0));
        assert_eq!(Form::Json.parse(JSON.as_bytes()), seen(flow, false, id(b"18ec")));
        let columns = b"destroy,198.19.0.5,1025,\"18ec\"";
        assert_eq!(Form::Columns.parse(columns), seen(flow, true, id(b"18ec")));
        assert_eq!(Form::Columns.parse(b"new,198.19.0.5,1025"), seen(flow, false, 0));
    }

    #[test]
    fn losses_are_read() {
        let line = b"Nov 29 17:34:32 vm [LOST] EVENTS=12 SOURCE=netlink ";
        assert_eq!(Form::Line.parse(line), Parsed::Lost(12));
        let json = b"{\"type\":\"lost\",\"time\":\"x\",\"source\":\"netlink\",\"events\":12,\"host\":\"vm\"}";
        assert_eq!(Form::Json.parse(json), Parsed::Lost(12));
        assert_eq!(Form::Columns.parse(b"lost,,12,"), Parsed::Lost(12));
    }

    #[test]
    fn torn_records_are_strange() {
        for cut in 0..LINE.len() {
            assert_eq!(Form::Line.parse(&LINE.as_bytes()[..cut]), Parsed::Strange, "{cut}");
        }
        for cut in 0..JSON.len() {
            assert_eq!(Form::Json.parse(&JSON.as_bytes()[..cut]), Parsed::Strange, "{cut}");
        }
        let two = format!("{}{LINE}", &LINE[..LINE.len() - 1]);
        assert_eq!(Form::Line.parse(two.as_bytes()), Parsed::Strange);
    }

    #[test]
    fn packing_keeps_everything() {
        for one in [
            Seen { flow: 0, end: false, id: 0 },
            Seen { flow: (1 << 31) - 1, end: true, id: u32::MAX },
            Seen { flow: 77, end: true, id: 1 },
        ] {
            assert_eq!(Seen::unpacked(one.packed()), one);
        }
    }
}
