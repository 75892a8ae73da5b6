//! The section of IPFIX.

use super::*;
use crate::plugin::ipfix::{Protocol, Refresh, Settings};

fn text(keys: &str) -> String {
    format!("[global]\nstack=ct1:NFCT,i:IPFIX\n[ct1]\nhash_enable=0\n[i]\n{keys}\n")
}

fn ipfix(keys: &str) -> Settings {
    let config = good(&text(keys));
    assert!(config.ships(), "it needs the spool");
    let Some(Stage::Ipfix(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.clone()
}

#[test]
fn a_section_of_ulogd_for_ipfix_means_the_same() {
    let settings = ipfix(
        "oid=1\nhost=\"192.0.2.7\"\n#port=4739\nsend_template=\"once\"\nproto=\"udp\"\nmtu=512",
    );
    assert_eq!(settings.collector().to_string(), "udp://192.0.2.7:4739");
    assert_eq!((settings.domain, settings.mtu), (1, 512));
    assert!(settings.nat_events);
    let minute = Refresh { every: Duration::from_secs(60), messages: 100 };
    assert_eq!(settings.refresh, Some(minute));
    assert_eq!(ipfix("").protocol, Protocol::Tcp);
    assert_eq!(ipfix("").collector().to_string(), "tcp://127.0.0.1:4739");
}

#[test]
fn tls_has_a_port_of_its_own() {
    let settings = ipfix("tls=1\ntls_ca=\"/etc/ca.pem\"");
    assert_eq!(settings.collector().to_string(), "tcp://127.0.0.1:4740");
    let ca = Some(PathBuf::from("/etc/ca.pem"));
    let tls = ship::tls::Settings { ca, identity: None };
    assert_eq!(settings.protocol, Protocol::Tls(tls));
    assert_eq!(ipfix("tls=1\nport=4739").port, 4739);
}

#[test]
fn templates_are_told_as_often_as_is_said() {
    let said = "proto=udp\ntemplate_refresh=5m\ntemplate_refresh_messages=7";
    let every = Duration::from_secs(300);
    assert_eq!(ipfix(said).refresh, Some(Refresh { every, messages: 7 }));
    assert_eq!(ipfix("template_refresh=5m").refresh, None, "over tcp once");
    let always = Some(Refresh { every: Duration::ZERO, messages: 1 });
    assert_eq!(ipfix("send_template=always").refresh, always);
    let text = text("send_template=never");
    assert_eq!(
        messages(&text),
        ["u.conf:6: `send_template=never`: templates are sent all the same, as with `once`: no \
          collector can know those of flowlog; write send_template=once"]
    );
    assert!(read(&text).config.is_some());
}

#[test]
fn what_ipfix_cannot_do_is_refused() {
    for (keys, said) in [
        ("proto=sctp", "`proto=sctp` is not known; write `tcp` or `udp`"),
        ("mtu=511", "`mtu=511` is out of range; give a number from 512 to 65507"),
        ("proto=udp\ntls=1", "there is no TLS over UDP; set proto=tcp, or remove tls"),
        ("tls_ca=\"/x.pem\"", "`tls_ca` is for TLS, which is off; set tls=1, or remove it"),
        ("template_refresh=often", "`template_refresh=often` in [i] is no time"),
    ] {
        let all = messages(&text(keys));
        assert!(all.len() == 1 && all[0].contains(said), "{all:?}");
    }
}

#[test]
fn two_stacks_with_one_observation_domain_at_one_collector_are_noted() {
    let two = |keys: &str| {
        messages(&format!(
            "[global]\nstack=ct1:NFCT,i:IPFIX\nstack=ct1:NFCT,j:IPFIX\n[ct1]\nhash_enable=0\n\
             [i]\n[j]\n{keys}\n"
        ))
    };
    let all = two("");
    assert!(
        all.len() == 1 && all[0].starts_with("u.conf:3: this stack and that of line 2"),
        "{all:?}"
    );
    assert!(all[0].contains("give [j] an oid of its own"), "{all:?}");
    for other in ["oid=2", "port=4740", "host=192.0.2.1", "proto=udp"] {
        assert!(two(other).is_empty(), "{other}");
    }
}

#[test]
fn the_host_may_stand_in_brackets_and_has_no_port() {
    assert_eq!(ipfix("host=\"[2001:db8::7]\"").host, "2001:db8::7");
    assert_eq!(
        messages(&text("host=\"192.0.2.7:4739\"")),
        ["u.conf:6: `host=192.0.2.7:4739` names a port too; write host=192.0.2.7 and port=4739"]
    );
}
