//! Whole configurations: what they mean, what is refused, and how.

use super::*;
use crate::capture::filter::Network;

mod brokers;
mod capture;
mod collector;
mod filter;
mod keys;
mod network;
mod sinks;

const STACK: &str = "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n";

fn read(text: &str) -> Outcome {
    parse(Path::new("u.conf"), text)
}

fn good(text: &str) -> Config {
    let outcome = read(text);
    outcome.config.unwrap_or_else(|| panic!("{:#?}", outcome.diagnostics))
}

fn source(keys: &str) -> Source {
    good(&format!("[global]\n{STACK}[ct1]\n{keys}\n[emu1]\n")).sources.remove(0)
}

fn messages(text: &str) -> Vec<String> {
    read(text).diagnostics.iter().map(ToString::to_string).collect()
}

/// The one message about `[ct1]` with these keys.
fn message(keys: &str) -> String {
    let mut all = messages(&format!("[global]\n{STACK}[ct1]\n{keys}\n[emu1]\n"));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn the_file_of_the_classic_setup_runs_as_it_stands() {
    let config = good(
        "[global]\nlogfile=\"syslog\"\nloglevel=3\n\
         # Custom stack for logging connections metadata.\n\
         stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\nevent_mask=0x00000001\nhash_enable=0\n\
         [emu1]\nfile=\"/var/log/ulog/syslogemu.log\"\nsync=1\n",
    );
    assert_eq!((config.log, config.loglevel), (LogTarget::Syslog, 3));
    let nfct = &config.sources[0].nfct;
    assert_eq!((nfct.mask, nfct.hash, nfct.groups()), (Kinds::NEW, None, vec![1]));
    let Some(Stage::LogEmu(emu)) = config.stacks[0].stages.last() else { panic!() };
    assert_eq!((emu.file.to_str(), emu.sync), (Some("/var/log/ulog/syslogemu.log"), true));
}

#[test]
fn defaults_are_those_of_ulogd2_or_better_ones() {
    let source = source("");
    assert_eq!(source.nfct.mask, Kinds::NEW | Kinds::DESTROY);
    assert_eq!(source.nfct.hash, Some(32768));
    assert_eq!(source.nfct.resync, Duration::from_secs(60));
    let (size, maximum) = source.buffer;
    assert!((4 << 20..=64 << 20).contains(&size), "{size}");
    assert_eq!(maximum, 4 * size);
}

#[test]
fn the_groups_are_those_that_the_mask_needs() {
    let groups = |mask: u32, hash: u8| {
        source(&format!("event_mask={mask}\nhash_enable={hash}")).nfct.groups()
    };
    assert_eq!(groups(1, 0), [1]);
    assert_eq!(groups(2, 0), [2]);
    assert_eq!(groups(4, 0), [3]);
    assert_eq!(groups(0x18, 0), [2]);
    assert_eq!(groups(0x20, 0), [4, 5, 6]);
    assert_eq!(groups(0x40, 0), [1, 2]);
    assert_eq!(groups(0x80, 0), [0u32; 0]);
    assert_eq!(groups(1, 1), [1, 3], "the table needs to know of the end");
    assert_eq!(groups(0xff, 0), [1, 2, 3, 4, 5, 6]);
    assert_eq!(source("pollinterval=1").nfct.groups(), [0u32; 0]);
}

#[test]
fn updates_are_wanted_only_where_the_mask_names_one() {
    let wanted = |mask: u32| source(&format!("event_mask={mask}")).nfct.wants_updates();
    assert!([0x02, 0x08, 0x10, 0x40, 0xff].into_iter().all(wanted));
    assert!(![0x05, 0x20, 0x80, 0xa5].into_iter().any(wanted));
}

#[test]
fn a_buffer_size_alone_is_enough() {
    assert_eq!(source("netlink_socket_buffer_size=100000").buffer, (100_000, 100_000));
    let both = "netlink_socket_buffer_size=1000\nnetlink_socket_buffer_maxsize=4000";
    assert_eq!(source(both).buffer, (1000, 4000));
    assert_eq!(source("netlink_socket_buffer_maxsize=4000").buffer, (4000, 4000));
}

#[test]
fn filters_are_read() {
    let source = source(
        "accept_src_filter=10.0.0.0/8,fd00::/8\naccept_dst_filter=\"10.1.0.0/16\"\n\
         accept_proto_filter=tcp,17,ipv6-icmp",
    );
    let networks: Vec<Network> = ["10.0.0.0/8", "fd00::/8"].map(|n| n.parse().unwrap()).into();
    assert_eq!(source.nfct.filter.sources, networks);
    assert_eq!(source.nfct.filter.protocols, [6, 17, 58]);
}

#[test]
fn a_source_in_two_stacks_is_one_source() {
    let config = good(&format!(
        "[global]\n{STACK}stack=ct1:NFCT,ip2str2:IP2STR,print2:PRINTFLOW,emu2:LOGEMU\n\
         stack=ct2:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\n[ct2]\nhash_enable=0\n[emu1]\n[emu2]\nfile=/tmp/b\n"
    ));
    assert_eq!(config.sources.len(), 2);
    let sources: Vec<usize> = config.stacks.iter().map(|stack| stack.source).collect();
    assert_eq!(sources, [0, 0, 1]);
}

#[test]
fn traps_of_ulogd2_do_what_was_meant_and_say_so() {
    assert!(messages(&format!("[global]\n{STACK}[ct1]\n[emu1]\nfile=/tmp/x")).is_empty());
    assert!(messages(&format!("[global]\n  # note\n{STACK}[ct1]\n[emu1]")).is_empty());
    assert!(message("hash_buckets=0").contains("u.conf:4: `hash_buckets=0` would crash ulogd2"));
    assert!(message("netlink_socket_buffer_size=100000").contains("ulogd2 would ignore it"));
    let empty = messages(&format!("[global]\n{STACK}[ct1]\n[emu1]\nfile="));
    assert_eq!(empty.len(), 1);
    assert!(empty[0].starts_with("u.conf:5: `file` has no value"), "{}", empty[0]);
    let config = good(&format!("[global]\n{STACK}[ct1]\n[emu1]\nfile="));
    let Some(Stage::LogEmu(emu)) = config.stacks[0].stages.last() else { panic!() };
    assert_eq!(emu.file.to_str(), Some("/var/log/flowlog/flowlog.log"));
    let blanks = "[global]\nstack=ct1:NFCT, ip2str1:IP2STR, print1:PRINTFLOW, emu1:LOGEMU\n";
    good(&format!("{blanks}[ct1]\n[emu1]\n"));
    assert!(messages(&format!("[global]\n{STACK}[emu1]\n"))[0].contains("no section [ct1]"));
}

#[test]
fn mask_bits_that_mean_nothing_are_mentioned() {
    assert!(message("event_mask=0x101\nhash_enable=0").contains("bits 8 to 31"));
    assert!(message("event_mask=1").contains("writes no line"));
    assert!(message("event_mask=0").contains("selects no event"));
}

#[test]
fn unknown_names_come_with_the_nearest_known_one() {
    let found = read(&format!("[global]\n{STACK}[ct1]\nevnet_mask=1\n[print]\n[emu1]\n[xml1]\n"));
    assert!(found.config.is_some(), "the daemon runs all the same");
    let text: Vec<String> = found.diagnostics.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "u.conf:4: `evnet_mask` is no key of [ct1], and is ignored; did you mean `event_mask`?",
            "u.conf:5: no stack names [print], so it is not read; did you mean `print1`?",
            "u.conf:7: no stack names [xml1], so it is not read",
        ]
    );
    // A section that is nobody's, as ulogd2's sample has several, is no mistake.
    let severities: Vec<Severity> = found.diagnostics.iter().map(|d| d.severity).collect();
    assert_eq!(severities, [Severity::Unknown, Severity::Unknown, Severity::Note]);
}

