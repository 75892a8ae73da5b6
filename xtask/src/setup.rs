//! `cargo xtask setup`: what building flowlog and its eBPF programs needs, see [`toolchain`]. Verbs that build
//! flowlog begin with it, so that nobody has to know.

use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::cargo::{self, cargo};
use crate::packages::{self, find};
use crate::privilege::is_root;
use crate::say::{note, say};
use crate::toolchain::{self, Toolchain};

/// Debian's compiler with the source of its standard library.
const COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];
/// LLVM of [`toolchain::LINKER_LLVM`], where the linker's build looks for it.
const LLVM: &str = "/usr/lib/llvm-22";
/// Package and one of its files: what the linker is made with.
const LLVM_PACKAGES: [(&str, &str); 2] =
    [("llvm-22-dev", "include/llvm-c"), ("libpolly-22-dev", "lib/libPolly.a")];
const LLVM_VARIABLES: [&str; 2] = ["LLVM_PREFIX", "LLVM_SYS_221_PREFIX"];
/// The linker: what cargo is told.
const LINKER: [&str; 8] = [
    "install",
    "bpf-linker",
    "--version",
    "^0.13",
    "--locked",
    "--no-default-features",
    "--features",
    "llvm-22",
];

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Missing {
    compiler: bool,
    linker: bool,
}

/// Provides it.
///
/// # Errors
/// As [`provide`].
pub(crate) fn run() -> Result<ExitCode> {
    if !provide()? {
        return Ok(ExitCode::FAILURE);
    }
    if let (Some(toolchain), Some(linker)) = (Toolchain::find(), toolchain::linker()) {
        let rustc = toolchain.rustc.display();
        say!("the eBPF programs can be built: {rustc}, {}", linker.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// As [`provide`], unless flowlog is already built.
///
/// # Errors
/// As there.
pub(crate) fn for_build() -> Result<bool> {
    if std::env::var_os(cargo::FLOWLOG).is_some() { Ok(true) } else { provide() }
}

/// Sees to it that the eBPF programs can be built. Returns whether they can; if not, what is to be
/// done has been said.
///
/// # Errors
/// An installation failed.
pub(crate) fn provide() -> Result<bool> {
    if !packages::provide(&[packages::BUILD])? {
        return Ok(false);
    }
    let missing = Missing::look();
    if !missing.any() {
        return Ok(true);
    }
    let packages = missing.packages();
    if find("apt-get").is_none() {
        note!("{}", missing.elsewhere());
        return Ok(false);
    }
    if !packages.is_empty() && !is_root() {
        note!("the eBPF programs cannot be built yet; run, and try again:");
        note!("  sudo {}", packages::by_hand(&packages));
        if missing.linker {
            note!("  {}", linker_by_hand());
        }
        return Ok(false);
    }
    if !packages.is_empty() {
        packages::install(&packages).with_context(|| missing.elsewhere())?;
    }
    if missing.linker {
        install_linker()?;
    }
    let left = Missing::look();
    ensure!(!left.any(), "still missing after the installation: {left:?}");
    Ok(true)
}

impl Missing {
    fn look() -> Self {
        Self::of(Toolchain::find().as_ref(), toolchain::linker().is_some())
    }

    /// A linker that is there may be of another version than the one installed here, so it says
    /// nothing against a compiler.
    fn of(compiler: Option<&Toolchain>, linker: bool) -> Self {
        Self { compiler: !compiler.is_some_and(|one| linker || one.fits()), linker: !linker }
    }

    fn any(self) -> bool {
        self.compiler || self.linker
    }

    /// The Debian packages to install.
    fn packages(self) -> Vec<&'static str> {
        let compiler = COMPILER.into_iter().filter(|_| self.compiler);
        let llvm = LLVM_PACKAGES
            .into_iter()
            .filter(|(_, file)| self.linker && !Path::new(LLVM).join(file).exists());
        compiler.chain(llvm.map(|(package, _)| package)).collect()
    }

    /// What to do where Debian's packages cannot be had.
    fn elsewhere(self) -> String {
        let compiler = self.compiler.then_some(
            "a nightly compiler with its source: rustup toolchain install nightly --component \
             rust-src",
        );
        let linker = self.linker.then_some(
            "bpf-linker, made with an LLVM that is not older than the compiler's: see \
             https://github.com/aya-rs/bpf-linker",
        );
        let words: Vec<_> = compiler.into_iter().chain(linker).collect();
        format!("building the eBPF programs needs\n  {}", words.join("\n  "))
    }
}

/// Builds the linker, which takes a minute or two.
fn install_linker() -> Result<()> {
    note!("{}", linker_by_hand());
    let mut command = cargo(&LINKER);
    command.envs(LLVM_VARIABLES.map(|name| (name, LLVM)));
    // What it is made of is of no use later, so let cargo take a directory that it removes.
    command.env_remove("CARGO_TARGET_DIR");
    // Standard output may belong to what is run after this.
    let status = command.stdin(Stdio::null()).stdout(std::io::stderr()).status();
    ensure!(status.context("cannot run cargo")?.success(), "bpf-linker cannot be installed");
    Ok(())
}

/// The command that installs the linker.
fn linker_by_hand() -> String {
    let variables = LLVM_VARIABLES.map(|name| format!("{name}={LLVM}")).join(" ");
    format!("{variables} cargo {}", LINKER.join(" "))
}

#[cfg(test)]
mod tests {
    use super::{LINKER, LLVM, LLVM_PACKAGES, LLVM_VARIABLES, Missing};
    use crate::toolchain::{LINKER_LLVM, Toolchain};

    #[test]
    fn one_version_of_llvm_is_named_everywhere() {
        let version = LINKER_LLVM.to_string();
        let packages = LLVM_PACKAGES.map(|(package, _)| package);
        for name in packages.iter().chain(&[LLVM, LLVM_VARIABLES[1], LINKER[7]]) {
            assert!(name.contains(&version), "{name}");
        }
    }

    #[test]
    fn a_compiler_too_new_for_our_linker_needs_one_that_is_there_already() {
        let compiler = |llvm| Toolchain {
            cargo: "/n/cargo".into(),
            rustc: "/n/rustc".into(),
            stable: false,
            llvm: Some(llvm),
        };
        let missing = |llvm, linker| {
            let Missing { compiler, linker } = Missing::of(Some(&compiler(llvm)), linker);
            (compiler, linker)
        };
        assert_eq!(missing(LINKER_LLVM, true), (false, false));
        assert_eq!(missing(LINKER_LLVM, false), (false, true));
        assert_eq!(missing(LINKER_LLVM + 1, true), (false, false));
        assert_eq!(missing(LINKER_LLVM + 1, false), (true, true));
        assert_eq!(Missing::of(None, true), Missing { compiler: true, linker: false });
    }

    #[test]
    fn what_is_missing_is_named() {
        let compiler = Missing { compiler: true, linker: false };
        assert_eq!(compiler.packages(), ["rustc-web", "cargo-web", "rust-web-src"]);
        assert!(compiler.elsewhere().contains("--component rust-src"));
        let linker = Missing { compiler: false, linker: true };
        assert!(
            linker.elsewhere().contains("bpf-linker") && !linker.elsewhere().contains("rustup")
        );
    }
}
