//! The arguments of `flowlog top`.

use std::time::Duration;

use clap::Args;

use super::flows::Color;
use super::lasting;
use super::selection::SelectionArgs;
use crate::verb::top::Options;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Top {
    /// Between two pictures
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print one picture as text, after --for or else one interval; needs no terminal
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    selection: SelectionArgs,
    /// End after this time: a number with ms, s, m, h or d; without one of them, of seconds
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    lasting: Option<Duration>,
    /// When the text of --once has colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    color: Color,
}

const HELP: &str = "\
Above: events per second and in all by kind, the kernel's table against nf_conntrack_max,
why flows end, what the sources have lost (red). Below: who has most of the events.

Keys: 1-5, Tab: sources, destinations, ports, namespaces, processes that delete flows;
s sorts by events, packets or bytes; t totals instead of rates; / only rows with a text;
p stands still; r counts anew; q quits; ? tells more.
Packets and bytes are those of flows that have ended; they need nf_conntrack_acct=1.

Examples:
  flowlog top                                   all events of all namespaces
  flowlog top --netns blue --proto tcp          of one namespace, TCP only
  flowlog top --event destroy --cause early_drop,deleted
  flowlog top --once --for 30s > report.txt     for mails and tickets

Exit codes: 0 success, 1 failed at run time, 2 usage. SIGINT and SIGTERM end it.";

/// As long as a picture must be there to be seen.
const SHORTEST: Duration = Duration::from_millis(100);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = lasting(text)?;
    if interval < SHORTEST {
        return Err("nobody could read it; give 100ms or more".to_owned());
    }
    Ok(interval)
}

impl From<Top> for Options {
    fn from(args: Top) -> Self {
        Self {
            listening: args.selection.into(),
            interval: args.interval,
            lasting: args.lasting,
            once: args.once,
            color: args.color.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Verb};
    use super::*;
    use crate::config::CaptureChoice;
    use crate::event::{Cause, Kinds};
    use crate::verb::watch::When;

    fn top(line: &str) -> Result<Options, String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.verb {
            Some(Verb::Top(args)) => Ok((*args).into()),
            verb => Err(format!("{verb:?}")),
        }
    }

    #[test]
    fn it_selects_as_watch_does() {
        let options = top("flowlog top").unwrap();
        let selection = &options.listening.selection;
        assert_eq!(selection.kinds, Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY | Kinds::EXPECT);
        assert_eq!((options.interval, options.lasting), (Duration::from_secs(1), None));
        assert!(!options.once && options.color == When::Auto);
        let line = "flowlog top --once --for 30s --interval 500ms --color never --event destroy \
                    --cause deleted --capture ebpf";
        let options = top(line).unwrap();
        assert!(options.once && options.listening.capture == CaptureChoice::Ebpf);
        assert_eq!(options.listening.selection.causes, [Cause::Deleted]);
        assert_eq!(options.lasting, Some(Duration::from_secs(30)));
        assert_eq!((options.interval, options.color), (Duration::from_millis(500), When::Never));
    }

    #[test]
    fn an_interval_is_long_enough_to_be_seen() {
        let refused = top("flowlog top --interval 99ms").unwrap_err();
        assert!(refused.contains("give 100ms or more"), "{refused}");
        assert!(top("flowlog top --interval 0s").unwrap_err().contains("give a time such as"));
    }
}
