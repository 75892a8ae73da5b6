//! What a trace tells of: kinds of events, and why connections end or never
//! begin.

use crate::event::Cause;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A connection entered the table.
    New,
    /// It changed.
    Update,
    /// It left the table.
    Destroy,
    /// An expectation came or went.
    Expect,
    /// A new connection's entry went before it was in the table.
    Refused,
    /// No entry could be allocated for one.
    Full,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::New, Self::Update, Self::Destroy, Self::Expect, Self::Refused, Self::Full];

    /// Its name, as in `flowlog watch` where there is such a kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::Destroy => "destroy",
            Self::Expect => "expect",
            Self::Refused => "refused",
            Self::Full => "full",
        }
    }
}

/// Why a connection never began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A netfilter hook dropped its packet: a rule, as a rule.
    Ruleset,
    /// Another packet of the same connection was quicker.
    Clash,
    /// Open vSwitch's action `ct` failed: its zone's limit, as a rule.
    OvsCt,
    /// Its packet was dropped by something else; its callers say by what.
    Elsewhere,
    /// The table is full.
    TableFull,
    /// There is no memory.
    NoMemory,
    /// The names of the callers cannot be had.
    Unknown,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ruleset,
        Self::Clash,
        Self::OvsCt,
        Self::Elsewhere,
        Self::TableFull,
        Self::NoMemory,
        Self::Unknown,
    ];

    /// Its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ruleset => "ruleset",
            Self::Clash => "clash",
            Self::OvsCt => "ovs_ct",
            Self::Elsewhere => "elsewhere",
            Self::TableFull => "table_full",
            Self::NoMemory => "no_memory",
            Self::Unknown => "unknown",
        }
    }
}

/// Why a connection is no more, or never was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It has ended.
    End(Cause),
    /// It has not begun.
    Refusal(Refusal),
}

impl Reason {
    /// All that a trace can tell.
    pub fn all() -> impl Iterator<Item = Self> {
        let ends = Cause::ALL.into_iter().filter(|cause| *cause != Cause::Lost);
        ends.map(Self::End).chain(Refusal::ALL.map(Self::Refusal))
    }

    /// Its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::End(cause) => cause.name(),
            Self::Refusal(refusal) => refusal.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_reasons_have_one_name() {
        let names: Vec<_> = Reason::all().map(Reason::name).collect();
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{names:?}");
        assert!(!names.contains(&"lost"), "a trace takes no table for the truth");
    }

    /// In the table of what is seen when a connection never comes about.
    #[test]
    fn docs_debugging_explains_each_refusal() {
        let page = include_str!("../../../../docs/debugging.md");
        for name in Refusal::ALL.map(Refusal::name) {
            let words = format!(" … cause={name}");
            let told = page.lines().any(|line| line.starts_with("| `[") && line.contains(&words));
            assert!(told, "docs/debugging.md has no row for cause={name}: say what to do about it");
        }
    }
}