#[test]
fn sections_of_stacks_that_are_switched_off_are_not_unknown() {
    let text = format!("[global]\n#stack=log1:NFLOG,emu2:LOGEMU\n{STACK}[ct1]\n[emu1]\n[log1]\n");
    assert!(messages(&text).is_empty());
}

#[test]
fn every_error_is_told_at_once_with_its_line() {
    let text = "[global]\nstack=ct1:NFCTX,emu1:LOGEMU\n\
                stack=ct1:NFCT,print1:PRINTFLOW,emu1:LOGEMU\n\
                stack=emu1:LOGEMU,ct1:NFCT\nstack=ct1\nstack=ct1:NFCT,db1:MYSQL\n\
                stack=ct3:NFCT,ip1:IP2STR,p1:PRINTFLOW,emu1:LOGEMU\n\
                [ct3]\nevent_mask=yes\nhash_enable=1\nhash_enable=0\n\
                accept_src_filter=10.0.0.1\naccept_proto_filter=tpc\npollinterval=-1\n[emu1]\n";
    let outcome = read(text);
    assert!(outcome.config.is_none());
    let all: Vec<String> = outcome
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    for expected in [
        "u.conf:2: there is no plugin `NFCTX`; did you mean `NFCT`?",
        "u.conf:3: print1:PRINTFLOW needs `orig.ip.saddr.str`, which nothing before it provides; \
         put IP2STR before it",
        "u.conf:4: the stack begins with emu1:LOGEMU, which is no source",
        "u.conf:5: `ct1` in the stack is not ID:PLUGIN",
        "u.conf:6: MYSQL is a plugin of ulogd2 that flowlog does not have",
        "u.conf:9: `event_mask=yes` in [ct3] is no number",
        "u.conf:11: `hash_enable` stands in [ct3] for the second time, first in line 10",
        "u.conf:12: `accept_src_filter`: `10.0.0.1` has no prefix length",
        "u.conf:13: `accept_proto_filter`: `tpc` is no protocol",
        "u.conf:14: `pollinterval=-1` is out of range",
    ] {
        assert!(all.iter().any(|m| m.starts_with(expected)), "{expected}\nis not in {all:#?}");
    }
}

