//! Whether a program runs with the C library of Debian 12: what it takes of glibc depends on the
//! host that links it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::output;

/// That of Debian 12.
const OLDEST: [u32; 2] = [2, 36];

/// Refuses a program that needs a newer one.
///
/// # Errors
/// It does.
pub(super) fn check(program: &Path) -> Result<()> {
    let symbols = output(Command::new("objdump").arg("-T").arg(program))?;
    let needed = newest(&symbols);
    let [major, minor] = OLDEST;
    ensure!(
        needed <= Some(OLDEST.to_vec()),
        "{} needs glibc {}, but Debian 12 has {major}.{minor}: build the package on Debian 12, or \
         in a container of it",
        program.display(),
        needed.iter().flatten().map(u32::to_string).collect::<Vec<_>>().join(".")
    );
    Ok(())
}

/// The highest version of glibc among symbols as objdump prints them.
fn newest(symbols: &str) -> Option<Vec<u32>> {
    let versions = symbols.split("GLIBC_").skip(1).map(|text| {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].split('.').filter_map(|number| number.parse().ok()).collect()
    });
    versions.max()
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let symbols = "0000 w   DF *UND*  0000 (GLIBC_2.9) a\n\
                       0000      DF *UND*  0000 (GLIBC_2.34) dlsym\n\
                       0000      DF *UND*  0000 (GLIBC_2.2.5) write\n\
                       0000      DF *UND*  0000 (GCC_3.0) _Unwind_Resume\n";
        assert_eq!(newest(symbols), Some(vec![2, 34]));
        assert!(newest("GLIBC_2.39)") > Some(vec![2, 36]) && newest("GCC_3.0") < Some(vec![2]));
    }
}
