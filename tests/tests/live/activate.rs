//! Where no rule makes the kernel track connections, `--activate` does, for just as long as
//! flowlog runs, however it ends.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset};
use tests::poll;

use super::burst_lines;

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn by_option() -> Result<()> {
    tracks_while_it_runs(&config("event_mask=1\nhash_enable=0", "sync=1"), &["--activate"])
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn by_key() -> Result<()> {
    tracks_while_it_runs(&config("event_mask=1\nhash_enable=0\nactivate=1", "sync=1"), &[])
}

fn tracks_while_it_runs(config: &str, args: &[&str]) -> Result<()> {
    let single = SingleNs::untracked()?;
    let rules = || single.namespace().run("nft list ruleset");
    ensure!(rules()?.is_empty(), "a new namespace has rules");
    ensure!(udp_burst(&single, 4000, 0, 1).is_err(), "tracked without a rule");
    let launch = Launch::new(Program::Flowlog, single.namespace(), config)?;
    let mut daemon = launch.args(args).start()?;
    ensure!(rules()?.contains("ct state"), "no rule: {}", rules()?);
    udp_burst(&single, 4000, 10, 10)?;
    let lines = daemon.wait_lines("the flows", |lines| lines.len() >= 10)?;
    ensure_equal("activated", &burst_lines("NEW", 4000, 10..20), &multiset(&lines))?;
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait()?;
    poll::until("the rule to vanish", || Ok(rules()?.is_empty().then_some(())))
}
