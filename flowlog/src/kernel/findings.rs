//! Facts about the host and a configuration → what stands in the way of
//! logging, each with its remedy.

use std::path::Path;

use super::activity::{Activity, conntrack_active};
use super::{
    WANTED, conntrack_count, conntrack_max, has_btf, has_net_admin, may_exceed_rmem_max,
    may_set_sysctl, release, rmem_max, sysctl,
};
use crate::config::Source;
use crate::event::Kinds;
use crate::netns;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Ok,
    /// flowlog runs, and something is missing from its log.
    Warning,
    /// flowlog does not run, or logs nothing.
    Problem,
}

impl State {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The thing.
    pub name: &'static str,
    /// How grave it is.
    pub state: State,
    /// What was found, with its value.
    pub what: String,
    /// What to do; absent when there is nothing to do.
    pub remedy: Option<String>,
}

impl Finding {
    pub(crate) fn ok(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, state: State::Ok, what: what.into(), remedy: None }
    }

    pub(crate) fn warning(
        name: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { name, state: State::Warning, what: what.into(), remedy }
    }

    pub(crate) fn problem(
        name: &'static str,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { name, state: State::Problem, what: what.into(), remedy }
    }
}

/// What the sources of a configuration ask of one namespace.
#[derive(Clone, Debug, Default)]
struct Wishes<'a> {
    netns: Option<&'a Path>,
    /// flowlog sets the sysctls itself.
    set_sysctls: bool,
    /// Those that it cannot set, and why.
    fixed: Vec<(&'static str, String)>,
    /// flowlog makes the kernel track connections.
    activate: bool,
    /// A source listens to events (and does not only poll).
    listens: bool,
    /// A source logs the end of flows, and finds by dumps those that the kernel
    /// does not report: with the longest period, seconds.
    redump: Option<u64>,
    /// A source logs the end of flows, and finds no such ones.
    blind: bool,
    /// The largest receive buffer that a source may come to want, bytes.
    buffer: usize,
    /// Id of a source, for remedies.
    id: &'a str,
}

impl<'a> Wishes<'a> {
    fn new(netns: Option<&'a Path>, sources: &'a [Source]) -> Self {
        let mut wishes = Self { netns, id: "ct1", ..Self::default() };
        for source in sources {
            let nfct = &source.nfct;
            wishes.set_sysctls |= source.set_sysctls;
            wishes.activate |= source.activate;
            wishes.buffer = wishes.buffer.max(source.buffer.1);
            wishes.listens |= nfct.poll.is_none();
            if nfct.poll.is_none() && nfct.mask.contains(Kinds::DESTROY) {
                match nfct.redump.filter(|_| nfct.hash.is_some()) {
                    Some(period) => wishes.redump = wishes.redump.max(Some(period.as_secs())),
                    None => wishes.blind = true,
                }
            }
        }
        if let Some(source) = sources.first() {
            wishes.id = &source.id;
        } else {
            // Nothing is known: assume what NFCT does unless told otherwise.
            wishes.listens = true;
            wishes.redump = Some(60);
        }
        wishes
    }

    /// How to set a sysctl to 1 for good.
    fn sysctl_remedy(&self, name: &str) -> String {
        let id = self.id;
        match self.netns {
            None => format!(
                "put the line `net.netfilter.{name} = 1` into \
                 /etc/sysctl.d/99-nf_conntrack_acct.conf and run `sysctl --system`, or set \
                 set_sysctls=1 in [{id}]"
            ),
            Some(netns) => format!(
                "run `nsenter --net={} sysctl -w net.netfilter.{name}=1` when the namespace is \
                 made, or set set_sysctls=1 in [{id}]",
                netns::resolve(netns).display()
            ),
        }
    }
}

/// What can be said about the host for `sources`, all of which watch the
/// namespace `netns` (`None`: the current one); without sources, for one with
/// default settings.
pub fn findings(netns: Option<&Path>, sources: &[Source]) -> Vec<Finding> {
    let wishes = Wishes::new(netns, sources);
    let mut findings = vec![kernel(), capabilities()];
    let in_namespace = || {
        let fixed = WANTED.into_iter().filter_map(|name| {
            let error = may_set_sysctl(name).err()?;
            Some((name, error.to_string()))
        });
        in_namespace(&Wishes { fixed: fixed.collect(), ..wishes.clone() })
    };
    match netns::within(netns, in_namespace) {
        Ok(found) => findings.extend(found.into_iter().map(|mut finding| {
            if let Some(netns) = netns {
                finding.what = format!("in {}: {}", netns.display(), finding.what);
            }
            finding
        })),
        Err(error) => findings.push(Finding {
            name: "netns",
            state: State::Problem,
            what: error.to_string(),
            remedy: None,
        }),
    }
    findings
}

