//! Where events come from, and of which namespaces.

use super::*;

fn scope(keys: &str) -> NetnsScope {
    source(keys).netns
}

fn path(path: &str) -> NetnsScope {
    NetnsScope::Path(path.into())
}

#[test]
fn ebpf_is_tried_and_sees_everything_unless_told_otherwise() {
    let source = source("");
    assert_eq!((source.capture, source.attach), (CaptureChoice::Auto, Attach::Auto));
    assert_eq!((source.netns, source.netns_named), (NetnsScope::All, false));
    assert_eq!(source.ring_buffer, 16 << 20);
}

#[test]
fn words_are_understood() {
    let keys = "capture=ebpf\nattach=kprobe\nring_buffer_size=0x10000";
    let source = source(keys);
    assert_eq!((source.capture, source.attach), (CaptureChoice::Ebpf, Attach::Kprobe));
    assert_eq!(source.ring_buffer, 65536);
    assert_eq!(self::source("attach=fentry").attach, Attach::Fentry);
    assert_eq!(self::source("capture=netlink").capture, CaptureChoice::Netlink);
    assert_eq!(
        message("capture=bpf"),
        "u.conf:4: `capture=bpf` is not known; write `auto` or `ebpf` or `netlink` or `both`"
    );
    assert!(message("attach=kretprobe").contains("write `auto` or `kprobe` or `fentry`"));
}

#[test]
fn the_ring_is_a_power_of_two_of_pages() {
    assert!(messages_of("ring_buffer_size=1048576").is_empty());
    let text = message("ring_buffer_size=1000000");
    assert!(text.starts_with("u.conf:4: `ring_buffer_size=1000000`: the kernel takes"), "{text}");
    assert!(text.ends_with("so the ring has 1048576; write that"), "{text}");
    assert_eq!(source("ring_buffer_size=1000000").ring_buffer, 1 << 20);
    let least = source("ring_buffer_size=4096").ring_buffer;
    assert!(least >= 4096 && least.is_power_of_two());
    assert_eq!(source("ring_buffer_size=1073741824").ring_buffer, 1 << 30);
    assert!(message("ring_buffer_size=4095").contains("from 4096 to 1073741824"));
    assert!(message("ring_buffer_size=1073741825").contains("from 4096 to 1073741824"));
}

fn messages_of(keys: &str) -> Vec<String> {
    messages(&format!("[global]\n{STACK}[ct1]\n{keys}\n[emu1]\n"))
}

#[test]
fn namespaces_have_two_keys_that_must_agree() {
    assert_eq!(scope("netns=all"), NetnsScope::All);
    assert_eq!(scope("netns=self"), NetnsScope::Own);
    assert_eq!(scope("netns=blue"), path("blue"));
    assert_eq!(scope("netns=/proc/1/ns/net"), path("/proc/1/ns/net"));
    assert_eq!(scope("netns=\"\""), NetnsScope::All);
    assert_eq!(scope("network_namespace_path=/run/netns/blue"), path("/run/netns/blue"));
    assert_eq!(scope("network_namespace_path=\"\""), NetnsScope::All);
    assert_eq!(scope("netns=blue\nnetwork_namespace_path=/run/netns/blue"), path("blue"));
    for other in ["red", "all", "self", "/run/netns/red"] {
        assert_eq!(
            message(&format!("network_namespace_path=/run/netns/blue\nnetns={other}")),
            format!(
                "u.conf:5: `netns={other}` contradicts `network_namespace_path=/run/netns/blue`; \
                 remove one of them"
            )
        );
    }
}

#[test]
fn netlink_sees_one_namespace() {
    assert_eq!(scope("capture=netlink"), NetnsScope::Own);
    assert_eq!(scope("capture=netlink\nnetns=self"), NetnsScope::Own);
    assert_eq!(scope("capture=netlink\nnetns=blue"), path("blue"));
    assert_eq!(scope("capture=netlink\nnetwork_namespace_path=/a/b"), path("/a/b"));
    assert_eq!(
        message("capture=netlink\nnetns=all"),
        "u.conf:5: `netns=all` cannot be had over netlink, which sees one namespace only; set \
         capture=auto, or set netns=self or a name"
    );
}

