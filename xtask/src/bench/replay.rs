//! The replay benchmark of flowlog: recorded netlink messages → lines in a file, no kernel. It is
//! a program of its own, because it counts allocations; it prints one object of JSON.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::listener::memory;
use crate::interrupt;
use crate::say::say;

/// What it measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replay {
    /// With `hash_enable=0`.
    pub(super) per_event: Rate,
    /// With `hash_enable=1`.
    pub(super) per_flow: Rate,
    /// Resident memory for each live flow, bytes.
    pub(super) bytes_per_flow: f64,
}

/// How fast it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Events that went through.
    pub(super) events: u64,
    /// On one core.
    pub(super) events_per_second: f64,
    /// In steady state, all of them.
    pub(super) allocations: u64,
}

/// Runs it. Its lines go where those of the listeners go.
///
/// # Errors
/// It fails, or prints something else.
pub(super) fn measure(program: &Path) -> Result<Replay> {
    interrupt::check()?;
    say!("replay of recorded messages");
    let mut command = Command::new(program);
    command.arg("--bench").env("TMPDIR", memory()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "the replay benchmark failed: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    read(&text).with_context(|| format!("the replay benchmark printed {text:?}"))
}

/// The object is the last line.
fn read(text: &str) -> Result<Replay> {
    let object: Value = serde_json::from_str(text.lines().last().unwrap_or_default())?;
    let rate = |name: &str| -> Option<Rate> {
        let case = object.get(name)?;
        Some(Rate {
            events: case.get("events")?.as_u64()?,
            events_per_second: case.get("events_per_second")?.as_f64()?,
            allocations: case.get("allocations")?.as_u64()?,
        })
    };
    Ok(Replay {
        per_event: rate("per_event").context("per_event")?,
        per_flow: rate("per_flow").context("per_flow")?,
        bytes_per_flow: object["memory"]["bytes_per_flow"].as_f64().context("memory")?,
    })
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn the_last_line_is_read() {
        let text = r#"warming up
{"memory":{"flows":2,"bytes_per_flow":135.5},"per_event":{"events":12,"events_per_second":4027061.0,"allocations":0},"per_flow":{"events":16,"events_per_second":5536511.0,"allocations":3}}"#;
        let replay = read(text).unwrap();
        assert_eq!((replay.per_event.events, replay.per_flow.allocations), (12, 3));
        assert!(read("{}").is_err() && read("").is_err());
    }
}
