//! `flowlog check`: the configuration, then the host as that configuration
//! needs it; each finding with its remedy.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use nix::unistd::{AccessFlags, access};
use serde_json::{Value, json};

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::{self, Config, Source, Stage};
use crate::daemon::privileges::{self, Target};
use crate::kernel::{self, Finding, State};
use crate::plugin::output::{Address, Destination};
use crate::plugin::pgsql;
use crate::plugin::ship::Trouble;
use crate::plugin::sqlite3::{self, Schema};

use self::lines::Judged;
use super::reopening::{self, Refused, When};

#[cfg(feature = "ebpf")]
mod ebpf;
mod lines;
mod names;

/// Exit code when the host stands in the way.
const PROBLEM: u8 = 1;
/// Exit code when the configuration is refused.
const CONFIGURATION: u8 = 2;

/// Checks the configuration in `file` and this host, and prints what was found:
/// lines, or one JSON object.
///
/// The exit code is 2 when the configuration has errors or unknown names, 1 when
/// the host has a problem, else 0.
///
/// # Errors
/// Standard output cannot be written to; a closed pipe is no error.
pub fn run(file: &Path, json: bool, user: Option<&str>) -> anyhow::Result<ExitCode> {
    let user = user.map(privileges::look_up).transpose()?;
    let outcome = config::load(file);
    let mut host = host(outcome.config.as_ref());
    #[cfg(feature = "ebpf")]
    host.extend(ebpf::findings(outcome.config.as_ref()));
    if let Some(config) = &outcome.config {
        host.extend(names::findings(config));
        host.extend(user.iter().flat_map(|user| reopened_by(config, user)));
    }
    let exit = exit_code(&outcome.diagnostics, &host);
    let lines = lines::judge(&outcome);
    let text = if json {
        format!("{}\n", as_json(&outcome.diagnostics, &lines, &host, exit))
    } else {
        as_text(file, &outcome.diagnostics, &lines, &host)
    };
    print(&text).context("standard output cannot be written to")?;
    Ok(ExitCode::from(exit))
}