#[test]
fn polling_is_done_over_netlink() {
    let source = source("pollinterval=5");
    assert_eq!((source.capture, source.netns), (CaptureChoice::Netlink, NetnsScope::Own));
    assert!(message("capture=ebpf\npollinterval=5").starts_with(
        "u.conf:4: `capture=ebpf` does not go with pollinterval, which reads the table over \
         netlink; set capture=auto"
    ));
    assert!(message("pollinterval=5\nnetns=all").contains("remove pollinterval, or set netns"));
}

#[test]
fn what_has_no_effect_with_netlink_is_mentioned() {
    assert_eq!(messages_of("event_mask=0x84"), [""; 0], "eBPF may tell");
    assert!(message("event_mask=0x84\ncapture=netlink").contains("netlink does not tell"));
    assert!(message("event_mask=0x84\npollinterval=5").contains("netlink does not tell"));
    assert_eq!(untold_by_netlink(0x7f), None);
    assert!(untold_by_netlink(0x80).unwrap().contains("`event_mask=0x80`"));
    assert!(message("capture=netlink\nattach=fentry").contains("`attach` is for eBPF"));
    assert!(message("capture=netlink\nring_buffer_size=4194304").contains("is for eBPF"));
}

#[test]
fn the_command_line_outranks_the_file() {
    use CaptureChoice::{Auto, Ebpf, Netlink};
    let after = |keys: &str, capture, netns| {
        let mut source = source(keys);
        source.override_capture(capture, netns).map(|()| (source.capture, source.netns))
    };
    assert_eq!(after("", None, None), Ok((Auto, NetnsScope::All)));
    assert_eq!(after("", Some(Netlink), None), Ok((Netlink, NetnsScope::Own)));
    assert_eq!(after("capture=netlink", Some(Ebpf), None), Ok((Ebpf, NetnsScope::All)));
    let blue = Some(path("blue"));
    assert_eq!(after("netns=self", Some(Netlink), blue), Ok((Netlink, path("blue"))));
    assert_eq!(after("netns=all", None, Some(NetnsScope::Own)), Ok((Auto, NetnsScope::Own)));
    let refused = after("", Some(Netlink), Some(NetnsScope::All)).unwrap_err();
    assert!(refused.starts_with("[ct1] `netns=all` cannot be had over netlink"), "{refused}");
    assert!(after("netns=all", Some(Netlink), None).is_err());
    assert!(after("pollinterval=5", Some(Ebpf), None).is_err());
    assert_eq!(after("pollinterval=5", Some(Auto), None), Ok((Netlink, NetnsScope::Own)));
}

use crate::capture::crosscheck::Schedule;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn sources_are_compared_always_now_and_then_or_never() {
    assert_eq!(source("").crosscheck, None);
    assert_eq!(source("capture=netlink").crosscheck, None);
    assert_eq!(source("crosscheck_every=0\ncrosscheck_for=5s").crosscheck, None);
    assert_eq!(source("crosscheck_every=\"\"").crosscheck, None);
    let both = source("capture=both");
    assert_eq!((both.capture, both.netns), (CaptureChoice::Both, NetnsScope::All));
    let settings = both.crosscheck.unwrap();
    assert_eq!((settings.window, settings.max_pending), (seconds(2), 1 << 18));
    assert_eq!(settings.schedule, Schedule::Always);
    assert_eq!(scope("capture=both\nnetns=blue"), path("blue"));
    assert_eq!(messages_of("capture=both\nnetns=all\nevent_mask=0x84"), [""; 0]);
    for capture in ["auto", "ebpf"] {
        let keys = "crosscheck_every=10m\ncrosscheck_for=30\ncrosscheck_window_ms=100\n\
                    crosscheck_max_pending=16";
        let settings = source(&format!("capture={capture}\n{keys}")).crosscheck.unwrap();
        assert_eq!((settings.window, settings.max_pending), (seconds(1) / 10, 16));
        let (period, lasting) = (seconds(600), seconds(30));
        assert_eq!(settings.schedule, Schedule::Every { period, lasting });
    }
}