#[test]
fn polling_needs_the_table() {
    let all = messages(&format!("[global]\n{STACK}[ct1]\npollinterval=5\nhash_enable=0\n[emu1]\n"));
    assert!(all[0].starts_with("u.conf:4: `pollinterval` needs the table"), "{all:?}");
}

#[test]
fn stacks_of_packets_are_left_to_ulogd2() {
    let packets = "stack=log1:NFLOG,base1:BASE,print1:PRINTPKT,emu1:LOGEMU\n";
    let config = good(&format!("[global]\n{packets}{STACK}[ct1]\n[emu1]\n[log1]\n"));
    assert_eq!(config.stacks.len(), 1);
    let none = read(&format!("[global]\n{packets}[emu1]\n[log1]\n"));
    assert!(none.config.is_none());
    assert!(none.diagnostics.iter().any(|d| d.message.contains("no stack is left to run")));
}

#[test]
fn a_file_without_global_or_stacks_or_at_all_is_refused() {
    assert!(messages("")[0].contains("there is no section [global]"));
    assert!(messages("[global]\n")[0].contains("[global] has no stack"));
    let outcome = load(Path::new("/nonexistent/u.conf"));
    let text = outcome.diagnostics[0].to_string();
    assert!(text.starts_with("/nonexistent/u.conf: cannot be read: No such file"), "{text}");
}

mod shipped {
    use super::*;

    const SHIPPED: &str = include_str!("../../../conf/flowlog.conf");

    #[test]
    fn the_shipped_configuration_is_faultless() {
        assert_eq!(messages(SHIPPED), [""; 0]);
    }

