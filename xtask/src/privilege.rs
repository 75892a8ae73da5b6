//! Root, where a task needs it: who is not root is helped by sudo, and who has none is told the
//! command. What is built before is built as the user, so that the target directory stays his.

use std::ffi::OsStr;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;

use crate::packages::find;
use crate::say::say;

/// Whether this is root.
pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// How to run a verb as root by hand; cargo is seldom in root's own PATH.
pub(crate) fn by_hand(verb: &str) -> String {
    format!("sudo -E env \"PATH=$PATH\" cargo xtask {verb}")
}

/// As root does nothing. Else runs this command line again as root, with `environment` on top,
/// and returns how that ended.
///
/// # Errors
/// sudo cannot be run.
pub(crate) fn elevate<V: AsRef<OsStr>>(environment: &[(&str, V)]) -> Result<Option<ExitCode>> {
    if is_root() {
        return Ok(None);
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some(sudo) = find("sudo") else {
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
        say!("this needs root; as root, run:\n  cargo xtask {}", words.join(" "));
        return Ok(Some(ExitCode::FAILURE));
    };
    let mut command = Command::new(sudo);
    // The policy of sudo may clear the environment in spite of -E.
    command.args(["-E", "env"]);
    for (key, value) in environment {
        let mut word = std::ffi::OsString::from(format!("{key}="));
        word.push(value);
        command.arg(word);
    }
    command.arg(std::env::current_exe()?).args(arguments);
    crate::interrupt::watch()?;
    let status = command.status().context("cannot run sudo")?;
    Ok(Some(code(status.code())))
}

/// The exit code of a child as our own; one that a signal killed has failed.
pub(crate) fn code(code: Option<i32>) -> ExitCode {
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
