//! KAFKA over TLS: lints, unit tests and live tests of a flowlog with the feature `kafka-tls`.
//! OpenSSL is built for it, once, since all of them are for debugging.

use anyhow::Result;

use crate::cargo::{self, cargo};
use crate::packages::{self, OPENSSL};
use crate::step::Steps;

const NAME: &str = "KAFKA over TLS";
/// The module of the live tests.
const LIVE: &str = "kafka_tls";

/// Runs them. Without root the live tests are listed only.
///
/// # Errors
/// Something cannot be installed or run.
pub(super) fn run(root: bool, steps: &mut Steps) -> Result<()> {
    if !packages::provide(&[OPENSSL])? {
        steps.absent(NAME, true, "the tools above are missing");
        return Ok(());
    }
    let with = ["--package", "flowlog", "--features", "kafka-tls"];
    let mut lints = cargo(&["clippy"]);
    lints.args(with).args(["--all-targets", "--", "-D", "warnings"]);
    steps.run(&format!("{NAME}, lints"), &mut lints)?;
    let mut units = cargo(&["test"]);
    units.args(with).args(["--lib", "kafka"]);
    steps.run(&format!("{NAME}, unit tests"), &mut units)?;
    let name = format!("{NAME}, {}", if root { "live tests" } else { "live tests, not run" });
    let flowlog = match cargo::flowlog_with_kafka_tls() {
        Ok(flowlog) => flowlog,
        Err(error) => {
            steps.absent(&name, true, &format!("{error:#}"));
            return Ok(());
        }
    };
    let features = if root { "kafka-tls,live" } else { "kafka-tls" };
    let mut live = cargo(&["test", "--package", "tests", "--test", "live", "--features", features]);
    steps.run(&name, live.arg(LIVE).env(cargo::FLOWLOG, flowlog))
}
