//! `flowlog who`: who had this address and port at this time, by the archives
//! that PARQUET and SQLITE3 have written.

use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use self::answer::{Answer, Verdict};
use self::archives::{Archive, Found};
use self::asked::{Answers, Room, Trouble};
use self::parquet::{File, Opened, Search, Told};
use self::progress::Progress;
pub use self::question::{Question, Wanted};
pub use self::times::{Span, parse};
use super::check::print;
use crate::zone;

mod answer;
mod archives;
mod asked;
mod cover;
mod json;
mod parquet;
mod progress;
mod question;
mod record;
mod sqlite;
mod text;
mod times;

/// How long the check of a database may take, unless it may take any time. What takes longer is
/// named as not checked.
const CHECK: Duration = Duration::from_secs(2);

/// Exit codes, beside 2 for usage.
const NOTHING: u8 = 1;
const USAGE: u8 = 2;
const INCOMPLETE: u8 = 3;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is asked.
    pub question: Question,
    /// Directories and files; none: those of the configuration.
    pub archives: Vec<PathBuf>,
    /// The configuration.
    pub config: PathBuf,
    /// One JSON object instead of lines.
    pub json: bool,
    /// Records that are looked at, at most.
    pub limit: usize,
    /// Databases are checked as a whole, however long that takes.
    pub verify: bool,
}

/// Answers, on standard output.
///
/// The exit code is 0 if there is an answer, 1 if there was no such connection,
/// 2 if no archive is known, and 3 if nobody knows or what is known is not all.
pub fn run(options: &Options) -> ExitCode {
    let places = match options.archives.as_slice() {
        [] => match archives::configured(&options.config) {
            Ok(places) => places,
            Err(why) => {
                complain(&why);
                return ExitCode::from(USAGE);
            }
        },
        named => named.to_vec(),
    };
    if let Some(problem) = zone::problem() {
        complain(&problem);
    }
    let answer = ask(&places, options, io::stderr().is_terminal());
    for problem in &answer.problems {
        complain(problem);
    }
    let text = if options.json {
        format!("{}\n", json::object(&options.question, &answer))
    } else {
        text::answer(&options.question, &answer, zone::local().time_zone())
    };
    if let Err(error) = print(&text) {
        complain(&format!("standard output cannot be written to: {error}"));
        return ExitCode::from(INCOMPLETE);
    }
    match answer.verdict() {
        Verdict::Found => ExitCode::SUCCESS,
        Verdict::Nothing => ExitCode::from(NOTHING),
        Verdict::Incomplete => ExitCode::from(INCOMPLETE),
    }
}

fn complain(what: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "flowlog: {what}");
}

/// Asks what there is at those places.
fn ask(places: &[PathBuf], options: &Options, terminal: bool) -> Answer {
    let Found { archives, problems } = archives::find(places);
    let room = Room::new(options.limit);
    let work = Work {
        question: &options.question,
        check: (!options.verify).then_some(CHECK),
        room: &room,
        progress: Progress::default(),
        gathered: Mutex::new((Answers::new(&room), problems)),
    };
    thread::scope(|scope| {
        let (end, until) = mpsc::channel();
        if terminal {
            let progress = &work.progress;
            scope.spawn(move || progress.show(io::stderr(), &until));
        }
        work.all(archives);
        drop(end);
    });
    let (answers, mut problems) =
        work.gathered.into_inner().unwrap_or_else(PoisonError::into_inner);
    if answers.unreadable > 0 {
        problems.push(format!(
            "{} records make no sense, and are not in the answer",
            answers.unreadable
        ));
    }
    problems.sort();
    problems.dedup();
    let mut answer = Answer::new(&options.question, answers, problems);
    answer.more = room.was_too_small();
    answer
}

/// What all threads work at.
struct Work<'w> {
    question: &'w Question,
    /// How long the check of a database may take; absent: any time.
    check: Option<Duration>,
    room: &'w Room,
    progress: Progress,
    /// With what could not be asked, and why.
    gathered: Mutex<(Answers<'w>, Vec<String>)>,
}

impl<'w> Work<'w> {
    fn all(&self, archives: Vec<Archive>) {
        let opened = self.each(archives, |archive, answers| match archive {
            Archive::Parquet(path) => named(&path, File::open(&path, self.question, answers)),
            Archive::Sqlite(path) => {
                named(&path, sqlite::ask(&path, self.check, self.question, answers)).map(|_| None)
            }
        });
        let mut files: Vec<File> = opened.into_iter().flatten().collect();
        let told = files.iter().map(File::told).fold(Told::default(), Told::and);
        files.iter_mut().for_each(|file| file.narrow(self.question, told));
        let prepared = self.each(files, |file, _| {
            let path = file.path.clone();
            named(&path, file.prepare())
        });
        let searches: Vec<(&Opened, Search)> = prepared
            .iter()
            .flatten()
            .flat_map(|(opened, searches)| searches.iter().map(move |search| (opened, *search)))
            .collect();
        self.each(searches, |(opened, search), answers| {
            named(&opened.path, opened.search(search, self.question, answers))
        });
    }

    /// Does `work` for each item, on all processors.
    fn each<I: Send, O: Send>(
        &self,
        items: Vec<I>,
        work: impl Fn(I, &mut Answers<'w>) -> Result<O, String> + Sync,
    ) -> Vec<O> {
        self.progress.add(items.len());
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(items.len());
        let items = Mutex::new(items.into_iter());
        let done = Mutex::new(Vec::new());
        let one = || {
            let mut answers = Answers::new(self.room);
            let mut problems = Vec::new();
            loop {
                // Taken for a moment only.
                let Some(item) = locked(&items).next() else { break };
                let before = answers.records.len();
                match work(item, &mut answers) {
                    Ok(out) => locked(&done).push(out),
                    Err(problem) => problems.push(problem),
                }
                self.progress.done(answers.records.len() - before);
            }
            let mut gathered = locked(&self.gathered);
            gathered.0.append(answers);
            gathered.1.append(&mut problems);
        };
        thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(one);
            }
            one();
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is wrong with the archive at `path`, if anything is.
fn named<T>(path: &Path, result: Result<T, Trouble>) -> Result<Option<T>, String> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(Trouble::Enough) => Ok(None),
        Err(Trouble::Archive(why)) => Err(format!("{}: {why}", path.display())),
    }
}

#[cfg(test)]
mod tests;
