//! FILTER: what is refused and where, and what goes to the source.

use super::*;
use crate::flow::proto;

const FILTERED: &str = "stack=ct1:NFCT,f1:FILTER,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n";

fn with(stacks: &str, sections: &str) -> String {
    format!("[global]\n{stacks}{sections}[emu1]\nfile=/x\n[emu2]\nfile=/y\n")
}

fn expr(expression: &str) -> String {
    with(FILTERED, &format!("[ct1]\n[f1]\nexpr={expression}\n"))
}

fn refusal(text: &str) -> String {
    assert!(read(text).config.is_none(), "{text}");
    let mut all = messages(text);
    all.retain(|message| !message.contains("no stack names"));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn mistakes_name_line_column_and_remedy() {
    assert_eq!(
        refusal(&expr("\"mark == 1 && dst.prot == 80\"")),
        "u.conf:5: `expr`, column 14, at `dst.prot == 80`: there is no field `dst.prot`; did you \
         mean `dst.port`?"
    );
    assert!(refusal(&expr("\"mark ==\"")).contains("at its end: "));
    for (expression, remedy) in [
        ("\"cause == \"early_drop\"\"", "single quotes, 'tcp', as the value ends at the next"),
        ("mark == 1", "put all of it into double quotes"),
    ] {
        let why = refusal(&expr(expression));
        assert!(why.contains("`expr` ends before") && why.contains(remedy), "{why}");
    }
    assert!(good_filter("\"mark == 1\" # the marked").contains("f1"));
    let why = refusal(&with(FILTERED, "[ct1]\n[f1]\n"));
    assert_eq!(
        why,
        "u.conf:2: [f1] has no expression; write one, such as expr=\"dst.port == 443\""
    );
    let why = refusal(&with(FILTERED, "[ct1]\n"));
    assert!(why.contains("[f1] has no expression"), "{why}");
}

fn good_filter(expression: &str) -> String {
    let config = good(&expr(expression));
    let Some(Stage::Filter(settings)) = config.stacks[0].stages.first() else { panic!() };
    settings.id.clone()
}

fn filter(text: &str) -> (Filter, String) {
    let source = good(text).sources.remove(0);
    (source.nfct.filter, source.pushed.to_string())
}

#[test]
fn a_source_of_one_stack_gets_what_can_be_pushed_down() {
    let (filter, told) = filter(&expr("\"proto == 'tcp' && mark == 1\""));
    assert_eq!((filter.protocols, told.as_str()), (vec![proto::TCP], "protocols tcp"));
}

#[test]
fn filters_of_the_source_hold_as_well() {
    let (filter, told) = filter(&with(
        FILTERED,
        "[ct1]\naccept_proto_filter=tcp,udp\naccept_src_filter=10.0.0.0/8\n\
         [f1]\nexpr=\"proto in ['tcp', 'sctp'] && src.ip.in_net('10.1.0.0/16', 'fd00::/8')\"\n",
    ));
    assert_eq!(filter.protocols, [proto::TCP]);
    let sources: Vec<_> = filter.sources.iter().map(ToString::to_string).collect();
    // The list of the source names IPv4 only, and lets IPv6 pass.
    assert_eq!(sources, ["10.1.0.0/16", "fd00::/8"]);
    assert_eq!(told, "sources 10.1.0.0/16, fd00::/8; protocols tcp, sctp");
}

#[test]
fn all_stacks_of_a_source_must_agree() {
    let second = "stack=ct1:NFCT,f2:FILTER,ip1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n";
    let sections = "[ct1]\n[f1]\nexpr=\"proto == 'tcp'\"\n[f2]\nexpr=\"proto == 'udp'\"\n";
    let (both, _) = filter(&with(&format!("{FILTERED}{second}"), sections));
    assert_eq!(both.protocols, [proto::TCP, proto::UDP]);
    let without = "stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n";
    let (all, told) =
        filter(&with(&format!("{FILTERED}{without}"), "[ct1]\n[f1]\nexpr=\"false\"\n"));
    assert_eq!((all, told.as_str()), (Filter::default(), ""));
    let elsewhere = "stack=ct2:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n";
    let text = with(&format!("{FILTERED}{elsewhere}"), &format!("[ct2]\n{sections}"));
    let sources = good(&text.replace("[f2]\nexpr=\"proto == 'udp'\"\n", "")).sources;
    assert_eq!(sources[0].nfct.filter.protocols, [proto::TCP]);
    assert_eq!(sources[1].nfct.filter, Filter::default());
}

#[test]
fn filters_in_one_stack_hold_together() {
    let stack = "stack=ct1:NFCT,f1:FILTER,f2:FILTER,json1:JSON\n";
    let sections = "[ct1]\n[f1]\nexpr=\"dst.port == 53\"\n[f2]\nexpr=\"proto != 'udp' && proto in ['tcp', 'icmp']\"\n[json1]\n";
    let (filter, _) =
        filter(&with(stack, sections).replace("[emu1]\nfile=/x\n[emu2]\nfile=/y\n", ""));
    assert_eq!(filter.protocols, [proto::TCP]);
}
