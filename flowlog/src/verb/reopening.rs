//! Which outputs a user could not open anew: a daemon that has become that user (`-u`) finds
//! it out at the next rotation otherwise, or when a file is removed.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::config::{Config, LogTarget, Stage};
use crate::daemon::privileges::{Target, as_user};
use crate::plugin::output::Destination;

/// An output, and what is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What, and why.
    pub(super) what: String,
    /// What to do.
    pub(super) remedy: String,
}

/// The outputs that `user` could not open anew.
///
/// # Errors
/// The process is not root.
pub(super) fn refused(config: &Config, user: &Target) -> io::Result<Vec<Refused>> {
    let (outputs, directories) = (outputs(config), directories(config));
    let obstacles = as_user(user, || {
        let files = outputs.into_iter().filter_map(|path| Some((obstacle(&path)?, path)));
        let shut = directories.into_iter().filter(|path| is_shut(path));
        files.chain(shut.map(|path| (path.clone(), path))).collect::<Vec<_>>()
    })?;
    let refused = obstacles.into_iter().map(|(obstacle, path)| {
        let (path, place) = (path.display(), obstacle.display());
        Refused {
            what: format!(
                "{path} cannot be opened anew by {user} when it is rotated or removed: {place} is \
                 not writable for that user"
            ),
            remedy: format!(
                "make {place} writable for {user}, or have logrotate make the file for {user} \
                 before its HUP (`create`)"
            ),
        }
    });
    Ok(refused.collect())
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
    directory.is_dir() && access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_err()
}

/// What the calling thread may not write, of a file and its directory.
fn obstacle(path: &Path) -> Option<PathBuf> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
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
            let refused = refused(&config, &nobody)?;
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
}
