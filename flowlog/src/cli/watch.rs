//! The arguments of `flowlog watch`.

use clap::{Args, ValueEnum};

use super::flows::Showing;
use super::selection::SelectionArgs;
use crate::verb::watch::{Format, Options};

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Watch {
    /// How to show events
    #[arg(short, long, value_enum, default_value_t = Output::Line)]
    output: Output,
    #[command(flatten)]
    selection: SelectionArgs,
    #[command(flatten)]
    showing: Showing,
}

const HELP: &str = "\
A line: time, kind, protocol, source → destination as sent, state, and where they are
known: snat=, dnat= (what NAT puts in the place of the source, of the destination);
at the end packets= and bytes= as SENT/ANSWERED, duration= (if the kernel tells the
start, or it was shown), cause= with pid= and comm= of the process that deleted the
flow; netns=INODE(NAME), zone=, mark=, helper=. [LOST] tells events that were lost
here; other listeners are not affected. In JSON times are RFC 3339, durations nanoseconds.

Several values have commas between them; one of them must match, and every option.

Examples:
  flowlog watch                                  all events of all namespaces
  flowlog watch --event new --proto tcp --port 22,443
  flowlog watch --src 10.0.0.0/8 --netns blue --count 10
  flowlog watch --cause early_drop,deleted       who or what ends flows before their time
  flowlog watch -o json --for 1m -q | jq .       for scripts
  flowlog watch -o extended --capture netlink    as conntrack -E -o extended

Causes: expired_gc, expired_lookup, early_drop, deleted, flushed, netns_gone, tcp_reopened,
reset, nat_clash, lost, other.
Exit codes: 0 success, 1 failed at run time, 2 usage. SIGINT and SIGTERM end it.";

impl From<Watch> for Options {
    fn from(args: Watch) -> Self {
        Self {
            format: match args.output {
                Output::Line => Format::Line,
                Output::Extended => Format::Extended,
                Output::Json => Format::Json,
            },
            listening: args.selection.into(),
            color: args.showing.color.into(),
            lasting: args.showing.lasting,
            count: args.showing.count,
            quiet: args.showing.quiet,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A compact line for people
    Line,
    /// As `conntrack -E -o extended`, and [more] behind it
    Extended,
    /// One JSON object per line
    Json,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::super::{Cli, Verb};
    use super::*;
    use crate::capture::filter::Network;
    use crate::config::{Attach, CaptureChoice, NetnsScope, RING};
    use crate::event::{Cause, Kinds};
    use crate::verb::watch::{Selection, When};

    fn watch(line: &str) -> Result<Options, String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.verb {
            Some(Verb::Watch(args)) => Ok((*args).into()),
            verb => Err(format!("{verb:?}")),
        }
    }

    #[test]
    fn by_default_it_shows_what_conntrack_does_everywhere() {
        let options = watch("flowlog watch").unwrap();
        let expected = Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY | Kinds::EXPECT;
        assert_eq!((options.format, options.listening.selection.kinds), (Format::Line, expected));
        assert_eq!(
            (options.listening.netns, options.listening.capture),
            (None, CaptureChoice::Auto)
        );
        assert_eq!((options.count, options.lasting, options.quiet), (None, None, false));
        assert_eq!((options.color, options.listening.ring_buffer), (When::Auto, RING));
    }

    #[test]
    fn lists_have_commas_or_are_repeated() {
        let line = "flowlog watch -o json --event new,gc --event helper --proto tcp,132 --src \
                    10.0.0.0/8,fd77::1 --dst 192.0.2.1 --port 22,443 --cause flushed,reset \
                    --netns blue --for 250ms --count 3 --color always -q --capture ebpf --attach \
                    kprobe --activate --ring-buffer-size 5000 --netlink-buffer-size 65536";
        let options = watch(line).unwrap();
        let Selection { kinds, protocols, sources, destinations, ports, causes } =
            options.listening.selection.clone();
        assert_eq!(kinds, Kinds::NEW | Kinds::GC | Kinds::HELPER);
        assert_eq!((protocols, ports), (vec![6, 132], vec![22, 443]));
        assert_eq!(causes, [Cause::Flushed, Cause::Reset]);
        let lengths = |list: &[Network]| list.iter().map(Network::length).collect::<Vec<_>>();
        assert_eq!((lengths(&sources), lengths(&destinations)), (vec![8, 128], vec![32]));
        assert_eq!(options.listening.netns, Some(NetnsScope::Path("blue".into())));
        assert_eq!((options.lasting, options.count), (Some(Duration::from_millis(250)), Some(3)));
        assert_eq!((options.color, options.quiet), (When::Always, true));
        assert_eq!(
            (options.listening.capture, options.listening.attach),
            (CaptureChoice::Ebpf, Attach::Kprobe)
        );
        assert_eq!((options.listening.activate, options.listening.ring_buffer), (true, 8192));
        assert_eq!(options.listening.netlink_buffer, (65536, 65536));
    }

    #[test]
    fn what_is_not_known_is_refused_with_the_remedy() {
        for (option, remedy) in [
            ("--event begin", "write new, update, destroy"),
            ("--event NEW", "write new, update, destroy"),
            ("--cause expired", "write one of expired_gc, expired_lookup"),
            ("--proto tpc", "write a name from /etc/protocols"),
            ("--src 10.0.0/8", "no IP address"),
            ("--port 65536", "is not in 0..=65535"),
            ("--count 0", "is not in 1.."),
            ("--for 0s", "give a time such as 30s"),
            ("--color green", "possible values: auto, always, never"),
        ] {
            let refused = watch(&format!("flowlog watch {option}")).unwrap_err();
            assert!(refused.contains(remedy), "{refused}");
        }
    }

    #[test]
    fn the_help_has_all_causes() {
        for cause in Cause::ALL {
            assert!(HELP.contains(cause.name()), "{}", cause.name());
        }
    }
}
