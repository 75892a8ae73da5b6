//! CLICKHOUSE into Debian's server: the rows of SQLITE3 on the same traffic, nothing lost by a
//! server that goes away or by what a person has to mend, and duplicates that collapse.

use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use tests::clickhouse::Server;
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset};
use tests::page::Page;
use tests::shipping::{self, FarSide as _, Site};
use tests::sqlite::ask;
use tests::{poll, traffic};

/// Each value with its name in ClickHouse, and as it is in SQLite's table `flow`, where what is not
/// known is NULL.
const VALUES: [(&str, &str); 35] = [
    ("time", "time"),
    // SQLite has no unsigned numbers.
    ("toInt64(hash)", "hash"),
    ("kind", "kind"),
    ("start", "start"),
    ("stop", "stop"),
    ("protocol", "protocol"),
    ("orig_src_ip", "orig_src"),
    ("orig_sport", "orig_sport"),
    ("orig_dst_ip", "orig_dst"),
    ("orig_dport", "orig_dport"),
    ("reply_src_ip", "reply_src"),
    ("reply_sport", "reply_sport"),
    ("reply_dst_ip", "reply_dst"),
    ("reply_dport", "reply_dport"),
    ("nat", "nat"),
    ("icmp_type", "icmp_type"),
    ("icmp_code", "icmp_code"),
    ("counted", "orig_packets IS NOT NULL"),
    ("orig_packets", "orig_packets"),
    ("orig_bytes", "orig_bytes"),
    ("reply_packets", "reply_packets"),
    ("reply_bytes", "reply_bytes"),
    ("zone", "zone"),
    ("mark", "mark"),
    ("ct_id", "ct_id"),
    ("status", "status"),
    ("state", "ifnull(state, '')"),
    ("helper", "ifnull(helper, '')"),
    ("hex(labels)", "hex(ifnull(labels, zeroblob(16)))"),
    ("IPv6NumToString(master_src)", "ifnull('::ffff:' || master_src, '::')"),
    ("master_sport", "master_sport"),
    ("IPv6NumToString(master_dst)", "ifnull('::ffff:' || master_dst, '::')"),
    ("master_dport", "master_dport"),
    ("cause", "ifnull(cause, '')"),
    ("witness", "ifnull(witness, '')"),
];

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_same_rows_as_sqlite3() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(true)?;
    let server = Server::with_table(lab.router())?;
    let text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,db1:SQLITE3\nstack=ct1:NFCT,ch1:CLICKHOUSE\n\
         [ct1]\nevent_mask=0x7f\nhash_enable=0\n\
         {ROOMY}\
         [db1]\ndb=\"@DIR@/flow.db\"\n[ch1]\n{}\nhostname=router\n",
        server.keys()
    );
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    let db = daemon.path("flow.db");
    poll::until("the end of each", || {
        let ends = ask(&db, "SELECT count(*) FROM flow WHERE kind = 'destroy'")?.concat();
        Ok((ends.parse::<usize>()? >= flows.len()).then_some(()))
    })?;
    let finished = daemon.stop()?;
    let db = finished.path("flow.db");
    let sql = |which: fn(&(&'static str, &'static str)) -> String| {
        VALUES.iter().map(which).collect::<Vec<_>>().join(", ")
    };
    let numbers = sql(|(_, theirs)| match theirs.contains('(') {
        true => (*theirs).to_owned(),
        false => format!("ifnull({theirs}, 0)"),
    });
    let expected = ask(&db, &format!("SELECT {numbers} FROM flow"))?;
    let names = sql(|(ours, _)| (*ours).to_owned());
    let rows = server.ask(&format!(
        "SELECT {names} FROM flowlog.flow WHERE type = 'flow' AND host = 'router'"
    ))?;
    let rows = rows.into_iter().map(|row| row.replace('\t', "|"));
    ensure_equal("flows", &multiset(&expected), &multiset(rows))?;
    ensure!(expected.len() >= 2 * flows.len(), "{} rows", expected.len());
    for seen in ["fd77:", "|ftp|", "ESTABLISHED"] {
        ensure!(expected.iter().any(|row| row.contains(seen)), "no {seen}");
    }
    answers_the_question_of_the_page(&server)?;
    let theirs = ask(
        &db,
        "SELECT action, src, ifnull(sport, 0), dst, dport, master_src, master_sport, helper \
         FROM expectation",
    )?;
    let ours = server.ask(
        "SELECT action, orig_src_ip, orig_sport, orig_dst_ip, orig_dport, \
         replaceOne(IPv6NumToString(master_src), '::ffff:', ''), master_sport, helper \
         FROM flowlog.flow WHERE type = 'expectation'",
    )?;
    ensure!(!theirs.is_empty(), "no expectation");
    let ours = ours.into_iter().map(|row| row.replace('\t', "|"));
    ensure_equal("expectations", &multiset(&theirs), &multiset(ours))
}

