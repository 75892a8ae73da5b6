//! NATS: every record arrives in the stream of a real server, once, through restarts of both
//! sides; what is wrong is told with its remedy, and nothing is lost by it.

use std::net::TcpListener;

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::stream;
use tests::lab::SingleNs;
use tests::nats::Server;
use tests::shipping::{self, FarSide as _, Site};
use tests::tls::Authority;

/// No connection over TCP is tracked: those of flowlog to the server are no part of the test.
const QUIET: &str = "table inet quiet {
    chain out { type filter hook output priority raw; meta l4proto tcp notrack; }
    chain in { type filter hook prerouting priority raw; meta l4proto tcp notrack; }
}";
const USERS: &str = "authorization { users: [ @READER@, { user: flowlog, password: secret } ] }\n";

pub(super) fn place() -> Result<SingleNs> {
    let single = SingleNs::new()?;
    single.namespace().nft(QUIET)?;
    // No flow expires while others are counted.
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 600)])?;
    Ok(single)
}

fn users() -> String {
    format!("{}{USERS}", Server::JETSTREAM)
}

fn stream() -> stream::Config {
    stream::Config {
        name: "FLOWS".to_owned(),
        subjects: vec!["flowlog.*".to_owned()],
        ..stream::Config::default()
    }
}

/// Its stream is made by flowlog, and what comes twice is left out by NATS.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn nothing_is_lost_while_server_and_daemon_are_killed() -> Result<()> {
    let single = place()?;
    let mut server = Server::start(single.namespace(), &users())?;
    server.make(stream())?;
    let twice = shipping::survives(&single, &mut server, 100_000)?;
    ensure!(twice == 0, "{twice} messages are there twice");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_stream_is_made_if_it_is_missing() -> Result<()> {
    let single = place()?;
    let server = Server::start(single.namespace(), &users())?;
    let mut site = Site::new(&single)?;
    let daemon = site.daemon("NATS", &format!("{}\ncreate_stream=1", server.keys()))?;
    site.make(1000)?;
    site.wait_spooled(1000)?;
    site.wait_delivered()?;
    daemon.stop()?;
    site.ensure_all(&server)?;
    let subjects = server.with(async |jetstream| {
        let mut stream = jetstream.get_stream("FLOWS").await?;
        Ok(stream.info().await?.config.subjects.clone())
    })?;
    ensure!(subjects == ["flowlog.*"], "{subjects:?}");
    Ok(())
}

