//! The network namespace of a source that names one (`netns=NAME`): whether the
//! name still stands for the namespace that is captured. Where another one has
//! taken its place, the source is opened anew in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::warn;

use super::Opened;
use crate::config;
use crate::log::notice;
use crate::netns::{self, Identity, NetnsError};
use crate::stats::Stats;

/// Between two looks at the file.
const LOOK: Duration = Duration::from_secs(1);
/// Between two attempts to enter a namespace that could not be entered.
const RETRY: Duration = Duration::from_secs(10);

/// A named namespace, as last seen.
pub struct Place {
    source: config::Source,
    stats: Stats,
    path: PathBuf,
    /// The namespace that is captured.
    captured: Identity,
    state: State,
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
        Some(Self {
            source: source.clone(),
            stats: stats.clone(),
            path: netns::resolve(source.netns.path()?),
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

    /// Looks at the file; returns what was opened in a namespace that has taken
    /// the place of the one that is captured.
    pub fn look(&mut self, now: Instant) -> Option<Opened> {
        if now < self.due {
            return None;
        }
        self.due = now + LOOK;
        match Identity::of(&self.path) {
            Ok(Some(found)) if found == self.captured => self.same(),
            Ok(Some(_)) if self.is_of_a_process() => self.gone(),
            Ok(Some(other)) => return self.enter(other, now),
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

    /// What is amiss, and what to do.
    pub fn trouble(&self) -> Option<String> {
        let path = self.path.display();
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

    fn enter(&mut self, other: Identity, now: Instant) -> Option<Opened> {
        match &self.state {
            State::Barred { other: before, retry, .. } if *before == other && now < *retry => {
                return None;
            }
            State::Barred { .. } | State::Same | State::Gone => {}
        }
        let opened = super::open(&self.source, &self.stats);
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
        let known = matches!(&self.state, State::Barred { other: before, .. } if *before == other);
        self.state = State::Barred { other, why, retry: now + RETRY };
        if let (false, Some(trouble)) = (known, self.trouble()) {
            warn!("[{}] {trouble}", self.source.id);
        }
        None
    }
}

/// Nothing stands there.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Why a namespace could not be entered, without its name and remedy.
fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref::<NetnsError>() {
        Some(NetnsError::Open { cause, .. } | NetnsError::Enter { cause, .. }) => cause.to_string(),
        Some(NetnsError::Return { .. }) | None => error.root_cause().to_string(),
    }
}