    /// With every commented key in force, so that none can be mistyped, and
    /// with nothing missing.
    #[test]
    fn it_holds_every_key_there_is() {
        let is_key = |line: &str| line.starts_with(|c: char| c.is_ascii_lowercase());
        let text: Vec<&str> = SHIPPED
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
            .collect();
        let text = text.join("\n").replace("hash_enable=0", "hash_enable=1");
        let outcome = read(&text);
        assert!(outcome.config.is_some(), "{:#?}", outcome.diagnostics);
        assert!(outcome.diagnostics.is_empty(), "{:#?}", outcome.diagnostics);
        let keys = catalog::PLUGINS.iter().flat_map(|plugin| plugin.keys).chain(catalog::GLOBAL);
        for key in keys {
            let set = text.lines().any(|line| line.starts_with(&format!("{}=", key.name)));
            assert!(set, "`{}` is missing in conf/flowlog.conf", key.name);
        }
    }
}

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// No text crashes the parser, and what is refused is told why.
        #[test]
        fn any_text_is_answered(text in "(?s).{0,400}") {
            let outcome = read(&text);
            prop_assert!(outcome.config.is_some() || !outcome.diagnostics.is_empty());
        }

        /// The same with the words of the grammar in random order.
        #[test]
        fn any_order_of_its_own_words_is_answered(words in prop::collection::vec(
            prop::sample::select(vec![
                "[global]", "[ct1]", "[", "]", "stack=", "ct1:NFCT", ",", "ip:IP2STR", "\"", "=",
                "p:PRINTFLOW", "e:LOGEMU", "\n", "#", " ", "event_mask", "0x", "-1", "file", ":",
                "accept_src_filter", "::/0", "/", "hash_buckets", "99999999999999999999", "\r",
            ]),
            0..80,
        )) {
            let outcome = read(&words.concat());
            prop_assert!(outcome.config.is_some() || !outcome.diagnostics.is_empty());
        }
    }
}

#[test]
fn metrics_are_served_only_where_an_address_is_written() {
    let metrics = |line: &str| good(&format!("[global]\n{line}\n{STACK}[ct1]\n[emu1]\n")).metrics;
    assert_eq!(metrics(""), None);
    assert_eq!(metrics("metrics=\"\""), None);
    assert_eq!(metrics("metrics=\"[::1]:9471\""), Some("[::1]:9471".parse().unwrap()));
    assert_eq!(metrics("metrics=127.0.0.1"), Some("127.0.0.1:9470".parse().unwrap()));
    let refused = messages(&format!("[global]\nmetrics=localhost:9470\n{STACK}[ct1]\n[emu1]\n"));
    assert_eq!(refused.len(), 1, "{refused:#?}");
    assert!(
        refused[0].starts_with("u.conf:2: `metrics=localhost:9470` is no address"),
        "{refused:#?}"
    );
}

#[test]
fn a_byte_order_mark_at_the_start_is_passed_over() {
    let marked = read(&format!("\u{feff}[global]\n{STACK}[ct1]\n[emu1]\n"));
    assert!(marked.config.is_some() && marked.diagnostics.is_empty(), "{:?}", marked.diagnostics);
    assert_eq!(marked.lines[0].text, "[global]");
}

#[test]
fn switches_are_0_or_1_and_other_numbers_are_noted() {
    for (value, on) in [("-7", true), ("2", true), ("0x10", true), ("1", true), ("0", false)] {
        let text = format!("[global]\n{STACK}[ct1]\nhash_enable={value}\n[emu1]\n");
        let outcome = read(&text);
        assert_eq!(outcome.config.unwrap().sources[0].nfct.hash.is_some(), on, "{value}");
        assert_eq!(outcome.diagnostics.len(), usize::from(!["0", "1"].contains(&value)), "{value}");
    }
    let said = message("reliable=-7");
    assert!(said.contains("`reliable=-7` is taken as 1") && said.contains("reliable=0"), "{said}");
}
