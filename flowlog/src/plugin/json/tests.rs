use std::fs;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::*;
use crate::event::{Cause, Comm, End, ExpectAction, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Family, HelperName, Netns, Status, Tuple, proto};
use crate::plugin::output::Destination;
use crate::stats::{Measure, Stats};

const AT: u64 = 1_795_301_298_647_593_001;

fn settings(file: PathBuf, schema: Schema) -> Settings {
    Settings {
        output: output::Settings {
            destination: Destination::File { path: file, sync: false },
            buffer_max: 1 << 20,
        },
        schema,
        timestamp: true,
        eventv1: false,
        device: "Netfilter".to_owned(),
        loss_records: true,
    }
}

fn address(bytes: [u8; 4]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&bytes);
    address
}

fn tcp() -> Flow {
    let orig = Tuple {
        family: Family::V4,
        proto: proto::TCP,
        src: address([10, 77, 1, 2]),
        dst: address([10, 77, 2, 2]),
        src_l4: 40001,
        dst_l4: 9000,
    };
    Flow {
        orig,
        reply: orig.inverse(),
        counters: Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }]),
        id: Some(2_531_917_604),
        ..Flow::default()
    }
}

fn ended(flow: &Flow) -> Item<'_> {
    Item {
        tag: Kinds::DESTROY,
        at: AT,
        body: Body::Flow {
            flow,
            start: Some(1_795_301_295_614_937_999),
            end: Some(AT),
            how: None,
            counted: true,
            witness: Witness::Single,
        },
    }
}

/// How a record ends that is told from others.
fn tail(item: &Item<'_>) -> String {
    let id = Identifier::of_host("machine").id(item);
    format!("\"host\":\"fw1\",\"record\":\"{id}\"}}")
}

