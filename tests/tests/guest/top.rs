//! `flowlog top` by eBPF, on a terminal: all namespaces by name, why flows end and who ends them,
//! the fill of the table and what is lost, on mixed traffic.

use std::process::Stdio;

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::Program;
use tests::lab::{Lab, SingleNs};
use tests::mass::kind::Kind;
use tests::mass::mass;
use tests::process::Guarded;
use tests::terminal::Terminal;
use tests::top::{self, ROOMY, numbers};

use super::by_ebpf;

const MASS: u32 = 2000;
const BURST: u32 = 700;

/// How many events of a kind are told in all.
fn in_all(rows: &[String], kind: &str) -> f64 {
    numbers(rows, "events", "in all").map_or(-1.0, |numbers| numbers[kind])
}

/// Chooses a table by its key, and waits for its rows.
fn table(top: &mut Terminal, key: &str, heading: &str) -> Result<Vec<String>> {
    top.keys(key)?;
    top.wait(heading, |rows| rows.iter().any(|row| row.starts_with(heading)))
}

/// How many ends a cause has had: `cause RATE/s TOTAL`.
fn ended(rows: &[String], cause: &str) -> Option<u64> {
    let begin = rows.iter().position(|row| row.starts_with("ends "))?;
    let words: Vec<_> = rows[begin..begin + 3].iter().flat_map(|row| row.split(' ')).collect();
    let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|word| *word == cause)?;
    words.get(place + 2)?.parse().ok()
}

/// Empties the table of a namespace; tells the process that did it.
fn flush(single: &SingleNs) -> Result<i32> {
    let mut command = single.namespace().command("conntrack");
    let mut process =
        Guarded::spawn(command.arg("-F").stdout(Stdio::null()).stderr(Stdio::null()))?;
    ensure!(process.wait()? == Some(0));
    Ok(process.pid())
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_screen_of_mixed_traffic() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        lab.add_mass_rules()?;
        let single = SingleNs::new()?;
        let args = "--capture ebpf --interval 500ms --event new,destroy";
        let mut top = top::start(lab.router(), args, ROOMY)?;
        let mass = mass(&lab, MASS)?;
        udp_burst(&single, 4000, 0, BURST)?;
        let all = f64::from(MASS + BURST);
        let rows = top.wait("the beginnings", |rows| in_all(rows, "new") == all)?;
        ensure!(rows[0].starts_with("flowlog top by eBPF (fentry), all network namespaces  "));
        ensure!(rows.iter().any(|row| row == "lost       ebpf 0"), "{rows:#?}");
        // A reset as the first answer ends a flow at once.
        let refused = mass.kinds()[&Kind::TcpRefused];
        let rows = top.wait("the resets", |rows| ended(rows, "reset") == Some(refused))?;
        ensure_fill(&lab, &rows)?;
        ensure_tables(&mut top, &lab, &single, &mass)?;
        let flusher = flush(&single)?;
        let rows = top.wait("the flush", |rows| ended(rows, "flushed") == Some(BURST.into()))?;
        ensure!(in_all(&rows, "destroy") >= refused as f64 + f64::from(BURST), "{rows:#?}");
        let rows = table(&mut top, "5", "DELETED BY")?;
        let process = numbers(&rows, "DELETED BY", &format!("{flusher} conntrack "))?;
        ensure!(process["EVENTS"] == f64::from(BURST), "{process:?}");
        top.keys("q")?;
        ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
        ensure!(!top.look(vt100::Screen::alternate_screen) && top.has_mode_of_before()?);
        Ok(())
    })
}

/// The kernel's own numbers, of the namespace that it is run in.
fn ensure_fill(lab: &Lab, rows: &[String]) -> Result<()> {
    let most = lab.router().sysctl("net/netfilter/nf_conntrack_max")?;
    let fill = rows.iter().find(|row| row.starts_with("table "));
    let words: Vec<_> = fill.map(|row| row.split_whitespace().collect()).unwrap_or_default();
    // Flows expire meanwhile.
    let entries = words.get(1).and_then(|word| word.parse::<u32>().ok()).unwrap_or_default();
    let right = entries > 0 && entries <= MASS && words.get(3) == Some(&most.as_str());
    ensure!(right, "{fill:?}, of {most}");
    Ok(())
}

