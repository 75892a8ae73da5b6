//! An entry of the table as a JSON object. What the kernel does not tell is
//! left out.

use serde_json::{Map, Value, json};

use super::extended::{address, family, protocol, state};
use crate::flow::{Counters, Flow, Tuple, proto};

/// The object of a flow.
pub(in crate::verb) fn object(flow: &Flow) -> Value {
    let Flow {
        orig,
        reply,
        status,
        counters,
        zone,
        mark,
        id,
        timeout,
        start,
        // Entries that have ended are not in the table.
        stop: _,
        l4_state,
        uses,
        helper,
        labels,
        master,
        // That of the one that was asked.
        netns: _,
    } = flow;
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("family", json!(family(orig.family)));
    let mut name = Map::new();
    name.extend(protocol(orig.proto).map(|name| ("name".to_owned(), json!(name))));
    name.insert("number".to_owned(), json!(orig.proto));
    put("protocol", Value::Object(name));
    if let Some(state) = l4_state.and_then(|value| state(orig.proto, value)) {
        put("state", json!(state));
    }
    if let Some(timeout) = timeout {
        put("timeout", json!(timeout));
    }
    let counters = counters.map_or([None, None], |[orig, reply]| [Some(orig), Some(reply)]);
    put("orig", direction(orig, counters[0]));
    put("reply", direction(reply, counters[1]));
    let status: Vec<String> =
        status.iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
    put("status", json!(status));
    put("mark", json!(mark));
    put("zone", json!(zone));
    if let Some(id) = id {
        put("id", json!(id));
    }
    if let Some(uses) = uses {
        put("use", json!(uses));
    }
    if let Some(start) = start {
        put("start", json!(start));
    }
    if let Some(helper) = helper {
        put("helper", json!(String::from_utf8_lossy(helper.as_bytes())));
    }
    if let Some(labels) = labels {
        let hex: String = labels.iter().map(|byte| format!("{byte:02x}")).collect();
        put("labels", json!(hex));
    }
    if let Some(master) = master {
        put("master", direction(master, None));
    }
    Value::Object(object)
}

/// The object of one direction.
pub(in crate::verb) fn direction(tuple: &Tuple, counters: Option<Counters>) -> Value {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| object.insert(key.to_owned(), value);
    put("src", json!(address(tuple.family, &tuple.src)));
    put("dst", json!(address(tuple.family, &tuple.dst)));
    match tuple.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => {
            put("sport", json!(tuple.src_l4));
            put("dport", json!(tuple.dst_l4));
        }
        proto::GRE => {
            put("srckey", json!(tuple.src_l4));
            put("dstkey", json!(tuple.dst_l4));
        }
        proto::ICMP | proto::ICMPV6 => {
            put("type", json!(tuple.icmp_type()));
            put("code", json!(tuple.icmp_code()));
            put("id", json!(tuple.src_l4));
        }
        _ => {}
    }
    if let Some(Counters { packets, bytes }) = counters {
        put("packets", json!(packets));
        put("bytes", json!(bytes));
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{Family, HelperName, Status};

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
            object(&flow).to_string(),
            concat!(
                r#"{"family":"ipv4","protocol":{"name":"tcp","number":6},"state":"ESTABLISHED","#,
                r#""timeout":431999,"orig":{"src":"10.0.0.1","dst":"10.0.0.2","sport":40000,"#,
                r#""dport":21,"packets":3,"bytes":180},"reply":{"src":"10.0.0.2","#,
                r#""dst":"10.0.0.1","sport":21,"dport":40000,"packets":2,"bytes":120},"#,
                r#""status":["seen_reply","assured","confirmed"],"mark":1,"zone":7,"id":99,"#,
                r#""use":1,"start":1700000000000000001,"helper":"ftp","#,
                r#""labels":"80000000000000000000000000000001"}"#
            )
        );
    }

    #[test]
    fn what_is_not_told_is_not_there() {
        let tuple = Tuple { proto: 89, ..Tuple::default() };
        let flow = Flow { orig: tuple, reply: tuple, ..Flow::default() };
        assert_eq!(
            object(&flow).to_string(),
            concat!(
                r#"{"family":"ipv4","protocol":{"number":89},"#,
                r#""orig":{"src":"0.0.0.0","dst":"0.0.0.0"},"#,
                r#""reply":{"src":"0.0.0.0","dst":"0.0.0.0"},"status":[],"mark":0,"zone":0}"#
            )
        );
    }
}
