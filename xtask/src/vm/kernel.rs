//! The newest cloud or PREEMPT_RT kernel of a series, out of Debian's packages, kept for the next time.
//!
//! apt resolves and checks them, with lists of its own so that the system's stay as they are, and
//! with the mirror that the system uses. A version is never named: old ones leave the archive.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};

use super::vmlinux;
use crate::cargo::workspace;
use crate::interrupt;
use crate::mirror::Mirrors;
use crate::say::note;

/// The suites that have a series. Any other is looked for in sid, whose kernel moves.
const SUITES: [(&str, &[&str]); 3] = [
    ("5.10", &["bullseye-security"]),
    ("6.1", &["bookworm", "bookworm-security"]),
    ("6.12", &["bookworm-security", "trixie-security"]),
];
/// Behind a series: its PREEMPT_RT kernel, whose locks are larger.
pub(super) const RT: &str = "-rt";
/// How long a kernel counts as the newest.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);
/// Debian's own keys, so that no other archive can provide the kernel.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The directory with the unpacked packages of a kernel and its `vmlinux`.
///
/// # Errors
/// It is not there and cannot be fetched, or no guest of it could run this host's programs.
pub(crate) fn provide(series: &str) -> Result<PathBuf> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest gets this host's programs, and its kernels are for x86-64 only"
    );
    let cache = cache().join(series);
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let kept = newest_in(&cache)?;
    if let Some((kernel, since)) = &kept
        && since.elapsed().is_ok_and(|age| age < FRESH)
    {
        return Ok(kernel.clone());
    }
    let fetched = fetch(series, &cache);
    interrupt::check()?;
    match (fetched, kept) {
        (Ok(kernel), _) => Ok(kernel),
        (Err(error), Some((kernel, _))) => {
            note!("using {}: {error:#}", kernel.display());
            Ok(kernel)
        }
        (Err(error), None) => Err(error.context(format!("kernel {series} cannot be had"))),
    }
}

/// Where kernels are kept, as the XDG base directory specification has it.
fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let own = base.map_or_else(|| workspace().join("target"), |base| base.join("flowlog"));
    own.join("kernels")
}

/// The kernel that was fetched last, and when.
fn newest_in(cache: &Path) -> Result<Option<(PathBuf, SystemTime)>> {
    let mut newest = None;
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        // What is being fetched begins with a dot.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let since = entry.metadata()?.modified()?;
        if newest.as_ref().is_none_or(|(_, other)| *other < since) {
            newest = Some((entry.path(), since));
        }
    }
    Ok(newest)
}

/// Fetches the newest kernel of a series, unless it is there already.
fn fetch(series: &str, cache: &Path) -> Result<PathBuf> {
    // In the cache, because a finished kernel is put into its place by renaming.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache)?;
    let apt = Apt::new(work.path(), suites(series))?;
    let image = apt.image(series)?;
    let kernel = cache.join(&image);
    if !kernel.exists() {
        note!("fetching {image}");
        let unpacked = work.path().join("kernel");
        fs::create_dir(&unpacked)?;
        for file in apt.download(&image)? {
            let mut command = Command::new("dpkg");
            ok(command.arg("-x").arg(&file).arg(&unpacked))?;
        }
        vmlinux::extract(&boot_image(&unpacked)?, &unpacked.join(vmlinux::NAME))?;
        // Somebody else may have been quicker; then his is as good.
        let renamed = fs::rename(&unpacked, &kernel);
        ensure!(kernel.exists(), "cannot make {}: {renamed:?}", kernel.display());
    }
    // Its age counts from the last time that it was found to be the newest.
    File::open(&kernel)?.set_modified(SystemTime::now())?;
    Ok(kernel)
}

fn suites(series: &str) -> &'static [&'static str] {
    let (series, _) = flavour(series);
    SUITES.iter().find(|(name, _)| *name == series).map_or(&["sid"], |(_, suites)| suites)
}

/// The numbers of a series, and the name that its packages have behind the version.
fn flavour(series: &str) -> (&str, &'static str) {
    series.strip_suffix(RT).map_or((series, "cloud"), |numbers| (numbers, "rt"))
}

/// The directory with the modules of a kernel, lib/modules/RELEASE.
///
/// # Errors
/// There is none.
pub(super) fn modules(kernel: &Path) -> Result<PathBuf> {
    // Newer packages have everything in /usr.
    let places = ["lib/modules", "usr/lib/modules"].map(|place| kernel.join(place));
    let mut lists = places.iter().filter_map(|place| fs::read_dir(place).ok());
    let release = lists.find_map(|mut list| list.next()).context("the kernel has no modules")?;
    Ok(release?.path())
}

