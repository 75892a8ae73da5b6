//! What NATS and its client say when something fails → what is wrong, and the remedy.

use std::error::Error as _;
use std::io;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, PublishError, PublishErrorKind,
};
use async_nats::jetstream::{Error as Refusal, ErrorCode};
use async_nats::{ConnectError, ConnectErrorKind, Event, ServerError};

use super::{Auth, Far};
use crate::plugin::ship::{Trouble, tls};

/// What remedies speak of.
#[derive(Clone, Debug)]
pub(super) struct Remedies {
    /// NATS, and its servers.
    at: String,
    subject: String,
    stream: Option<String>,
    auth: Auth,
}

impl Remedies {
    pub(super) fn of(far: &Far, subject: &str) -> Self {
        Self {
            at: far.to_string(),
            subject: subject.to_owned(),
            stream: far.stream.clone(),
            auth: far.auth.clone(),
        }
    }

    /// No connection could be had.
    pub(super) fn connect(&self, error: &ConnectError) -> Trouble {
        let at = &self.at;
        if let Some(trouble) = tls::trouble(at, error) {
            return trouble;
        }
        let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let foreign = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::InvalidInput);
        match error.kind() {
            ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                self.unknown()
            }
            ConnectErrorKind::Tls => {
                Trouble::refused(format!("no TLS with {at}: {why}; see what its own log says"))
            }
            ConnectErrorKind::Dns => Trouble::passing(format!(
                "{at} cannot be looked up: {why}; see to the name servers, or write its address"
            )),
            ConnectErrorKind::TimedOut => Trouble::passing(format!(
                "nobody at {at} says within {} s that it is NATS; see that it is, usually at port \
                 4222, and that no firewall is in between",
                super::GREETING.as_secs()
            )),
            ConnectErrorKind::Io if foreign => Trouble::refused(format!(
                "{at}: what listens there is no NATS ({why}); name NATS's own port, usually \
                 4222"
            )),
            _ => Trouble::passing(format!(
                "{at} cannot be reached: {why}; start it, or name its servers with \
                 `server=`"
            )),
        }
    }

    fn unknown(&self) -> Trouble {
        let remedy = match &self.auth {
            Auth::Nobody => {
                "it wants to know who flowlog is: see `user=`, `token=`, `creds=`, \
                             `nkey=`"
            }
            Auth::Password(..) => "see `user=` and `pass=`",
            Auth::Token(_) => "see `token=`",
            Auth::Credentials(_) => "see the file in `creds=`, and whether it has expired",
            Auth::Nkey(_) => "see the seed in `nkey=`, and that its user is known there",
        };
        Trouble::refused(format!("{} does not let flowlog in: {remedy}", self.at))
    }

    pub(super) fn no_jetstream(&self) -> Trouble {
        Trouble::refused(format!(
            "{} has no JetStream, and could not keep a record: add `jetstream {{}}` to its \
             configuration, or start it with -js",
            self.at
        ))
    }

    /// The connection is of no use any more.
    pub(super) fn gone(&self) -> Trouble {
        Trouble::passing(format!("the connection to {} broke", self.at))
    }

    /// What the client's own task has noticed, if it is the end of the connection.
    pub(super) fn event(&self, event: &Event) -> Option<Trouble> {
        match event {
            Event::Disconnected | Event::Closed => Some(self.gone()),
            Event::ServerError(ServerError::AuthorizationViolation) => Some(self.unknown()),
            Event::ServerError(ServerError::Other(what)) if forbids(what) => {
                Some(Trouble::refused(format!(
                    "{} says: {what}; allow this user to publish to {} and to subscribe to \
                     _INBOX.>",
                    self.at, self.subject
                )))
            }
            Event::ServerError(error) => {
                Some(Trouble::passing(format!("{} says: {error}", self.at)))
            }
            _ => None,
        }
    }

    /// A stream could not be made.
    pub(super) fn make(&self, error: &CreateStreamError) -> Trouble {
        let stream = self.stream.as_deref().unwrap_or_default();
        match error.kind() {
            CreateStreamErrorKind::JetStream(refusal) => {
                let what = format!("{} does not make the stream {stream}", self.at);
                let trouble = Trouble::refused(format!(
                    "{what}: {}; make one for {} there, and set create_stream=0",
                    refusal, self.subject
                ));
                self.common(&refusal).unwrap_or(trouble)
            }
            CreateStreamErrorKind::JetStreamUnavailable => self.no_jetstream(),
            CreateStreamErrorKind::TimedOut => Trouble::passing(format!(
                "{} does not say whether it has the stream {stream}; allow this user to \
                 publish to $JS.API.STREAM.>, or set create_stream=0",
                self.at
            )),
            _ => Trouble::refused(format!("the stream {stream} cannot be made: {error}")),
        }
    }

    /// A message was not taken.
    pub(super) fn publish(&self, error: &PublishError) -> Trouble {
        let Self { at, subject, .. } = self;
        let refusal = error.source().and_then(|source| source.downcast_ref::<Refusal>());
        match (error.kind(), refusal) {
            (_, Some(refusal)) => self.refusal(refusal),
            (PublishErrorKind::StreamNotFound, _) => Trouble::refused(format!(
                "no stream of {at} takes {subject}: make one (`nats stream add --subjects \
                 {subject}`), or name it with `stream=` and set create_stream=1"
            )),
            (PublishErrorKind::MaxPayloadExceeded, _) => Trouble::refused(format!(
                "a record is too large for {at}: {}; raise max_payload there",
                error.source().map(ToString::to_string).unwrap_or_default()
            )),
            (PublishErrorKind::TimedOut, _) => Trouble::passing(format!(
                "{at} has not acknowledged a message for {} s; see its load and its disk",
                super::ACKNOWLEDGEMENT.as_secs()
            )),
            (PublishErrorKind::BrokenPipe, _) => self.gone(),
            (_, None) => Trouble::passing(format!("{at} does not take a message: {error}")),
        }
    }

    /// JetStream says why it does not take a message.
    fn refusal(&self, refusal: &Refusal) -> Trouble {
        let Self { at, subject, stream, .. } = self;
        let what = refusal;
        if let Some(trouble) = self.common(refusal) {
            return trouble;
        }
        match refusal.error_code() {
            ErrorCode::STREAM_NOT_MATCH => Trouble::refused(format!(
                "{subject} belongs to another stream of {at} than `stream={}` ({what}): \
                 name that one, or another subject",
                stream.as_deref().unwrap_or_default()
            )),
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => Trouble::refused(format!(
                "a record is too large for the stream of {subject} ({what}): raise its \
                 max-msg-size"
            )),
            ErrorCode::STREAM_SEALED => Trouble::refused(format!(
                "the stream of {subject} is sealed: make another one, and name it"
            )),
            // It has room again when others have taken messages from it, or somebody helps.
            ErrorCode::STREAM_STORE_FAILED => Trouble::passing(format!(
                "the stream of {subject} does not store a message ({what}): if it is full, raise \
                 its limits or let it discard old messages; if the disk is, make room"
            )),
            _ => Trouble::passing(format!("{at} does not take a message: {what}")),
        }
    }

    /// What may come of any request.
    fn common(&self, refusal: &Refusal) -> Option<Trouble> {
        let at = &self.at;
        let what = refusal;
        match refusal.error_code() {
            ErrorCode::JETSTREAM_NOT_ENABLED => Some(self.no_jetstream()),
            ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => Some(Trouble::refused(format!(
                "the account that flowlog has at {at} has no JetStream: enable it there"
            ))),
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
            | ErrorCode::MEMORY_RESOURCES_EXCEEDED
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Some(Trouble::passing(format!(
                "JetStream of {at} has no room: {what}; raise its limits (max_file_store), or \
                 remove messages"
            ))),
            _ => None,
        }
    }
}

fn forbids(what: &str) -> bool {
    what.to_ascii_lowercase().contains("permissions violation")
}
