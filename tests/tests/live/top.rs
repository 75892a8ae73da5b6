//! `flowlog top` over netlink, on a terminal: what it shows of known traffic, what its keys do,
//! and that it leaves the terminal as it was, however it ends.

use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::Program;
use tests::lab::SingleNs;
use tests::poll;
use tests::terminal::Terminal;
use tests::top::{self, ROOMY, numbers};

const FLOWS: u32 = 300;
/// A buffer in which no test's events are lost.
const LARGE: &str = "--capture netlink --netlink-buffer-size 8388608 --interval 200ms";
/// One that holds some hundred events.
const TINY: &str = "--capture netlink --netlink-buffer-size 65536 --interval 200ms";

/// How many events of a kind are told in all.
fn in_all(rows: &[String], kind: &str) -> f64 {
    numbers(rows, "events", "in all").map_or(-1.0, |numbers| numbers[kind])
}

/// What a program wrote last may still be on its way to the screen when it has ended.
fn ensure_restored(terminal: &Terminal) -> Result<()> {
    poll::until("the screen of before", || {
        let (alternate, hidden) =
            terminal.look(|screen| (screen.alternate_screen(), screen.hide_cursor()));
        Ok((!alternate && !hidden).then_some(()))
    })?;
    ensure!(terminal.has_mode_of_before()?, "the mode is not the one of before");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_screen_and_its_keys() -> Result<()> {
    let single = SingleNs::new()?;
    let mut top = top::start(single.namespace(), LARGE, ROOMY)?;
    ensure!(top.look(|screen| screen.alternate_screen() && screen.hide_cursor()));
    ensure!(!top.has_mode_of_before()?);
    udp_burst(&single, 4000, 0, FLOWS)?;
    udp_burst(&single, 4000, 70_000, 2)?;
    let all = f64::from(FLOWS + 2);
    let rows = top.wait("the beginnings", |rows| in_all(rows, "new") == all)?;
    ensure!(rows[0].starts_with("flowlog top over netlink, this network namespace  "), "{rows:#?}");
    ensure!(rows.iter().any(|row| row == "ends       netlink does not tell why flows end"));
    ensure!(rows.iter().any(|row| row == "lost       netlink 0"), "{rows:#?}");
    let most = single.namespace().sysctl("net/netfilter/nf_conntrack_max")?;
    let fill = format!("table      {all} of {most} entries, ");
    ensure!(rows.iter().any(|row| row.starts_with(&fill)), "{fill} {rows:#?}");
    let source = numbers(&rows, "SOURCE", "198.18.0.1 ")?;
    ensure!(source["EVENTS"] == all, "{source:?}");
    // Each flow of the second burst has an address that one of the first has too.
    top.keys("2")?;
    let rows =
        top.wait("the destinations", |rows| rows.iter().any(|row| row.starts_with("DESTINATION")))?;
    let destination = numbers(&rows, "DESTINATION", "198.19.")?;
    ensure!(destination["EVENTS"] >= 1.0, "{destination:?}");
    top.keys("\t/1025\n")?;
    let rows = top.wait("the filter", |rows| {
        rows.iter().any(|row| row.starts_with("filter: 1025 (Esc"))
            && rows.iter().any(|row| row.starts_with("PORT "))
    })?;
    ensure!(numbers(&rows, "PORT", "udp/1025 ")?["EVENTS"] == 2.0, "{rows:#?}");
    ensure!(!rows.iter().any(|row| row.starts_with("udp/1024")), "{rows:#?}");
    single.namespace().flush_conntrack()?;
    top.wait("the ends", |rows| in_all(rows, "destroy") == all)?;
    top.keys("5")?;
    top.wait_row("netlink does not tell who deletes flows")?;
    top.keys("?")?;
    top.wait_row("flowlog top: keys (any key goes back)")?;
    top.keys("x")?;
    top.wait_row("lost ")?;
    top.keys("\x1b")?;
    top.wait_row("q quit ")?;
    top.keys("1st")?;
    top.wait("totals by packets", |rows| rows.iter().any(|row| row.ends_with("by packets")))?;
    top.keys("r")?;
    top.wait("a new count", |rows| in_all(rows, "events") == 0.0)?;
    top.keys("q")?;
    ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
    ensure_restored(&top)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_terminal_is_given_back_by_signals_and_by_time() -> Result<()> {
    let single = SingleNs::new()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut top = top::start(single.namespace(), LARGE, (24, 80))?;
        top.process.signal(signal)?;
        ensure!(top.process.wait()? == Some(0), "{signal}: {}", top.stderr()?);
        ensure_restored(&top)?;
    }
    let mut top = top::start(single.namespace(), LARGE, (24, 80))?;
    // Ctrl-C; what would stop it or kill it with a screen left behind does nothing.
    top.keys("\x1a\x1c\x13\u{3}")?;
    ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
    ensure_restored(&top)?;
    let mut top = top::start(single.namespace(), &format!("{LARGE} --for 1s"), (24, 80))?;
    ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
    ensure_restored(&top)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn another_size_is_another_screen() -> Result<()> {
    let single = SingleNs::new()?;
    let mut top = top::start(single.namespace(), LARGE, (24, 80))?;
    top.wait_row("q quit ")?;
    top.resize(4, 30)?;
    top.wait("what is left", |rows| rows.len() == 4 && rows[0].starts_with("lost  "))?;
    top.resize(50, 150)?;
    let rows = top.wait("all of it", |rows| rows[49].starts_with("q quit "))?;
    ensure!(rows[0].starts_with("flowlog top over netlink") && rows[0].ends_with(", every 200ms"));
    top.keys("q")?;
    ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
    ensure_restored(&top)
}

/// In red, and told in words when the screen has gone.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn losses_are_red() -> Result<()> {
    const MANY: u32 = 3000;
    let single = SingleNs::new()?;
    let mut top = top::start(single.namespace(), &format!("{TINY} --event new"), ROOMY)?;
    top.process.freeze()?;
    udp_burst(&single, 4000, 0, MANY)?;
    top.process.thaw()?;
    let seen_and_lost = |rows: &[String]| {
        let lost = rows.iter().find_map(|row| row.strip_prefix("lost       netlink "))?;
        let lost: f64 = lost.split(' ').nth(1)?.parse().ok()?;
        Some((in_all(rows, "new"), lost))
    };
    let rows = top.wait("the loss", |rows| {
        seen_and_lost(rows).is_some_and(|(seen, lost)| seen + lost >= f64::from(MANY))
    })?;
    let (seen, lost) = seen_and_lost(&rows).unwrap_or_default();
    ensure!(seen + lost == f64::from(MANY) && lost > 0.0, "{seen} seen, {lost} lost");
    let row = rows.iter().position(|row| row.starts_with("lost ")).unwrap_or_default();
    let colour = top.look(|screen| screen.cell(row as u16, 11).map(vt100::Cell::fgcolor));
    ensure!(colour == Some(vt100::Color::Idx(1)), "{colour:?}");
    top.keys("q")?;
    top.process.wait()?;
    ensure!(top.stderr()?.contains("losing events"), "{}", top.stderr()?);
    ensure_restored(&top)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn once_is_text() -> Result<()> {
    let single = SingleNs::new()?;
    let args = "--capture netlink --for 2s";
    let rows = top::once(single.namespace(), args, || {
        udp_burst(&single, 4000, 0, FLOWS)?;
        single.namespace().flush_conntrack()
    })?;
    let all = numbers(&rows, "events", "in all")?;
    ensure!(all["new"] == f64::from(FLOWS) && all["destroy"] == f64::from(FLOWS), "{rows:#?}");
    ensure!(all["events"] == f64::from(2 * FLOWS), "{rows:#?}");
    ensure!(
        rows[0].contains(" in 2.") && rows.iter().all(|row| !row.contains('\x1b')),
        "{rows:#?}"
    );
    let source = numbers(&rows, "SOURCE", "198.18.0.1 ")?;
    // A datagram of one byte: 29 with its headers.
    ensure!(source["PACKETS"] == f64::from(FLOWS), "{source:?}");
    ensure!(source["BYTES"] == f64::from(29 * FLOWS), "{source:?}");
    for words in ["Destinations", "Ports", "netlink tells of one network namespace only"] {
        ensure!(rows.iter().any(|row| row == words), "no {words:?}: {rows:#?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn usage() -> Result<()> {
    let flowlog = |args: &str| -> Result<(Option<i32>, String)> {
        let mut command = Command::new(Program::Flowlog.path()?);
        command.arg("top").args(args.split(' ')).stdin(Stdio::null());
        let done = command.output()?;
        Ok((done.status.code(), String::from_utf8(done.stderr)?))
    };
    for (args, words) in [
        ("--capture netlink", "standard output is no terminal; give --once"),
        ("--once --capture netlink --cause deleted", "leave out --capture"),
        ("--interval 10ms", "give 100ms or more"),
    ] {
        let (code, stderr) = flowlog(args)?;
        ensure!(code == Some(2) && stderr.contains(words), "{args}: {code:?} {stderr}");
    }
    Ok(())
}

/// `flowlog watch` on a terminal: coloured there, and nothing of it is left behind.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn watch_on_a_terminal_has_colours() -> Result<()> {
    let single = SingleNs::new()?;
    let args = "watch --capture netlink --event new,destroy";
    let mut watch = Terminal::start(single.namespace(), Program::Flowlog.path()?, args, ROOMY)?;
    poll::until("the watch to listen", || {
        Ok(watch.stderr()?.contains("flowlog watches ").then_some(()))
    })?;
    udp_burst(&single, 4000, 0, 3)?;
    single.namespace().flush_conntrack()?;
    let ends = |rows: &[String]| rows.iter().filter(|row| row.contains("[DESTROY]")).count() == 3;
    let rows = watch.wait("the ends", ends)?;
    ensure!(rows[0].contains("[NEW]     udp  198.18.0.1:4000 → 198.19.0.0:1024 "), "{rows:#?}");
    let column = rows[0].find('[').unwrap_or_default() as u16;
    for (row, colour) in [(0, 2), (3, 1)] {
        let found = watch.look(|screen| {
            [column, column + 11].map(|x| screen.cell(row, x).map(vt100::Cell::fgcolor))
        });
        let right = [Some(vt100::Color::Idx(colour)), Some(vt100::Color::Default)];
        ensure!(found == right, "row {row}: {found:?}, not {right:?}");
    }
    ensure!(watch.has_mode_of_before()?);
    watch.keys("\u{3}")?;
    ensure!(watch.process.wait()? == Some(0), "{}", watch.stderr()?);
    ensure!(watch.stderr()?.contains("6 events have been shown, 0 filtered, 0 lost."));
    ensure_restored(&watch)
}
