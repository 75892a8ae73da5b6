//! The sections of sinks.

use super::*;
use crate::plugin::json::Schema;
use crate::plugin::output::{Address, Destination};

fn text(stages: &str, section: &str) -> String {
    format!("[global]\nstack=ct1:NFCT,{stages}\n[ct1]\nhash_enable=0\n{section}\n")
}

fn json(keys: &str) -> json::Settings {
    let config = good(&text("j:JSON", &format!("[j]\n{keys}")));
    let Some(Stage::Json(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.clone()
}

fn sqlite3(keys: &str) -> sqlite3::Settings {
    let config = good(&text("d:SQLITE3", &format!("[d]\n{keys}")));
    let Some(Stage::Sqlite3(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.clone()
}

#[test]
fn a_section_of_ulogd_for_sqlite3_means_the_same() {
    let settings = sqlite3("table=\"ulog_ct\"\ndb=\"/var/log/ulogd.sqlite3db\"\nbuffer=200");
    assert_eq!(settings.db, PathBuf::from("/var/log/ulogd.sqlite3db"));
    assert_eq!((settings.table.as_str(), settings.sync), ("ulog_ct", false));
    let settings = sqlite3("sync=1\nbuffer_max_bytes=4096");
    assert_eq!(settings.db, PathBuf::from("/var/log/flowlog/flowlog.db"));
    assert_eq!((settings.table.as_str(), settings.sync), ("", true));
    assert_eq!(settings.buffer_max, 4096);
}

fn syslog(keys: &str) -> syslog::Settings {
    let config = good(&text("i:IP2STR,p:PRINTFLOW,s:SYSLOG", &format!("[s]\n{keys}")));
    let Some(Stage::Syslog(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.clone()
}

fn refused(stages: &str, section: &str) -> String {
    let all = messages(&text(stages, section));
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(read(&text(stages, section)).config.is_none());
    all.into_iter().next().unwrap()
}

#[test]
fn a_section_of_ulogd_for_json_means_the_same() {
    let settings = json(
        "file=\"/tmp/x.json\"\nsync=1\ntimestamp=0\neventv1=1\ndevice=\"My awesome Netfilter\"\n\
         boolean_label=1\nmode=\"FILE\"",
    );
    let file = Destination::File { path: "/tmp/x.json".into(), sync: true };
    assert_eq!(settings.output.destination, file);
    assert_eq!(settings.schema, Schema::Ulogd);
    assert!(!settings.timestamp && settings.eventv1);
    assert_eq!(settings.device, "My awesome Netfilter");
    let address = |keys| match json(keys).output.destination {
        Destination::Socket(address) => address,
        Destination::File { .. } => panic!("{keys}"),
    };
    assert_eq!(address("mode=tcp"), Address::Tcp("127.0.0.1".to_owned(), 12345));
    assert_eq!(address("mode=udp\nhost=::1\nport=9"), Address::Udp("::1".to_owned(), 9));
    assert_eq!(address("mode=unix\nfile=/run/x"), Address::UnixStream("/run/x".into()));
    assert_eq!(address("mode=unix-dgram\nfile=/run/x"), Address::UnixDatagram("/run/x".into()));
    for keys in ["file=-", "mode=stdout"] {
        let stdout = Destination::File { path: "/dev/stdout".into(), sync: false };
        assert_eq!(json(keys).output.destination, stdout);
    }
    assert_eq!(json("schema=full").schema, Schema::Full);
    let bracketed = json("mode=udp\nhost=\"[2001:db8::1]\"").output.destination;
    assert_eq!(bracketed, Destination::Socket(Address::Udp("2001:db8::1".to_owned(), 12345)));
}

#[test]
fn syslog_has_the_names_of_ulogd() {
    let default = syslog("");
    assert_eq!(default.priority, 3 << 3 | 5, "what comes of LOG_KERN by way of syslog(3)");
    let local = Destination::Socket(Address::UnixDatagram("/dev/log".into()));
    assert_eq!(default.output.destination, local);
    assert_eq!(syslog("facility=LOG_LOCAL7\nlevel=LOG_DEBUG").priority, 23 << 3 | 7);
    for (server, address) in [
        ("udp://log.example.org:514", Address::Udp("log.example.org".to_owned(), 514)),
        ("tcp://[fd00::1]:601", Address::Tcp("fd00::1".to_owned(), 601)),
        ("unix:/run/x", Address::UnixDatagram("/run/x".into())),
        ("unix:///run/x", Address::UnixDatagram("/run/x".into())),
    ] {
        let settings = syslog(&format!("server=\"{server}\""));
        assert_eq!(settings.output.destination, Destination::Socket(address), "{server}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_remedy() {
    let json = |keys: &str| refused("j:JSON", &format!("[j]\n{keys}"));
    let syslog = |keys: &str| refused("i:IP2STR,p:PRINTFLOW,s:SYSLOG", &format!("[s]\n{keys}"));
    assert!(json("mode=sctp").contains("`mode=sctp` is not known; write `file` or `stdout`"));
    assert!(json("mode=unix").contains("is no socket; name it"));
    assert!(json("mode=unix\nfile=x").contains("has no absolute path"));
    assert!(json(&format!("mode=unix\nfile=/{}", "x".repeat(107))).contains("longer than the 107"));
    assert!(json("port=0").contains("out of range"));
    let port = json("mode=tcp\nhost=\"[::1]:514\"");
    assert!(port.contains("write host=::1 and port=514"), "{port}");
    assert!(json("port=http").contains("is no number"));
    assert!(syslog("facility=LOG_MAIL").contains("`facility=LOG_MAIL` is not known"));
    assert!(syslog("level=notice").contains("`level=notice` is not known; write `LOG_EMERG`"));
    assert!(syslog("server=log.example.org").contains("is no server; write unix:PATH"));
    assert!(syslog("server=udp://log.example.org").contains("has no port"));
    assert!(syslog("server=tcp://:514").contains("has no port"));
    assert!(syslog("ident=\"a b\"").contains("is no name"));
    assert!(refused("s:SYSLOG", "[s]").contains("s:SYSLOG needs `print`"));
}

#[test]
fn pgsql_finds_its_server() {
    let settings = |keys: &str| {
        let config = good(&text("p:PGSQL", &format!("[p]\n{keys}")));
        let Some(Stage::Pgsql(settings)) = config.stacks[0].stages.last() else { panic!() };
        settings.clone()
    };
    let target = settings("").target;
    assert_eq!(target.place(), "the database flowlog at /var/run/postgresql/.s.PGSQL.5432");
    let target = settings("host=db1\nport=9\ndb=log\nuser=u\npass=p\ntls=1").target;
    assert_eq!(target.place(), "the database log at db1:9");
    assert_eq!(target.server.get_password(), Some(&b"p"[..]));
    assert!(target.tls.is_some());
    let target = settings("host=db1\nconnstring=\"host=db2 user=v\"\nuser=u").target;
    assert_eq!(
        (target.place().as_str(), target.server.get_user()),
        ("the database flowlog at db2:5432", Some("v"))
    );
    let pgsql = |keys: &str| refused("p:PGSQL", &format!("[p]\n{keys}"));
    assert!(pgsql("procedure=\"CALL x\"").contains("name a function instead"));
    assert!(pgsql("connstring=\"host=db1 sslmode=require\"").contains("set tls=1"));
    assert!(pgsql("connstring=\"hosts=db1\"").contains("`connstring` cannot be read"));
    assert!(pgsql("tls=1").contains("there is none through a socket of this host"));
}
