//! KAFKA over TLS, for a flowlog that is built with the feature `kafka-tls`: every record arrives,
//! and what is wrong is told with its remedy, in the words that OpenSSL has for it, and nothing is
//! lost by it.

use anyhow::{Context as _, Result, ensure};
use tests::namespace::Namespace;
use tests::shipping::{self, FarSide as _, Site};
use tests::tls::{Authority, Proxy};

use super::kafka::{mock, mock_in};
use super::nats::place;

/// The brokers' own address is in their metadata, so they are in a namespace of their own, and TLS is
/// spoken at the same address here.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tls_both_sides_know_each_other() -> Result<()> {
    let authority = Authority::new("authority")?;
    authority.certify("flowlog")?;
    let at = authority.directory().display();
    let trusting = format!("\ntls=1\ntls_ca={at}/ca.pem");
    let known = format!("{trusting}\ntls_cert={at}/flowlog.pem\ntls_key={at}/flowlog.key");
    for (wants, security) in [(false, trusting), (true, known)] {
        let single = place()?;
        let inside = Namespace::new("brokers")?;
        let mut mock = mock_in(&inside)?;
        mock.security = security;
        let server = authority.server("127.0.0.1", wants)?;
        let _proxy = Proxy::start(single.namespace(), &inside, mock.address.parse()?, server)?;
        let mut site = Site::new(&single)?;
        let daemon = site.daemon("KAFKA", &mock.keys())?;
        // A flowlog for debugging is slow: its socket's queue has room for so many.
        for end in [5000, 10_000, 15_000, 20_000] {
            site.make(end - site.made())?;
            site.wait_spooled(end)?;
        }
        site.wait_delivered()?;
        let log = daemon.stop()?.log;
        ensure!(log.contains("kafka.records: 20000 "), "{log}");
        let twice = site.ensure_all(&mock)?;
        ensure!(twice == 0, "{twice} records are there twice");
    }
    Ok(())
}

/// The proxy still shakes hands while the brokers are away, and then hangs up.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn nothing_is_lost_while_brokers_are_away_behind_a_proxy() -> Result<()> {
    let authority = Authority::new("authority")?;
    let single = place()?;
    let inside = Namespace::new("brokers")?;
    let mut mock = mock_in(&inside)?;
    mock.security = format!("\ntls=1\ntls_ca={}/ca.pem", authority.directory().display());
    let server = authority.server("127.0.0.1", false)?;
    let _proxy = Proxy::start(single.namespace(), &inside, mock.address.parse()?, server)?;
    shipping::survives(&single, &mut mock, 20_000).map(drop)
}

/// Brokers behind TLS, to whom flowlog comes with keys that do not fit.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_is_wrong_with_tls_is_told_and_nothing_is_lost() -> Result<()> {
    let authority = Authority::new("authority")?;
    authority.certify("flowlog")?;
    let other = Authority::new("another one")?;
    other.certify("flowlog")?;
    let (at, other) = (authority.directory().display(), other.directory().display());
    let trusting = format!("\ntls=1\ntls_ca={at}/ca.pem");
    let known = format!("{trusting}\ntls_cert={at}/flowlog.pem\ntls_key={at}/flowlog.key");
    let stranger = known.replace(&format!("{at}/flowlog"), &format!("{other}/flowlog"));
    let wants = "it wants a certificate of flowlog that it trusts: name one with `tls_cert=`";
    for (wrong, wanted, words) in [
        (format!("\ntls=1\ntls_ca={other}/ca.pem"), false, "name its file with `tls_ca=`"),
        ("\ntls=1".to_owned(), false, "name its file with `tls_ca=`"),
        (String::new(), false, "if they speak TLS there, set tls=1"),
        (trusting.clone(), true, wants),
        (stranger, true, wants),
    ] {
        let single = place()?;
        let inside = Namespace::new("brokers")?;
        let mut mock = mock_in(&inside)?;
        mock.security = wrong;
        let keys = mock.keys();
        mock.security = if wanted { known.clone() } else { trusting.clone() };
        let server = authority.server("127.0.0.1", wanted)?;
        let _proxy = Proxy::start(single.namespace(), &inside, mock.address.parse()?, server)?;
        let told = [words, &format!("Kafka at {}", mock.address)];
        shipping::waits_for_a_person(&single, &mock, &keys, &told, || Ok(())).context(keys)?;
    }
    Ok(())
}

/// The certificate is good for another name.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn brokers_of_another_name_are_told() -> Result<()> {
    let authority = Authority::new("authority")?;
    let security = format!("\ntls=1\ntls_ca={}/ca.pem", authority.directory().display());
    let single = place()?;
    let inside = Namespace::new("brokers")?;
    let mut mock = mock_in(&inside)?;
    mock.security.clone_from(&security);
    let address = mock.address.parse()?;
    let proxy = |name: &str| {
        Proxy::start(single.namespace(), &inside, address, authority.server(name, false)?)
    };
    let other = proxy("192.0.2.1")?;
    let mut right = None;
    let mend = || {
        drop(other);
        right.replace(proxy("127.0.0.1")?);
        Ok(())
    };
    let told = ["name the brokers as their certificates do"];
    shipping::waits_for_a_person(&single, &mock, &mock.keys(), &told, mend)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn brokers_without_tls_are_told() -> Result<()> {
    let authority = Authority::new("authority")?;
    let security = format!("\ntls=1\ntls_ca={}/ca.pem", authority.directory().display());
    let single = place()?;
    let mock = mock(&single)?;
    let told = ["if they do not speak TLS there, name their port for TLS, or set tls=0"];
    let keys = format!("{}{security}", mock.keys());
    shipping::waits_for_a_person(&single, &mock, &keys, &told, || Ok(()))
}
