//! Compiles the eBPF object, which feature `ebpf` embeds into flowlog as `flowlog-ebpf.o` of
//! `OUT_DIR`. It is for another target than flowlog, which cargo cannot build along with it, so
//! cargo is run once more; `toolchain` finds the one that can. Without the feature there is
//! nothing to do.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::env;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use toolchain::Toolchain;

/// The package, and its program.
const NAME: &str = "flowlog-ebpf";
/// What the object depends on, from flowlog's directory.
const SOURCES: [&str; 5] = [
    "build.rs",
    "../flowlog-ebpf/src",
    "../flowlog-ebpf/Cargo.toml",
    "../Cargo.toml",
    "../Cargo.lock",
];
const NO_COMPILER: &str = "no compiler here has the source of its standard library (rustup's \
                           nightly with rust-src, or Debian's rustc-web with rust-web-src)";
const NO_LINKER: &str = "there is no bpf-linker in PATH or among what cargo has installed";
const REMEDIES: &str = "`cargo xtask setup` provides what is needed to build the eBPF programs; \
                        `--no-default-features` builds flowlog without them";

fn main() -> ExitCode {
    if env::var_os("CARGO_FEATURE_EBPF").is_none() {
        tell("rerun-if-changed", "build.rs");
        return ExitCode::SUCCESS;
    }
    for source in SOURCES {
        tell("rerun-if-changed", source);
    }
    let (toolchain, linker) = (Toolchain::find(), toolchain::linker());
    let (Some(toolchain), Some(linker)) = (&toolchain, &linker) else {
        let compiler = toolchain.is_none().then_some(NO_COMPILER);
        let linker = linker.is_none().then_some(NO_LINKER);
        for error in compiler.into_iter().chain(linker).chain([REMEDIES]) {
            tell("error", error);
        }
        // The errors make cargo fail. Those of a script that fails are buried under its output.
        return ExitCode::SUCCESS;
    };
    match build(toolchain, linker) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell("error", &error);
            ExitCode::FAILURE
        }
    }
}

/// Gives cargo an instruction.
fn tell(key: &str, value: &str) {
    // Without a cargo that reads there is nobody to be told.
    let _ = writeln!(io::stdout(), "cargo::{key}={value}");
}

/// Builds the object and puts it where flowlog's source has it from.
fn build(toolchain: &Toolchain, linker: &Path) -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let directory = directory(&out)?;
    // Another build with other features would replace the object before it is copied.
    let lock = lock(&directory).map_err(|e| format!("cannot lock {}: {e}", directory.display()))?;
    let target = match variable("CARGO_CFG_TARGET_ENDIAN")?.as_str() {
        "big" => "bpfeb-unknown-none",
        _ => "bpfel-unknown-none",
    };
    let mut command = toolchain.command("cargo", linker, &variable("CARGO_CFG_TARGET_ARCH")?);
    command.args(["build", "--release", "--locked", "-Z", "build-std=core", "--target", target]);
    command.args(["--package", NAME, "--bin", NAME, "--target-dir"]).arg(&directory);
    if env::var_os("CARGO_FEATURE_EBPF_LOG").is_some() {
        command.args(["--features", "log"]);
    }
    // What goes to standard output would be taken for instructions.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    let status = status.map_err(|e| format!("cannot run {}: {e}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err(format!(
            "the eBPF programs do not build, see below; compiled by {} (LLVM {}), which must not \
             be newer than the LLVM of {}",
            toolchain.rustc.display(),
            toolchain.llvm.map_or("unknown".to_owned(), |llvm| llvm.to_string()),
            linker.display()
        ));
    }
    let object = directory.join(target).join("release").join(NAME);
    let copied = fs::copy(&object, out.join(NAME).with_extension("o"));
    copied.map_err(|e| format!("cannot copy {}: {e}", object.display()))?;
    drop(lock);
    Ok(())
}

/// The target directory of the inner build: one for all builds of the outer target directory, so
/// that `core` is compiled once. `OUT_DIR` is `TARGET_DIR/[TRIPLE/]PROFILE/build/…`, the triple
/// being there if the outer cargo was given one.
fn directory(out: &Path) -> Result<PathBuf, String> {
    let triple = variable("TARGET")?;
    let build = out.ancestors().find(|path| path.ends_with("build"));
    let above = build.and_then(Path::parent).and_then(Path::parent);
    let above = above.map(|path| path.parent().filter(|_| path.ends_with(triple)).unwrap_or(path));
    Ok(above.unwrap_or(out).join("ebpf"))
}

/// A lock on that directory, let go when the file is closed.
fn lock(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let lock = File::create(directory.join(".flowlog-lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// A variable that cargo sets for build scripts.
fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
