//! A stack of addresses → the chain of callers by name, and what it says of the
//! event: in whose context it happened, and which netfilter hook refused a
//! packet.

use flowlog_ebpf::STACK;

use super::kind::Refusal;
use crate::capture::ebpf::symbols::Symbols;
use crate::capture::ebpf::trace::Place;

/// An address of which no name is known.
const NAMELESS: &str = "?";
/// Where the programs and the kernel's means of calling them show: in front of
/// the function that is hooked.
const OWN: [&str; 8] = [
    NAMELESS,
    "bpf_",
    "ftrace_",
    "kprobe_",
    "kretprobe_",
    "__kretprobe_",
    "arch_rethook_",
    "arch_ftrace_",
];
/// The hooked function is among so many frames, if it is there.
const NEAR: usize = 8;
/// Only hand on what their callers decide: that a packet is freed with what
/// belongs to it, or that there is an event.
const PASSING: [&str; 12] = [
    "nf_ct_put",
    "nf_conntrack_destroy",
    "skb_release_head_state",
    "skb_release_all",
    "__kfree_skb",
    "kfree_skb",
    "kfree_skb_reason",
    "sk_skb_reason_drop",
    "kfree_skb_list_reason",
    "nf_conntrack_eventmask_report",
    "__nf_conntrack_eventmask_report",
    "nf_ct_deliver_cached_events",
];
/// Runs what waits for a processor, whatever its task was at.
const SOFTIRQ: [&str; 8] = [
    "handle_softirqs",
    "__do_softirq",
    "__softirqentry_text_start",
    "do_softirq",
    "__irq_exit_rcu",
    "irq_exit_rcu",
    "net_rx_action",
    "run_timer_softirq",
];
/// Where tasks begin: no softirq is behind.
const TASK: [&str; 6] =
    ["do_syscall_64", "do_el0_svc", "el0_svc", "kthread", "process_one_work", "ret_from_fork"];
/// Calls the netfilter hooks of a place.
const HOOKS: [&str; 4] = ["nf_hook_slow", "nf_hook_slow_list", "nf_hook", "NF_HOOK"];
/// Confirms a connection at its last hook, and resolves clashes there.
const CONFIRM: [&str; 3] =
    ["__nf_conntrack_confirm", "nf_ct_resolve_clash", "__nf_ct_resolve_clash"];
/// Frees a packet itself if its action `ct` failed, which it does where a zone
/// has as many connections as it may have (`ovs_ct_execute`,
/// net/openvswitch/conntrack.c, 6.12). The check is inlined in it.
const OVS_CT: &str = "ovs_ct_execute";
/// Who calls netfilter, and the hook: net/ipv4, net/ipv6 and net/bridge of 6.12.
const PLACES: [(&str, &str); 24] = [
    ("ip_rcv", "prerouting"),
    ("ip_sublist_rcv", "prerouting"),
    ("ip_list_rcv", "prerouting"),
    ("ipv6_rcv", "prerouting"),
    ("ip6_sublist_rcv", "prerouting"),
    ("ipv6_list_rcv", "prerouting"),
    ("ip_local_deliver", "input"),
    ("ip6_input", "input"),
    ("ip6_mc_input", "input"),
    ("ip_forward", "forward"),
    ("ip6_forward", "forward"),
    ("ipmr_queue_xmit", "forward"),
    ("ip6mr_forward2", "forward"),
    ("__ip_local_out", "output"),
    ("ip_local_out", "output"),
    ("__ip6_local_out", "output"),
    ("ip6_local_out", "output"),
    ("ip6_xmit", "output"),
    ("raw_send_hdrinc", "output"),
    ("rawv6_send_hdrinc", "output"),
    ("ip_output", "postrouting"),
    ("ip_mc_output", "postrouting"),
    ("ip6_output", "postrouting"),
    ("xfrm_output_resume", "postrouting"),
];

/// In whose context something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Context {
    /// The current task did it.
    Task,
    /// A softirq, which ran on top of whatever task was current.
    Softirq,
    /// The stack does not say.
    Unknown,
}

impl Context {
    /// Its name in outputs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Softirq => "softirq",
            Self::Unknown => "unknown",
        }
    }
}

/// Who called the hooked function, the innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chain<'s> {
    callers: Vec<&'s str>,
    /// There may be more.
    cut: bool,
}

