//! PGSQL against PostgreSQL: all that is known in flowlog's own tables, and each flow once whatever
//! goes away.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset};
use tests::poll;
use tests::postgres::{PASSWORD, PORT, Postgres, keys};
use tests::shipping::{self, Site};
use tests::traffic;

use crate::archive_gaps::faketime;

const FLOWS: u32 = 100_000;

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_flow_arrives_once() -> Result<()> {
    let single = SingleNs::new()?;
    let mut server = Postgres::new(None)?;
    let twice = shipping::survives(&single, &mut server, FLOWS)?;
    ensure!(twice == 0, "{twice} rows have the record id of others");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_a_person_has_to_mend_is_said() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Postgres::new(Some(single.namespace()))?;
    server.let_in("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256")?;
    let tcp = format!("host=127.0.0.1\nport={PORT}");
    let nothing = || Ok(());
    let words = ["it asks for the password of flowlog: set it with `pass=`"];
    shipping::waits_for_a_person(&single, &server, &tcp, &words, nothing)?;
    server.run("TRUNCATE flow")?;
    let wrong = format!("{tcp}\ntls=1\npass=\"{PASSWORD}\"");
    let words = ["set ssl=on there, or tls=0 here"];
    shipping::waits_for_a_person(&single, &server, &wrong, &words, nothing)?;
    server.run("TRUNCATE flow")?;
    let wrong = format!("{tcp}\npass=\"wrong\"");
    let words = ["password authentication failed", "set the password of flowlog with `pass=`"];
    shipping::waits_for_a_person(&single, &server, &wrong, &words, nothing)?;
    server.run("TRUNCATE flow")?;
    let wrong = format!("{}\ndb=elsewhere", keys(&server));
    let words = ["database \"elsewhere\" does not exist", "name another with `db=`"];
    shipping::waits_for_a_person(&single, &server, &wrong, &words, nothing)?;
    server.run("TRUNCATE flow")?;
    let wrong = format!("{}\nschema=elsewhere", keys(&server));
    shipping::waits_for_a_person(&single, &server, &wrong, &["has no schema elsewhere"], nothing)?;
    Ok(())
}

/// A table of another kind is in the way; rights are missing.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_wrong_schema_waits() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Postgres::new(None)?;
    server.run("CREATE TABLE flow (time timestamptz, something text)")?;
    let words = ["has no column record_id", "rename it, or name another schema with `schema=`"];
    let mend = || server.run("ALTER TABLE flow RENAME TO somebodys");
    shipping::waits_for_a_person(&single, &server, &keys(&server), &words, mend)?;
    server.run("DROP TABLE flow, expectation, lost; ALTER SCHEMA public OWNER TO postgres")?;
    let words = ["permission denied for schema public", "GRANT CREATE, USAGE ON SCHEMA public"];
    let mend = || server.run("GRANT CREATE, USAGE ON SCHEMA public TO flowlog");
    shipping::waits_for_a_person(&single, &server, &keys(&server), &words, mend)
}

/// Something else listens on that port: it says hello, or waits to be asked.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_server_of_another_kind_is_named() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Postgres::new(None)?;
    for (greeting, waits) in [("SSH-2.0-OpenSSH_9.2p1", false), ("HTTP/1.1 400 Bad Request", true)]
    {
        let listener = single.namespace().enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
        let port = listener.local_addr()?.port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut asked = Vec::new();
                    let mut byte = [0];
                    while waits && !asked.ends_with(b"\r\n") && stream.read(&mut byte)? > 0 {
                        asked.push(byte[0]);
                    }
                    stream.write_all(format!("{greeting}\r\n").as_bytes())?;
                    // Until the other side leaves.
                    stream.read(&mut byte)
                });
            }
        });
        let words = format!("is no PostgreSQL: it says \"{greeting}\"");
        let wrong = format!("host=127.0.0.1\nport={port}");
        shipping::waits_for_a_person(&single, &server, &wrong, &[&words], || Ok(()))?;
        server.run("TRUNCATE flow")?;
    }
    Ok(())
}

fn openssl(dir: &Path, words: &str) -> Result<()> {
    let output = Command::new("openssl").args(words.split(' ')).current_dir(dir).output()?;
    ensure!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// TLS with an authority of our own, and a password; nothing goes to whom it does not vouch for.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tls() -> Result<()> {
    let single = SingleNs::new()?;
    let mut server = Postgres::new(Some(single.namespace()))?;
    let data = server.data();
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&data, &format!("{new} -keyout ca.key -out ca.crt -subj /CN=authority"))?;
    openssl(
        &data,
        &format!(
            "{new} -keyout server.key -out server.crt -subj /CN=db -addext \
             subjectAltName=IP:127.0.0.1 -addext basicConstraints=CA:FALSE -CA ca.crt -CAkey ca.key"
        ),
    )?;
    for file in ["server.key", "server.crt"] {
        let owner = Command::new("chown").arg("postgres").arg(data.join(file)).status()?;
        ensure!(owner.success(), "chown");
    }
    let conf = data.join("postgresql.conf");
    let text = fs::read_to_string(&conf)?;
    fs::write(&conf, format!("{text}\nssl=on\n"))?;
    Postgres::stop(&mut server, false)?;
    Postgres::start(&mut server)?;
    server.let_in("hostssl all all 127.0.0.1/32 scram-sha-256\nlocal all all trust")?;
    let tcp = format!("host=127.0.0.1\nport={PORT}\npass=\"{PASSWORD}\"");
    // The server wants it, and says so.
    let words = ["no encryption", "or set tls=1"];
    shipping::waits_for_a_person(&single, &server, &tcp, &words, || Ok(()))?;
    server.run("TRUNCATE flow")?;
    let tls = format!("{tcp}\ntls=1");
    let words = ["UnknownIssuer", "tls_ca="];
    shipping::waits_for_a_person(&single, &server, &tls, &words, || Ok(()))?;
    server.run("TRUNCATE flow")?;
    let mut site = Site::new(&single)?;
    let right = format!("{tls}\ntls_ca=\"{}\"", data.join("ca.crt").display());
    let daemon = site.daemon("PGSQL", &right)?;
    site.make(100)?;
    site.wait_spooled(100)?;
    site.wait_delivered()?;
    let encrypted = server.number(
        "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE ssl AND application_name = 'flowlog'",
    )?;
    ensure!(encrypted == 1, "{encrypted} sessions over TLS");
    daemon.stop()?;
    ensure!(site.ensure_all(&server)? == 0);
    Ok(())
}

