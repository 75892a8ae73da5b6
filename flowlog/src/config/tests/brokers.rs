//! The sections of brokers, and the keys of TLS.

use super::*;
use crate::plugin::nats::Auth;

fn text(keys: &str) -> String {
    format!("[global]\nstack=ct1:NFCT,n:NATS\n[ct1]\nhash_enable=0\n[n]\n{keys}\n")
}

fn nats(keys: &str) -> nats::Settings {
    let config = good(&text(keys));
    assert!(config.ships());
    let Some(Stage::Nats(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.clone()
}

fn refused(keys: &str) -> String {
    let all = messages(&text(keys));
    assert_eq!(all.len(), 1, "{all:#?}");
    assert!(read(&text(keys)).config.is_none());
    all.into_iter().next().unwrap()
}

#[test]
fn nats_needs_no_key() {
    let settings = nats("");
    assert_eq!(settings.far.to_string(), "NATS at 127.0.0.1:4222");
    assert_eq!(settings.far.subject, "flowlog.{host}");
    assert_eq!((settings.far.stream, settings.far.create_stream), (None, false));
    assert_eq!((settings.far.auth, settings.far.tls), (Auth::Nobody, None));
    assert_eq!((settings.shipping.id.as_str(), settings.shipping.buffer_max), ("n", 64 << 20));
}

#[test]
fn servers_and_users_are_read() {
    let far = nats(
        "server=\"nats://a, b:4333,[::1]:4444\"\nstream=FLOWS\ncreate_stream=1\nuser=u\npass=p\n\
         tls=1\ntls_ca=/ca.pem\ntls_cert=/c.pem\ntls_key=/k.pem",
    )
    .far;
    assert_eq!(far.to_string(), "NATS at a:4222, b:4333, [::1]:4444");
    assert_eq!(far.auth, Auth::Password("u".to_owned(), "p".to_owned()));
    let tls = far.tls.unwrap();
    assert_eq!(tls.ca, Some("/ca.pem".into()));
    assert_eq!(tls.identity.unwrap().key, PathBuf::from("/k.pem"));
    assert_eq!(nats("token=x").far.auth, Auth::Token("x".to_owned()));
    assert_eq!(nats("creds=/c").far.auth, Auth::Credentials("/c".into()));
    assert_eq!(nats("nkey=/n").far.auth, Auth::Nkey("/n".into()));
    assert_eq!(nats("tls=1").far.tls, Some(ship::tls::Settings::default()));
}

fn kafka_text(keys: &str) -> String {
    text(keys).replace("n:NATS", "n:KAFKA")
}

fn kafka(keys: &str) -> kafka::Far {
    let config = good(&kafka_text(keys));
    let Some(Stage::Kafka(settings)) = config.stacks[0].stages.last() else { panic!() };
    settings.far.clone()
}

#[test]
fn brokers_and_properties_are_read() {
    let far = kafka("");
    assert_eq!(far.to_string(), "Kafka at 127.0.0.1:9092");
    assert_eq!((far.topic.as_str(), far.compression), ("flowlog", "zstd"));
    let far = kafka(
        "brokers=\" a:1 , b:2 \"\ntopic=t.x\ncompression=lz4\nproperty=\"linger.ms=5\"\n\
         property=\"sasl.password=a=b\"",
    );
    assert_eq!((far.brokers.as_str(), far.compression), ("a:1,b:2", "lz4"));
    let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    assert_eq!(far.properties, [("linger.ms", "5"), ("sasl.password", "a=b")].map(pair));
    assert!(!format!("{far:?}").contains("a=b"), "a password is shown");
    assert!((far.tls, far.sasl) == (None, None));
    let far = kafka("user=u\npass=hidden");
    assert!(!format!("{far:?}").contains("hidden"), "a password is shown");
    let sasl = far.sasl.unwrap();
    assert_eq!((sasl.user.as_str(), sasl.password.as_str()), ("u", "hidden"));
    assert_eq!(sasl.mechanism, "PLAIN");
    for (keys, told) in [
        ("pass=x", "name the user with `user=`"),
        ("mechanism=SCRAM-SHA-256", "`mechanism` is for a user; name it with `user=`"),
        ("user=u\nmechanism=GSSAPI", "`mechanism=GSSAPI` is not known"),
        (
            "user=u\nproperty=\"security.protocol=plaintext\"",
            "the property `security.protocol` is what `user` sets otherwise; remove one of them",
        ),
        ("brokers=\"kafka://a:1\"", "is no list of brokers"),
        ("topic=\"a b\"", "is no topic"),
        ("compression=gzip", "`compression=gzip` is not known"),
        ("property=\"linger.ms\"", "`property=linger.ms` has no value"),
    ] {
        let all = messages(&kafka_text(keys));
        assert!(all.len() == 1 && all[0].contains(told), "{all:?}");
    }
}

#[test]
#[cfg(feature = "kafka-tls")]
fn kafka_has_tls_and_scram() {
    let far = kafka("user=u\nmechanism=scram-sha-256\ntls=1\ntls_ca=/ca.pem");
    assert_eq!(far.tls.unwrap().ca, Some("/ca.pem".into()));
    assert_eq!(far.sasl.unwrap().mechanism, "SCRAM-SHA-256");
    for (keys, told) in [
        ("tls_ca=/ca.pem", "`tls_ca` is for TLS, which is off; set tls=1"),
        (
            "tls=1\nproperty=\"security.protocol=plaintext\"",
            "the property `security.protocol` is what `tls` sets otherwise; remove one of them",
        ),
    ] {
        let all = messages(&kafka_text(keys));
        assert!(all.len() == 1 && all[0].contains(told), "{all:?}");
    }
}

#[test]
#[cfg(not(feature = "kafka-tls"))]
fn kafka_has_no_tls_and_says_how_to_get_it() {
    assert_eq!(kafka("tls=0").tls, None);
    for (keys, line, told) in [
        ("tls=1\ntls_ca=/ca.pem", 6, "`tls` is of no use: this flowlog is built without TLS"),
        ("topic=a\ntls_ca=/ca.pem", 7, "`tls_ca` is of no use: this flowlog is built without TLS"),
        ("user=u\nmechanism=SCRAM-SHA-512", 7, "or write mechanism=PLAIN, or ship to NATS"),
    ] {
        let outcome = read(&kafka_text(keys));
        assert!(outcome.config.is_none());
        let [diagnostic] = &outcome.diagnostics[..] else { panic!("{:?}", outcome.diagnostics) };
        let text = diagnostic.to_string();
        assert!(text.contains(&format!(":{line}: ")) && text.contains(told), "{text}");
        assert!(text.contains("build it with `--features kafka-tls`"), "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_a_remedy() {
    for (keys, told) in [
        ("server=\"tls://a\"", "and tls=1"),
        ("server=\"http://a\"", "`http://a` is no server"),
        ("server=\"wss://a\"", "`wss` is not what flowlog speaks"),
        ("server=\"nats://u:p@a\"", "`a` is for the keys `user` and `pass`"),
        ("server=\"a:b:c\"", "is no server"),
        ("subject=\"a b\"", "is no subject because of `a b`"),
        ("stream=\"a.b\"", "is no name of a stream"),
        ("create_stream=1", "needs a name: add stream=FLOWS"),
        ("format=xml", "`format=xml` is not known"),
        ("pass=x", "name the user with `user=`"),
        ("user=a\npass=b\ntoken=c", "`user` and `token` both say who flowlog is"),
        ("tls_ca=/ca.pem", "`tls_ca` is for TLS, which is off; set tls=1"),
        ("tls=1\ntls_cert=/c.pem", "`tls_cert` needs `tls_key`"),
        ("tls=1\ntls_key=/k.pem", "`tls_key` needs `tls_cert`"),
    ] {
        let message = refused(keys);
        assert!(message.contains(told), "{message}");
    }
}