fn in_namespace(wishes: &Wishes<'_>) -> Vec<Finding> {
    let Some(count) = conntrack_count() else {
        return vec![Finding::problem(
            "conntrack",
            "this kernel has no connection tracking, or its module is not loaded",
            "run `modprobe nf_conntrack_netlink`, and name the module in /etc/modules-load.d",
        )];
    };
    let mut findings = vec![
        tracking(&conntrack_active(), wishes),
        acct(sysctl("nf_conntrack_acct"), wishes),
        timestamp(sysctl("nf_conntrack_timestamp"), wishes),
        events(sysctl("nf_conntrack_events"), wishes),
        buffer(has_net_admin(), may_exceed_rmem_max(), rmem_max(), wishes),
    ];
    findings.extend(conntrack_max().map(|max| table(count, max)));
    findings
}

fn kernel() -> Finding {
    let release = release().unwrap_or_else(|| "of unknown release".to_owned());
    let btf = if has_btf() { "with" } else { "without" };
    Finding::ok("kernel", format!("Linux {release}, {btf} BTF"))
}

fn capabilities() -> Finding {
    if has_net_admin() {
        Finding::ok("capabilities", "CAP_NET_ADMIN is there")
    } else {
        Finding::problem(
            "capabilities",
            "CAP_NET_ADMIN is missing: the kernel tells connections to nobody else",
            "run it as root, or with AmbientCapabilities=CAP_NET_ADMIN in the service's unit",
        )
    }
}

fn tracking(activity: &Activity, wishes: &Wishes<'_>) -> Finding {
    const NAME: &str = "tracking";
    let id = wishes.id;
    match activity {
        Activity::Active => Finding::ok(NAME, "the kernel tracks connections"),
        Activity::Inactive | Activity::Unknown(_) if wishes.activate => {
            Finding::ok(NAME, "flowlog will make the kernel track connections (activate=1)")
        }
        Activity::Inactive => Finding::problem(
            NAME,
            "no rule makes the kernel track connections, so there is nothing to log",
            format!("set activate=1 in [{id}], or add a rule that needs it (`ct state`, NAT)"),
        ),
        Activity::Unknown(reason) => Finding::warning(
            NAME,
            format!("whether the kernel tracks connections cannot be told: {reason}"),
            format!("set activate=1 in [{id}] to be sure of it"),
        ),
    }
}

/// Absent, 1, or about to be set: nothing more to say about the sysctl.
fn settled(
    name: &'static str,
    key: &str,
    value: Option<u64>,
    wishes: &Wishes<'_>,
) -> Option<Finding> {
    match value {
        Some(1) => Some(Finding::ok(name, format!("{key} is 1"))),
        Some(value) if wishes.set_sysctls => {
            Some(match wishes.fixed.iter().find(|(fixed, _)| *fixed == key) {
                None => Finding::ok(
                    name,
                    format!("{key} is {value}; flowlog will set it to 1 (set_sysctls=1)"),
                ),
                Some((_, why)) => Finding::warning(
                    name,
                    format!(
                        "{key} is {value}, and flowlog cannot set it to 1 in spite of \
                         set_sysctls=1: {why}"
                    ),
                    format!(
                        "set net.netfilter.{key}=1 where /proc/sys can be written (on the host of \
                         a container), or make it writable (ProtectKernelTunables=no in the unit)"
                    ),
                ),
            })
        }
        _ => None,
    }
}

fn acct(value: Option<u64>, wishes: &Wishes<'_>) -> Finding {
    const NAME: &str = "accounting";
    const KEY: &str = "nf_conntrack_acct";
    settled(NAME, KEY, value, wishes).unwrap_or_else(|| match value {
        Some(value) => Finding::warning(
            NAME,
            format!("{KEY} is {value}: packets and bytes of new flows are not counted"),
            wishes.sysctl_remedy(KEY),
        ),
        None => missing(NAME, KEY, "packets and bytes are not counted"),
    })
}

