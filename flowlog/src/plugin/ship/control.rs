//! What the engine tells the worker of a sink.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;

/// What the engine tells a worker.
#[derive(Clone, Debug)]
pub(super) struct Control {
    /// When to end at the latest, once it is to end.
    stop: watch::Sender<Option<Instant>>,
    reconnect: Arc<Notify>,
}

impl Default for Control {
    fn default() -> Self {
        Self { stop: watch::channel(None).0, reconnect: Arc::default() }
    }
}

impl Control {
    /// To end when nothing is left to deliver, or at `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
    }

    /// To connect anew.
    pub(super) fn reconnect(&self) {
        self.reconnect.notify_one();
    }

    /// Where the worker hears that it is to connect anew.
    pub(super) fn reconnect_asked(&self) -> Arc<Notify> {
        self.reconnect.clone()
    }

    /// Where the worker hears that it is to end, and until when.
    pub(super) fn stopping(&self) -> watch::Receiver<Option<Instant>> {
        self.stop.subscribe()
    }

    /// Resolves at the deadline, once there is one, or when nobody can set one any more.
    pub(super) fn over(&self) -> impl Future<Output = ()> + use<> {
        let mut stop = self.stop.subscribe();
        async move {
            let deadline = match stop.wait_for(Option::is_some).await {
                Ok(deadline) => *deadline,
                Err(_) => None,
            };
            if let Some(deadline) = deadline {
                sleep_until(deadline.into()).await;
            }
        }
    }
}
