//! A mass of mixed flows: netlink tells each of them, and so does eBPF where it can be had.

use anyhow::{Result, ensure};
use tests::lab::Lab;
use tests::mass::mass;
use tests::mass::tally::Tally;
use tests::sources;

use super::kernel::has_module_btf;
use super::{ensure_total, start};

const FLOWS: u32 = 20_000;
/// Sources of events. Nothing is lost in these buffers, however slow the log is.
const SOURCES: [&str; 2] = [
    "capture=netlink\nnetlink_socket_buffer_size=67108864\n\
     netlink_socket_buffer_maxsize=67108864",
    "capture=ebpf\nnetns=self",
];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn each_source_tells_each() -> Result<()> {
    let sources = if has_module_btf() { &SOURCES[..] } else { &SOURCES[..1] };
    let lab = Lab::new()?;
    lab.add_mass_rules()?;
    let daemon = start(lab.router(), "hash_enable=0\nevent_mask=5", sources, "")?;
    let mass = mass(&lab, FLOWS)?;
    lab.router().flush_conntrack()?;
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    ensure_total(&finished, "netlink.lost", 0)?;
    for source in 1..=sources.len() {
        let tally = Tally::read(&mass, &finished.path(&sources::file(source)))?;
        tally.ensure_each_once("NEW")?;
        tally.ensure_each_once("DESTROY")?;
        tally.ensure_no_others()?;
    }
    Ok(())
}