fn timestamp(value: Option<u64>, wishes: &Wishes<'_>) -> Finding {
    const NAME: &str = "timestamps";
    const KEY: &str = "nf_conntrack_timestamp";
    const LOST: &str = "times are those at which flowlog is told, not those of the kernel";
    settled(NAME, KEY, value, wishes).unwrap_or_else(|| match value {
        Some(value) => {
            Finding::warning(NAME, format!("{KEY} is {value}: {LOST}"), wishes.sysctl_remedy(KEY))
        }
        None => missing(NAME, KEY, LOST),
    })
}

fn events(value: Option<u64>, wishes: &Wishes<'_>) -> Finding {
    const NAME: &str = "events";
    const KEY: &str = "nf_conntrack_events";
    if let Some(finding) = settled(NAME, KEY, value, wishes) {
        return finding;
    }
    if !wishes.listens {
        return Finding::ok(NAME, "not needed: the table is polled (pollinterval)");
    }
    match value {
        None => Finding { state: State::Problem, ..missing(NAME, KEY, "there are no events") },
        Some(0) => Finding::problem(
            NAME,
            format!("{KEY} is 0: the kernel reports no events at all"),
            wishes.sysctl_remedy(KEY),
        ),
        // 2 gives events to the flows that begin while somebody listens
        // (net/netfilter/nf_conntrack_ecache.c, 6.18).
        Some(value) => {
            let consequence = match (wishes.blind, wishes.redump) {
                (true, _) => "and goes unlogged".to_owned(),
                (false, Some(period)) => {
                    format!("and flowlog notices it by a dump every {period} s")
                }
                // Nobody asks for the end of flows.
                (false, None) => return Finding::ok(NAME, format!("{KEY} is {value}")),
            };
            Finding::warning(
                NAME,
                format!(
                    "{KEY} is {value}: of flows that exist when flowlog starts the kernel never \
                     reports the end, {consequence}"
                ),
                wishes.sysctl_remedy(KEY),
            )
        }
    }
}

fn missing(name: &'static str, key: &str, lost: &str) -> Finding {
    Finding::warning(
        name,
        format!("this kernel has no {key}: {lost}"),
        "use a kernel that is built with it",
    )
}

fn buffer(net_admin: bool, unlimited: bool, rmem_max: Option<u64>, wishes: &Wishes<'_>) -> Finding {
    const NAME: &str = "buffer";
    let wanted = wishes.buffer;
    if wanted == 0 {
        return Finding::ok(NAME, "no limit is in the way");
    }
    let capped = rmem_max.is_none_or(|max| max < wanted as u64);
    if unlimited || !capped {
        return Finding::ok(NAME, format!("the receive buffer can grow to {wanted} bytes"));
    }
    let limit = match rmem_max {
        Some(max) => format!("rmem_max is {max} bytes"),
        None => "rmem_max of the host, which is not shown here, is the limit".to_owned(),
    };
    let why = match net_admin {
        true => ", and CAP_NET_ADMIN of a user namespace does not lift it",
        false => "",
    };
    let remedy = match net_admin {
        true => format!("set net.core.rmem_max = {wanted} on the host"),
        false => format!(
            "run it with CAP_NET_ADMIN, which lifts the limit, or set net.core.rmem_max = {wanted}"
        ),
    };
    Finding::warning(
        NAME,
        format!("{limit}{why}: the receive buffer may not grow to {wanted}"),
        remedy,
    )
}

fn table(count: u64, max: u64) -> Finding {
    const NAME: &str = "table";
    let what = format!("{count} of {max} entries are in use");
    // 0 is no limit.
    if max > 0 && count.saturating_mul(10) >= max.saturating_mul(9) {
        Finding::warning(
            NAME,
            format!(
                "{what}: when it is full the kernel drops packets, and their flows are not \
                     logged"
            ),
            format!(
                "raise it: put the line `net.netfilter.nf_conntrack_max = {}` into \
                 /etc/sysctl.d and run `sysctl --system`",
                max.saturating_mul(2)
            ),
        )
    } else {
        Finding::ok(NAME, what)
    }
}

#[cfg(test)]
mod tests;
