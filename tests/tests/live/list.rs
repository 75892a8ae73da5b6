//! `flowlog list` against `conntrack -L`: the same table in the same words.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::daemon::Program;
use tests::lab::Lab;
use tests::lines::{ensure_equal, multiset};
use tests::traffic;

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn as_conntrack_lists_them() -> Result<()> {
    let lab = Lab::new()?;
    lab.set_flow_timeout(100)?;
    let flows = traffic::mix(&lab, 33_000)?;
    let router = lab.router();
    let flowlog = Program::Flowlog.path()?;
    let theirs = router.run("conntrack -L -o extended")?;
    let ours = router.run(&format!("{} list -o extended", flowlog.display()))?;
    let (theirs, ours) = (parse(&theirs)?, parse(&ours)?);
    // A refused connection leaves the table at once.
    ensure!(theirs.len() + 2 >= flows.len(), "{} entries of {} flows", theirs.len(), flows.len());
    ensure_equal("the table", &multiset(theirs.keys()), &multiset(ours.keys()))?;
    for (entry, timeout) in &theirs {
        let late = timeout.abs_diff(ours[entry]);
        ensure!(late <= 3, "timeout {timeout} is {} in {entry}", ours[entry]);
    }

    let mut outside = Command::new(flowlog);
    let json = outside.args(["list", "-o", "json", "--netns"]).arg(router.path()).output()?;
    ensure!(json.status.success(), "{}", String::from_utf8_lossy(&json.stderr));
    let entries =
        serde_json::Deserializer::from_slice(&json.stdout).into_iter::<serde_json::Value>();
    let count: usize =
        entries.map(|value| Ok(value?.as_array().map_or(1, Vec::len))).sum::<Result<usize>>()?;
    ensure!(count == ours.len(), "{count} entries as JSON, {} as text", ours.len());
    Ok(())
}

/// Entries without what changes from moment to moment, and their timeouts.
fn parse(table: &str) -> Result<BTreeMap<String, u64>> {
    let changes = |word: &str| word.starts_with("use=") || word.starts_with("delta-time=");
    let entry = |line: &str| {
        let words: Vec<_> = line.split_whitespace().filter(|word| !changes(word)).collect();
        // l3 name and number, l4 name and number, timeout.
        let timeout = words.get(4).and_then(|word| word.parse().ok());
        let timeout = timeout.with_context(|| format!("no timeout in {line:?}"))?;
        Ok(([&words[..4], &words[5..]].concat().join(" "), timeout))
    };
    table.lines().map(entry).collect()
}
