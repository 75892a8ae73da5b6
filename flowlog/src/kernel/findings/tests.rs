use super::*;

const STACK: &str = "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU";

fn sources(keys: &str) -> Vec<Source> {
    let text = format!("[global]\n{STACK}\n[ct1]\n{keys}\n[emu1]\nfile=\"/tmp/x\"\n");
    let outcome = crate::config::parse(Path::new("test.conf"), &text);
    outcome.config.expect("a sound configuration").sources
}

#[test]
fn accounting_off_is_a_warning_with_the_line_to_write() {
    let found = acct(Some(0), &Wishes::new(None, &[]));
    assert_eq!(found.state, State::Warning);
    let remedy = found.remedy.unwrap();
    assert!(remedy.contains("`net.netfilter.nf_conntrack_acct = 1`"), "{remedy}");
    assert!(remedy.contains("/etc/sysctl.d/99-nf_conntrack_acct.conf"), "{remedy}");
    assert_eq!(acct(Some(1), &Wishes::new(None, &[])).state, State::Ok);
}

#[test]
fn what_flowlog_will_do_itself_is_fine() {
    let sources = sources("set_sysctls=1\nactivate=1");
    let wishes = Wishes::new(None, &sources);
    for found in [
        acct(Some(0), &wishes),
        timestamp(Some(0), &wishes),
        events(Some(0), &wishes),
        tracking(&Activity::Inactive, &wishes),
    ] {
        assert_eq!(found.state, State::Ok, "{found:?}");
        assert!(found.what.contains("flowlog will"), "{found:?}");
    }
}

#[test]
fn no_events_are_a_problem_unless_the_table_is_polled() {
    let default = Wishes::new(None, &[]);
    assert_eq!(events(Some(0), &default).state, State::Problem);
    assert_eq!(events(None, &default).state, State::Problem);
    let polling = sources("pollinterval=5");
    assert_eq!(events(Some(0), &Wishes::new(None, &polling)).state, State::Ok);
}

#[test]
fn old_flows_are_told_as_they_will_be_treated() {
    let say = |keys| {
        let sources = sources(keys);
        events(Some(2), &Wishes::new(None, &sources))
    };
    assert!(say("redump_interval=30").what.ends_with("by a dump every 30 s"));
    assert!(say("redump_interval=0").what.ends_with("goes unlogged"));
    assert!(say("hash_enable=0").what.ends_with("goes unlogged"));
    assert_eq!(say("hash_enable=0\nevent_mask=1").state, State::Ok);
}

#[test]
fn nothing_tracked_is_a_problem_and_doubt_a_warning() {
    let wishes = Wishes::new(None, &[]);
    assert_eq!(tracking(&Activity::Inactive, &wishes).state, State::Problem);
    let doubt = tracking(&Activity::Unknown("lo is down".to_owned()), &wishes);
    assert_eq!(doubt.state, State::Warning);
    assert!(doubt.what.ends_with("lo is down"));
}

#[test]
fn the_buffer_limit_matters_only_without_the_capability() {
    let sources = sources("netlink_socket_buffer_maxsize=4000000");
    let wishes = Wishes::new(None, &sources);
    assert_eq!(buffer(true, true, Some(212_992), &wishes).state, State::Ok);
    assert_eq!(buffer(true, true, None, &wishes).state, State::Ok);
    assert_eq!(buffer(false, false, Some(4_000_000), &wishes).state, State::Ok);
    let short = buffer(false, false, Some(212_992), &wishes);
    assert_eq!(short.state, State::Warning);
    assert!(short.remedy.unwrap().contains("rmem_max = 4000000"));
}

#[test]
fn the_capability_of_a_user_namespace_does_not_lift_the_buffer_limit() {
    let sources = sources("netlink_socket_buffer_maxsize=4000000");
    let wishes = Wishes::new(None, &sources);
    for rmem_max in [Some(212_992), None] {
        let short = buffer(true, false, rmem_max, &wishes);
        assert_eq!(short.state, State::Warning, "{rmem_max:?}");
        assert!(short.what.contains("of a user namespace does not lift it"), "{}", short.what);
        assert!(short.remedy.unwrap().ends_with("on the host"));
    }
}

#[test]
fn a_sysctl_that_cannot_be_set_is_no_promise() {
    let sources = sources("set_sysctls=1");
    let fixed = vec![("nf_conntrack_acct", "Read-only file system (os error 30)".to_owned())];
    let wishes = Wishes { fixed, ..Wishes::new(None, &sources) };
    let found = acct(Some(0), &wishes);
    assert_eq!(found.state, State::Warning);
    assert!(found.what.contains("cannot set it to 1") && found.what.contains("Read-only"));
    assert!(found.remedy.unwrap().contains("ProtectKernelTunables=no"));
    assert_eq!(timestamp(Some(0), &wishes).state, State::Ok, "that one can be set");
    assert_eq!(acct(Some(1), &wishes).state, State::Ok, "it is set already");
}

#[test]
fn a_table_nine_tenths_full_is_a_warning() {
    assert_eq!(table(89, 100).state, State::Ok);
    assert_eq!(table(90, 100).state, State::Warning);
    assert_eq!(table(7, 0).state, State::Ok);
}

#[test]
fn sysctls_of_another_namespace_need_another_remedy() {
    let found = acct(Some(0), &Wishes::new(Some(Path::new("blue")), &[]));
    let remedy = found.remedy.unwrap();
    assert!(remedy.contains("--net=/run/netns/blue sysctl -w"), "{remedy}");
}

#[test]
fn a_namespace_that_is_not_there_is_a_problem() {
    let found = findings(Some(Path::new("/nonexistent")), &[]);
    let last = found.last().unwrap();
    assert_eq!((last.name, last.state), ("netns", State::Problem));
}