/// Writes to standard output; a reader that has gone away has read enough.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The findings of each namespace that the configuration watches.
fn host(config: Option<&Config>) -> Vec<Finding> {
    let Some(config) = config else { return kernel::findings(None, &[]) };
    let mut namespaces: BTreeMap<Option<PathBuf>, Vec<Source>> = BTreeMap::new();
    for source in &config.sources {
        namespaces.entry(source.netns.path().map(Path::to_owned)).or_default().push(source.clone());
    }
    let mut findings = files(config);
    findings.extend(config.ships().then(|| spool(&config.spool.directory)));
    for (netns, sources) in &namespaces {
        for finding in kernel::findings(netns.as_deref(), sources) {
            // What concerns the whole host is told once.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

/// Whether the files that the stacks write can be opened, without opening them,
/// and whether somebody may listen at the sockets of this host.
fn files(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stage in config.stacks.iter().flat_map(|stack| &stack.stages) {
        let finding = match stage {
            Stage::LogEmu(settings) => Some(file(&settings.file)),
            Stage::Syslog(settings) => destination(&settings.output.destination),
            Stage::Json(settings) => destination(&settings.output.destination),
            Stage::Sqlite3(settings) => Some(database(&settings.db, &settings.table)),
            Stage::Parquet(settings) => {
                Some(directory("directory", &settings.archive.directory, "directory"))
            }
            Stage::Pgsql(settings) => pgsql(&settings.target),
            Stage::Kafka(settings) => secrets(&settings.shipping.id, settings.far.check()),
            Stage::Nats(settings) => secrets(&settings.shipping.id, settings.far.check()),
            // Of other hosts nothing is asked but their addresses, see `names`.
            Stage::Clickhouse(_)
            | Stage::Ipfix(_)
            | Stage::Ip2Str
            | Stage::PrintFlow(_)
            | Stage::Filter(_) => None,
        };
        findings.extend(finding.filter(|finding| !findings.contains(finding)));
    }
    findings
}

/// Which outputs `user` could not open anew.
fn reopened_by(config: &Config, user: &Target) -> Vec<Finding> {
    const NAME: &str = "user";
    match reopening::refused(config, user, When::BeforeStart) {
        Ok(refused) if refused.is_empty() => {
            vec![Finding::ok(NAME, format!("{user} can open all files anew"))]
        }
        Ok(refused) => refused
            .into_iter()
            .map(|Refused { what, remedy }| Finding::warning(NAME, what, remedy))
            .collect(),
        Err(error) => vec![Finding::warning(
            NAME,
            format!("what {user} may write cannot be looked at: {error}"),
            "ask as root",
        )],
    }
}

/// Whether the files that say who flowlog is, and whom it trusts, are of use.
fn secrets(id: &str, result: Result<(), Trouble>) -> Option<Finding> {
    let trouble = result.err()?;
    Some(Finding::problem(
        "files",
        format!("[{id}]: {trouble}"),
        "correct it, or flowlog does not start",
    ))
}

/// Of other hosts nothing is asked: a check sends nothing.
fn destination(destination: &Destination) -> Option<Finding> {
    match destination {
        Destination::File { path, sync: _ } => Some(file(path)),
        Destination::Socket(Address::UnixStream(path) | Address::UnixDatagram(path)) => {
            Some(socket(path))
        }
        Destination::Socket(Address::Tcp(..) | Address::Udp(..)) => None,
    }
}

/// Of a server nothing is asked; its socket on this host, and files, can be looked at.
fn pgsql(target: &pgsql::Target) -> Option<Finding> {
    if let Some(path) = target.socket() {
        return Some(socket(&path));
    }
    let trouble = target.tls.as_ref()?.client_config().err()?;
    Some(Finding { name: "tls", state: State::Problem, what: trouble.to_string(), remedy: None })
}

fn socket(path: &Path) -> Finding {
    const NAME: &str = "socket";
    const REMEDY: &str = "start what listens there; records wait until then";
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            Finding::ok(NAME, format!("{shown} is there"))
        }
        Ok(_) => Finding::problem(NAME, format!("{shown} is no socket"), "name another one"),
        Err(error) => Finding::warning(NAME, format!("{shown} is not there: {error}"), REMEDY),
    }
}

/// A file with files beside it, and which tables of it are written.
fn database(path: &Path, table: &str) -> Finding {
    const NAME: &str = "database";
    let file = file(path);
    if file.state == State::Problem {
        return Finding { name: NAME, ..file };
    }
    let shown = path.display();
    let awaited = |what: &str, remedy: &str| {
        let what = format!("{shown} cannot be written now: {what}");
        Finding::warning(NAME, format!("{what}; flowlog starts and awaits it"), remedy)
    };
    let is_new = !path.metadata().is_ok_and(|found| found.len() > 0);
    let found = if is_new { Ok(Schema::Own) } else { sqlite3::look(path, table) };
    match (found, sqlite3::obstacle(path)) {
        (Err(failure), _) if failure.may_pass(path) => {
            let (what, remedy) = failure.parts();
            awaited(what, remedy)
        }
        (Err(failure), _) => {
            let (what, remedy) = failure.parts();
            Finding::problem(NAME, format!("{shown} cannot be used: {what}"), remedy)
        }
        (Ok(_), Some((what, remedy))) => awaited(&what, remedy),
        (Ok(Schema::Ulogd(found)), None) => Finding::ok(
            NAME,
            format!("{shown}: the {} columns of its table {table} are written", found.columns()),
        ),
        (Ok(Schema::Own), None) if table.is_empty() || is_new => Finding::ok(NAME, file.what),
        (Ok(Schema::Own), None) => Finding::warning(
            NAME,
            format!("{shown} has no table {table}: flowlog's own tables are written"),
            "make the table if you want it, or remove `table=`",
        ),
    }
}

/// Where records wait for what is away.
fn spool(path: &Path) -> Finding {
    const NAME: &str = "spool";
    let found = directory(NAME, path, "spool_dir");
    // Also of a file that is not there yet.
    match sqlite3::obstacle(&path.join("spool.db")) {
        Some((what, remedy)) if found.state == State::Ok => Finding::warning(
            NAME,
            format!(
                "the spool in {} cannot be written now: {what}; flowlog starts and awaits it",
                path.display()
            ),
            remedy,
        ),
        _ => found,
    }
}

/// A directory that is made if it is missing, and which key names it.
fn directory(name: &'static str, path: &Path, key: &str) -> Finding {
    let remedy = || format!("make it, writable for flowlog's user, or name another with `{key}=`");
    let shown = path.display();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let place = if path.exists() { path } else { parent.unwrap_or(Path::new(".")) };
    let usable = access(place, AccessFlags::W_OK | AccessFlags::X_OK);
    match usable {
        Ok(()) if !place.is_dir() => {
            Finding::problem(name, format!("{} is no directory", place.display()), remedy())
        }
        Ok(()) if place == path => Finding::ok(name, format!("{shown} can be written")),
        Ok(()) => Finding::ok(name, format!("{shown} will be made")),
        Err(error) => Finding::problem(
            name,
            format!("{shown} cannot be written, because of {}: {}", place.display(), error.desc()),
            remedy(),
        ),
    }
}

fn file(path: &Path) -> Finding {
    const NAME: &str = "file";
    let shown = path.display();
    let (place, rights) = if path.exists() {
        (path, AccessFlags::W_OK)
    } else {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        (parent.unwrap_or(Path::new(".")), AccessFlags::W_OK | AccessFlags::X_OK)
    };
    match access(place, rights) {
        Ok(()) if path.metadata().is_ok_and(|found| found.file_type().is_fifo()) => Finding::ok(
            NAME,
            format!(
                "{shown} is a FIFO: records wait in buffer_max_bytes while it has no reader, and \
                 are then lost and counted"
            ),
        ),
        Ok(()) if path.is_dir() => Finding::problem(
            NAME,
            format!("{shown} is a directory"),
            "name a file in it with `file=`",
        ),
        Ok(()) => Finding::ok(NAME, format!("{shown} can be written")),
        Err(error) => Finding::problem(
            NAME,
            format!("{shown} cannot be written, because of {}: {}", place.display(), error.desc()),
            "make the directory and make it writable, or name another file with `file=`",
        ),
    }
}

fn exit_code(diagnostics: &[Diagnostic], host: &[Finding]) -> u8 {
    if configuration_state(diagnostics) == State::Problem {
        CONFIGURATION
    } else if host.iter().any(|finding| finding.state == State::Problem) {
        PROBLEM
    } else {
        0
    }
}

/// What concerns the file as a whole, its lines, and the host.
fn as_text(file: &Path, diagnostics: &[Diagnostic], lines: &[Judged], host: &[Finding]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics.iter().filter(|diagnostic| diagnostic.line.is_none()) {
        text.push_str(&format!("{diagnostic}\n"));
    }
    let shown = file.display();
    for Judged { number, text: said, verdict, what } in lines {
        let colon = if what.is_empty() { "" } else { ": " };
        text.push_str(&format!("{shown}:{number}: {:<7}  {said}{colon}{what}\n", verdict.name()));
    }
    if !lines.is_empty() {
        let state = configuration_state(diagnostics);
        let what = format!("{shown} has {}", lines::counts(lines));
        text.push_str(&line(state, "configuration", &what, None));
    }
    for Finding { name, state, what, remedy } in host {
        text.push_str(&line(*state, name, what, remedy.as_deref()));
    }
    text
}

fn configuration_state(diagnostics: &[Diagnostic]) -> State {
    if diagnostics.iter().any(|d| d.severity != Severity::Note) {
        State::Problem
    } else if diagnostics.is_empty() {
        State::Ok
    } else {
        State::Warning
    }
}

fn line(state: State, name: &str, what: &str, remedy: Option<&str>) -> String {
    let remedy = remedy.map(|remedy| format!("; {remedy}")).unwrap_or_default();
    format!("{:<7}  {name}: {what}{remedy}\n", state.name())
}

fn as_json(diagnostics: &[Diagnostic], lines: &[Judged], host: &[Finding], exit: u8) -> Value {
    let configuration: Vec<Value> = diagnostics
        .iter()
        .map(|Diagnostic { severity, file, line, message }| {
            let severity = match severity {
                Severity::Note => "note",
                Severity::Unknown => "unknown",
                Severity::Error => "error",
            };
            json!({
                "file": file.to_string_lossy(),
                "line": line,
                "severity": severity,
                "message": message,
            })
        })
        .collect();
    let lines: Vec<Value> = lines
        .iter()
        .map(|Judged { number, text, verdict, what }| {
            json!({ "line": number, "text": text, "verdict": verdict.name(), "what": what })
        })
        .collect();
    let host: Vec<Value> = host
        .iter()
        .map(|Finding { name, state, what, remedy }| {
            json!({ "name": name, "state": state.name(), "what": what, "remedy": remedy })
        })
        .collect();
    json!({ "configuration": configuration, "lines": lines, "host": host, "exit": exit })
}

#[cfg(test)]
mod tests {
    use super::lines::Verdict;
    use super::*;

    fn diagnostic(severity: Severity) -> Diagnostic {
        Diagnostic {
            severity,
            file: "f.conf".into(),
            line: Some(3),
            message: "what; do this".to_owned(),
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_found_before_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let state = |path: &Path| file(path).state;
        assert_eq!(state(&directory.path().join("flow.log")), State::Ok);
        assert_eq!(state(&directory.path().join("missing/flow.log")), State::Problem);
        assert_eq!(state(directory.path()), State::Problem);
        assert_eq!(state(Path::new("/dev/null")), State::Ok);
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(file(&fifo).what.contains("while it has no reader"), "{}", file(&fifo).what);
        let found = file(&directory.path().join("missing/flow.log"));
        assert!(found.what.contains("missing: No such file"), "{}", found.what);
    }

    #[test]
    fn a_spool_that_is_locked_is_awaited_and_one_without_a_directory_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        assert_eq!(spool(&path).state, State::Ok);
        let found = spool(&path.join("missing"));
        assert!(found.state == State::Problem && found.remedy.unwrap().contains("`spool_dir=`"));
        std::fs::create_dir(&path).unwrap();
        let file = std::fs::File::create(path.join("spool.db")).unwrap();
        // As SQLite does, but so that it stays when this process closes the file elsewhere.
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0x4000_0001,
            l_len: 1,
            l_pid: 0,
        };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_OFD_SETLK(&lock)).unwrap();
        let found = spool(&path);
        assert_eq!(found.state, State::Warning);
        assert!(found.what.contains("holds its lock; flowlog starts and awaits it"), "{found:?}");
    }

    #[test]
    fn a_socket_that_is_none_is_found_before_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        assert_eq!(socket(&path).state, State::Warning);
        std::fs::write(&path, "").unwrap();
        assert_eq!(socket(&path).state, State::Problem);
        std::fs::remove_file(&path).unwrap();
        let _listener = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert_eq!(socket(&path).state, State::Ok);
    }

    fn finding(state: State) -> Finding {
        Finding { name: "events", state, what: "off".to_owned(), remedy: Some("on".to_owned()) }
    }

    #[test]
    fn the_configuration_outranks_the_host() {
        let problem = [finding(State::Problem)];
        assert_eq!(exit_code(&[diagnostic(Severity::Error)], &problem), 2);
        assert_eq!(exit_code(&[diagnostic(Severity::Unknown)], &[]), 2);
        assert_eq!(exit_code(&[diagnostic(Severity::Note)], &problem), 1);
        assert_eq!(exit_code(&[], &[finding(State::Warning)]), 0);
    }

    fn judged(verdict: Verdict, what: &str) -> Judged {
        Judged { number: 3, text: "sync=1".to_owned(), verdict, what: what.to_owned() }
    }

    #[test]
    fn lines_name_state_thing_and_remedy() {
        let text = as_text(
            Path::new("f.conf"),
            &[diagnostic(Severity::Note)],
            &[judged(Verdict::Note, "what; do this"), judged(Verdict::Taken, "")],
            &[finding(State::Warning), finding(State::Ok)],
        );
        assert_eq!(
            text,
            "f.conf:3: note     sync=1: what; do this\n\
             f.conf:3: taken    sync=1\n\
             warning  configuration: f.conf has 1 taken, 1 note\n\
             warning  events: off; on\nok       events: off; on\n"
        );
        let nowhere = Diagnostic { line: None, ..diagnostic(Severity::Error) };
        let text = as_text(Path::new("f.conf"), &[nowhere], &[], &[]);
        assert_eq!(text, "f.conf: what; do this\n");
    }

    #[test]
    fn json_is_one_object() {
        let value = as_json(
            &[diagnostic(Severity::Unknown)],
            &[judged(Verdict::Unknown, "what")],
            &[finding(State::Problem)],
            2,
        );
        assert_eq!(
            value.to_string(),
            r#"{"configuration":[{"file":"f.conf","line":3,"severity":"unknown","message":"what; do this"}],"lines":[{"line":3,"text":"sync=1","verdict":"unknown","what":"what"}],"host":[{"name":"events","state":"problem","what":"off","remedy":"on"}],"exit":2}"#
        );
    }
}
