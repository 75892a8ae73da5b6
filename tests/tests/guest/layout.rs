//! Where the daemon finds the kernel's fields, against where they are in Debian's kernels (x86-64)
//! as pahole reads them from their BTF. Locks of PREEMPT_RT are larger.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::daemon::Program;

use super::by_ebpf;
use super::kernel::series_and_locks;

/// Series with one of which [`PLACES`] has a column.
const SERIES: [&str; 4] = ["6.1", "6.12", "7.2", "6.1-rt"];
/// What a kernel does not have.
const ABSENT: u32 = u32::MAX;

const PLACES: [(&str, [u32; 4]); 35] = [
    ("timeout", [8, 8, 8, 40]),
    ("zone_id", [12, 12, 12, 44]),
    ("zone_dir", [15, 15, 15, 47]),
    ("orig", [32, 32, 32, 64]),
    ("reply", [88, 88, 88, 120]),
    ("status", [128, 128, 128, 160]),
    ("net", [136, 136, 136, 168]),
    ("master", [160, 160, 160, 192]),
    ("mark", [168, 168, 168, 200]),
    ("ext", [176, 176, 176, 208]),
    ("tcp_state", [224, 224, 224, 256]),
    ("sctp_state", [184, 184, 184, 216]),
    ("dccp_state", [186, 186, ABSENT, 218]),
    ("net_cookie", [4032, 4224, 4608, 4544]),
    ("net_inum", [144, 136, 280, 240]),
    ("ext_offsets", [0, 0, 0, 0]),
    ("ext_helper", [0, 0, 0, 0]),
    ("ext_acct", [3, 3, 3, 3]),
    ("ext_ecache", [4, 4, 4, 4]),
    ("ext_tstamp", [5, 5, 5, 5]),
    ("ext_labels", [7, 7, 7, 7]),
    ("help_helper", [0, 0, 0, 0]),
    ("helper_name", [16, 16, 32, 16]),
    ("tstamp_start", [0, 0, 0, 0]),
    ("tstamp_stop", [8, 8, 8, 8]),
    ("event_entry", [0, 0, 0, 0]),
    ("event_portid", [8, 8, 8, 8]),
    ("expect_tuple", [40, 40, 80, 40]),
    ("expect_mask", [80, 80, 120, 80]),
    ("expect_master", [144, 144, 184, 144]),
    ("expect_helper", [128, 128, 168, 128]),
    ("skb_nfct", [104, 104, 104, 104]),
    ("skb_portid", [52, 52, 52, 52]),
    ("tcp_time_wait", [7, 7, 7, 7]),
    ("tcp_close", [8, 8, 8, 8]),
];

/// The places of a series. For one that is not known (the newest moves on) only those that have
/// been the same in all.
fn expected(series: &str) -> BTreeMap<&'static str, u32> {
    let column = SERIES.iter().position(|known| *known == series);
    let place = |places: [u32; 4]| match column {
        Some(column) => Some(places[column]),
        None => Some(places[0]).filter(|place| places.iter().all(|other| other == place)),
    };
    PLACES.into_iter().filter_map(|(name, places)| Some((name, place(places)?))).collect()
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn everything_is_where_it_is_known_to_be() -> Result<()> {
    by_ebpf(|| {
        let output = Command::new(Program::Flowlog.path()?).arg("layout").output()?;
        let (text, errors) = (String::from_utf8(output.stdout)?, output.stderr);
        let told = String::from_utf8_lossy(&errors);
        ensure!(output.status.success(), "flowlog layout: {}: {told}", output.status);
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let (name, value) = line.split_once('=').with_context(|| line.to_owned())?;
            let value: u32 = value.parse().with_context(|| line.to_owned())?;
            ensure!(found.insert(name, value).is_none(), "{name} is told twice");
        }
        // The piece of an entry that is read reaches from its first field to its last.
        let mut piece = |name| found.remove(name).context(name);
        let (start, size) = (piece("entry_start")?, piece("entry_size")?);
        let first = found.get("timeout").map(|place| place & !7);
        let last = found.get("tcp_state").map(|place| place + 1);
        let right = first == Some(start) && last == Some(start + size);
        ensure!(right, "{size} bytes from {start} on\n{text}");
        let expected = expected(&series_and_locks()?);
        let differ = |name: &&str| found.get(*name) != expected.get(*name);
        let wrong: Vec<_> = expected.keys().copied().filter(|name| differ(name)).collect();
        ensure!(wrong.is_empty(), "not where they are expected: {wrong:?}\n{text}");
        ensure!(found.len() == PLACES.len(), "{} fields, not {}", found.len(), PLACES.len());
        Ok(())
    })
}
