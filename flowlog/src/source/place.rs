//! The network namespace of a source that names one (`netns=NAME`): whether the
//! name still stands for the namespace that is captured. Where another one has
//! taken its place, the source is opened anew in it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::warn;

use super::Opened;
use super::lookout::{Lookout, Sight};
use crate::config;
use crate::log::notice;
use crate::netns::{self, Identity, NetnsError, is_absence};
use crate::stats::Stats;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// Between two attempts to enter a namespace that could not be entered.
const RETRY: Duration = Duration::from_secs(10);
/// Until the answer of a look is asked for again.
const SOON: Duration = Duration::from_millis(20);
/// A look that has had no answer for so long is named.
const LATE: Duration = Duration::from_secs(10);

/// A named namespace, as last seen.
pub struct Place {
    source: config::Source,
    stats: Stats,
    path: PathBuf,
    /// The namespace that is captured.
    captured: Identity,
    state: State,
    lookout: Lookout,
    due: Instant,
}

#[derive(Debug)]
enum State {
    /// The name stands for what is captured.
    Same,
    /// The name stands for nothing.
    Gone,
    /// It stands for another namespace, which could not be entered.
    Barred { other: Identity, why: String, retry: Instant },
}

impl Place {
    /// The namespace of a source that has just been opened; absent where it
    /// names none.
    pub fn of(source: &config::Source, opened: &Opened, stats: &Stats) -> Option<Self> {
        let path = netns::resolve(source.netns.path()?);
        Some(Self {
            source: source.clone(),
            stats: stats.clone(),
            lookout: Lookout::new(path.clone()),
            path,
            captured: opened.namespace?,
            state: State::Same,
            due: Instant::now() + LOOK,
        })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When [`Self::look`] is to be called.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Has the file looked at; returns what was opened in a namespace that has taken
    /// the place of the one that is captured.
    pub fn look(&mut self, now: Instant) -> Option<Opened> {
        if now < self.due {
            return None;
        }
        if let Some(sight) = self.lookout.poll() {
            self.due = now + LOOK;
            return self.take(sight, now);
        }
        if let Err(error) = self.lookout.ask(now) {
            warn!(
                "[{}] network namespace {} cannot be looked at: {error}; raise the limit of tasks",
                self.source.id,
                self.path.display()
            );
            self.due = now + RETRY;
            return None;
        }
        let quick = self.lookout.waits(now).is_some_and(|time| time < LOOK);
        self.due = now + if quick { SOON } else { LOOK };
        None
    }

    fn take(&mut self, sight: Sight, now: Instant) -> Option<Opened> {
        match sight {
            Ok(Some((found, _))) if found == self.captured => self.same(),
            Ok(Some(_)) if self.is_of_a_process() => self.gone(),
            Ok(Some((other, file))) => return self.enter(other, &file, now),
            Ok(None) => self.gone(),
            Err(error) if is_absence(&error) => self.gone(),
            // Another user may not look, which says nothing of the namespace.
            Err(_) => {}
        }
        None
    }

    /// The file is below /proc: another process may have got the number of one that has ended,
    /// and its namespace is none that anybody has named.
    fn is_of_a_process(&self) -> bool {
        self.path.starts_with("/proc")
    }

    /// The namespace is known to be the one that is captured.
    pub fn is_sure(&self, now: Instant) -> bool {
        let is_seen = self.lookout.waits(now).is_none_or(|time| time < LOOK);
        is_seen && matches!(self.state, State::Same)
    }

    /// What is amiss, and what to do.
    pub fn trouble(&self, now: Instant) -> Option<String> {
        let path = self.path.display();
        if let Some(time) = self.lookout.waits(now).filter(|time| *time >= LATE) {
            return Some(format!(
                "network namespace {path} cannot be looked at: its file system has not answered \
                 for {} s; what was captured last is still captured",
                time.as_secs()
            ));
        }
        match &self.state {
            State::Same => None,
            State::Gone => Some(format!(
                "network namespace {path} was removed; make it anew, or restart flowlog with \
                 another `netns=`"
            )),
            State::Barred { why, .. } => Some(format!(
                "network namespace {path} was made anew and cannot be entered: {why}; restart \
                 flowlog, or run it without -u and with CAP_SYS_ADMIN (in the unit \
                 AmbientCapabilities=, CapabilityBoundingSet=, RestrictNamespaces=net)"
            )),
        }
    }

    fn same(&mut self) {
        if !matches!(self.state, State::Same) {
            notice!("[{}] network namespace {} is back", self.source.id, self.path.display());
            self.state = State::Same;
        }
    }

    fn gone(&mut self) {
        if !matches!(self.state, State::Gone) {
            self.state = State::Gone;
            warn!(
                "[{}] network namespace {} was removed: what still runs in it is logged, and \
                 one that is made under this name will be entered",
                self.source.id,
                self.path.display()
            );
        }
    }

    fn enter(&mut self, other: Identity, file: &File, now: Instant) -> Option<Opened> {
        match &self.state {
            State::Barred { other: before, retry, .. } if *before == other && now < *retry => {
                return None;
            }
            State::Barred { .. } | State::Same | State::Gone => {}
        }
        // What may pass gets a second attempt before something less is taken.
        let last = matches!(&self.state, State::Barred { other: before, .. } if *before == other);
        let opened = super::open_in(file, &self.path, &self.source, &self.stats, last);
        let why = match opened {
            Ok(opened) => match opened.namespace {
                Some(namespace) => {
                    self.captured = namespace;
                    self.state = State::Same;
                    warn!(
                        "[{}] network namespace {} was made anew and has been entered: what \
                         happened in it before is lost",
                        self.source.id,
                        self.path.display()
                    );
                    return Some(opened);
                }
                None => "it has no number".to_owned(),
            },
            Err(error) => reason(&error),
        };
        self.state = State::Barred { other, why, retry: now + RETRY };
        if let (false, Some(trouble)) = (last, self.trouble(now)) {
            warn!("[{}] {trouble}", self.source.id);
        }
        None
    }
}

/// Why a namespace could not be entered, without its name and remedy.
fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref::<NetnsError>() {
        Some(NetnsError::Open { cause, .. } | NetnsError::Enter { cause, .. }) => cause.to_string(),
        Some(NetnsError::Return { .. }) | None => error.root_cause().to_string(),
    }
}
