//! What is asked: files of Parquet and databases of SQLite, as named, found in a
//! directory, or written by the sinks of a configuration.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use crate::config::{self, Stage};

/// An archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Archive {
    /// A file of Parquet.
    Parquet(PathBuf),
    /// A database of SQLite.
    Sqlite(PathBuf),
}

/// What came of looking for archives.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) archives: Vec<Archive>,
    /// What cannot be asked, and why.
    pub(super) problems: Vec<String>,
}

/// The places that the sinks of a configuration write to.
///
/// # Errors
/// There are none, and what to do.
pub(super) fn configured(file: &Path) -> Result<Vec<PathBuf>, String> {
    let shown = file.display();
    let Some(config) = config::load(file).config else {
        return Err(format!(
            "{shown} cannot be used, so it is not known where archives are: name them, or see \
             `flowlog check`"
        ));
    };
    let mut places: Vec<PathBuf> = Vec::new();
    for stage in config.stacks.iter().flat_map(|stack| &stack.stages) {
        let place = match stage {
            Stage::Sqlite3(settings) => &settings.db,
            Stage::Parquet(settings) => &settings.archive.directory,
            Stage::Ip2Str
            | Stage::PrintFlow(_)
            | Stage::LogEmu(_)
            | Stage::Syslog(_)
            | Stage::Json(_)
            | Stage::Filter(_)
            | Stage::Ipfix(_)
            | Stage::Pgsql(_)
            | Stage::Nats(_)
            | Stage::Kafka(_)
            | Stage::Clickhouse(_) => continue,
        };
        if !places.contains(place) {
            places.push(place.clone());
        }
    }
    if places.is_empty() {
        return Err(format!(
            "no archive is named, and {shown} has no stack that writes one: name a directory, a \
             file of PARQUET or a database of SQLITE3"
        ));
    }
    Ok(places)
}

/// What there is at those places.
pub(super) fn find(places: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for place in places {
        if place.is_dir() {
            let before = found.archives.len();
            directory(place, &mut found);
            if found.archives.len() == before {
                let shown = place.display();
                found.problems.push(format!("{shown}: there is no archive in it"));
            }
        } else {
            match kind(place) {
                Ok(make) => found.archives.push(make(place.clone())),
                Err(why) => found.problems.push(format!("{}: {why}", place.display())),
            }
        }
    }
    found.archives.sort();
    found.archives.dedup();
    found
}

/// By what it begins with: a database may have any name.
fn kind(path: &Path) -> Result<fn(PathBuf) -> Archive, String> {
    let mut head = [0; 16];
    let read = File::open(path).and_then(|mut file| match file.read_exact(&mut head) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(()),
        result => result,
    });
    match read {
        Err(error) => Err(format!("it cannot be read: {error}")),
        Ok(()) if head.starts_with(b"PAR1") => Ok(Archive::Parquet),
        Ok(()) if head.starts_with(b"SQLite format 3\0") => Ok(Archive::Sqlite),
        // Where its name says so, the reader tells what is wrong with it.
        Ok(()) => by_name(path)
            .ok_or_else(|| "it is neither a file of Parquet nor a database of SQLite".to_owned()),
    }
}

fn by_name(path: &Path) -> Option<fn(PathBuf) -> Archive> {
    match path.extension()?.to_str()? {
        "parquet" => Some(Archive::Parquet),
        "db" | "sqlite" | "sqlite3" => Some(Archive::Sqlite),
        _ => None,
    }
}

/// By their names: what is being written has another one.
fn directory(place: &Path, found: &mut Found) {
    let entries = match fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) => {
            found.problems.push(format!("{}: it cannot be read: {error}", place.display()));
            return;
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        match by_name(&path) {
            _ if hidden => {}
            _ if path.is_dir() => directory(&path, found),
            Some(make) => found.archives.push(make(path)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_known_by_content_or_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let write = |name: &str, content: &[u8]| fs::write(path(name), content).unwrap();
        fs::create_dir(path("eth")).unwrap();
        write("a.parquet", b"PAR1 and so on");
        write("eth/b.parquet", b"");
        write("c.db", b"SQLite format 3\0 and so on");
        write("renamed.2026", b"SQLite format 3\0 and so on");
        write(".d.parquet", b"half");
        write("e.parquet.tmp", b"half");
        write("flowlog.log", b"no archive at all");
        let parquet = |name: &str| Archive::Parquet(path(name));
        let sqlite = |name: &str| Archive::Sqlite(path(name));
        let found = find(&[directory.path().to_owned()]);
        let all = [parquet("a.parquet"), parquet("eth/b.parquet"), sqlite("c.db")];
        assert_eq!((&found.archives[..], &found.problems[..]), (&all[..], &[][..]));
        let found = find(&["renamed.2026", "flowlog.log", "gone", "c.db", "c.db"].map(path));
        assert_eq!(found.archives, [sqlite("c.db"), sqlite("renamed.2026")]);
        let [log, gone] = &found.problems[..] else { panic!("{:?}", found.problems) };
        assert!(
            log.ends_with("flowlog.log: it is neither a file of Parquet nor a database of SQLite")
        );
        assert!(gone.contains("gone: it cannot be read: No such file"), "{gone}");
        fs::create_dir(path("empty")).unwrap();
        assert!(find(&[path("empty")]).problems[0].ends_with("empty: there is no archive in it"));
    }

    #[test]
    fn a_configuration_tells_where_archives_are() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("flowlog.conf");
        let of = |text: &str| {
            fs::write(&file, text).unwrap();
            configured(&file)
        };
        let text = "[global]\nstack=ct1:NFCT,db1:SQLITE3\nstack=ct1:NFCT,db2:SQLITE3\n[ct1]\n\
                    [db1]\ndb=\"/var/a.db\"\n[db2]\ndb=\"/var/b.db\"\n";
        assert_eq!(of(text), Ok(vec!["/var/a.db".into(), "/var/b.db".into()]));
        let none =
            of("[global]\nstack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n[ct1]\n");
        assert!(none.unwrap_err().contains("has no stack that writes one: name a directory"));
        assert!(
            of("[global]\nstack=ct1:NFCT,x1:NOTHING\n").unwrap_err().contains("cannot be used")
        );
    }
}
