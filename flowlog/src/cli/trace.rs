//! The arguments of `flowlog trace`.

use clap::{Args, ValueEnum};

use super::flows::{Flows, Place, Showing};
use crate::config::{self, Attach, NetnsScope};
use crate::verb::trace::{Format, Kind, Options, Reason, Selection};

/// Callers in a line, unless told otherwise.
const CALLERS: usize = 5;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Trace {
    /// How to show events
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Kinds of events: new, update, destroy, expect, refused, full [default: all]
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    event: Vec<Kind>,
    #[command(flatten)]
    flows: Flows,
    /// Why flows ended or did not begin; nothing else is shown then
    #[arg(long, value_name = "CAUSE", value_delimiter = ',', value_parser = reason)]
    cause: Vec<Reason>,
    /// Callers in a line of text: a number, or `full`
    #[arg(long, value_name = "N", default_value_t = Callers(CALLERS), value_parser = callers)]
    stack: Callers,
    /// Tell at the end what was shown, counted by kind, cause and function
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    showing: Showing,
}

const HELP: &str = "\
By eBPF only. It is dearer than `flowlog watch`: the kernel's stack is walked for each event.

A line: time, kind, #FLOW (lines of one flow have one number), protocol, source → destination
as sent; since= (the flow's last event), state= and status= as BEFORE→AFTER (one alone: as
before; -: not known), changed= (what the kernel says has changed), snat=, dnat=, packets= and
bytes= as SENT/ANSWERED; cause= (of an end or a refusal), hook= (the netfilter hook that
refused it), portid= (netlink port of whoever asked); by= (the task, if it was at work itself;
softirq, whatever task it interrupted; -: not known), cpu=, netns=INODE(NAME), zone=, mark=,
helper=; fn= (the kernel's function) from its callers, the nearest first.

What no log has: [REFUSED], a new connection whose packet was dropped before its entry was in
the table; [FULL], one for which there was no entry to be had.

Several values have commas between them; one of them must match, and every option.

Examples:
  flowlog trace --src 10.0.0.7 --port 443         what becomes of these connections, and why
  flowlog trace --event refused,full              what the ruleset refuses, and the full table
  flowlog trace --cause deleted --stack full      who deletes connections
  flowlog trace --for 10s --summary -q            where all events come from
  flowlog trace -o json --netns blue | jq .       for scripts: all callers, times in nanoseconds

Causes of ends: expired_gc, expired_lookup, early_drop, deleted, flushed, netns_gone,
tcp_reopened, reset, nat_clash, other. Of refusals: ruleset (a netfilter hook dropped the
packet), clash (another packet of the flow was first), ovs_ct (Open vSwitch's zone limit, as a
rule), elsewhere (dropped by something else), table_full, no_memory, unknown (no names).
Exit codes: 0 success, 1 failed at run time, 2 usage. SIGINT and SIGTERM end it.";

impl From<Trace> for Options {
    fn from(args: Trace) -> Self {
        Self {
            format: match args.output {
                Output::Text => Format::Text,
                Output::Json => Format::Json,
            },
            selection: Selection {
                kinds: args.event,
                flows: args.flows.into(),
                reasons: args.cause,
            },
            callers: args.stack.0,
            summary: args.summary,
            color: args.showing.color.into(),
            netns: args.place.netns.unwrap_or(NetnsScope::All),
            attach: Attach::from(args.place.attach),
            lasting: args.showing.lasting,
            count: args.showing.count,
            quiet: args.showing.quiet,
            ring_buffer: config::ring_size(args.place.ring_buffer_size),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A line for people
    Text,
    /// One JSON object per line
    Json,
}

/// How many callers.
#[derive(Clone, Copy, Debug)]
struct Callers(usize);

impl std::fmt::Display for Callers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

fn callers(text: &str) -> Result<Callers, String> {
    if text == "full" {
        return Ok(Callers(usize::MAX));
    }
    text.parse().map(Callers).map_err(|_| "write a number, or full".to_owned())
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    found.ok_or_else(|| format!("write {}", Kind::ALL.map(Kind::name).join(", ")))
}

fn reason(text: &str) -> Result<Reason, String> {
    let names = || Reason::all().map(Reason::name).collect::<Vec<_>>().join(", ");
    let found = Reason::all().find(|reason| reason.name() == text);
    found.ok_or_else(|| format!("it is no cause; write one of {}", names()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::super::{Cli, Verb};
    use super::*;
    use crate::config::RING;
    use crate::event::Cause;
    use crate::verb::trace::Refusal;
    use crate::verb::watch::When;

    fn trace(line: &str) -> Result<Options, String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.verb {
            Some(Verb::Trace(args)) => Ok((*args).into()),
            verb => Err(format!("{verb:?}")),
        }
    }

    #[test]
    fn by_default_it_traces_all_everywhere() {
        let options = trace("flowlog trace").unwrap();
        assert!(options.selection.kinds.is_empty() && options.selection.reasons.is_empty());
        assert_eq!((options.format, options.callers), (Format::Text, CALLERS));
        assert_eq!((options.netns, options.summary), (NetnsScope::All, false));
        assert_eq!((options.color, options.ring_buffer), (When::Auto, RING));
    }

    #[test]
    fn everything_can_be_chosen() {
        let line = "flowlog trace -o json --event refused,full --event destroy --proto tcp,17 \
                    --src 10.0.0.0/8 --dst fd77::1 --port 22 --cause ruleset,deleted --netns blue \
                    --for 5 --count 3 --stack full --summary --color never -q --attach kprobe \
                    --ring-buffer-size 5000";
        let options = trace(line).unwrap();
        let Selection { kinds, flows, reasons } = options.selection;
        assert_eq!(kinds, [Kind::Refused, Kind::Full, Kind::Destroy]);
        let ruleset = Reason::Refusal(Refusal::Ruleset);
        assert_eq!(reasons, [ruleset, Reason::End(Cause::Deleted)]);
        assert_eq!((flows.protocols, flows.ports), (vec![6, 17], vec![22]));
        assert_eq!((flows.sources.len(), flows.destinations.len()), (1, 1));
        assert_eq!(options.netns, NetnsScope::Path("blue".into()));
        assert_eq!((options.lasting, options.count), (Some(Duration::from_secs(5)), Some(3)));
        assert_eq!((options.callers, options.summary), (usize::MAX, true));
        assert_eq!((options.format, options.color), (Format::Json, When::Never));
        assert_eq!((options.attach, options.ring_buffer), (Attach::Kprobe, 8192));
        assert!(options.quiet);
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_remedy() {
        for (option, remedy) in [
            ("--event gone", "write new, update, destroy, expect, refused, full"),
            ("--cause lost", "write one of expired_gc"),
            ("--stack most", "write a number, or full"),
            ("--capture netlink", "unexpected argument"),
        ] {
            let refused = trace(&format!("flowlog trace {option}")).unwrap_err();
            assert!(refused.contains(remedy), "{refused}");
        }
    }

    #[test]
    fn the_help_has_all_kinds_and_causes() {
        for name in Reason::all().map(Reason::name) {
            assert!(HELP.contains(name), "{name}");
        }
    }
}
