//! cargo, run in the workspace: what it builds and where it puts it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Names the flowlog executable that is already built, as `tests::daemon` knows it too.
pub(crate) const FLOWLOG: &str = "FLOWLOG_BIN";
/// Names the replay benchmark that is already built, for the part of a benchmark that is root.
pub(crate) const REPLAY: &str = "FLOWLOG_REPLAY_BENCH";
/// Names the host of a simulated fleet that is already built, likewise.
pub(crate) const HOST: &str = "FLOWLOG_HOST_EXAMPLE";
/// Names the mock of Kafka's brokers that is already built, likewise.
pub(crate) const KAFKA: &str = "FLOWLOG_KAFKA_MOCK";
/// Names the harness of `cargo xtask chaos` that is already built, likewise.
pub(crate) const CHAOS: &str = "FLOWLOG_CHAOS";
/// Names the archive's benchmark that is already built, likewise.
pub(crate) const ARCHIVE: &str = "FLOWLOG_ARCHIVE_BENCH";

/// Builds the tests that run in a guest, as fast as they can be where the processor is emulated.
pub(crate) const GUEST_TESTS: [&str; 9] = [
    "test",
    "--no-run",
    "--release",
    "--package",
    "tests",
    "--features",
    "guest",
    "--test",
    "guest",
];

/// What [`build_quickly`] changes of the profile `release`. Cargo keeps both builds.
const QUICK: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
];
/// [`QUICK`] is used.
static BUILDS_QUICKLY: AtomicBool = AtomicBool::new(false);

/// From now on a release build is one for tests: nearly as fast as the one that is released, which
/// takes much longer to build.
pub(crate) fn build_quickly() {
    BUILDS_QUICKLY.store(true, Ordering::Relaxed);
}

/// The directory of the workspace.
pub(crate) fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The target directory: this program is `<target>/<profile>/xtask`.
///
/// # Errors
/// It is somewhere else.
pub(crate) fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2).context("xtask is not where cargo builds it")?;
    Ok(target.to_owned())
}

/// A cargo command in the workspace.
pub(crate) fn cargo(words: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(words).current_dir(workspace());
    if BUILDS_QUICKLY.load(Ordering::Relaxed) {
        command.envs(QUICK);
    }
    command
}

/// flowlog, built for release unless the environment names it.
///
/// # Errors
/// It does not build.
pub(crate) fn flowlog() -> Result<PathBuf> {
    let words = ["build", "--release", "--package", "flowlog", "--bin", "flowlog"];
    named_or_built(FLOWLOG, "flowlog", &words)
}

/// flowlog for debugging, with the feature `kafka-tls`: OpenSSL is built for one profile only.
///
/// # Errors
/// It does not build.
pub(crate) fn flowlog_with_kafka_tls() -> Result<PathBuf> {
    let words = ["build", "--package", "flowlog", "--features", "kafka-tls", "--bin", "flowlog"];
    built("flowlog", &words)
}

/// The replay benchmark of flowlog, built unless the environment names it.
///
/// # Errors
/// It does not build.
pub(crate) fn replay() -> Result<PathBuf> {
    let words = ["bench", "--no-run", "--package", "flowlog", "--bench", "replay"];
    named_or_built(REPLAY, "replay", &words)
}

/// The host of a simulated fleet, built unless the environment names it.
///
/// # Errors
/// It does not build.
pub(crate) fn host() -> Result<PathBuf> {
    let words = ["build", "--release", "--package", "flowlog", "--example", "host"];
    named_or_built(HOST, "host", &words)
}

/// The mock of Kafka's brokers, built unless the environment names it.
///
/// # Errors
/// It does not build.
pub(crate) fn kafka_mock() -> Result<PathBuf> {
    harness(KAFKA, "kafka-mock", Profile::Release)
}

/// The harness of `cargo xtask chaos`, and the brokers of KAFKA for it, built unless the
/// environment names them.
///
/// # Errors
/// It does not build.
pub(crate) fn chaos(profile: Profile) -> Result<[PathBuf; 2]> {
    Ok([harness(CHAOS, "chaos", profile)?, harness(KAFKA, "kafka-mock", profile)?])
}

/// How a program of the tests is built.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Profile {
    /// As the live tests are, so that they share what is built.
    Tests,
    /// Optimized.
    Release,
}

fn harness(variable: &str, name: &str, profile: Profile) -> Result<PathBuf> {
    let mut words = vec!["build", "--package", "tests", "--bin", name];
    words.extend(match profile {
        Profile::Tests => ["--features", "live"].as_slice(),
        Profile::Release => &["--release"],
    });
    named_or_built(variable, name, &words)
}

/// The archive's benchmark, built unless the environment names it.
///
/// # Errors
/// It does not build.
pub(crate) fn archive_bench() -> Result<PathBuf> {
    let words = ["bench", "--no-run", "--package", "flowlog", "--bench", "archive"];
    named_or_built(ARCHIVE, "archive", &words)
}

/// The tests that run in a guest.
///
/// # Errors
/// They do not build.
pub(crate) fn guest_tests() -> Result<PathBuf> {
    built("guest", &GUEST_TESTS)
}

/// The program that measures costs in a guest.
///
/// # Errors
/// It does not build.
pub(crate) fn cost() -> Result<PathBuf> {
    built("cost", &["build", "--release", "--package", "tests", "--bin", "cost"])
}

/// The program that takes pictures in a guest.
///
/// # Errors
/// It does not build.
pub(crate) fn pictures() -> Result<PathBuf> {
    built("pictures", &["build", "--release", "--package", "tests", "--bin", "pictures"])
}

fn named_or_built(variable: &str, target: &str, words: &[&str]) -> Result<PathBuf> {
    std::env::var_os(variable).map_or_else(|| built(target, words), |path| Ok(path.into()))
}

/// Builds a target and returns its executable.
fn built(target: &str, words: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(words);
    command.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let built = command.spawn().and_then(|child| child.wait_with_output());
    let built = built.with_context(|| format!("cannot run {command:?}"))?;
    ensure!(built.status.success(), "cargo {} failed", words.join(" "));
    executable(&String::from_utf8_lossy(&built.stdout), target)
        .with_context(|| format!("cargo {} made no executable {target}", words.join(" ")))
}

/// The executable of a target among the messages of cargo, each a line of JSON.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .filter(|message| message["target"]["name"] == target)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::executable;

    #[test]
    fn the_executable_is_found_among_libraries_and_noise() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"flowlog","kind":["lib"]},"executable":null}
not json
{"reason":"compiler-artifact","target":{"name":"flowlog","kind":["bin"]},"executable":"/t/release/flowlog"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "flowlog"), Some(PathBuf::from("/t/release/flowlog")));
        assert_eq!(executable(messages, "replay"), None);
    }
}