/// Who has most: the source of the burst, known ports, and both namespaces by name.
fn ensure_tables(
    top: &mut Terminal,
    lab: &Lab,
    single: &SingleNs,
    mass: &tests::mass::Mass,
) -> Result<()> {
    top.keys("t")?;
    top.wait("totals", |rows| rows.iter().any(|row| row.ends_with(" by events")))?;
    let rows = table(top, "1", "SOURCE")?;
    let heading = rows.iter().position(|row| row.starts_with("SOURCE")).unwrap_or_default();
    ensure!(rows[heading + 1].starts_with("198.18.0.1 "), "not the first: {rows:#?}");
    // One flow of the mass comes from there too, or none.
    let first = numbers(&rows, "SOURCE", "198.18.0.1 ")?;
    ensure!((first["NEW"] - f64::from(BURST)).abs() <= 1.0, "{first:?}");
    top.keys("/tcp/910\n")?;
    let rows = table(top, "3", "PORT")?;
    let kinds = mass.kinds();
    for (port, of) in [
        ("tcp/9100 ", &[Kind::TcpComplete, Kind::Tcp6][..]),
        ("tcp/9101 ", &[Kind::TcpRefused]),
        ("tcp/9102 ", &[Kind::TcpAborted]),
        ("tcp/9103 ", &[Kind::TcpUnreplied]),
        ("tcp/9108 ", &[Kind::TcpInZone]),
    ] {
        let expected: u64 = of.iter().map(|kind| kinds[kind]).sum();
        let found = numbers(&rows, "PORT", port)?;
        ensure!(found["NEW"] == expected as f64, "{port} {expected}: {found:?}");
    }
    ensure!(
        !rows.iter().any(|row| row.starts_with("udp/") || row.starts_with("icmp")),
        "{rows:#?}"
    );
    top.keys("\x1b")?;
    // Alone: together with another key it would be that key with Alt.
    top.wait_row("q quit ")?;
    let rows = table(top, "4", "NAMESPACE")?;
    for (namespace, flows) in [(lab.router(), MASS), (single.namespace(), BURST)] {
        let name = format!("{}({}) ", namespace.inode()?, namespace.name());
        let found = numbers(&rows, "NAMESPACE", &name)?;
        ensure!(found["NEW"] == f64::from(flows), "{name}: {found:?}");
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_is_lost_is_red() -> Result<()> {
    const MANY: u32 = 2000;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let args = "--capture ebpf --netns self --event new --ring-buffer-size 4096 \
                    --attach kprobe --interval 500ms";
        let mut top = top::start(single.namespace(), args, (24, 80))?;
        top.process.freeze()?;
        udp_burst(&single, 4000, 0, MANY)?;
        top.process.thaw()?;
        let lost = |rows: &[String]| -> Option<u32> {
            let lost = rows.iter().find_map(|row| row.strip_prefix("lost       ebpf "))?;
            lost.split(' ').nth(1)?.parse().ok()
        };
        let rows = top.wait("the loss", |rows| {
            let seen = in_all(rows, "new");
            lost(rows).is_some_and(|lost| seen > 0.0 && seen + f64::from(lost) >= MANY.into())
        })?;
        let (seen, lost) = (in_all(&rows, "new"), lost(&rows).unwrap_or_default());
        ensure!(seen + f64::from(lost) == f64::from(MANY), "{seen} seen, {lost} lost");
        let row = rows.iter().position(|row| row.starts_with("lost ")).unwrap_or_default();
        let colour = top.look(|screen| screen.cell(row as u16, 11).map(vt100::Cell::fgcolor));
        ensure!(colour == Some(vt100::Color::Idx(1)), "{colour:?}");
        top.keys("q")?;
        ensure!(top.process.wait()? == Some(0), "{}", top.stderr()?);
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn once_is_text() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let mut flusher = 0;
        let rows = top::once(single.namespace(), "--capture ebpf --netns self --for 5s", || {
            udp_burst(&single, 4000, 0, BURST)?;
            flusher = flush(&single)?;
            Ok(())
        })?;
        let all = numbers(&rows, "events", "in all")?;
        ensure!(all["new"] == f64::from(BURST) && all["destroy"] == f64::from(BURST), "{rows:#?}");
        ensure!(ended(&rows, "flushed") == Some(BURST.into()), "{rows:#?}");
        ensure!(rows.iter().all(|row| !row.contains('\x1b')), "{rows:#?}");
        let inode = single.namespace().inode()?;
        let place = format!("{inode}({}) ", single.namespace().name());
        for (heading, row) in [("SOURCE", "198.18.0.1 "), ("NAMESPACE", &place)] {
            let found = numbers(&rows, heading, row)?;
            ensure!(found["EVENTS"] == f64::from(2 * BURST), "{row}: {found:?}");
            ensure!(found["PACKETS"] == f64::from(BURST), "{row}: {found:?}");
        }
        let process = numbers(&rows, "DELETED BY", &format!("{flusher} conntrack "))?;
        ensure!(process["DESTROY"] == f64::from(BURST), "{process:?}");
        Ok(())
    })
}

/// `flowlog watch` on a terminal: ends in red, and what the terminal was it is again.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn watch_on_a_terminal_has_colours() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let args = "watch --capture ebpf --netns self --cause flushed";
        let program = Program::Flowlog.path()?;
        let mut watch = Terminal::start(single.namespace(), program, args, (10, 250))?;
        tests::poll::until("the watch to listen", || {
            Ok(watch.stderr()?.contains("flowlog watches ").then_some(()))
        })?;
        udp_burst(&single, 4000, 0, 3)?;
        let pid = flush(&single)?;
        let why = format!("cause=flushed pid={pid} comm=conntrack");
        let told = |row: &&String| row.contains("[DESTROY]") && row.contains(&why);
        let rows = watch.wait("the ends", |rows| rows.iter().filter(told).count() == 3)?;
        let column = rows[0].find('[').unwrap_or_default() as u16;
        let colour = watch.look(|screen| screen.cell(0, column).map(vt100::Cell::fgcolor));
        ensure!(colour == Some(vt100::Color::Idx(1)), "{colour:?}");
        watch.keys("\u{3}")?;
        ensure!(watch.process.wait()? == Some(0), "{}", watch.stderr()?);
        ensure!(watch.has_mode_of_before()?);
        Ok(())
    })
}
