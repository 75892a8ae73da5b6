//! The flowlog binary: everything is in the library.

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    flowlog::heap::keep_little();
    let result = flowlog::cli::main();
    // Before what is said below, and before the threads end that write.
    flowlog::log::finish();
    match result {
        Ok(code) => code,
        Err(error) => {
            // Standard error is all there is to complain on.
            let _ = writeln!(io::stderr(), "flowlog: {error:#}");
            ExitCode::FAILURE
        }
    }
}
