//! Where this host's apt has Debian's packages from.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

/// The archives that apt knows, as lines `URI SUITE COMPONENT`.
pub(crate) struct Mirrors(String);

impl Mirrors {
    /// Asks apt.
    ///
    /// # Errors
    /// There is no apt.
    pub(crate) fn of_apt() -> Result<Self> {
        let known = Command::new("apt-get")
            .args(["indextargets", "--no-release-info", "--format"])
            .arg("$(REPO_URI) $(RELEASE) $(COMPONENT)")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot run apt-get; kernels and systems are fetched by Debian's apt")?;
        Ok(Self(String::from_utf8_lossy(&known.stdout).into_owned()))
    }

    /// The one that has a suite, whether or not apt uses that suite. Security updates have an
    /// archive of their own.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn of(&self, suite: &str) -> Result<&str> {
        let security = suite.ends_with("-security");
        let mirror = self.0.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (uri, suite, component) = (words.next()?, words.next()?, words.next()?);
            let fits = if security {
                suite.ends_with("-security")
            } else {
                // Other archives have suites and components of the same names, but not this path.
                uri.trim_end_matches('/').ends_with("/debian")
            };
            (fits && component == "main").then_some(uri)
        });
        mirror.with_context(|| format!("the sources of apt name no mirror that has {suite}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Mirrors;

    #[test]
    fn the_mirrors_are_those_of_debian() {
        let known = "https://cloud.example/apt cloud main\n\
                     https://docker.example/linux/debian/ bookworm stable\n\
                     http://mirror.example/debian-security/ bookworm-security main\n\
                     http://mirror.example/debian/ bookworm main\n";
        let mirrors = Mirrors(known.to_owned());
        assert_eq!(mirrors.of("sid").unwrap(), "http://mirror.example/debian/");
        assert_eq!(
            mirrors.of("trixie-security").unwrap(),
            "http://mirror.example/debian-security/"
        );
        assert!(Mirrors(String::new()).of("sid").is_err());
    }
}