impl<'s> Chain<'s> {
    /// The chain of a place. Nothing is known without symbols.
    pub(super) fn new(place: &Place, symbols: &'s Symbols) -> Self {
        if symbols.is_empty() {
            return Self::default();
        }
        let name = |(index, address): (usize, &u64)| {
            // What a call returns to may lie behind the end of the caller; the
            // first is where the processor was.
            let within = if index == 0 { *address } else { address.saturating_sub(1) };
            symbols.name(within).unwrap_or(NAMELESS)
        };
        let mut callers: Vec<_> = place.stack.iter().enumerate().map(name).collect();
        let cut = callers.len() >= STACK;
        let hooked = callers.iter().take(NEAR).position(|name| base(name) == place.function);
        let callees = match hooked {
            Some(index) => index + 1,
            // At the exit of a function it is not there any more.
            None => callers.iter().take_while(|name| is_own(name)).count(),
        };
        Self { callers: unhooked(callers.drain(..).skip(callees)), cut }
    }

    /// All callers.
    pub(super) fn callers(&self) -> &[&'s str] {
        &self.callers
    }

    /// The first callers that tell something, at most so many, and whether there
    /// are more.
    pub(super) fn telling(&self, most: usize) -> (Vec<&'s str>, bool) {
        let telling = &self.callers[self.passing()..];
        (telling.iter().take(most).copied().collect(), telling.len() > most || self.cut)
    }

    /// The first callers, which tell nothing.
    fn passing(&self) -> usize {
        self.callers.iter().take_while(|name| PASSING.contains(&base(name))).count()
    }

    /// In whose context it happened.
    pub(super) fn context(&self) -> Context {
        let has = |names: &[&str]| self.callers.iter().any(|name| names.contains(&base(name)));
        if has(&SOFTIRQ) {
            Context::Softirq
        } else if !self.callers.is_empty() && (!self.cut || has(&TASK)) {
            Context::Task
        } else {
            Context::Unknown
        }
    }

    /// Why an entry went unconfirmed, and at which hook of netfilter.
    pub(super) fn refusal(&self) -> (Refusal, Option<&'static str>) {
        // What a softirq interrupted has nothing to do with it.
        let own = self.callers.iter().position(|name| SOFTIRQ.contains(&base(name)));
        let own = &self.callers[..own.unwrap_or(self.callers.len())];
        if own.iter().all(|name| *name == NAMELESS) {
            return (Refusal::Unknown, None);
        }
        if own.iter().any(|name| CONFIRM.contains(&base(name))) {
            return (Refusal::Clash, None);
        }
        if own.get(self.passing()).is_some_and(|name| base(name) == OVS_CT) {
            return (Refusal::OvsCt, None);
        }
        let is_hook = |name: &&str| HOOKS.contains(&base(name));
        let Some(first) = own.iter().position(is_hook) else { return (Refusal::Elsewhere, None) };
        let caller = own[first..].iter().find(|name| !is_hook(name));
        let place = caller.and_then(|name| PLACES.iter().find(|(caller, _)| *caller == base(name)));
        (Refusal::Ruleset, place.map(|(_, hook)| *hook))
    }
}

/// Whether it belongs to the means of hooking functions.
fn is_own(name: &str) -> bool {
    OWN.iter().any(|own| name.starts_with(own))
}

/// Callers as if none of them was hooked: a trampoline shows between the function
/// and itself, as it calls the function from within.
fn unhooked<'s>(callers: impl Iterator<Item = &'s str>) -> Vec<&'s str> {
    let mut plain: Vec<&str> = Vec::new();
    let mut hooked = false;
    for name in callers {
        if name != NAMELESS && is_own(name) {
            hooked = true;
        } else {
            if !(hooked && plain.last() == Some(&name)) {
                plain.push(name);
            }
            hooked = false;
        }
    }
    plain
}