/// The bzImage among the files of a kernel: boot/vmlinuz-RELEASE, in newer packages beside the
/// modules.
fn boot_image(kernel: &Path) -> Result<PathBuf> {
    let modules = modules(kernel)?;
    let release = modules.file_name().unwrap_or_default().to_string_lossy();
    let places = [kernel.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    places.into_iter().find(|file| file.is_file()).context("the packages have no vmlinuz")
}

/// apt with a state of its own.
struct Apt<'d> {
    directory: &'d Path,
}

impl<'d> Apt<'d> {
    fn new(directory: &'d Path, suites: &[&str]) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial", "packages"] {
            fs::create_dir_all(directory.join(name))?;
        }
        let mirrors = Mirrors::of_apt()?;
        let mut sources = String::new();
        for suite in suites {
            let mirror = mirrors.of(suite)?;
            let keys =
                if Path::new(KEYS).exists() { format!(" signed-by={KEYS}") } else { String::new() };
            sources += &format!("deb [arch=amd64{keys}] {mirror} {suite} main\n");
        }
        fs::write(directory.join("sources.list"), sources)?;
        let apt = Self { directory };
        ok(apt.command("apt-get").args(["-q=2", "update"]))?;
        Ok(apt)
    }

    /// The newest package with an image of a series.
    fn image(&self, series: &str) -> Result<String> {
        let (series, flavour) = flavour(series);
        // The dot behind keeps out the packages that only depend on the newest.
        let pattern = format!(r"^linux-image-{}\..*{flavour}-amd64$", series.replace('.', r"\."));
        let found = ok(self.command("apt-cache").args(["search", "--names-only", &pattern]))?;
        let names = found.lines().filter_map(|line| line.split_whitespace().next());
        let newest = names.max_by_key(|name| numbers(name)).map(str::to_owned);
        newest.with_context(|| format!("no {pattern} in {}", suites(series).join(", ")))
    }

    /// Fetches the package and those that it is split into; returns the files.
    fn download(&self, image: &str) -> Result<Vec<PathBuf>> {
        let depends = ok(self.command("apt-cache").args(["depends", "--important", image]))?;
        let mut command = self.command("apt-get");
        command.args(["-q=2", "download", image]);
        command.args(depends.lines().filter_map(|line| {
            let name = line.trim().strip_prefix("Depends: ")?;
            let part = ["linux-base-", "linux-binary-", "linux-modules-"];
            part.iter().any(|begin| name.starts_with(begin)).then_some(name)
        }));
        let packages = self.directory.join("packages");
        ok(command.current_dir(&packages))?;
        interrupt::check()?;
        fs::read_dir(packages)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let mut option = |name: &str, value: &Path| {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        };
        option("Dir::Etc::sourcelist", &self.directory.join("sources.list"));
        option("Dir::Etc::sourceparts", Path::new("/dev/null"));
        option("Dir::State::Lists", &self.directory.join("lists"));
        option("Dir::Cache", &self.directory.join("cache"));
        command.args(["-o", "APT::Architecture=amd64", "-o", "Acquire::Languages=none"]);
        // Its own user could not enter this directory; signatures are checked all the same.
        command.args(["-o", "APT::Sandbox::User=root"]);
        command
    }
}

/// The numbers in a package's name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// What a command writes, which must succeed.
fn ok(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot run {program}"))?;
    interrupt::check()?;
    let words = command.get_args().map(|word| word.to_string_lossy());
    let words: Vec<_> =
        words.filter(|word| !word.starts_with('-') && !word.contains('=')).collect();
    ensure!(output.status.success(), "{program} {} failed", words.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{numbers, suites};

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let older = numbers("linux-image-6.12.99+deb12-cloud-amd64");
        assert!(older < numbers("linux-image-6.12.107+deb12-cloud-amd64"));
        assert!(numbers("linux-image-5.10.0-9-cloud") < numbers("linux-image-5.10.0-46-cloud"));
    }

    #[test]
    fn an_unknown_series_is_looked_for_in_unstable() {
        assert_eq!(suites("7.2"), ["sid"]);
        assert_eq!(suites("5.10"), ["bullseye-security"]);
    }
}
