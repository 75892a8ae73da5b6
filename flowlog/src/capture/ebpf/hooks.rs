//! The attach table: which function of the kernel tells what, on which kernels,
//! and what stands in for it where it is missing. What the programs do there is
//! in `flowlog-ebpf/src/hooks.rs`.
//!
//! Functions are looked for, never expected: the compiler may have split,
//! renamed or inlined them (`.part.0`, `.isra.0`), and back-ports change a
//! kernel's inside without changing its series.
//!
//! Some run with softirqs off (`local_bh_disable`), so that no packet is received
//! within them that would call the same function: the kernel passes a program
//! over that is already at work on its processor. With PREEMPT_RT that is less
//! certain: another task may preempt such a section. What is passed over is
//! counted there as anywhere.

use super::probes::Method;

pub mod traced;

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
    /// The method that it is for; none: that of the capture.
    pub method: Option<Method>,
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
    Attachment { at: At::Exit, ..entry(function, program) }
}

/// Where netlink messages are built; see [`Attachment::integer_first`].
const fn message(program: &'static str) -> Attachment {
    Attachment { integer_first: true, ..entry("ctnetlink_conntrack_event", program) }
}

/// Flows that leave the table.
pub const REMOVED: Hook = Hook {
    tells: "the end of connections",
    ways: &[
        Way {
            attachments: &[entry("__nf_ct_delete_from_lists", "flow_removed")],
            method: None,
            why: "6.1 and later: every end of a confirmed entry, once, softirqs off. \
                  nf_ct_delete is no good: on 5.10 and 7.2 the compiler has split it, and the \
                  garbage collector and others call the part",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_delete_from_lists", "flow_removed")],
            method: None,
            why: "up to 5.15: the same under its old name",
            lost: None,
        },
        Way {
            attachments: &[entry("nf_ct_destroy", "flow_freed")],
            method: None,
            why: "5.15 and later: when the last reference goes, however the entry was unlinked",
            lost: Some(
                "an end is told when the last packet of the flow has gone, and its cause may be \
                 `other`",
            ),
        },
        Way {
            attachments: &[entry("destroy_conntrack", "flow_freed")],
            method: None,
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
            method: None,
            why: "5.4 and later: every insertion, by packets and by netlink, once, softirqs \
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
            method: None,
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
        method: None,
        why: "5.4 and later: creation and end, under the lock of expectations, whether or not \
              anybody listens",
        lost: None,
    }],
};

/// Changes of flows. The kernel calls the function only for flows that began
/// while somebody listened to conntrack events.
pub const CHANGED: Hook = Hook {
    tells: "updates",
    ways: &[
        Way {
            attachments: &[message("flow_changed")],
            method: Some(Method::Kprobe),
            why: "5.4 and later: just where a netlink message would be built, with the reason. It \
                  is reached by pointer, so no compiler hides it. By kprobe, because it is called \
                  in tasks too: one that is preempted within a program of fentry keeps all others \
                  of its processor from that program (`__bpf_prog_enter_recur`, \
                  kernel/bpf/trampoline.c, 6.12), as seen on 7.2",
            lost: None,
        },
        Way {
            attachments: &[message("flow_changed")],
            method: Some(Method::Fentry),
            why: "the same without kprobes",
            lost: Some(PASSED_OVER),
        },
    ],
};

/// Netlink messages, while what netlink delivers is compared with what the other
/// hooks tell. They are built with preemption on, and a program of fentry that is
/// preempted is passed over for all tasks that follow on its processor, until
/// it goes on; a kprobe cannot be preempted. So kprobes come first here.
pub const MESSAGES: Hook = Hook {
    tells: "messages that netlink should deliver",
    ways: &[
        Way {
            attachments: &[
                message("message_due"),
                MESSAGE_DONE,
                entry(GET_ID, "id_begins"),
                exit(GET_ID, "id_ends"),
            ],
            method: Some(Method::Kprobe),
            why: "5.4 and later: just where a message would be built, and where the entry's id is \
                  made for it: a global function that ctnetlink calls from another module",
            lost: None,
        },
        Way {
            // The exit of fentry has the argument beside the result.
            attachments: &[message("message_due"), MESSAGE_DONE, exit(GET_ID, "id_ends")],
            method: Some(Method::Fentry),
            why: "the same without kprobes",
            lost: Some(PASSED_OVER),
        },
        Way {
            attachments: &[message("message_due_unpaired")],
            method: Some(Method::Kprobe),
            why: "without the id",
            lost: Some(UNPAIRED),
        },
        Way {
            attachments: &[message("message_due_unpaired")],
            method: Some(Method::Fentry),
            why: "without the id and without kprobes",
            lost: Some(UNPAIRED),
        },
    ],
};

const GET_ID: &str = "nf_ct_get_id";
const MESSAGE_DONE: Attachment = Attachment { at: At::Exit, ..message("message_done") };
const PASSED_OVER: &str = "a program may be passed over when a task that runs it is preempted; that \
                           is counted";
