//! Which outputs a user could not open anew: a daemon that has become that user (`-u`) finds
//! it out at the next rotation otherwise, or when a file is removed.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::config::{Config, LogTarget, Stage};
use crate::daemon::privileges::{Target, as_user};
use crate::plugin::output::Destination;
use crate::plugin::ship::OnDamage;

/// An output, and what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What, and why.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

/// When it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before the start, which makes directories that are missing, and hands them over.
    BeforeStart,
    /// After it: a directory that is missing could not be made, and the user has to make it.
    Started,
}

impl Refused {
    /// An output that is there, in a place that is not writable.
    fn anew(path: &Path, place: &Path, user: &Target) -> Self {
        let (path, place) = (path.display(), place.display());
        Self {
            what: format!(
                "{path} cannot be opened anew by {user} when it is rotated or removed: {place} is \
                 not writable for that user"
            ),
            remedy: format!(
                "make {place} writable for {user}, or have logrotate make the file for {user} \
                 before its HUP (`create`)"
            ),
        }
    }

    /// A directory that is missing, in a place that is not writable.
    fn missing(path: &Path, place: &Path, user: &Target) -> Self {
        let (path, place) = (path.display(), place.display());
        Self {
            what: format!(
                "{path} is missing and cannot be made by {user}: {place} is not writable for that \
                 user"
            ),
            remedy: format!("make {path}, owned by {user}"),
        }
    }
}

/// The outputs that `user` could not open anew.
///
/// # Errors
/// The process is not root.
pub(super) fn refused(config: &Config, user: &Target, when: When) -> io::Result<Vec<Refused>> {
    let (outputs, directories) = (outputs(config), directories(config));
    // Asked as root: the user may not be able to see them.
    let are_there = directories.iter().filter(|path| path.is_dir()).collect::<Vec<_>>();
    let is_missing = |path: &&PathBuf| when == When::Started && !path.exists();
    let missing = directories.iter().filter(is_missing).collect::<Vec<_>>();
    as_user(user, || {
        let mut refused = Vec::new();
        for path in &outputs {
            refused.extend(obstacle(path).map(|place| Refused::anew(path, &place, user)));
        }
        for path in are_there.into_iter().filter(|path| is_shut(path)) {
            refused.push(Refused::anew(path, path, user));
        }
        for path in missing.into_iter().filter(|path| is_shut(parent(path))) {
            refused.push(Refused::missing(path, parent(path), user));
        }
        refused
    })
}

/// What a start does with a spool that is damaged, before the daemon becomes `user`. Where that user
/// may not make files in its directory, nobody could make another one in its place afterwards.
pub(super) fn on_damage(config: &Config, user: Option<&Target>) -> OnDamage {
    let directory = &config.spool.directory;
    // One that is missing is made, and handed over.
    let is_shut_for =
        |user: &Target| directory.is_dir() && as_user(user, || is_shut(directory)).unwrap_or(false);
    if user.is_some_and(is_shut_for) { OnDamage::Replace } else { OnDamage::Fail }
}

/// The files that are written by their names, the daemon's own log among them.
fn outputs(config: &Config) -> Vec<PathBuf> {
    let mut paths = match &config.log {
        LogTarget::File(path) => vec![path.clone()],
        LogTarget::Syslog | LogTarget::Stdout | LogTarget::Stderr => Vec::new(),
    };
    for stage in config.stacks.iter().flat_map(|stack| &stack.stages) {
        let path = match stage {
            Stage::LogEmu(settings) => Some(&settings.file),
            Stage::Json(settings) => match &settings.output.destination {
                Destination::File { path, sync: _ } => Some(path),
                Destination::Socket(_) => None,
            },
            Stage::Sqlite3(settings) => Some(&settings.db),
            _ => None,
        };
        // Those are the process's own, and are not opened by their names.
        let own = [Path::new("/dev/stdout"), Path::new("/dev/stderr")];
        if let Some(path) = path.filter(|path| !own.contains(&path.as_path()))
            && !paths.contains(path)
        {
            paths.push(path.clone());
        }
    }
    paths
}

/// The directories of archives and of the spool. Those that are missing are made at the start.
fn directories(config: &Config) -> Vec<PathBuf> {
    let stages = config.stacks.iter().flat_map(|stack| &stack.stages);
    let archives = stages.filter_map(|stage| match stage {
        Stage::Parquet(settings) => Some(settings.archive.directory.clone()),
        _ => None,
    });
    archives.chain(config.ships().then(|| config.spool.directory.clone())).collect()
}

/// The calling thread may not make files in that directory.
fn is_shut(directory: &Path) -> bool {
    access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_err()
}

