//! The section of CLICKHOUSE.

use super::*;

fn text(section: &str) -> String {
    format!("[global]\nstack=ct1:NFCT,c:CLICKHOUSE\n[ct1]\nhash_enable=0\n{section}\n")
}

fn clickhouse(keys: &str) -> columns::Settings {
    let config = good(&text(&format!("[c]\n{keys}")));
    assert!(config.ships());
    let Some(Stage::Clickhouse(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.as_ref().clone()
}

fn refused(keys: &str) -> String {
    let mut all = messages(&text(&format!("[c]\n{keys}")));
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn the_defaults_are_those_of_the_files_in_conf() {
    let settings = clickhouse("");
    assert_eq!(settings.url.shown(), "http://127.0.0.1:8123/");
    assert_eq!((settings.database.as_str(), settings.table.as_str()), ("flowlog", "flow"));
    assert_eq!((settings.linger, settings.batch), (Duration::from_secs(1), 8 << 20));
    assert!(settings.compressed && settings.hostname.is_none() && settings.user.is_empty());
}

#[test]
fn urls_are_read() {
    for (written, shown) in [
        ("http://ch.example.org", "http://ch.example.org:8123/"),
        ("https://ch.example.org", "https://ch.example.org:8443/"),
        ("http://[2001:db8::1]:81/ch/", "http://[2001:db8::1]:81/ch/"),
        ("http://[2001:db8::1]", "http://[2001:db8::1]:8123/"),
    ] {
        assert_eq!(clickhouse(&format!("url={written}")).url.shown(), shown);
    }
    for (written, why) in [
        ("ch.example.org:8123", "is no URL"),
        ("ftp://ch.example.org", "is not for HTTP"),
        ("http://", "is no URL"),
        ("http://ch:port", "is no URL"),
        ("http://ch:0", "is no URL"),
        ("http://me:secret@ch", "names a user"),
        ("http://ch/?user=me", "goes on behind its path"),
    ] {
        let message = refused(&format!("url=\"{written}\""));
        assert!(message.contains(why) && message.starts_with("u.conf:6: `url="), "{message}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused() {
    assert!(refused("password=x").contains("`password` without `user`"));
    assert!(refused("linger=2h").contains("longer than an hour"));
    assert!(refused("settings=\"async insert\"").contains("write NAME=VALUE"));
    assert!(refused("settings=\"a=1&\"").contains("write NAME=VALUE"));
    assert!(refused("tls_ca=/ca.pem").contains("write https:// in `url=`, or remove it"));
    let settings = clickhouse("url=https://ch\ntls_ca=/ca.pem\nsettings=\"a=1&b=2\"");
    assert_eq!(settings.url.tls.unwrap().ca, Some(PathBuf::from("/ca.pem")));
    assert_eq!(settings.settings, "a=1&b=2");
}

#[test]
fn settings_that_weaken_the_acknowledgement_are_refused() {
    for setting in [
        "wait_for_async_insert=0",
        "async_insert=1&wait_for_async_insert=0",
        "wait_for_async_insert=false",
        "insert_distributed_sync=0",
        "distributed_foreground_insert=0",
        "wait_end_of_query=0",
        "input_format_allow_errors_num=5",
        "input_format_allow_errors_ratio=0.1",
    ] {
        let message = refused(&format!("settings=\"{setting}\""));
        assert!(message.ends_with("would take such rows for stored; remove it"), "{message}");
    }
    for setting in ["async_insert=1&wait_for_async_insert=1", "input_format_allow_errors_num=0"] {
        assert_eq!(clickhouse(&format!("settings=\"{setting}\"")).settings, setting);
    }
}

fn pgsql(keys: &str) -> pgsql::Settings {
    let config = good(&format!("[global]\nstack=ct1:NFCT,p:PGSQL\n[ct1]\n[p]\n{keys}\n"));
    let Some(Stage::Pgsql(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.as_ref().clone()
}

#[test]
fn hosts_of_postgresql_are_trimmed_and_may_stand_in_brackets() {
    use tokio_postgres::config::Host;
    let hosts = pgsql("host=\" db1 , [::1] ,db2\"").target.server.get_hosts().to_vec();
    assert_eq!(hosts, ["db1", "::1", "db2"].map(|host| Host::Tcp(host.to_owned())));
    let socket = pgsql("host=/run/postgresql").target.server.get_hosts().to_vec();
    assert_eq!(socket, [Host::Unix("/run/postgresql".into())]);
    for (keys, said) in [
        ("host=\"db1:5433\"", "`host=db1:5433` names a port too"),
        ("connstring=\"host=[::1] user=u\"", "without brackets"),
    ] {
        let all = messages(&format!("[global]\nstack=ct1:NFCT,p:PGSQL\n[ct1]\n[p]\n{keys}\n"));
        assert!(all.len() == 1 && all[0].contains(said), "{all:?}");
    }
}
