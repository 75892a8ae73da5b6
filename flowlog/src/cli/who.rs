//! The arguments of `flowlog who`.

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;

use crate::config;
use crate::verb::run;
use crate::verb::who::{Options, Question, Span, Wanted, parse};
use crate::zone;

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Who {
    /// An address, or address and port: 192.0.2.1, 192.0.2.1:443, 2001:db8::1,
    /// [2001:db8::1]:443
    #[arg(value_name = "ADDRESS[:PORT]")]
    wanted: Wanted,
    /// Directories, files of PARQUET, databases of SQLITE3 [default: those that the
    /// configuration writes]
    #[arg(value_name = "ARCHIVE")]
    archives: Vec<PathBuf>,
    /// Connections that were alive at this time
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with_all = ["from", "to"])]
    at: Option<Span>,
    /// Connections that were alive at this time or later
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Span>,
    /// Connections that were alive at this time or earlier
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Span>,
    /// Connections of this protocol only, by name or number
    #[arg(long, value_name = "PROTOCOL", value_parser = config::protocol)]
    proto: Option<u8>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// Records that are looked at, at most
    #[arg(long, value_name = "N", default_value_t = LIMIT)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=LIMIT_BOUND))]
    limit: u64,
    /// Check databases of SQLITE3 as a whole, however long that takes [default: up to 2 s each]
    #[arg(long)]
    verify: bool,
    /// Configuration file [default: /etc/flowlog.conf, else /etc/ulogd.conf]
    #[arg(short, long = "configfile", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Of so many nobody reads all.
const LIMIT: u64 = 100_000;
/// What memory has room for, at about half a KiB each.
const LIMIT_BOUND: u64 = 100_000_000;

const HELP: &str = "\
Any of the four ends of a connection may match: `matched=` says src (who opened it) or dst,
before NAT, and snat or dnat, what NAT has put in their place.

A time is as long as it is precise: 14:05 is that minute, 14:05:07 that second, 2026-11-20
that day. Without a zone it is local time: 14:05, \"2026-11-20 14:05\", \"yesterday 14:05\",
\"5m ago\", \"Nov 20 14:05:07\"; or 2026-11-20T14:05:07+01:00. Without a time: whenever.

Archives have connections that have ended; those that live are in `flowlog list`, unless
their beginnings are logged too.

Examples:
  flowlog who 203.0.113.7:40001 --at \"2026-11-20 14:05\" --proto tcp
  flowlog who [2001:db8::1]:443 --from 9:00 --to 9:30 /var/log/flowlog/archive
  flowlog who 10.0.0.5 --at yesterday --json old.db | jq .connections

Exit codes: 0 found, 1 nothing found, 2 usage or configuration, 3 incomplete: the archives
do not cover that time or a part of it, records of it were lost, an archive is damaged or
cannot be read, a database takes longer to check than 2 s (see --verify), or there is more
than --limit.";

fn time(text: &str) -> Result<Span, String> {
    parse(text, Timestamp::now(), zone::local().time_zone())
}

impl Who {
    /// # Errors
    /// It would end before it begins.
    pub(super) fn options(self) -> Result<Options, String> {
        let Span { first, last } = Span::ALL;
        let span = self.at.unwrap_or(Span {
            first: self.from.map_or(first, |from| from.first),
            last: self.to.map_or(last, |to| to.last),
        });
        if span.first > span.last {
            return Err("--from is after --to; exchange them".to_owned());
        }
        Ok(Options {
            question: Question { wanted: self.wanted, protocol: self.proto, span },
            archives: self.archives,
            config: self.config.unwrap_or_else(run::default_file),
            json: self.json,
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            verify: self.verify,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Verb};
    use super::*;

    fn who(words: &[&str]) -> Result<Options, String> {
        let line = ["flowlog", "who"].iter().chain(words);
        match Cli::try_parse_from(line).map_err(|error| error.to_string())?.verb {
            Some(Verb::Who(args)) => args.options(),
            verb => Err(format!("{verb:?}")),
        }
    }

    #[test]
    fn a_question_is_taken() {
        let words = ["192.0.2.1:443", "--at", "2026-11-20T14:05Z", "--proto", "tcp", "a", "b.db"];
        let options = who(&words).unwrap();
        let Question { wanted, protocol, span } = options.question;
        assert_eq!((wanted.to_string().as_str(), protocol), ("192.0.2.1:443", Some(6)));
        assert_eq!(
            (span.first, span.last - span.first),
            (1_795_183_500_000_000_000, 59_999_999_999)
        );
        assert_eq!(options.archives, [PathBuf::from("a"), "b.db".into()]);
        assert!(!options.json && options.limit == 100_000);
        assert!(!options.verify && who(&["::1", "--verify"]).unwrap().verify);
        let options = who(&["::1", "--from", "2026-11-20", "--json", "--limit", "7"]).unwrap();
        assert_eq!((options.question.span.last, options.limit), (Span::ALL.last, 7));
        assert_eq!(who(&["::1"]).unwrap().question.span, Span::ALL);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (words, why) in [
            (&["192.0.2.1", "--at", "noon"][..], "it is no time that flowlog knows; write for"),
            (&["192.0.2.1", "--at", "9:00", "--to", "9:01"], "cannot be used with"),
            (&["example.org"], "names are not looked up"),
            (&["::1", "--from", "2026-11-20", "--to", "2026-11-19"], "--from is after --to"),
            (&["::1", "--limit", "0"], "is not in 1.."),
            (&[], "required arguments"),
        ] {
            let refused = who(words).unwrap_err();
            assert!(refused.contains(why), "{words:?}: {refused}");
        }
    }
}