/// The name in the source: compilers add `.isra.0`, `.part.0` and the like.
fn base(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A kernel that has these functions, each 16 bytes long.
    pub(in super::super) fn symbols(names: &[&str]) -> Symbols {
        let line = |(index, name): (usize, &&str)| format!("{:x} t {name}\n", address(index));
        let list: String = names.iter().enumerate().map(line).collect();
        Symbols::parse(list.as_bytes()).unwrap()
    }

    fn address(index: usize) -> u64 {
        0xffff_ffff_8100_0000 + 16 * index as u64
    }

    /// A stack that has all of them, in order.
    pub(in super::super) fn place(function: &'static str, depth: usize) -> Place {
        let stack = (0..depth).map(|index| address(index) + 16 * u64::from(index > 0));
        // Each return address is that of a call at the end of its function.
        Place { function, stack: stack.collect(), ..Place::default() }
    }

    fn check(function: &'static str, names: &[&str], test: impl FnOnce(Chain<'_>)) {
        let symbols = symbols(names);
        test(Chain::new(&place(function, names.len()), &symbols));
    }

    const DROPPED: [&str; 11] = [
        "nf_ct_destroy",
        "nf_conntrack_destroy",
        "skb_release_head_state",
        "kfree_skb_reason",
        "nf_hook_slow",
        "ip_local_deliver",
        "ip_rcv",
        "process_backlog",
        "net_rx_action",
        "nf_hook_slow",
        "__ip_local_out",
    ];

    #[test]
    fn a_rule_that_drops_is_named_with_its_hook() {
        check("nf_ct_destroy", &DROPPED, |chain| {
            assert_eq!(chain.refusal(), (Refusal::Ruleset, Some("input")));
            assert_eq!(chain.telling(2), (vec!["nf_hook_slow", "ip_local_deliver"], true));
            assert_eq!(chain.telling(99).0.len(), 7);
            assert_eq!(chain.context(), Context::Softirq);
            assert_eq!(chain.callers().len(), 10);
        });
        for (caller, hook) in PLACES {
            let name = format!("{caller}.isra.0");
            let names = ["destroy_conntrack", "kfree_skb", "nf_hook_slow_list", "NF_HOOK", &name];
            check("destroy_conntrack", &names, |chain| {
                assert_eq!(chain.refusal(), (Refusal::Ruleset, Some(hook)), "{caller}");
            });
        }
        check("nf_ct_destroy", &["nf_ct_destroy", "kfree_skb", "nf_hook_slow", "br_x"], |chain| {
            assert_eq!(chain.refusal(), (Refusal::Ruleset, None));
        });
    }

    #[test]
    fn what_no_rule_has_dropped_is_not_told_as_such() {
        let clash = ["nf_ct_destroy", "__nf_conntrack_confirm", "nf_confirm", "nf_hook_slow"];
        check("nf_ct_destroy", &clash, |chain| {
            assert_eq!(chain.refusal(), (Refusal::Clash, None));
        });
        let ovs = ["nf_ct_destroy", "sk_skb_reason_drop", "ovs_ct_execute", "nf_hook_slow"];
        check("nf_ct_destroy", &ovs, |chain| {
            assert_eq!(chain.refusal(), (Refusal::OvsCt, None));
        });
        // A flow of Open vSwitch that drops it.
        let ovs = ["nf_ct_destroy", "sk_skb_reason_drop", "do_execute_actions"];
        check("nf_ct_destroy", &ovs, |chain| {
            assert_eq!(chain.refusal(), (Refusal::Elsewhere, None));
        });
        // The task that was interrupted was in a hook, the packet was not.
        let elsewhere =
            ["nf_ct_destroy", "kfree_skb", "ip_error", "handle_softirqs", "nf_hook_slow"];
        check("nf_ct_destroy", &elsewhere, |chain| {
            assert_eq!(chain.refusal(), (Refusal::Elsewhere, None));
        });
        assert_eq!(Chain::default().refusal(), (Refusal::Unknown, None));
        assert_eq!(Chain::default().context(), Context::Unknown);
    }

    #[test]
    fn the_programs_and_the_function_itself_are_no_callers() {
        let fentry =
            ["bpf_prog_1_fentry_trace", "bpf_trampoline_2", "gone", "gc_worker", "kthread"];
        check("gone", &fentry, |chain| {
            assert_eq!(chain.callers(), ["gc_worker", "kthread"]);
            assert_eq!(chain.context(), Context::Task);
        });
        let within = ["gone", "gc_worker", "bpf_trampoline_2", "gc_worker", "process_one_work"];
        check("gone", &within, |chain| {
            assert_eq!(chain.callers(), ["gc_worker", "process_one_work"]);
        });
        let exit = ["arch_rethook_trampoline", "init_conntrack.constprop.0", "nf_conntrack_in"];
        check("__nf_conntrack_alloc", &exit, |chain| {
            assert_eq!(chain.callers(), &exit[1..]);
        });
    }

    #[test]
    fn a_stack_that_is_cut_may_hide_a_softirq() {
        let mut names = ["deep"; STACK];
        names[0] = "hooked";
        let mut own: Vec<_> = names.iter().enumerate().map(|(i, n)| format!("{n}{i}")).collect();
        own[0] = "hooked".to_owned();
        let mut names: Vec<_> = own.iter().map(String::as_str).collect();
        check("hooked", &names, |chain| {
            assert_eq!(chain.context(), Context::Unknown);
            assert!(chain.telling(STACK).1);
        });
        names[STACK - 1] = "do_syscall_64";
        check("hooked", &names, |chain| assert_eq!(chain.context(), Context::Task));
    }
}
