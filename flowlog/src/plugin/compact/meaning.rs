//! What the numbers of a record mean, both ways.

use super::{Action, Cause, Record, Witness};
use crate::event::{self, ExpectAction};
use crate::flow::names;

impl Record {
    /// Why the connection ended; absent: not known, or it has not.
    pub fn ended_by(&self) -> Option<event::Cause> {
        let index = usize::try_from(self.cause).ok()?.checked_sub(1)?;
        event::Cause::ALL.get(index).copied()
    }

    /// What happened to the expectation; absent: it is about none.
    pub fn done(&self) -> Option<ExpectAction> {
        match self.action() {
            Action::Unspecified => None,
            Action::New => Some(ExpectAction::New),
            Action::Update => Some(ExpectAction::Update),
            Action::Destroy => Some(ExpectAction::Destroy),
        }
    }

    /// Which sources told it.
    pub fn told_by(&self) -> event::Witness {
        match self.witness() {
            Witness::Unspecified => event::Witness::Single,
            Witness::Both => event::Witness::Both,
            Witness::Ebpf => event::Witness::Ebpf,
            Witness::Healed => event::Witness::Healed,
        }
    }

    /// The name of the state of its protocol, if that has one.
    pub fn state_name(&self) -> Option<&'static str> {
        let protocol = u8::try_from(self.protocol.unwrap_or_default()).ok()?;
        names::state(protocol, u8::try_from(self.state?).ok()?)
    }
}

impl From<event::Cause> for Cause {
    fn from(cause: event::Cause) -> Self {
        match cause {
            event::Cause::ExpiredGc => Self::ExpiredGc,
            event::Cause::ExpiredLookup => Self::ExpiredLookup,
            event::Cause::EarlyDrop => Self::EarlyDrop,
            event::Cause::Deleted => Self::Deleted,
            event::Cause::Flushed => Self::Flushed,
            event::Cause::NetnsGone => Self::NetnsGone,
            event::Cause::TcpReopened => Self::TcpReopened,
            event::Cause::Reset => Self::Reset,
            event::Cause::NatClash => Self::NatClash,
            event::Cause::Lost => Self::Lost,
            event::Cause::Other => Self::Other,
        }
    }
}

impl From<event::Witness> for Witness {
    fn from(witness: event::Witness) -> Self {
        match witness {
            event::Witness::Single => Self::Unspecified,
            event::Witness::Both => Self::Both,
            event::Witness::Ebpf => Self::Ebpf,
            event::Witness::Healed => Self::Healed,
        }
    }
}

impl From<ExpectAction> for Action {
    fn from(action: ExpectAction) -> Self {
        match action {
            ExpectAction::New => Self::New,
            ExpectAction::Update => Self::Update,
            ExpectAction::Destroy => Self::Destroy,
        }
    }
}
