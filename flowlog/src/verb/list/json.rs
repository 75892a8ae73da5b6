//! An entry of the table as a JSON object, with the members that its events
//! have with `schema=full`. What the kernel does not tell is left out.

use serde_json::Value;

use crate::flow::{Flow, Tuple};
use crate::plugin::json;

/// The object of a flow, as text.
pub(super) fn text(flow: &Flow) -> String {
    let mut out = Vec::new();
    json::entry(flow, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The object of a flow, for verbs that have more to say of it.
pub(in crate::verb) fn object(flow: &Flow) -> Value {
    value(|out| json::entry(flow, out))
}

/// The object of one direction, without counters.
pub(in crate::verb) fn direction(tuple: &Tuple) -> Value {
    value(|out| json::direction(tuple, out))
}

/// What has been written, read back: so members have their names in one place.
fn value(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    // It was written as JSON.
    serde_json::from_slice(&out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Counters, Family, HelperName, Status, proto};

    #[test]
    fn everything_that_is_known_is_there() {
        let mut src = [0; 16];
        src[..4].copy_from_slice(&[10, 0, 0, 1]);
        let mut dst = [0; 16];
        dst[..4].copy_from_slice(&[10, 0, 0, 2]);
        let orig =
            Tuple { family: Family::V4, proto: proto::TCP, src, dst, src_l4: 40000, dst_l4: 21 };
        let flow = Flow {
            orig,
            reply: orig.inverse(),
            status: Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED,
            counters: Some([
                Counters { packets: 3, bytes: 180 },
                Counters { packets: 2, bytes: 120 },
            ]),
            zone: 7,
            reply_zone: Some(9),
            secctx: Some("a:b".into()),
            mark: 1,
            id: Some(99),
            timeout: Some(431_999),
            start: Some(1_700_000_000_000_000_001),
            l4_state: Some(3),
            uses: Some(1),
            helper: Some(HelperName::new(b"ftp")),
            labels: Some([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            ..Flow::default()
        };
        assert_eq!(
            text(&flow),
            concat!(
                r#"{"family":"ipv4","protocol":{"name":"tcp","number":6},"state":"ESTABLISHED","#,
                r#""timeout":431999,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":40000,"#,
                r#""dport":21,"packets":3,"bytes":180},"reply":{"src":"10.0.0.2","#,
                r#""dst":"10.0.0.1","sport":21,"dport":40000,"packets":2,"bytes":120},"#,
                r#""status":["seen_reply","assured","confirmed"],"mark":1,"zone":7,"reply_zone":9,"id":99,"#,
                r#""use":1,"start":"2023-11-14T22:13:20.000000001Z","helper":"ftp","#,
                r#""labels":"80000000000000000000000000000001","secctx":"a:b"}"#
            )
        );
    }

    #[test]
    fn what_is_not_told_is_not_there() {
        let tuple = Tuple { proto: 89, ..Tuple::default() };
        let flow = Flow { orig: tuple, reply: tuple, ..Flow::default() };
        assert_eq!(
            text(&flow),
            concat!(
                r#"{"family":"ipv4","protocol":{"number":89},"#,
                r#""orig":{"src":"0.0.0.0","dst":"0.0.0.0"},"#,
                r#""reply":{"src":"0.0.0.0","dst":"0.0.0.0"},"status":[],"mark":0,"zone":0}"#
            )
        );
    }

    #[test]
    fn others_get_the_same() {
        for number in [proto::TCP, proto::GRE, proto::ICMP, 89] {
            let orig = Tuple { proto: number, src_l4: 7, dst_l4: 0x0800, ..Tuple::default() };
            let helper = Some(HelperName::new(b"a\"\xff"));
            let flow = Flow { orig, reply: orig, helper, ..Flow::default() };
            let object = object(&flow);
            assert_eq!(object.to_string(), text(&flow));
            assert_eq!(object["orig"], direction(&orig));
        }
    }
}
