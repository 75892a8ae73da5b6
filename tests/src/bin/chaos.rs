//! Chaos, see [`tests::chaos`]: `chaos --for SECONDS --seed N --mock PROGRAM …` as root, started by
//! `cargo xtask chaos`. It prints what happens and the report, and fails if a promise was broken.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use tests::chaos::schedule::Kind;
use tests::chaos::stacks;
use tests::chaos::{Options, disk, run};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn remember(_signal: i32) {
    ASKED.store(true, Ordering::Relaxed);
}

/// INT, TERM and HUP end the run in order, so that servers and namespaces go with it.
fn watch() -> Result<()> {
    let action =
        SigAction::new(SigHandler::Handler(remember), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }.with_context(|| format!("handler of {signal}"))?;
    }
    Ok(())
}

fn main() -> Result<ExitCode> {
    let options = options(std::env::args().skip(1))?;
    watch()?;
    // Before there is a second thread.
    disk::own_mounts()?;
    let mut say = |line: String| {
        // The reader may be gone.
        let _ = writeln!(std::io::stdout(), "{line}");
    };
    let report = run(&options, &mut say)?;
    say(format!("\n{report}"));
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options {
        time: Duration::from_secs(60),
        seed: 1,
        kinds: Kind::ALL.to_vec(),
        stacks: stacks::ALL.to_vec(),
        rate: 5000,
        mock: std::env::current_exe()?.with_file_name("kafka-mock"),
        keep: None,
        asked: || ASKED.load(Ordering::Relaxed),
    };
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("{word} has no value"))?;
        match word.as_str() {
            "--for" => options.time = Duration::from_secs(value.parse()?),
            "--seed" => options.seed = value.parse()?,
            "--rate" => options.rate = value.parse()?,
            "--mock" => options.mock = value.into(),
            "--keep" => options.keep = Some(value.into()),
            "--faults" => {
                options.kinds = value.split(',').map(str::parse).collect::<Result<_>>()?
            }
            "--sinks" => {
                let named = |name: &str| {
                    let one = stacks::ALL.into_iter().find(|stack| stack.name == name);
                    one.with_context(|| format!("no sink is called {name:?}"))
                };
                options.stacks = value.split(',').map(named).collect::<Result<_>>()?;
            }
            _ => bail!("{word:?} is not understood"),
        }
    }
    Ok(options)
}