/// What SQLITE3 has of the same traffic.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn own_tables_have_what_sqlite3_has() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(true)?;
    lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", 1)])?;
    let server = Postgres::new(None)?;
    let text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,pg1:PGSQL\nstack=ct1:NFCT,db1:SQLITE3\n\
         [ct1]\nevent_mask=0x7f\nhash_enable=0\n{ROOMY}[pg1]\n{}\n[db1]\ndb=\"@DIR@/flow.db\"\n",
        keys(&server)
    );
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    poll::until("the end of each", || {
        // The tables are made when the server is first reached.
        let ends = server.number("SELECT count(*) FROM flow WHERE kind = 'destroy'").unwrap_or(0);
        Ok((ends >= flows.len() as u64).then_some(()))
    })?;
    let finished = daemon.stop()?;
    let sqlite = finished.path("flow.db");
    let numbers = "kind, start_, stop_, protocol, orig_src, orig_sport, orig_dst, orig_dport, \
                   reply_src, reply_sport, reply_dst, reply_dport, nat, icmp_type, icmp_code, \
                   orig_packets, orig_bytes, reply_packets, reply_bytes, zone, mark, ct_id, \
                   netns_cookie, netns_inode, status, state, helper, labels, master_src, \
                   master_sport, master_dst, master_dport, cause, portid, pid, comm, witness";
    let expected = "action, protocol, src, sport, dst, dport, master_src, master_sport, \
                    master_dst, master_dport, zone, helper, netns_cookie, netns_inode";
    for (table, columns) in [("flow", numbers), ("expectation", expected)] {
        let theirs = columns.replace("start_", "start").replace("stop_", "stop");
        let theirs = format!("SELECT record_id, time, {theirs} FROM {table}")
            .replace("labels", "lower(hex(labels))");
        let output = Command::new("sqlite3").arg(&sqlite).arg(theirs).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut ours = columns.replace("start_", "start_ns").replace("stop_", "stop_ns");
        for address in
            ["orig_src", "orig_dst", "reply_src", "reply_dst", "master_src", "master_dst"]
        {
            ours = ours.replace(address, &format!("host({address})"));
        }
        let ours = ours
            .replace(" src,", " host(src),")
            .replace(" dst,", " host(dst),")
            .replace("labels", "encode(labels, 'hex')");
        let ours = server.ask(
            "flowlog",
            &format!("SELECT replace(record_id::text, '-', ''), time_ns, {ours} FROM {table}"),
        )?;
        ensure!(!ours.is_empty(), "nothing in {table}");
        ensure_equal(table, &multiset(theirs.lines()), &multiset(ours))?;
    }
    // Both times are the same but for nanoseconds.
    let times = server.number(
        "SELECT count(*) FROM flow WHERE (extract(epoch FROM time) * 1000000)::bigint \
         <> time_ns / 1000 OR (extract(epoch FROM stop) * 1000000)::bigint <> stop_ns / 1000",
    )?;
    ensure!(times == 0, "{times} rows with two times");
    let known = "SELECT count(*) FROM flow WHERE zone = 7 AND nat > 0 OR family(orig_src) = 6";
    ensure!(server.number(known)? > 0, "no variety");
    Ok(())
}

/// Rows of two months are in two partitions, made as they come; records of a third, which somebody
/// has taken away, wait for it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_month_ends() -> Result<()> {
    let single = SingleNs::new()?;
    // Else the kernel says when something happened, which nobody deceives.
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", 0)])?;
    let server = Postgres::new(None)?;
    let mut site = Site::new(&single)?;
    let text = site.config("PGSQL", &keys(&server));
    let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
    let daemon = launch
        .time_zone("UTC")
        .environment("LD_PRELOAD", &faketime()?)
        .environment("FAKETIME", "@2027-02-28 23:59:50")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start()?;
    let count = |month: &str| server.number(&format!("SELECT count(*) FROM flow_2027_{month}"));
    // The clock runs.
    poll::until("a row of March", || {
        site.make(10)?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok((count("03").unwrap_or(0) > 0).then_some(()))
    })?;
    site.wait_spooled(site.made())?;
    site.wait_delivered()?;
    let [before, after] = [count("02")?, count("03")?];
    ensure!(before > 0 && before + after == u64::from(site.made()), "{before} and {after} rows");
    server.run("ALTER TABLE flow DETACH PARTITION flow_2027_03")?;
    site.make(100)?;
    daemon.wait_log("attach the partition for that time")?;
    server.run(
        "ALTER TABLE flow ATTACH PARTITION flow_2027_03 FOR VALUES FROM ('2027-03-01 00:00:00+00') \
         TO ('2027-04-01 00:00:00+00')",
    )?;
    daemon.process.signal(nix::sys::signal::Signal::SIGHUP)?;
    site.wait_delivered()?;
    daemon.stop()?;
    ensure!(site.ensure_all(&server)? == 0);
    Ok(())
}
