//! The same for a trace, whose programs tell where each thing happened as well.
//! They are attached only while somebody traces.

use super::{Attachment, Hook, Method, Way, entry, exit, message};

/// Flows that leave the table.
pub const REMOVED: Hook = Hook {
    tells: "the end of connections",
    ways: &[
        Way {
            attachments: &[entry("__nf_ct_delete_from_lists", "trace_removed")],
            method: None,
            why: "6.1 and later, as without a trace",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_delete_from_lists", "trace_removed")],
            method: None,
            why: "up to 5.15: the same under its old name",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_destroy", "trace_freed")],
            method: None,
            why: "5.15 and later: when the last reference goes",
            lost: Some(
                "an end is told when the last packet of the flow has gone, by whoever had it",
            ),
        },
    ],
};

/// Flows that enter the table.
pub const INSERTED: Hook = Hook {
    tells: "new connections",
    ways: &[
        Way {
            attachments: &[entry("__nf_conntrack_hash_insert", "trace_inserted")],
            method: None,
            why: "5.4 and later, as without a trace",
            lost: None,
        },
        Way {
            attachments: &[message("trace_begun")],
            method: Some(Method::Kprobe),
            why: "where a netlink message about the beginning would be built: one program, \
                  in place of the four that the callers of the insertion would need",
            lost: Some(UNGATHERED),
        },
        Way {
            attachments: &[message("trace_begun")],
            method: Some(Method::Fentry),
            why: "the same without kprobes",
            lost: Some(UNGATHERED),
        },
    ],
};

const UNGATHERED: &str = "only those are told for which the kernel gathers events";

/// Expectations.
pub const EXPECTED: Hook = Hook {
    tells: "expectations",
    ways: &[Way {
        attachments: &[entry("nf_ct_expect_event_report", "trace_expectation")],
        method: None,
        why: "5.4 and later, as without a trace",
        lost: None,
    }],
};

/// Changes of flows; see [`super::CHANGED`] for the order.
pub const CHANGED: Hook = Hook {
    tells: "updates",
    ways: &[
        Way {
            attachments: &[message("trace_changed")],
            method: Some(Method::Kprobe),
            why: "5.4 and later, as without a trace",
            lost: None,
        },
        Way {
            attachments: &[message("trace_changed")],
            method: Some(Method::Fentry),
            why: "the same without kprobes",
            lost: Some(super::PASSED_OVER),
        },
    ],
};

/// Entries that go and were never in the table. Tasks that can be preempted
/// free them too, so kprobes come first, as for changes.
pub const REFUSED: Hook = Hook {
    tells: "refused connections",
    ways: &[
        Way {
            attachments: &[entry("nf_ct_destroy", "trace_refused")],
            method: Some(Method::Kprobe),
            why: "5.15 and later: when the last reference to an entry goes",
            lost: None,
        },
        Way {
            attachments: &[entry("destroy_conntrack", "trace_refused")],
            method: Some(Method::Kprobe),
            why: "up to 5.10: the same under its old name",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_destroy", "trace_refused")],
            method: Some(Method::Fentry),
            why: "without kprobes",
            lost: Some(super::PASSED_OVER),
        },
    ],
};

/// Allocations that fail. What the entry is given is known at the exit, and
/// whether the table was full by the exit of `early_drop` in between: the
/// error is the same as without memory.
pub const UNALLOCATED: Hook = Hook {
    tells: "refused allocations",
    ways: &[
        Way {
            attachments: &ALLOCATION,
            method: Some(Method::Kprobe),
            why: "5.4 and later: where all entries are allocated, for packets and for netlink",
            lost: None,
        },
        Way {
            attachments: &ALLOCATION,
            method: Some(Method::Fentry),
            why: "the same without kprobes",
            lost: Some(super::PASSED_OVER),
        },
    ],
};

const ALLOCATION: [Attachment; 3] = [
    entry(ALLOC, "trace_alloc_begins"),
    exit("early_drop", "trace_drop_ends"),
    exit(ALLOC, "trace_alloc_ends"),
];
const ALLOC: &str = "__nf_conntrack_alloc";

/// All of them.
pub const ALL: [Hook; 6] = [REMOVED, INSERTED, EXPECTED, CHANGED, REFUSED, UNALLOCATED];
