//! What a row costs in PGSQL beside ulogd2's, in one run on one server. How fast each is depends on
//! the disk and on what else runs: `cargo xtask bench --sinks` compares that, on an idle machine.

use anyhow::{Result, ensure};
use tests::rates::{Rate, pgsql};

/// At most a fifth of ulogd2's processor time, the server's included, into the same table and into
/// flowlog's own.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_row_costs_a_fifth_of_ulogds() -> Result<()> {
    let rates = pgsql::measure()?;
    let lines: String = rates.iter().map(Rate::line).collect();
    println!("{}{lines}", Rate::HEAD);
    for ours in rates.iter().filter(|rate| rate.name.starts_with("flowlog")) {
        let times = rates[0].cpu_per_row() / ours.cpu_per_row();
        ensure!(times >= 5.0, "{}: {times:.1} times as cheap\n{lines}", ours.name);
    }
    Ok(())
}
