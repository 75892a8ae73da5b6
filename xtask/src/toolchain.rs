//! What compiles the eBPF object: a cargo and rustc that can build `core` for the BPF target, and
//! bpf-linker. flowlog's build script has this module too, so that what `cargo xtask setup`
//! provides is what the build takes; it uses nothing but the standard library.
//!
//! The target has no prebuilt `core`, so the compiler needs the source of its own standard
//! library and the unstable `-Z build-std`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version of LLVM that the linker which `cargo xtask setup` installs is made with. It cannot
/// read what a compiler with a newer one writes.
pub(crate) const LINKER_LLVM: u32 = 22;

/// A compiler with the source of its standard library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its rustc.
    pub(crate) rustc: PathBuf,
    /// Whether it must be told to allow what is unstable, because it is a stable release.
    pub(crate) stable: bool,
    /// The version of its LLVM, if it says so.
    pub(crate) llvm: Option<u32>,
}

impl Toolchain {
    /// The one to take: rustup's nightly before Debian's, but one whose LLVM may be too new for
    /// the linker only if there is no other. None where neither has the source.
    pub(crate) fn find() -> Option<Self> {
        best([Self::of_rustup(), Self::of_debian()])
    }

    /// Whether the linker that `cargo xtask setup` installs can read what it writes.
    pub(crate) fn fits(&self) -> bool {
        self.llvm.is_none_or(|llvm| llvm <= LINKER_LLVM)
    }

    /// One of its programs, cargo or what stands beside it, set to build for the BPF target and
    /// to be given a verb. `architecture` is that of the kernels which the eBPF programs are for,
    /// as cargo names it.
    pub(crate) fn command(&self, program: &str, linker: &Path, architecture: &str) -> Command {
        // bpf-linker needs the debug information to make the BTF of it.
        let architecture = format!("--cfg=bpf_target_arch=\"{architecture}\"");
        let flags = [architecture.as_str(), "-Cdebuginfo=2", "-Clink-arg=--btf"];
        let mut command = Command::new(self.beside(program));
        command.env_clear().envs(std::env::vars_os().filter(|(name, _)| stays(name)));
        command
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
            .env("CARGO_TARGET_BPFEB_UNKNOWN_NONE_LINKER", linker)
            // The workspace's own profile is for flowlog. The linker optimizes the whole itself.
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
            .env("CARGO_PROFILE_RELEASE_LTO", "off");
        if self.stable {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    /// Where a program of it would be.
    pub(crate) fn beside(&self, program: &str) -> PathBuf {
        self.cargo.with_file_name(program)
    }

    /// rustup's nightly. Its programs are called directly, because rustup's own stand-ins obey
    /// the environment of the build that this is a part of.
    fn of_rustup() -> Option<Self> {
        let mut command = Command::new("rustup");
        // A question should not begin a download.
        command.args(["run", "nightly", "rustc", "--print", "sysroot"]);
        command.env("RUSTUP_AUTO_INSTALL", "0");
        let sysroot = PathBuf::from(output(&mut command)?.trim());
        Self::with_source(sysroot.join("bin/cargo"), sysroot.join("bin/rustc"), &sysroot, false)
    }

    /// Debian's packages rustc-web, cargo-web and rust-web-src, or others at the same place.
    fn of_debian() -> Option<Self> {
        let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        Self::with_source(cargo, rustc, Path::new(sysroot.trim()), true)
    }

    fn with_source(cargo: PathBuf, rustc: PathBuf, sysroot: &Path, stable: bool) -> Option<Self> {
        let source = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
        if !source.is_file() || !cargo.is_file() {
            return None;
        }
        let version = output(Command::new(&rustc).arg("-vV"))?;
        Some(Self { cargo, rustc, stable, llvm: llvm(&version) })
    }
}

/// bpf-linker: in PATH, or where `cargo install` puts it.
pub(crate) fn linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let installed = std::env::var_os("CARGO_HOME").map(PathBuf::from).into_iter().chain(home);
    std::env::split_paths(&path)
        .chain(installed.map(|home| home.join("bin")))
        .map(|directory| directory.join("bpf-linker"))
        .find(|file| file.is_file())
}

/// Whether a variable of an outer cargo is for the inner one too. Most of what cargo and rustup
/// set is about the package, the target and the compiler of the outer build; where to get
/// packages, how to speak to the terminal and how many jobs to run is the same for both.
fn stays(name: &OsStr) -> bool {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    const GONE: [&str; 5] = ["CLIPPY_", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"];
    let name = name.to_string_lossy();
    let begins = |list: &[&str]| list.iter().any(|begin| name.starts_with(begin));
    if name.starts_with("CARGO") { begins(&KEPT) } else { !begins(&GONE) }
}

/// The first that fits, else the first.
fn best(candidates: [Option<Toolchain>; 2]) -> Option<Toolchain> {
    let there: Vec<_> = candidates.into_iter().flatten().collect();
    there.iter().find(|one| one.fits()).or(there.first()).cloned()
}

/// The number in `LLVM version: 22.1.8`, a line of `rustc -vV`.
fn llvm(version: &str) -> Option<u32> {
    let number = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    number.split('.').next()?.trim().parse().ok()
}

/// What a command writes, if it succeeds. Which toolchain the outer build uses and what wraps its
/// compiler is no matter here.
fn output(command: &mut Command) -> Option<String> {
    command.env_remove("RUSTUP_TOOLCHAIN").stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::{Toolchain, best, llvm, stays};

    fn toolchain(rustc: &str, llvm: Option<u32>) -> Option<Toolchain> {
        let (cargo, rustc) = (rustc.replace("rustc", "cargo").into(), rustc.into());
        Some(Toolchain { cargo, rustc, stable: false, llvm })
    }

    #[test]
    fn the_first_that_the_linker_can_read_is_taken() {
        let (new, old) = (toolchain("/n/rustc", Some(23)), toolchain("/d/rustc", Some(22)));
        assert_eq!(best([new.clone(), old.clone()]), old);
        assert_eq!(best([old.clone(), new.clone()]), old);
        assert_eq!(best([new.clone(), None]), new);
        assert_eq!(best([toolchain("/n/rustc", None), old]), toolchain("/n/rustc", None));
        assert_eq!(best([None, None]), None);
    }

    #[test]
    fn what_is_about_the_outer_build_does_not_stay() {
        for name in ["PATH", "HOME", "CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_MAKEFLAGS"] {
            assert!(stays(name.as_ref()), "{name}");
        }
        for name in ["CARGO", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"] {
            assert!(!stays(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn the_version_of_llvm_is_read() {
        let version = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm(version), Some(22));
        assert_eq!(llvm("rustc 1.96.0\n"), None);
    }
}