const UNPAIRED: &str = "entries are told apart by their tuples, so one that follows another of the \
                        same tuple at once may be taken for it";

/// Functions that run seldom and say why a flow ends: each its own hook, because
/// one that is missing costs its causes only.
pub const ACTIVITIES: [Hook; 5] = [
    Hook {
        tells: "the cause expired_gc, and [GC]",
        ways: &[Way {
            attachments: &[entry("gc_worker", "gc_begins"), exit("gc_worker", "gc_ends")],
            method: None,
            why: "one scan in 1 to 60 seconds",
            lost: None,
        }],
    },
    Hook {
        tells: "the cause early_drop",
        ways: &[
            Way {
                attachments: &[
                    entry("early_drop", "early_drop_begins"),
                    entry("early_drop", "early_drop_begins_again"),
                    exit("early_drop", "early_drop_ends"),
                    exit("early_drop", "early_drop_ends_again"),
                ],
                method: Some(Method::Fentry),
                why: "one call for each packet that finds the table full, in tasks and in the \
                      softirqs that interrupt them: two programs, of which the kernel passes one \
                      over at most",
                lost: None,
            },
            Way {
                attachments: &[
                    entry("early_drop", "early_drop_begins"),
                    exit("early_drop", "early_drop_ends"),
                ],
                method: Some(Method::Kprobe),
                why: "the same; what interrupts the handler of a kprobe finds all kprobes off, \
                      that of the end too",
                lost: None,
            },
        ],
    },
    Hook {
        tells: "the cause deleted",
        ways: &[Way {
            attachments: &[
                entry("ctnetlink_del_conntrack", "deletion_begins"),
                exit("ctnetlink_del_conntrack", "deletion_ends"),
            ],
            method: None,
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
            method: None,
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
            method: None,
            why: "one call for each batch of namespaces that end",
            lost: None,
        }],
    },
];

/// All hooks.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = Hook> {
    let alone = [REMOVED, INSERTED, EXPECTED, CHANGED, MESSAGES];
    alone.into_iter().chain(traced::ALL).chain(ACTIVITIES)
}

/// Whether the program of this name, with its method, tells events. The others
/// tell causes and messages.
pub fn tells_events(program: &str) -> bool {
    let hooks = [REMOVED, INSERTED, EXPECTED, CHANGED].into_iter().chain(traced::ALL);
    hooks.into_iter().any(|hook| hook.has(program))
}

/// Whether the program of this name, with its method, tells of netlink messages.
pub fn tells_messages(program: &str) -> bool {
    MESSAGES.has(program)
}

impl Hook {
    /// The programs of all its ways.
    pub fn programs(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.ways.iter().flat_map(|way| way.attachments).map(|attachment| attachment.program)
    }

    /// Whether the program of this name, with its method, is one of its own.
    fn has(&self, program: &str) -> bool {
        let own = program.split_once('_').map_or(program, |(_method, own)| own);
        self.programs().any(|program| program == own)
    }
}

impl Way {
    /// Whether it tells the ids of entries.
    pub fn tells_ids(&self) -> bool {
        self.attachments.iter().any(|attachment| attachment.function == GET_ID)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

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
        for program in MESSAGES.programs().map(|program| format!("kprobe_{program}")) {
            assert!(tells_messages(&program) && !tells_events(&program), "{program}");
        }
        assert!(!tells_messages("kprobe_flow_changed"));
        assert!(tells_events("kprobe_trace_alloc_ends") && !tells_messages("kprobe_trace_begun"));
    }

    #[test]
    fn messages_are_told_by_either_method_with_ids_and_without() {
        let ways: Vec<_> = MESSAGES.ways.iter().map(|way| (way.method, way.tells_ids())).collect();
        let (kprobe, fentry) = (Some(Method::Kprobe), Some(Method::Fentry));
        assert_eq!(ways, [(kprobe, true), (fentry, true), (kprobe, false), (fentry, false)]);
        let exit_alone = MESSAGES.ways[1].attachments;
        assert!(exit_alone.iter().all(|a| a.program != "id_begins"), "fexit knows the argument");
    }

    #[test]
    fn what_messages_are_built_by_takes_an_integer_first() {
        for attachment in all().flat_map(|hook| hook.ways).flat_map(|way| way.attachments) {
            let events = attachment.function == "ctnetlink_conntrack_event";
            assert_eq!(attachment.integer_first, events, "{}", attachment.program);
        }
    }

    #[test]
    fn the_first_way_loses_nothing_and_each_other_says_what() {
        for hook in all() {
            assert!(hook.ways[0].lost.is_none(), "{}", hook.tells);
            assert!(hook.ways.iter().all(|way| !way.why.is_empty() && !way.attachments.is_empty()));
        }
    }
}