/// A server with `text` in its configuration, and what is done to it before.
fn told(
    text: &str,
    keys: &str,
    words: &[&str],
    before: impl FnOnce(&Server<'_>) -> Result<()>,
    mend: impl FnOnce(&Server<'_>) -> Result<()>,
) -> Result<()> {
    let single = place()?;
    let server = Server::start(single.namespace(), text)?;
    before(&server)?;
    shipping::waits_for_a_person(&single, &server, keys, words, || mend(&server))
        .with_context(|| format!("{words:?}"))
}

/// As it should have been from the beginning.
fn restart(server: &Server<'_>) -> Result<()> {
    server.configure(&users())?;
    server.down()?;
    server.up()
}

const KEYS: &str = "stream=FLOWS\nuser=flowlog\npass=secret";

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn who_is_not_let_in_is_told_and_nothing_is_lost() -> Result<()> {
    let made = |server: &Server<'_>| server.make(stream());
    told(
        &users(),
        "stream=FLOWS\nuser=flowlog\npass=wrong",
        &["NATS at 127.0.0.1:4222 does not let flowlog in: see `user=` and `pass=`"],
        made,
        |_| Ok(()),
    )?;
    let narrow = users().replace("secret", "secret, permissions: { publish: \"other\" }");
    told(&narrow, KEYS, &["allow this user to publish to flowlog."], made, restart)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_stream_that_does_not_take_records_is_told_and_nothing_is_lost() -> Result<()> {
    let nothing = |_: &Server<'_>| Ok(());
    told(
        USERS,
        KEYS,
        &["NATS at 127.0.0.1:4222 has no JetStream, and could not keep a record: add `jetstream"],
        nothing,
        |server| restart(server).and_then(|()| server.make(stream())),
    )?;
    told(
        &users(),
        KEYS,
        &["no stream of NATS at 127.0.0.1:4222 takes flowlog."],
        nothing,
        |server| server.make(stream()),
    )?;
    told(
        &users(),
        KEYS,
        &["belongs to another stream of NATS at 127.0.0.1:4222 than `stream=FLOWS`"],
        |server| server.make(stream::Config { name: "OTHER".to_owned(), ..stream() }),
        |server| {
            server.with(async |jetstream| {
                jetstream.delete_stream("OTHER").await?;
                Ok(jetstream.create_stream(stream()).await.map(drop)?)
            })
        },
    )
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_stream_that_is_full_or_too_narrow_is_told_and_nothing_is_lost() -> Result<()> {
    let widened = |server: &Server<'_>| {
        server.with(async |jetstream| Ok(jetstream.update_stream(stream()).await.map(drop)?))
    };
    told(
        &users(),
        KEYS,
        &["a record is too large for the stream of flowlog."],
        |server| server.make(stream::Config { max_message_size: 64, ..stream() }),
        widened,
    )?;
    let full =
        stream::Config { max_messages: 100, discard: stream::DiscardPolicy::New, ..stream() };
    told(
        &users(),
        KEYS,
        &["if it is full, raise its limits or let it discard old messages"],
        |server| server.make(full),
        widened,
    )
}

/// Whoever listens there, and is no NATS.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_server_of_the_wrong_kind_is_told() -> Result<()> {
    told(
        &users(),
        &format!("{KEYS}\nserver=nats://127.0.0.1:2222"),
        &["NATS at 127.0.0.1:2222: what listens there is no NATS"],
        |server| {
            let listener = server.namespace().enter(|| Ok(TcpListener::bind("127.0.0.1:2222")?))?;
            // Until the test's process ends.
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let banner = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n";
                    std::io::Write::write_all(&mut stream, banner).ok();
                }
            });
            server.make(stream())
        },
        |_| Ok(()),
    )
}

/// Over TLS with a certificate of its own, from an authority that flowlog has to be told of.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tls_both_sides_know_each_other() -> Result<()> {
    let authority = Authority::new("authority")?;
    authority.certify("127.0.0.1")?;
    authority.certify("flowlog")?;
    let at = authority.directory().display();
    let text = format!(
        "{}tls {{ cert_file: \"{at}/127.0.0.1.pem\", key_file: \"{at}/127.0.0.1.key\", \
         ca_file: \"{at}/ca.pem\", verify: true }}\n",
        Server::JETSTREAM
    );
    let single = place()?;
    let server = Server::start(single.namespace(), &text)?;
    let keys = "stream=FLOWS\ncreate_stream=1\ntls=1";
    let files = format!("tls_cert={at}/flowlog.pem\ntls_key={at}/flowlog.key");
    let mut site = Site::new(&single)?;
    site.make(10)?;
    for (keys, words) in [
        (format!("{keys}\n{files}"), "name the file of the authority that has signed it"),
        (format!("{keys}\ntls_ca={at}/ca.pem"), "it wants a certificate of flowlog that it trusts"),
    ] {
        let daemon = site.daemon("NATS", &keys)?;
        daemon.wait_log(words)?;
        daemon.stop()?;
    }
    let daemon = site.daemon("NATS", &format!("{keys}\ntls_ca={at}/ca.pem\n{files}"))?;
    site.make(500)?;
    site.wait_spooled(500)?;
    site.wait_delivered()?;
    let log = daemon.stop()?.log;
    ensure!(log.contains("nats.records: 500 "), "{log}");
    // Others than those who bring a certificate are not let in, so its own numbers are asked.
    server.configure(Server::JETSTREAM)?;
    server.down()?;
    server.up()?;
    ensure!(server.messages("FLOWS")?.len() == 500, "not all are in the stream");
    Ok(())
}
