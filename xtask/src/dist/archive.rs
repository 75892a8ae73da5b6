//! The archive: a static program, and all that an administrator puts beside it; conf/archive/INSTALL
//! says where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::version::Version;
use super::{Build, copy, output, succeed, tools};
use crate::cargo::{self, cargo, workspace};

/// Files of the workspace that stand at the top.
const TOP: [&str; 4] = ["conf/archive/INSTALL", "README.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// Directories of the workspace whose files come along.
const DIRECTORIES: [&str; 4] = ["conf", "conf/fleet", "docs", "docs/pictures"];

/// Makes it in a directory.
///
/// # Errors
/// flowlog does not build, is not static, or cannot be packed.
pub(super) fn make(
    how: Build,
    version: &Version,
    documents: &Path,
    into: &Path,
) -> Result<PathBuf> {
    let name = format!("flowlog-{}-{}-linux", version.number, std::env::consts::ARCH);
    let place = tempfile::Builder::new().prefix(".archive-").tempdir_in(into)?;
    let top = place.path().join(&name);
    fs::create_dir(&top)?;
    program(how, version, &top.join("flowlog"))?;
    for file in TOP {
        copy(&workspace().join(file), &top)?;
    }
    for directory in DIRECTORIES {
        files(&workspace().join(directory), &top.join(directory))?;
    }
    files(&documents.join("man"), &top.join("man"))?;
    for shell in fs::read_dir(documents.join("completions"))? {
        files(&shell?.path(), &top.join("completions"))?;
    }
    pack(version, place.path(), &name, into)
}

/// Builds the program, stripped and static.
fn program(how: Build, version: &Version, file: &Path) -> Result<()> {
    let target = tools::target();
    // Cargo's names of the profiles, and of the directory that it makes for one.
    let (profile, directory) = match how {
        Build::Released => ("release", "release"),
        Build::Quick => ("dev", "debug"),
    };
    let words =
        ["build", "--profile", profile, "--locked", "--package", "flowlog", "--target", &target];
    // The configure of librdkafka would take the compiler for glibc.
    let mut build = cargo(&words);
    how.shape(version, &mut build);
    succeed(build.env("CC", "musl-gcc"))?;
    let built = cargo::target()?.join(target).join(directory).join("flowlog");
    succeed(Command::new("strip").arg("-o").arg(file).arg(built))?;
    let headers = output(Command::new("readelf").args(["-ld", "--wide"]).arg(file))?;
    ensure!(
        !headers.contains("INTERP") && !headers.contains("(NEEDED)"),
        "{} is not static: it needs a loader or libraries",
        file.display()
    );
    Ok(())
}

/// Copies the files of a directory, not those of directories in it.
fn files(from: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        if path.is_file() {
            copy(&path, into)?;
        }
    }
    Ok(())
}

/// Packs a directory so that the same files give the same archive.
fn pack(version: &Version, above: &Path, name: &str, into: &Path) -> Result<PathBuf> {
    let tar = above.join("tar");
    let mut command = Command::new("tar");
    command.args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0"]);
    command.args(["--numeric-owner", "--mode=u+rw,go+r-w,a+X"]).arg(version.mtime());
    command.arg("--file").arg(&tar).arg("--directory").arg(above).arg(name);
    succeed(&mut command)?;
    succeed(Command::new("gzip").args(["-9", "-n", "-f"]).arg(&tar))?;
    let file = into.join(format!("{name}.tar.gz"));
    fs::rename(tar.with_extension("gz"), &file)?;
    Ok(file)
}