/// What is written of each item, IP2STR before it or not.
fn written(change: impl FnOnce(&mut Settings), items: &[Item<'_>], with_texts: bool) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("json");
    let mut settings = settings(path.clone(), Schema::Ulogd);
    change(&mut settings);
    let stats = SinkStats::default();
    let mut sink = Json::open(&settings, "fw1", stats.clone()).unwrap();
    sink.output_mut().begin();
    match &mut sink.style {
        Style::Ulogd { header, .. } => header.text = PerSecond::fixed(TimeZone::UTC.into()),
        Style::Full { identifier, .. } => *identifier = Identifier::of_host("machine"),
    }
    let mut scratch = Scratch::default();
    for item in items {
        if with_texts {
            scratch.addresses.set(item);
        }
        sink.push(item, &scratch);
    }
    sink.output.flush();
    let text = fs::read_to_string(path).unwrap();
    assert_eq!(stats.get(Measure::Records), text.lines().count() as u64);
    assert_eq!(stats.get(Measure::Bytes), text.len() as u64);
    text
}

/// The line that ulogd2 2.0.8 wrote of such a flow.
#[test]
fn the_record_is_that_of_ulogd() {
    let flow = tcp();
    assert_eq!(
        written(|_| {}, &[ended(&flow)], true),
        concat!(
            r#"{"timestamp": "2026-11-21T22:48:18", "dvc": "Netfilter", "orig.ip.protocol": 6, "#,
            r#""orig.l4.sport": 40001, "orig.l4.dport": 9000, "orig.raw.pktlen": 420, "#,
            r#""orig.raw.pktcount": 6, "reply.ip.protocol": 6, "reply.l4.sport": 9000, "#,
            r#""reply.l4.dport": 40001, "reply.raw.pktlen": 416, "reply.raw.pktcount": 4, "#,
            r#""ct.mark": 0, "ct.id": 2531917604, "ct.event": 4, "flow.start.sec": 1795301295, "#,
            r#""flow.start.usec": 614937, "flow.end.sec": 1795301298, "flow.end.usec": 647593, "#,
            r#""oob.family": 2, "oob.protocol": 0, "src_ip": "10.77.1.2", "#,
            r#""dest_ip": "10.77.2.2", "reply.ip.saddr.str": "10.77.2.2", "#,
            r#""reply.ip.daddr.str": "10.77.1.2"}"#,
            "\n",
        )
    );
}

#[test]
fn without_ip2str_ulogds_record_has_no_addresses() {
    let flow = tcp();
    let text = written(|_| {}, &[ended(&flow)], false);
    assert!(!text.contains("_ip") && text.ends_with("\"oob.protocol\": 0}\n"), "{text}");
}

#[test]
fn version_1_and_no_time_are_as_in_ulogd() {
    let flow = tcp();
    let item = [ended(&flow)];
    let text = written(|settings| settings.eventv1 = true, &item, true);
    let start = r#"{"@version": 1, "@timestamp": "2026-11-21T22:48:18", "dvc": "#;
    assert!(text.starts_with(start), "{text}");
    let text = written(|settings| settings.timestamp = false, &item, true);
    assert!(text.starts_with(r#"{"dvc": "Netfilter", "orig."#), "{text}");
}

fn schema() -> jsonschema::Validator {
    let schema = include_str!("../../../../docs/flow.schema.json");
    let schema: Value = serde_json::from_str(schema).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).unwrap()
}

fn assert_valid(text: &str) {
    let schema = schema();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let faults: Vec<String> = schema.iter_errors(&record).map(|e| e.to_string()).collect();
        assert!(faults.is_empty(), "{line}\n{faults:#?}");
    }
}

fn everything() -> Flow {
    Flow {
        status: Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED,
        zone: 7,
        mark: 42,
        timeout: Some(119),
        start: Some(1),
        stop: Some(2),
        l4_state: Some(3),
        uses: Some(1),
        helper: Some(HelperName::new(b"ftp")),
        labels: Some([0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        master: Some(tcp().orig),
        netns: Some(Netns { cookie: Some(1), inum: 4_026_532_210 }),
        ..tcp()
    }
}

#[test]
fn the_full_record_has_all_there_is() {
    let flow = everything();
    let process = Process { pid: 1712, comm: Comm::new(b"conn\"track") };
    let how = End { cause: Cause::Deleted, portid: Some(9), process: Some(process) };
    let mut item = ended(&flow);
    item.tag = Kinds::DESTROY | Kinds::GC;
    if let Body::Flow { how: place, witness, .. } = &mut item.body {
        (*place, *witness) = (Some(&how), Witness::Both);
    }
    let text = written(|settings| settings.schema = Schema::Full, &[item], false);
    assert_valid(&text);
    assert_eq!(
        text,
        [concat!(
            r#"{"type":"flow","kinds":["destroy","gc"],"time":"2026-11-21T22:48:18.647593001Z","#,
            r#""family":"ipv4","protocol":{"name":"tcp","number":6},"state":"ESTABLISHED","#,
            r#""timeout":119,"orig":{"src":"10.77.1.2","dst":"10.77.2.2","sport":40001,"#,
            r#""dport":9000,"packets":6,"bytes":420},"reply":{"src":"10.77.2.2","#,
            r#""dst":"10.77.1.2","sport":9000,"dport":40001,"packets":4,"bytes":416},"#,
            r#""status":["seen_reply","assured","confirmed"],"mark":42,"zone":7,"#,
            r#""id":2531917604,"use":1,"start":"2026-11-21T22:48:15.614937999Z","helper":"ftp","#,
            r#""labels":"80000000000000000000000000000001","master":{"src":"10.77.1.2","#,
            r#""dst":"10.77.2.2","sport":40001,"dport":9000},"netns":{"cookie":1,"#,
            r#""inum":4026532210},"end":"2026-11-21T22:48:18.647593001Z","cause":"deleted","#,
            r#""portid":9,"process":{"pid":1712,"comm":"conn\"track"},"witness":"both","#),
            &tail(&item), "\n"].concat()
    );
}

#[test]
fn the_full_record_guesses_nothing() {
    let tuple = Tuple { proto: 89, ..Tuple::default() };
    let flow = Flow { orig: tuple, reply: tuple, ..Flow::default() };
    let body = Body::Flow {
        flow: &flow,
        start: None,
        end: None,
        how: None,
        counted: false,
        witness: Witness::Single,
    };
    let item = Item { tag: Kinds::NEW, at: 0, body };
    let text = written(|settings| settings.schema = Schema::Full, &[item], true);
    assert_valid(&text);
    assert_eq!(
        text,
        [concat!(
            r#"{"type":"flow","kinds":["new"],"time":"1970-01-01T00:00:00.000000000Z","#,
            r#""family":"ipv4","protocol":{"number":89},"orig":{"src":"0.0.0.0","dst":"0.0.0.0"},"#,
            r#""reply":{"src":"0.0.0.0","dst":"0.0.0.0"},"status":[],"mark":0,"zone":0,"#),
            &tail(&item), "\n"].concat()
    );
}

fn expectation() -> Expectation {
    Expectation {
        action: ExpectAction::New,
        tuple: tcp().orig,
        master: tcp().orig,
        zone: 0,
        helper: Some(HelperName::new(b"f\xfft")),
        netns: None,
    }
}

#[test]
fn expectations_and_losses_are_records_of_their_own() {
    let expectation = expectation();
    let items = [
        Item { tag: Kinds::EXPECT, at: AT, body: Body::Expectation(&expectation) },
        Item { tag: Kinds::empty(), at: AT, body: Body::Lost(Lost::noticed("ebpf", 3, AT)) },
    ];
    let text = written(|settings| settings.schema = Schema::Full, &items, true);
    assert_valid(&text);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains(r#""action":"new""#) && lines[0].contains("f\u{fffd}t"), "{text}");
    assert_eq!(
        lines[1],
        [
            r#"{"type":"lost","time":"2026-11-21T22:48:18.647593001Z","events":3,"source":"ebpf","#,
            &tail(&items[1])
        ]
        .concat()
    );
    let text = written(|_| {}, &items, true);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains(r#""ct.event": 32, "#), "{text}");
    assert!(lines[0].ends_with(", \"expect.action\": \"new\", \"expect.helper\": \"f\u{fffd}t\"}"));
    assert!(lines[1].ends_with(r#""lost.events": 3, "lost.source": "ebpf"}"#), "{text}");
    assert_eq!(written(|settings| settings.loss_records = false, &items, true).lines().count(), 1);
}

#[test]
fn the_line_of_printflow_comes_last() {
    let flow = tcp();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("json");
    for schema in [Schema::Ulogd, Schema::Full] {
        let settings = settings(path.clone(), schema);
        let mut sink = Json::open(&settings, "fw1", SinkStats::default()).unwrap();
        let mut scratch = Scratch::default();
        scratch.print.text(b"[DESTROY] \"x\" \n");
        sink.push(&ended(&flow), &scratch);
        sink.output.close();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.trim_end().ends_with(r#""[DESTROY] \"x\" \n"}"#), "{text}");
    }
    assert_valid(fs::read_to_string(&path).unwrap().lines().last().unwrap());
}

/// Recorded kernel messages, by way of NFCT and the stack.
#[test]
fn what_a_recording_gives_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let (conf, out) = (dir.path().join("conf"), dir.path().join("json"));
    for (hash, stack) in [(0, "ct1:NFCT,json1:JSON"), (1, "ct1:NFCT,ip1:IP2STR,json1:JSON")] {
        let text = format!(
            "[global]\nstack={stack}\n[ct1]\nevent_mask=0xff\nhash_enable={hash}\n\
             [json1]\nschema=full\nfile=\"{}\"\n",
            out.display()
        );
        fs::write(&conf, text).unwrap();
        let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mixed.nl");
        let stats = Stats::default();
        let recording = fs::read(recording).unwrap();
        let mut source = crate::verb::replay::source(&conf, recording, &stats).unwrap();
        while source.drain(1000).unwrap().drained == crate::capture::Drained::More {}
        source.stacks.close();
        let text = fs::read_to_string(&out).unwrap();
        assert!(text.lines().count() > 20, "{text}");
        assert_valid(&text);
    }
    assert!(fs::read_to_string(&out).unwrap().contains(r#""type":"expectation""#));
}
