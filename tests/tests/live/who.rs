//! `flowlog who` on what SQLITE3 has written of real connections: of two clients that had one public
//! port after each other, while the daemon goes on to write.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tests::daemon::{Launch, Program};
use tests::lab::Lab;
use tests::poll;

use super::nat_log::{FIRST, PORT, PUBLIC, SECOND, SERVER, TRANSLATION, address, connect, end};

/// Far from UTC, and by no whole hour.
const ZONE: &str = "Asia/Kathmandu";
/// Longer than a second, which is what a time is precise to.
const WHILE: Duration = Duration::from_millis(1200);

fn config(ct: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nstack=ct1:NFCT,db1:SQLITE3\n[ct1]\n{ct}\n[db1]\n\
         db=\"@DIR@/flow.db\"\n"
    )
}

/// Asks, in that zone.
fn who(words: &[&str], archive: &Path) -> Result<Output> {
    let mut command = Command::new(Program::Flowlog.path()?);
    command.arg("who").args(words).arg(archive).env("TZ", ZONE);
    command.output().context("flowlog who")
}

/// A second, local time, in which nothing begins or ends.
fn moment() -> Result<String> {
    sleep(WHILE);
    let date = Command::new("date").arg("+%F %T").env("TZ", ZONE).output()?;
    sleep(WHILE);
    Ok(String::from_utf8(date.stdout)?.trim().to_owned())
}

/// With ends only, and with beginnings and ends of their own.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn who_had_the_port_is_answered_while_it_is_logged() -> Result<()> {
    // Where ends alone are logged a connection that lives is in no archive, so that it is not
    // known that there was none.
    for (ct, alive, none) in
        [("hash_enable=1\nevent_mask=4", 0, 3), ("hash_enable=0\nevent_mask=5", 1, 1)]
    {
        let lab = Lab::new()?;
        lab.client().ip(&format!("addr add {SECOND}/24 dev eth0"))?;
        lab.router().nft(TRANSLATION)?;
        let daemon = Launch::new(Program::Flowlog, lab.router(), &config(ct))?.start()?;
        let db = daemon.path("flow.db");
        let server = lab.server().enter(|| Ok(TcpListener::bind(address(SERVER, 9000)?)?))?;
        let before = moment()?;
        // A database says of which time it knows: from the start of the daemon on.
        end(&lab, connect(&lab, FIRST, 9000, &server)?, FIRST)?;
        sleep(WHILE);
        let first = connect(&lab, FIRST, 9000, &server)?;
        let during_first = moment()?;
        end(&lab, first, FIRST)?;
        let between = moment()?;
        let second = connect(&lab, SECOND, 9000, &server)?;
        let during_second = moment()?;
        // What lives is known where beginnings are logged.
        ensure_alive(&during_second, &db, alive)?;
        end(&lab, second, SECOND)?;
        poll::until("the ends", || {
            let all = who(&[PUBLIC, "--json"], &db)?;
            let answer: Value = serde_json::from_slice(&all.stdout)?;
            let found = answer["connections"].as_array().context("no list")?;
            Ok((found.iter().filter(|one| one["end"].is_string()).count() == 3).then_some(()))
        })?;
        // The database says at most each ten seconds up to when it has all.
        poll::until("the time to be covered", || {
            Ok(ensure_found(&during_second, SECOND, &db).is_ok().then_some(()))
        })?;
        for (at, host) in [(&during_first, FIRST), (&during_second, SECOND)] {
            ensure_found(at, host, &db)?;
        }
        let wanted = format!("{PUBLIC}:{PORT}");
        for (words, code, said) in [
            (&[&*wanted, "--at", &between][..], none, "Nothing found.\n"),
            (&[&wanted, "--at", &during_first, "--proto", "udp"], none, "Nothing found.\n"),
            (&[&wanted, "--at", &before], none, "Nothing found.\n"),
            (&[&wanted, "--from", &before, "--to", &during_first], 0, "2 connections.\n"),
        ] {
            let answer = who(words, &db)?;
            let text = String::from_utf8_lossy(&answer.stdout);
            ensure!(
                answer.status.code() == Some(code) && text.contains(said),
                "{words:?}: {answer:?}"
            );
        }
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    }
    Ok(())
}

fn ensure_alive(at: &str, db: &Path, alive: usize) -> Result<()> {
    let answer = who(&[&format!("{PUBLIC}:{PORT}"), "--at", at, "--json"], db)?;
    let answer: Value = serde_json::from_slice(&answer.stdout)?;
    let found = answer["connections"].as_array().context("no list")?;
    ensure!(found.len() == alive, "alive at {at}: {answer}");
    Ok(())
}

/// As text and as JSON, by the address outside and by that of the client.
fn ensure_found(at: &str, host: &str, db: &Path) -> Result<()> {
    for (address, text, end) in [(PUBLIC, "snat", "reply_dst"), (host, "src", "orig_src")] {
        let wanted = format!("{address}:{PORT}");
        let words = [&*wanted, "--at", at, "--proto", "tcp"];
        let answer = who(&words, db)?;
        let lines = String::from_utf8_lossy(&answer.stdout);
        let expected = format!("tcp  {host}:{PORT} → {SERVER}:9000 ");
        ensure!(
            answer.status.success()
                && lines.lines().filter(|line| !line.starts_with("Not verified")).count() == 3
                && lines.contains(&expected)
                && lines.contains(&format!(" snat={PUBLIC}:{PORT} "))
                && lines.contains(&format!(" matched={text}\n")),
            "{words:?}: {answer:?}"
        );
        let answer = who(&[&words[..], &["--json"]].concat(), db)?;
        let object: Value = serde_json::from_slice(&answer.stdout)?;
        let connection = &object["connections"][0];
        ensure!(
            object["verdict"] == "found"
                && connection["matched"] == json!([end])
                && connection["orig"]["src"] == host
                && connection["reply"]["dst"] == PUBLIC,
            "{words:?}: {object}"
        );
    }
    Ok(())
}