#[test]
fn what_cannot_be_compared_is_refused() {
    for (keys, expected) in [
        ("capture=both\npollinterval=5", "u.conf:4: `capture=both` does not go with pollinterval"),
        ("capture=both\ncrosscheck_every=1h", "u.conf:5: `crosscheck_every` does not go with"),
        ("capture=netlink\ncrosscheck_every=1h", "u.conf:5: `crosscheck_every` compares netlink"),
        ("crosscheck_every=1h\npollinterval=5", "u.conf:4: `crosscheck_every` compares events"),
        (
            "crosscheck_every=5",
            "u.conf:4: an audit of 5s does not fit into `crosscheck_every` of 5s",
        ),
        ("crosscheck_every=1m\ncrosscheck_for=1h", "u.conf:4: an audit of 3600s does not fit"),
        ("crosscheck_for=0", "u.conf:4: `crosscheck_for` of no time compares nothing"),
        ("crosscheck_every=10min", "u.conf:4: `crosscheck_every=10min` in [ct1] is no time: `min`"),
        ("crosscheck_window_ms=99", "u.conf:4: `crosscheck_window_ms=99` is out of range"),
        ("crosscheck_max_pending=15", "u.conf:4: `crosscheck_max_pending=15` is out of range"),
    ] {
        let text = message(keys);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains(';'), "no remedy: {text}");
    }
}

#[test]
fn keys_that_compare_nothing_are_mentioned() {
    assert_eq!(messages_of("crosscheck_window_ms=2000\ncrosscheck_for=5"), [""; 0], "defaults");
    assert!(message("crosscheck_for=6").starts_with("u.conf:4: `crosscheck_for` has no effect"));
    assert!(message("capture=both\ncrosscheck_for=6").contains("set crosscheck_every"));
    assert!(message("crosscheck_window_ms=500").contains("set capture=both or crosscheck_every"));
    assert!(message("capture=netlink\ncrosscheck_max_pending=99").contains("has no effect"));
    assert_eq!(messages_of("capture=both\ncrosscheck_max_pending=99"), [""; 0]);
}

#[test]
fn the_command_line_may_ask_for_both() {
    use CaptureChoice::{Both, Ebpf, Netlink};
    let after = |keys: &str, capture| {
        let mut source = source(keys);
        source.override_capture(Some(capture), None).map(|()| source.crosscheck)
    };
    let settings = after("crosscheck_window_ms=300", Both).unwrap().unwrap();
    assert_eq!(settings.schedule, Schedule::Always);
    assert_eq!((settings.window, settings.max_pending), (seconds(3) / 10, 1 << 18));
    assert_eq!(after("capture=both", Ebpf), Ok(None));
    assert_eq!(after("capture=both", Netlink), Ok(None));
    assert!(after("pollinterval=5", Both).unwrap_err().starts_with("[ct1] `capture=both` does"));
    assert!(after("crosscheck_every=1h", Both).unwrap_err().contains("remove crosscheck_every"));
    assert!(after("crosscheck_every=1h", Netlink).is_err());
    assert!(after("crosscheck_every=1h", Ebpf).unwrap().is_some());
}

#[test]
fn extras_are_off_unless_asked_for() {
    let extras = |keys: &str| {
        let config = good(&format!("[global]\n{STACK}[ct1]\n[print1]\n{keys}\n[emu1]\n"));
        let stages = &config.stacks[0].stages;
        stages.iter().any(|stage| matches!(stage, Stage::PrintFlow(s) if s.extras))
    };
    assert!(!extras("") && !extras("extras=0") && extras("extras=1"));
}