/// Who had this address and port, as docs/fleet.md asks it, for a masqueraded connection.
fn answers_the_question_of_the_page(server: &Server<'_>) -> Result<()> {
    const MOMENT: &str = "2026-11-22 10:14:00";
    const LAST: &str = "2026-11-23 10:14:00";
    let moment = "toDateTime(intDiv(stop, 1000000000), 'UTC')";
    let known = server.ask(&format!(
        "SELECT reply_dst_ip, reply_dport, {moment}, {moment} + 86400, orig_src_ip, orig_sport \
         FROM flowlog.flow WHERE nat = 1 AND kind = 'destroy' AND protocol = 6 LIMIT 1"
    ))?;
    let known: Vec<_> = known.first().context("nothing was translated")?.split('\t').collect();
    let page = Page::read("fleet.md")?;
    let sql = page.block("sql", "AS moment")?;
    ensure!(sql.contains(MOMENT) && sql.contains(LAST) && sql.contains("= 40001"), "{sql}");
    let sql = sql
        .replace("203.0.113.7", known[0])
        .replace("= 40001", &format!("= {}", known[1]))
        .replace(LAST, known[3])
        .replace(MOMENT, known[2]);
    let answer = server.ask(&sql)?;
    let who = format!("router\t{}\t{}\t", known[4], known[5]);
    ensure!(answer.len() == 1 && answer[0].starts_with(&who), "{who:?} for {sql}: {answer:?}");
    Ok(())
}

/// The server is killed and comes back, the daemon is killed: no flow is missing, and what came
/// twice collapses.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn no_flow_is_lost_while_the_server_is_away() -> Result<()> {
    const FLOWS: u64 = 100_000;
    let single = SingleNs::new()?;
    let mut server = Server::with_table(single.namespace())?;
    shipping::survives(&single, &mut server, u32::try_from(FLOWS)?)?;
    // All of them once more, as after a lost acknowledgement.
    server.ask("INSERT INTO flowlog.flow SELECT * FROM flowlog.flow")?;
    let count = |words: &str| server.number(&format!("SELECT count() FROM flowlog.flow {words}"));
    ensure!(count("")? >= 2 * FLOWS, "{} rows", count("")?);
    ensure!(count("FINAL")? == FLOWS, "{} rows are left by FINAL", count("FINAL")?);
    let distinct = server.number("SELECT uniqExact(time, hash) FROM flowlog.flow")?;
    ensure!(distinct == FLOWS, "{distinct} ids");
    server.ask("OPTIMIZE TABLE flowlog.flow FINAL")?;
    ensure!(count("")? == FLOWS, "{} rows after a merge", count("")?);
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_the_server_refuses_is_told() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Server::empty(single.namespace(), "")?;
    let good = server.keys();
    let cases: [(&str, &str, [&str; 2]); 4] = [
        (&good, "", ["(code 81): Database flowlog doesn't exist", "make it by conf/fleet"]),
        (
            "user=flowlog\npassword=wrong",
            "",
            ["(code 193): Wrong password for user flowlog", "correct `user=` and `password=`"],
        ),
        (
            "user=reader\npassword=reads",
            "",
            ["(code 164): Cannot insert into table in readonly mode", "give it another profile"],
        ),
        (
            &good,
            "ALTER TABLE flowlog.flow DROP COLUMN comm",
            ["lacks columns; run `ALTER TABLE", "ADD COLUMN comm String"],
        ),
    ];
    for (keys, spoil, words) in cases {
        if !spoil.is_empty() {
            server.ask(spoil)?;
        }
        shipping::waits_for_a_person(&single, &server, keys, &words, || {
            server.ask("DROP TABLE IF EXISTS flowlog.flow")?;
            server.make_table()
        })?;
        server.ask("TRUNCATE TABLE flowlog.flow")?;
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_server_of_another_kind_is_told() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Server::with_table(single.namespace())?;
    let ssh = single.namespace().enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let port = ssh.local_addr()?.port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = ssh.accept() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n");
        }
    });
    for (url, words) in [
        (format!("http://127.0.0.1:{port}"), "does not speak HTTP"),
        // Those of ClickHouse's own protocol, and of flowlog's metrics.
        ("http://127.0.0.1:9000".to_owned(), "but is no ClickHouse (status 400"),
        ("http://127.0.0.1:9470".to_owned(), "but is no ClickHouse (status 40"),
    ] {
        let keys = format!("url={url}");
        shipping::waits_for_a_person(&single, &server, &keys, &[words, "`url=`"], || Ok(()))?;
        server.ask("TRUNCATE TABLE flowlog.flow")?;
    }
    Ok(())
}

