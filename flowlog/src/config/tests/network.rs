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
