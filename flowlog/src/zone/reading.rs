//! Where the local time zone is written, and what is read there, as glibc's
//! tzset(3) does it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::Zone;
use super::leap::LeapSeconds;

/// The zone where `TZ` is not set.
const LOCALTIME: &str = "/etc/localtime";
/// Where the files of zones are, unless `TZDIR` says otherwise.
const ZONES: &str = "/usr/share/zoneinfo";
/// More bytes than any zone has.
const LONGEST: u64 = 1 << 20;
/// When summer time begins and ends where `TZ` does not say it: glibc's.
const RULE: &str = ",M3.2.0,M11.1.0";
/// Names that mean UTC also where there are no files of zones.
const UTC: [&str; 9] =
    ["UTC", "UCT", "GMT", "Zulu", "Universal", "Greenwich", "Etc/UTC", "Etc/UCT", "Etc/GMT"];

/// Where the zone is written.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// `TZ` without its colon; absent if it is not set.
    tz: Option<OsString>,
    /// The file that may have the zone; absent if `TZ` is empty.
    path: Option<PathBuf>,
}

/// A zone, and where it comes from.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) zone: Zone,
    /// What to call it.
    pub(super) name: String,
    /// Why it is UTC without being asked for.
    pub(super) problem: Option<String>,
    /// What its file was before it was read.
    pub(super) identity: Identity,
}

/// What changes with a file: where its link leads, device, inode, size and time.
pub(super) type Identity = Option<(Option<PathBuf>, [u64; 3], [i64; 2])>;

impl Place {
    /// What this process was started with.
    pub(super) fn of_environment() -> Self {
        Self::new(std::env::var_os("TZ"), std::env::var_os("TZDIR"))
    }

    pub(super) fn new(tz: Option<OsString>, zones: Option<OsString>) -> Self {
        let Some(tz) = tz else {
            return Self { tz: None, path: Some(LOCALTIME.into()) };
        };
        let bytes = tz.as_bytes();
        let tz = OsStr::from_bytes(bytes.strip_prefix(b":").unwrap_or(bytes)).to_owned();
        let zones = zones.filter(|zones| !zones.is_empty()).unwrap_or_else(|| ZONES.into());
        // An absolute path replaces the directory.
        let path = (!tz.is_empty()).then(|| Path::new(&zones).join(&tz));
        Self { tz: Some(tz), path }
    }

    /// What the file is now; absent if there is none.
    pub(super) fn identity(&self) -> Identity {
        let path = self.path.as_ref()?;
        let metadata = path.metadata().ok()?;
        Some((
            path.read_link().ok(),
            [metadata.dev(), metadata.ino(), metadata.size()],
            [metadata.mtime(), metadata.mtime_nsec()],
        ))
    }

    /// Reads the zone; UTC if that is not possible.
    pub(super) fn read(&self) -> Reading {
        let identity = self.identity();
        let found = match (&self.tz, &self.path) {
            (Some(tz), Some(path)) => named(tz, path),
            (None, Some(path)) => default(path),
            (_, None) => Ok(TimeZone::UTC.into()),
        };
        let name = self.name();
        let (zone, problem) = match found {
            Ok(zone) => (zone, None),
            Err(problem) => (TimeZone::UTC.into(), Some(problem)),
        };
        Reading { zone, name, problem, identity }
    }

    fn name(&self) -> String {
        match (&self.tz, &self.path) {
            (Some(tz), Some(_)) => tz.to_string_lossy().into_owned(),
            (None, Some(path)) if path.exists() => {
                let target = path.read_link().unwrap_or_else(|_| path.clone());
                let text = target.to_string_lossy();
                text.split_once("/zoneinfo/").map_or(&*text, |(_, name)| name).to_owned()
            }
            _ => "UTC".to_owned(),
        }
    }
}

/// The zone that `TZ` names: a file, else a rule of POSIX.
fn named(tz: &OsStr, path: &Path) -> Result<Zone, String> {
    let why = match file(path) {
        Ok(zone) => return Ok(zone),
        Err(error) => error,
    };
    let text = tz.to_string_lossy();
    let rule = TimeZone::posix(&text).or_else(|_| TimeZone::posix(&format!("{text}{RULE}")));
    match rule {
        Ok(zone) => Ok(zone.into()),
        Err(_) if UTC.contains(&&*text) => Ok(TimeZone::UTC.into()),
        Err(_) => Err(format!(
            "the time zone TZ={text} is not known, and UTC is used: {}: {why}; name a file below \
             {ZONES}, or write a rule such as CET-1CEST,M3.5.0,M10.5.0/3",
            path.display()
        )),
    }
}

/// The zone of the host; UTC where none is set.
fn default(path: &Path) -> Result<Zone, String> {
    match file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!(
            "the time zone {} cannot be read, and UTC is used: {error}; link it to a file below \
             {ZONES}",
            path.display()
        )),
        Err(_) => Ok(TimeZone::UTC.into()),
        Ok(zone) => Ok(zone),
    }
}

fn file(path: &Path) -> io::Result<Zone> {
    // Without waiting for the other end of what is no file.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let bytes = contents(&file)?;
    let zone = TimeZone::tzif("", &bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not a time zone"))?;
    Ok(Zone { zone, leap: LeapSeconds::of(&bytes) })
}

fn contents(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(bytes)
}