/// The directory that a file or directory is in.
fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// What the calling thread may not write, of a file and its directory.
fn obstacle(path: &Path) -> Option<PathBuf> {
    let directory = parent(path);
    let file = path.metadata();
    if file.is_ok() && access(path, AccessFlags::W_OK).is_err() {
        return Some(path.to_owned());
    }
    // A FIFO or a device is not made anew.
    let made = file.map_or(true, |file| file.is_file());
    let writable = access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    (made && !writable).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config;
    use crate::daemon::privileges::look_up;

    /// Only root may ask for another user: without it the refusal is what is tested.
    #[test]
    fn a_directory_of_another_user_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("own", 0o755), ("open", 0o777)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::write(dir.path().join("open/file-of-root"), "").unwrap();
        let nobody = look_up("nobody").unwrap();
        let of = |text: &str| {
            let config = config::parse(Path::new("f.conf"), text).config.unwrap();
            let refused = refused(&config, &nobody, When::BeforeStart)?;
            let what: Vec<_> = refused.into_iter().map(|refused| refused.what).collect();
            Ok::<_, io::Error>(what.join("\n"))
        };
        let with = |logfile: &str, file: &str| {
            of(&format!(
                "[global]\nlogfile={logfile}\n\
                 stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
                 [emu1]\nfile={file}\n",
            ))
        };
        let full = |path: &str| dir.path().join(path).display().to_string();
        let places = |path: &str| with("syslog", &full(path));
        if !nix::unistd::geteuid().is_root() {
            assert_eq!(places("open/new").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            return;
        }
        assert_eq!(places("open/new").unwrap(), "");
        let place = places("own/new").unwrap();
        assert!(place.contains("/own is not writable"), "{place}");
        let file = places("open/file-of-root").unwrap();
        assert!(file.contains("open/file-of-root is not writable"), "{file}");
        let archive = of(&format!(
            "[global]\nspool_dir={}\nstack=ct1:NFCT,arc1:PARQUET\n[arc1]\ndirectory={}\n",
            full("open"),
            full("own"),
        ));
        let archive = archive.unwrap();
        assert_eq!(archive.lines().count(), 1, "{archive}");
        assert!(archive.contains("/own is not writable"), "{archive}");
        let log = with(&full("own/flowlog.log"), "/dev/stdout").unwrap();
        assert!(log.contains("own/flowlog.log cannot be opened anew"), "{log}");
        // The other threads have kept their rights.
        fs::write(dir.path().join("own/by-root"), "").unwrap();
    }

    /// The disk was full at the start: the user has to make it, and may not.
    #[test]
    fn a_directory_that_could_not_be_made_is_in_the_way() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let nobody = look_up("nobody").unwrap();
        let refused = |spool: &Path, when| {
            let text = format!(
                "[global]\nspool_dir={}\nstack=ct1:NFCT,nats1:NATS\n[nats1]\nstream=FLOWS\n",
                spool.display()
            );
            let config = config::parse(Path::new("f.conf"), &text).config.unwrap();
            refused(&config, &nobody, when).unwrap()
        };
        let missing = dir.path().join("missing");
        // The start makes it.
        assert!(refused(&missing, When::BeforeStart).is_empty());
        let [Refused { what, remedy }] = &refused(&missing, When::Started)[..] else { panic!() };
        assert!(what.contains("missing is missing and cannot be made by nobody: "), "{what}");
        assert!(remedy.ends_with("/missing, owned by nobody"), "{remedy}");
        assert!(refused(&open.join("missing"), When::Started).is_empty());
        assert!(refused(&open, When::Started).is_empty());
    }

    /// Its copy takes minutes: the start waits for that only where nobody could make it later.
    #[test]
    fn a_spool_in_a_directory_of_root_is_replaced_before_the_user_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("own", 0o755), ("open", 0o777)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), Permissions::from_mode(mode)).unwrap();
        }
        let nobody = look_up("nobody").unwrap();
        let done = |name: &str, user| {
            let text = format!(
                "[global]\nspool_dir={}\nstack=ct1:NFCT,nats1:NATS\n[nats1]\nstream=FLOWS\n",
                dir.path().join(name).display()
            );
            let config = config::parse(Path::new("f.conf"), &text).config.unwrap();
            on_damage(&config, user)
        };
        for name in ["open", "missing"] {
            assert_eq!(done(name, Some(&nobody)), OnDamage::Fail, "{name}");
        }
        assert_eq!(done("own", None), OnDamage::Fail);
        if nix::unistd::geteuid().is_root() {
            assert_eq!(done("own", Some(&nobody)), OnDamage::Replace);
        }
    }
}
