//! How fast PGSQL is beside ulogd2's, in one run on one server. `cargo xtask bench --sinks` has the
//! same numbers for docs/sinks-performance.md.

use anyhow::{Result, ensure};
use tests::rates::{Rate, pgsql};

/// At least ten times ulogd2's rate, into the same table and into flowlog's own.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn ten_times_as_fast_as_ulogd() -> Result<()> {
    let rates = pgsql::measure()?;
    let lines: String = rates.iter().map(Rate::line).collect();
    println!("{}{lines}", Rate::HEAD);
    for ours in rates.iter().filter(|rate| rate.name.starts_with("flowlog")) {
        let times = ours.per_second() / rates[0].per_second();
        ensure!(times >= 10.0, "{}: {times:.1} times as fast", ours.name);
    }
    Ok(())
}
