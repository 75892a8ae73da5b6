//! Removes namespaces that a killed test or benchmark could not remove itself. Their names hold
//! the id of the process that made them, see `tests::namespace`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::say::say;

/// Removes the namespaces whose makers are gone.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = maker(&name) else { continue };
        if Path::new(&format!("/proc/{pid}")).exists() {
            continue;
        }
        let removed = Command::new("ip").args(["netns", "del", &name]).status();
        if removed.is_ok_and(|status| status.success()) {
            say!("removed the namespace {name}, which a killed run had left behind");
        }
    }
}

/// The id of the process that made a namespace: `flowlog-PID-NUMBER-ROLE`.
fn maker(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("flowlog-")?.split_once('-')?;
    let (number, role) = rest.split_once('-')?;
    number.parse::<u32>().ok()?;
    if role.is_empty() { None } else { pid.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::maker;

    #[test]
    fn only_names_of_the_tests_are_taken() {
        assert_eq!(maker("flowlog-123-4-router"), Some(123));
        for other in ["flowlog", "flowlog-office", "flowlog-1-2", "flowlog-1-b-c", "vpn-1-2-c"] {
            assert_eq!(maker(other), None, "{other}");
        }
    }
}
