//! The attach table: which function of the kernel tells what, on which kernels,
//! and what stands in for it where it is missing. What the programs do there is
//! in `flowlog-ebpf/src/hooks.rs`.
//!
//! Functions are looked for, never expected: the compiler may have split,
//! renamed or inlined them (`.part.0`, `.isra.0`), and back-ports change a
//! kernel's inside without changing its series.

/// When a program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// When the function is entered.
    Entry,
    /// When it is left.
    Exit,
}

/// A program on a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Name of the function.
    pub function: &'static str,
    /// Name of the program, without the method before it.
    pub program: &'static str,
    /// When it is called.
    pub at: At,
    /// The function must take an integer first. Kernels with chained conntrack
    /// events put a pointer there, and the same name means another thing.
    pub integer_first: bool,
}

/// One way to learn something: all of its programs, or none.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// What is attached.
    pub attachments: &'static [Attachment],
    /// On which kernels it works, and why it stands where it does.
    pub why: &'static str,
    /// What is less exact than with the first way.
    pub lost: Option<&'static str>,
}

/// Something to be learnt, and the ways to it, the best first.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// What it tells.
    pub tells: &'static str,
    /// The ways.
    pub ways: &'static [Way],
}

const fn entry(function: &'static str, program: &'static str) -> Attachment {
    Attachment { function, program, at: At::Entry, integer_first: false }
}

const fn exit(function: &'static str, program: &'static str) -> Attachment {
    Attachment { function, program, at: At::Exit, integer_first: false }
}

/// Flows that leave the table.
pub const REMOVED: Hook = Hook {
    tells: "the end of connections",
    ways: &[
        Way {
            attachments: &[entry("__nf_ct_delete_from_lists", "flow_removed")],
            why: "6.1 and later: every end of a confirmed entry, once, bottom halves off. \
                  nf_ct_delete is no good: on 5.10 and 7.2 the compiler has split it, and the \
                  garbage collector and others call the part",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_delete_from_lists", "flow_removed")],
            why: "up to 5.15: the same under its old name",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_destroy", "flow_freed")],
            why: "5.15 and later: when the last reference goes, however the entry was unlinked",
            lost: Some(
                "an end is told when the last packet of the flow has gone, and its cause may be \
                 `other`",
            ),
        },
        Way {
            attachments: &[entry("destroy_conntrack", "flow_freed")],
            why: "up to 5.10: the same under its old name",
            lost: Some(
                "an end is told when the last packet of the flow has gone, and its cause may be \
                 `other`",
            ),
        },
    ],
};

/// Flows that enter the table.
pub const INSERTED: Hook = Hook {
    tells: "new connections",
    ways: &[
        Way {
            attachments: &[entry("__nf_conntrack_hash_insert", "flow_inserted")],
            why: "5.4 and later: every insertion, by packets and by netlink, once, bottom halves \
                  off; one program and no exit. Inlined where the kernel was built by clang",
            lost: None,
        },
        Way {
            attachments: &[
                entry("__nf_conntrack_confirm", "confirm_begins"),
                exit("__nf_conntrack_confirm", "confirm_ends"),
                entry("nf_conntrack_hash_check_insert", "check_begins"),
                exit("nf_conntrack_hash_check_insert", "check_ends"),
            ],
            why: "its two callers, global functions that no compiler hides; the exits know \
                  whether the entry was inserted or lost to another packet's",
            lost: Some("a probe may be passed over when a packet interrupts it; that is counted"),
        },
    ],
};

/// Expectations.
pub const EXPECTED: Hook = Hook {
    tells: "expectations",
    ways: &[Way {
        attachments: &[entry("nf_ct_expect_event_report", "expectation")],
        why: "5.4 and later: creation and end, under the lock of expectations, whether or not \
              anybody listens",
        lost: None,
    }],
};

/// Changes of flows. The kernel calls the function only for flows that began
/// while somebody listened to conntrack events.
pub const CHANGED: Hook = Hook {
    tells: "updates",
    ways: &[Way {
        attachments: &[Attachment {
            function: "ctnetlink_conntrack_event",
            program: "flow_changed",
            at: At::Entry,
            integer_first: true,
        }],
        why: "5.4 and later: just where a netlink message would be built, with the reason. It is \
              reached by pointer, so no compiler hides it",
        lost: None,
    }],
};

/// Functions that run seldom and say why a flow ends: each its own hook, because
/// one that is missing costs its causes only.
pub const ACTIVITIES: [Hook; 5] = [
    Hook {
        tells: "the cause expired_gc, and [GC]",
        ways: &[Way {
            attachments: &[entry("gc_worker", "gc_begins"), exit("gc_worker", "gc_ends")],
            why: "one scan in 1 to 60 seconds",
            lost: None,
        }],
    },
    Hook {
        tells: "the cause early_drop",
        ways: &[Way {
            attachments: &[
                entry("early_drop", "early_drop_begins"),
                exit("early_drop", "early_drop_ends"),
            ],
            why: "one call for each packet that finds the table full",
            lost: None,
        }],
    },
    Hook {
        tells: "the cause deleted",
        ways: &[Way {
            attachments: &[
                entry("ctnetlink_del_conntrack", "deletion_begins"),
                exit("ctnetlink_del_conntrack", "deletion_ends"),
            ],
            why: "one call for each netlink request, reached by pointer",
            lost: None,
        }],
    },
    Hook {
        tells: "the cause flushed",
        ways: &[Way {
            attachments: &[
                entry("nf_ct_iterate_cleanup_net", "cleanup_begins"),
                exit("nf_ct_iterate_cleanup_net", "cleanup_ends"),
            ],
            why: "one call for each removal of many",
            lost: None,
        }],
    },
    Hook {
        tells: "the cause netns_gone",
        ways: &[Way {
            attachments: &[
                entry("nf_conntrack_cleanup_net_list", "netns_end_begins"),
                exit("nf_conntrack_cleanup_net_list", "netns_end_ends"),
            ],
            why: "one call for each batch of namespaces that end",
            lost: None,
        }],
    },
];

/// Whether the program of this name, with its method, tells events. The others
/// tell causes.
pub fn tells_events(program: &str) -> bool {
    let own = program.split_once('_').map_or(program, |(_method, own)| own);
    let hooks = [REMOVED, INSERTED, EXPECTED, CHANGED];
    let mut attachments = hooks.iter().flat_map(|hook| hook.ways).flat_map(|way| way.attachments);
    attachments.any(|attachment| attachment.program == own)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn all() -> impl Iterator<Item = Hook> {
        [REMOVED, INSERTED, EXPECTED, CHANGED].into_iter().chain(ACTIVITIES)
    }

    #[test]
    fn a_program_is_for_the_entry_or_for_the_exit() {
        let mut seen = HashMap::new();
        for attachment in all().flat_map(|hook| hook.ways).flat_map(|way| way.attachments) {
            let before = seen.insert(attachment.program, attachment.at);
            assert!(before.is_none_or(|at| at == attachment.at), "{}", attachment.program);
        }
    }

    #[test]
    fn programs_of_events_are_known_by_name() {
        assert!(tells_events("kprobe_flow_removed") && tells_events("fentry_confirm_ends"));
        assert!(!tells_events("fentry_gc_begins") && !tells_events(""));
    }

    #[test]
    fn the_first_way_loses_nothing_and_each_other_says_what() {
        for hook in all() {
            assert!(hook.ways[0].lost.is_none(), "{}", hook.tells);
            assert!(hook.ways.iter().all(|way| !way.why.is_empty() && !way.attachments.is_empty()));
        }
    }
}