/// Without compression, and with settings; a wrong one is told.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn settings_reach_the_server() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Server::with_table(single.namespace())?;
    let mut site = Site::new(&single)?;
    let keys = "compress=0\nlinger=0\nsettings=\"max_insert_block_size=1000\"";
    let daemon = site.daemon("CLICKHOUSE", keys)?;
    site.make(5000)?;
    site.wait_spooled(5000)?;
    site.wait_delivered()?;
    daemon.stop()?;
    site.ensure_all(&server)?;
    server.ask("TRUNCATE TABLE flowlog.flow")?;
    single.namespace().flush_conntrack()?;
    let words = ["(code 115): Unknown setting async_inserts", "take it out of `settings=`"];
    let keys = "settings=\"async_inserts=1\"";
    shipping::waits_for_a_person(&single, &server, keys, &words, || Ok(()))
}

/// Over TLS, with the authority named and not named.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tls() -> Result<()> {
    let single = SingleNs::new()?;
    let files = tempfile::Builder::new().prefix("flowlog-tls-").tempdir()?;
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&certificate, cert.pem())?;
    std::fs::write(&key, signing_key.serialize_pem())?;
    let more = format!(
        "<https_port>8443</https_port><openSSL><server>\
         <certificateFile>{}</certificateFile><privateKeyFile>{}</privateKeyFile>\
         <verificationMode>none</verificationMode></server></openSSL>",
        certificate.display(),
        key.display()
    );
    let server = Server::empty(single.namespace(), &more)?;
    server.make_table()?;
    let trusting = format!("url=https://localhost:8443\ntls_ca={}", certificate.display());
    let mut site = Site::new(&single)?;
    let daemon = site.daemon("CLICKHOUSE", &trusting)?;
    site.make(1000)?;
    site.wait_spooled(1000)?;
    site.wait_delivered()?;
    daemon.stop()?;
    site.ensure_all(&server)?;
    server.ask("TRUNCATE TABLE flowlog.flow")?;
    single.namespace().flush_conntrack()?;
    let words = ["no TLS with https://localhost:8443/", "`tls_ca=`"];
    let keys = "url=https://localhost:8443";
    shipping::waits_for_a_person(&single, &server, keys, &words, || Ok(()))?;
    server.ask("TRUNCATE TABLE flowlog.flow")?;
    // A port with TLS that is taken for one without.
    let keys = "url=http://localhost:8443";
    shipping::waits_for_a_person(&single, &server, keys, &["`url=`"], || Ok(()))
}
