//! What librdkafka reports of messages and brokers, for the worker that waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tracing::debug;

/// What went wrong, and the reason that was reported before.
pub(super) type Failure = (RDKafkaErrorCode, Option<String>);

/// Messages that are settled, and what went wrong.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Messages that were acknowledged, or have failed.
    settled: u64,
    /// How many callbacks have run.
    callbacks: u64,
    /// Why the first one failed.
    failed: Option<RDKafkaErrorCode>,
    /// No broker can be reached.
    down: bool,
    /// The last error that was no message's.
    reason: Option<(RDKafkaErrorCode, String)>,
}

impl Ledger {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last error that was no message's.
    pub(super) fn reason(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.state().reason.clone()
    }

    /// A broker has answered; what was wrong before is so no longer.
    pub(super) fn up(&self) {
        let mut state = self.state();
        (state.down, state.reason) = (false, None);
    }

    /// How many callbacks have run.
    pub(super) fn callbacks(&self) -> u64 {
        self.state().callbacks
    }

    /// No broker can be reached.
    pub(super) fn is_down(&self) -> bool {
        self.state().down
    }

    /// Whether that many messages in all are acknowledged; absent while they are not. A producer
    /// without brokers is given up: whether they come back is found out by a new one.
    pub(super) fn settled(&self, sent: u64) -> Option<Result<(), Failure>> {
        let state = self.state();
        let reason = state.reason.clone();
        if let Some(code) = state.failed {
            return Some(Err((code, reason.map(|(_, text)| text))));
        }
        if state.down {
            let (code, text) = reason.unzip();
            return Some(Err((code.unwrap_or(RDKafkaErrorCode::AllBrokersDown), text)));
        }
        (state.settled >= sent).then_some(Ok(()))
    }
}

/// librdkafka's end of a ledger.
pub(super) struct Context(pub(super) Arc<Ledger>);

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, delivered: &DeliveryResult<'_>, (): ()) {
        let Self(ledger) = self;
        let mut state = ledger.state();
        state.callbacks += 1;
        state.settled += 1;
        if let Err((error, _)) = delivered {
            state.failed = state.failed.or(error.rdkafka_error_code());
        }
    }
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        let Self(ledger) = self;
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let mut state = ledger.state();
        state.callbacks += 1;
        match code {
            // The reason came before it, broker by broker.
            RDKafkaErrorCode::AllBrokersDown => state.down = true,
            // An idempotent producer that has lost its way is of no use any more.
            RDKafkaErrorCode::Fatal => state.failed = Some(code),
            _ => {}
        }
        // That nobody is left, or has hung up, is not why.
        let why = match &state.reason {
            None => true,
            Some((RDKafkaErrorCode::Authentication, _)) => false,
            Some(_) => code != RDKafkaErrorCode::AllBrokersDown,
        };
        if why {
            state.reason = Some((code, reason.to_owned()));
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        debug!("librdkafka: {facility}: {message}");
        let Self(ledger) = self;
        let mut state = ledger.state();
        state.callbacks += 1;
        // That a broker has hung up is logged only; an error comes after its line.
        if facility == "FAIL" {
            let reason = message.split_once("]: ").map_or(message, |(_thread, reason)| reason);
            let code = RDKafkaErrorCode::BrokerTransportFailure;
            state.reason.get_or_insert_with(|| (code, reason.to_owned()));
        }
    }
}
