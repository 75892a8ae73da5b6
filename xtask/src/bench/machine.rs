//! Where it was measured: numbers mean little without it.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

use anyhow::Result;

/// A line for the report: processor, cores, memory, kernel, and the programs compared with.
///
/// # Errors
/// /proc cannot be read.
pub(super) fn describe() -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = field(&cpuinfo, "model name").unwrap_or("unknown processor").to_owned();
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let kibibytes: f64 = field(&meminfo, "MemTotal")
        .and_then(|value| value.trim_end_matches(" kB").parse().ok())
        .unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let virtual_one = if cpuinfo.contains(" hypervisor") { " of a virtual machine" } else { "" };
    Ok(format!(
        "{model}, {} cores{virtual_one}, {:.0} GiB memory, Linux {}; {}; {}",
        available_parallelism()?,
        kibibytes / f64::from(1 << 20),
        kernel.trim(),
        version("ulogd", "-V"),
        version("conntrack", "-V"),
    ))
}

/// The value of a line `NAME : VALUE`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

/// The first line that a program says about its version.
fn version(program: &str, flag: &str) -> String {
    let path = crate::packages::find(program).unwrap_or_else(|| program.into());
    let output = Command::new(path).arg(flag).output().map(|output| output.stdout);
    let text = String::from_utf8_lossy(&output.unwrap_or_default()).into_owned();
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(program).to_owned()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "model\t\t: 2\nmodel name\t: AMD EPYC\nMemTotal:  100 kB\n";
        assert_eq!(field(text, "model name"), Some("AMD EPYC"));
        assert_eq!(field(text, "MemTotal"), Some("100 kB"));
        assert_eq!(field(text, "name"), None);
    }
}
