//! The unit file as a list of keys, for the tests that do what systemd would do.

use anyhow::{Context, Result};
use tests::debian::Debian;

/// Where the package puts it.
pub(crate) const FILE: &str = "/usr/lib/systemd/system/flowlog.service";

/// Its keys and values, in order.
pub(crate) struct Unit(Vec<(String, String)>);

impl Unit {
    /// Reads the one that is installed.
    pub(crate) fn read(debian: &Debian) -> Result<Self> {
        let text = debian.text(FILE)?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once('='));
        Ok(Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Result<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str()).with_context(|| format!("{FILE} has no {key}"))
    }

    /// setpriv with the user and the capabilities of the service, as systemd gives them.
    pub(crate) fn setpriv(&self) -> Result<Vec<String>> {
        let user = self.get("User")?;
        let sets = |name: &str| -> Result<String> {
            let words = self
                .get(name)?
                .split(' ')
                .map(|capability| capability.trim_start_matches("CAP_").to_lowercase());
            Ok(words.fold("-all".to_owned(), |all, word| format!("{all},+{word}")))
        };
        let ambient = sets("AmbientCapabilities")?;
        Ok(vec![
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={user}"),
            "--init-groups".to_owned(),
            "--no-new-privs".to_owned(),
            format!("--inh-caps={ambient}"),
            format!("--ambient-caps={ambient}"),
            format!("--bounding-set={}", sets("CapabilityBoundingSet")?),
        ])
    }
}
