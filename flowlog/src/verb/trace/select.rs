//! Which events of a trace are shown. Addresses, protocols and the namespace are
//! looked at in the kernel; the rest here.

use super::kind::{Kind, Reason};
use crate::verb::watch;

/// What the command line selects. An empty list selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Kinds of events.
    pub kinds: Vec<Kind>,
    /// Addresses, protocols and ports.
    pub flows: watch::Selection,
    /// Why flows ended or did not begin: nothing else is shown then.
    pub reasons: Vec<Reason>,
}

impl Selection {
    /// This kind is wanted.
    pub(super) fn wants(&self, kind: Kind) -> bool {
        self.kinds.is_empty() || self.kinds.contains(&kind)
    }

    /// Refuses what selects nothing.
    pub(super) fn check(&self) -> Result<(), String> {
        let fits = |reason: &Reason| match reason {
            Reason::End(_) => self.wants(Kind::Destroy),
            Reason::Refusal(_) => self.wants(Kind::Refused) || self.wants(Kind::Full),
        };
        match self.reasons.iter().find(|reason| !fits(reason)) {
            Some(reason) => {
                let kinds = match reason {
                    Reason::End(_) => "destroy",
                    Reason::Refusal(_) => "refused,full",
                };
                Err(format!(
                    "`--cause {}` is about what `--event` leaves out; add {kinds} to --event, or \
                     leave it out",
                    reason.name()
                ))
            }
            None => Ok(()),
        }
    }
}

#[cfg(feature = "ebpf")]
impl Selection {
    /// Whether it is shown.
    pub(super) fn shows(
        &self,
        kind: Kind,
        reason: Option<Reason>,
        subject: &super::told::Subject<'_>,
    ) -> bool {
        use super::told::Subject;
        let tuples = match subject {
            Subject::Flow(event) => [&event.flow.orig, &event.flow.reply],
            Subject::Expectation(expectation) => [&expectation.tuple, &expectation.master],
        };
        let reasons = &self.reasons;
        self.wants(kind)
            && (reasons.is_empty() || reason.is_some_and(|reason| reasons.contains(&reason)))
            && self.flows.has(tuples[0])
            && self.flows.has_port(tuples)
    }
}

#[cfg(feature = "ebpf")]
#[cfg(test)]
mod tests {
    use super::super::kind::Refusal;
    use super::super::told::Subject;
    use super::*;
    use crate::event::{Cause, Kinds};
    use crate::verb::watch::tests::{expectation, tcp};

    const RULESET: Reason = Reason::Refusal(Refusal::Ruleset);

    #[test]
    fn kinds_causes_and_ports() {
        let event = tcp(Kinds::NEW);
        let flow = Subject::Flow(&event);
        let all = Selection::default();
        assert!(all.shows(Kind::New, None, &flow) && all.shows(Kind::Full, Some(RULESET), &flow));
        let refused = Selection { kinds: vec![Kind::Refused], ..Selection::default() };
        assert!(refused.shows(Kind::Refused, None, &flow));
        assert!(!refused.shows(Kind::New, None, &flow));
        let ruleset = Selection { reasons: vec![RULESET], ..Selection::default() };
        assert!(ruleset.shows(Kind::Refused, Some(RULESET), &flow));
        let deleted = Some(Reason::End(Cause::Deleted));
        assert!(!ruleset.shows(Kind::Destroy, deleted, &flow));
        assert!(!ruleset.shows(Kind::New, None, &flow));
        let ports = |ports| watch::Selection { ports, ..watch::Selection::default() };
        let by_port = Selection { flows: ports(vec![8080]), ..Selection::default() };
        assert!(by_port.shows(Kind::New, None, &flow));
        let expected = expectation();
        assert!(!by_port.shows(Kind::Expect, None, &Subject::Expectation(&expected)));
        let master = Selection { flows: ports(vec![21]), ..Selection::default() };
        assert!(master.shows(Kind::Expect, None, &Subject::Expectation(&expected)));
    }

    #[test]
    fn a_cause_of_what_is_left_out_is_refused() {
        let new = Selection { kinds: vec![Kind::New], ..Selection::default() };
        let wanted = Selection { reasons: vec![RULESET], ..new.clone() };
        assert!(wanted.check().unwrap_err().contains("add refused,full to --event"));
        let wanted = Selection { reasons: vec![Reason::End(Cause::Reset)], ..new.clone() };
        assert!(wanted.check().unwrap_err().contains("`--cause reset`"));
        let kinds = vec![Kind::Full, Kind::Destroy];
        let reasons = vec![RULESET, Reason::End(Cause::Reset)];
        assert!(Selection { kinds, reasons, ..new }.check().is_ok());
    }
}
