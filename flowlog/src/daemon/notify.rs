//! Notifications of the service manager (sd_notify(3)). Its socket may be full, and a send there
//! waits: it has a thread of its own.

use std::sync::mpsc::{self, SyncSender, TrySendError};

use caps::CapSet;
use sd_notify::NotifyState;
use tracing::warn;

use super::thread::spawn_without_signals;

/// Messages that wait. Of the watchdog's the last one is enough.
const QUEUE: usize = 4;

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Events are read.
    Ready,
    /// The loop turns.
    Alive,
}

impl Word {
    fn state(self) -> NotifyState<'static> {
        match self {
            Self::Ready => NotifyState::Ready,
            Self::Alive => NotifyState::Watchdog,
        }
    }
}

/// Tells the service manager, if there is one; clones tell the same one.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<SyncSender<Word>>);

impl Notifier {
    /// The one that the environment names.
    pub fn of_environment() -> Self {
        // Without a service manager there is nobody to tell, which is no fault.
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Self::default();
        }
        Self::sending(|word| {
            if let Err(error) = sd_notify::notify(&[word.state()]) {
                warn!("the service manager does not hear that flowlog runs: {error}");
            }
        })
    }

    fn sending(send: impl Fn(Word) + Send + 'static) -> Self {
        let (sender, words) = mpsc::sync_channel(QUEUE);
        let run = move || {
            // It only writes to a socket. Where it has none there is nothing to give up.
            for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
                let _ = caps::clear(None, set);
            }
            words.into_iter().for_each(send);
        };
        match spawn_without_signals("notify", run) {
            Ok(_) => Self(Some(sender)),
            Err(why) => {
                warn!("the thread notify cannot be started: {why}; raise the limit of tasks");
                Self::default()
            }
        }
    }

    /// Says it soon. What the service manager does not take is not kept.
    pub fn say(&self, word: Word) {
        let Self(Some(words)) = self else { return };
        match words.try_send(word) {
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_manager_that_does_not_read_is_not_waited_for() {
        let (read, may_read) = mpsc::channel::<()>();
        let (said, heard) = mpsc::channel();
        let notifier = Notifier::sending(move |word| {
            let _ = may_read.recv();
            said.send(word).unwrap();
        });
        notifier.say(Word::Ready);
        (0..100).for_each(|_| notifier.say(Word::Alive));
        drop(read);
        drop(notifier);
        let heard: Vec<Word> = heard.iter().collect();
        assert_eq!(heard[0], Word::Ready);
        assert!((QUEUE..=QUEUE + 1).contains(&heard.len()), "{heard:?}");
        Notifier::default().say(Word::Ready);
    }
}
