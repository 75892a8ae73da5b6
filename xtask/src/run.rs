//! `cargo xtask run`: flowlog on this host as root, on `conf/flowlog.conf` with its lines on the
//! terminal as well; or on the demonstration network.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use ::tests::process::Guarded;
use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::cargo::{self, workspace};
use crate::say::say;
use crate::{demo, interrupt, packages, privilege, setup};

/// Where the sample configuration has its log.
const LOGS: &str = "/var/log/flowlog";

/// What `cargo xtask run` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Log traffic made for it in network namespaces instead of this host's
    #[arg(long)]
    demo: bool,
    /// End the demonstration after this time: 10s, 2m
    #[arg(long = "for", value_name = "TIME", value_parser = duration, requires = "demo")]
    time: Option<Duration>,
    /// For flowlog, such as --activate or --netns NAME
    #[arg(last = true)]
    flags: Vec<String>,
}

/// Builds flowlog and runs it.
///
/// # Errors
/// It does not build or cannot be run.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !setup::for_build()? {
        return Ok(ExitCode::FAILURE);
    }
    let flowlog = cargo::flowlog()?;
    if let Some(code) = privilege::elevate(&[(cargo::FLOWLOG, &flowlog)])? {
        return Ok(code);
    }
    interrupt::watch()?;
    if args.demo {
        if !packages::provide(&[packages::LAB])? {
            return Ok(ExitCode::FAILURE);
        }
        demo::run(&flowlog, args.time, &args.flags)
    } else {
        host(&flowlog, &args.flags)
    }
}

/// Runs it on this host until it ends.
fn host(flowlog: &Path, flags: &[String]) -> Result<ExitCode> {
    let directory = tempfile::tempdir()?;
    let mut command = Command::new(flowlog);
    command.arg("run");
    if !names(flags, &["-c", "--configfile"]) {
        let own = workspace().join("conf/flowlog.conf");
        let text = fs::read_to_string(&own).with_context(|| own.display().to_string())?;
        let text = with_terminal(&text)
            .with_context(|| format!("{} has no stack that ends in LOGEMU", own.display()))?;
        // The package makes it.
        fs::create_dir_all(LOGS).with_context(|| format!("cannot make {LOGS}"))?;
        let config = directory.path().join("flowlog.conf");
        fs::write(&config, text)?;
        say!("flowlog runs on {} with its lines here too; Ctrl-C ends it", own.display());
        if !names(flags, &["--activate", "--netns"]) {
            advise(flowlog, &config)?;
        }
        command.arg("-c").arg(config);
    }
    // Its own words, on standard error.
    if !names(flags, &["-d", "--daemon", "-v", "--verbose"]) {
        command.arg("-v");
    }
    let mut process = Guarded::spawn(command.args(flags))?;
    Ok(privilege::code(ended(&mut process)?))
}

/// Waits for the end, however long it takes. Ctrl-C reaches flowlog by itself, but what is sent
/// to xtask alone is handed on, once.
fn ended(process: &mut Guarded) -> Result<Option<i32>> {
    loop {
        if let Some(code) = process.ended()? {
            return Ok(code);
        }
        if interrupt::asked() {
            // It may have ended just now.
            let _ = process.signal(Signal::SIGTERM);
            return process.wait();
        }
        interrupt::pause(Duration::from_millis(100));
    }
}

/// Whether one of these options is among the flags.
fn names(flags: &[String], options: &[&str]) -> bool {
    flags.iter().any(|flag| {
        let name = flag.split_once('=').map_or(flag.as_str(), |(name, _)| name);
        options.contains(&name)
    })
}

/// A configuration with one stack more: the first one once again, but to the terminal.
fn with_terminal(config: &str) -> Option<String> {
    let mut text = String::new();
    let mut done = false;
    for line in config.lines() {
        text.push_str(line);
        text.push('\n');
        if let Some((before, last)) = line.rsplit_once(',')
            && before.trim_start().starts_with("stack")
            && last.trim_end().ends_with(":LOGEMU")
            && !done
        {
            text.push_str(&format!("{before},terminal:LOGEMU\n"));
            done = true;
        }
    }
    text.push_str("\n[terminal]\nfile=\"/dev/stdout\"\nsync=1\n");
    done.then_some(text)
}

/// Says what to do where the kernel tracks nothing, so that there would be nothing to see.
fn advise(flowlog: &Path, config: &Path) -> Result<()> {
    let mut check = Command::new(flowlog);
    check.args(["check", "--json", "-c"]).arg(config).stderr(Stdio::inherit());
    let output = check.output().with_context(|| format!("cannot run {check:?}"))?;
    let report = serde_json::from_slice(&output.stdout).context("what `flowlog check` printed")?;
    if let Some(what) = not_tracking(&report) {
        say!(
            "\n{what}. Either of these shows flows:\n  \
             cargo xtask run -- --activate   (tracks connections here while flowlog runs)\n  \
             cargo xtask run --demo          (traffic in namespaces; this host stays as it is)\n"
        );
    }
    Ok(())
}

/// Why no connection can be seen on this host, as `flowlog check --json` found it.
fn not_tracking(report: &Value) -> Option<&str> {
    let findings = report["host"].as_array()?;
    let trouble = |f: &&Value| f["name"] == "tracking" && f["state"] != "ok";
    findings.iter().find(trouble)?["what"].as_str()
}

/// A time such as `10s`, `1.5m` or `2h`; a bare number is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("{unit:?} is no unit of time; write 500ms, 10s, 2m or 1h")),
    };
    let number: f64 = number.parse().map_err(|_error| "write 500ms, 10s, 2m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::{duration, names, not_tracking, with_terminal};

    #[test]
    fn the_sample_configuration_gets_a_stack_to_the_terminal() {
        let text = with_terminal(include_str!("../../conf/flowlog.conf")).unwrap();
        let stack = "\nstack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,";
        assert!(text.contains(&format!("{stack}emu1:LOGEMU{stack}terminal:LOGEMU\n")), "{text}");
        assert!(text.contains("\n[terminal]\nfile=\"/dev/stdout\"\n"));
    }

    #[test]
    fn a_configuration_without_a_file_gets_none() {
        assert_eq!(with_terminal("[global]\n#stack=ct1:NFCT,emu1:LOGEMU\n"), None);
    }

    #[test]
    fn flags_are_known_with_and_without_a_value() {
        let flags = ["--netns=blue", "-v"].map(str::to_owned);
        assert!(names(&flags, &["--netns"]) && names(&flags, &["-x", "-v"]));
        assert!(!names(&flags, &["--activate", "--net"]));
    }

    #[test]
    fn a_host_that_tracks_nothing_is_known_by_its_finding() {
        let report = |state| {
            json!({"host": [
                {"name": "kernel", "state": "ok", "what": "Linux"},
                {"name": "tracking", "state": state, "what": "no rule"},
            ]})
        };
        assert_eq!(not_tracking(&report("problem")), Some("no rule"));
        assert_eq!(not_tracking(&report("ok")), None);
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        for wrong in ["", "s", "10x", "1..2s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
