//! Arguments → a verb → an exit code. A command line of ulogd2, without a verb,
//! means `run`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{CaptureChoice, NetnsScope};
use crate::verb::{self, list, run};

/// Logs every connection that this host tracks, and counts whatever is lost.
#[derive(Debug, Parser)]
#[command(name = "flowlog", version, args_conflicts_with_subcommands = true, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Run,
    /// Tell the keys of a plugin, by its name or by ulogd2's file name
    #[arg(short, long, value_name = "PLUGIN")]
    info: Option<String>,
}

const HELP: &str = "\
Without a verb flowlog runs, so a command line of ulogd2 works as it is.
Exit codes: 0 success, 1 failed at run time, 2 usage or configuration.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the daemon
    Run(Run),
    /// Check the configuration, then this host; each finding with its remedy
    Check {
        /// Configuration file [default: /etc/flowlog.conf, else /etc/ulogd.conf]
        #[arg(short, long = "configfile", value_name = "FILE")]
        config: Option<PathBuf>,
        /// Print one JSON object instead of lines
        #[arg(long)]
        json: bool,
    },
    /// Print the table of tracked connections
    List {
        /// How to print it
        #[arg(short, long, value_enum, default_value_t = Format::Extended)]
        output: Format,
        /// Network namespace: a name of `ip netns`, or a path
        #[arg(long, value_name = "PATH")]
        netns: Option<PathBuf>,
    },
    /// Tell plugins, their keys, defaults and meaning
    Info {
        /// One plugin instead of all
        plugin: Option<String>,
    },
    /// Tell where this kernel's conntrack has its fields
    #[cfg(feature = "ebpf")]
    #[command(hide = true)]
    Layout,
    /// Replay recorded netlink messages through a configuration
    #[command(hide = true)]
    Replay {
        /// Configuration file
        #[arg(short, long = "configfile", value_name = "FILE")]
        config: PathBuf,
        /// Netlink messages, one after the other
        recording: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Configuration file [default: /etc/flowlog.conf, else /etc/ulogd.conf]
    #[arg(short, long = "configfile", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Go to the background; the exit code tells whether the start succeeded
    #[arg(short, long)]
    daemon: bool,
    /// Become this user after the start, keeping CAP_NET_ADMIN, and CAP_BPF for eBPF
    #[arg(short, long = "uid", value_name = "USER")]
    user: Option<String>,
    /// Write the pid into this file and lock it
    #[arg(short, long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Copy the daemon's own messages to standard error
    #[arg(short, long)]
    verbose: bool,
    /// Messages shown: 1 debug, 3 info, 5 notice, 7 error, 8 fatal; 0: as configured
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=8))]
    loglevel: Option<u8>,
    /// Network namespaces to watch: `all`, `self`, a name of `ip netns`, or a path
    #[arg(long, value_name = "NETNS", value_parser = netns)]
    netns: Option<NetnsScope>,
    /// Where events come from
    #[arg(long, value_enum)]
    capture: Option<CaptureKind>,
    /// Make the kernel track connections while flowlog runs
    #[arg(long)]
    activate: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CaptureKind {
    /// eBPF where the kernel allows it, else netlink
    Auto,
    /// eBPF or nothing
    Ebpf,
    /// nfnetlink_conntrack
    Netlink,
}

impl From<CaptureKind> for CaptureChoice {
    fn from(kind: CaptureKind) -> Self {
        match kind {
            CaptureKind::Auto => Self::Auto,
            CaptureKind::Ebpf => Self::Ebpf,
            CaptureKind::Netlink => Self::Netlink,
        }
    }
}

fn netns(text: &str) -> Result<NetnsScope, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(NetnsScope::new(text)) }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// As `conntrack -L -o extended`
    Extended,
    /// One JSON object per line
    Json,
}

/// Does what the command line asks for.
///
/// # Errors
/// What failed at run time.
pub fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let config = |file: Option<PathBuf>| file.unwrap_or_else(run::default_file);
    if let Some(plugin) = cli.info {
        return verb::info::run(Some(&plugin));
    }
    match cli.verb.unwrap_or(Verb::Run(cli.run)) {
        Verb::Run(args) => run::run(&run::Options {
            file: config(args.config),
            daemon: args.daemon,
            user: args.user,
            pidfile: args.pidfile,
            verbose: args.verbose,
            loglevel: args.loglevel.filter(|level| *level > 0),
            netns: args.netns,
            capture: args.capture.map(CaptureChoice::from),
            activate: args.activate,
        }),
        Verb::Check { config: file, json } => verb::check::run(&config(file), json),
        Verb::List { output, netns } => {
            let format = match output {
                Format::Extended => list::Format::Extended,
                Format::Json => list::Format::Json,
            };
            list::run(format, netns.as_deref())
        }
        Verb::Info { plugin } => verb::info::run(plugin.as_deref()),
        #[cfg(feature = "ebpf")]
        Verb::Layout => verb::layout::run(),
        Verb::Replay { config, recording } => verb::replay::run(&config, &recording),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_command_line_of_ulogd2_is_taken() {
        let line = "flowlog --daemon --uid ulog --pidfile /run/ulog/ulogd.pid -c /etc/ulogd.conf";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        assert!(cli.verb.is_none() && cli.run.daemon);
        assert_eq!(cli.run.user.as_deref(), Some("ulog"));
        let cli = Cli::try_parse_from("flowlog -c F -d -u ulog -p P -v -l 3".split(' ')).unwrap();
        assert_eq!(cli.run.loglevel, Some(3));
    }

    #[test]
    fn capture_and_namespaces_are_taken() {
        let run = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.run);
        let args = run("flowlog --capture ebpf --netns all").unwrap();
        assert_eq!(args.capture.map(CaptureChoice::from), Some(CaptureChoice::Ebpf));
        assert_eq!(args.netns, Some(NetnsScope::All));
        let args = run("flowlog --capture auto --netns blue").unwrap();
        assert_eq!(args.netns, Some(NetnsScope::Path("blue".into())));
        assert!(run("flowlog --capture bpf").is_err() && run("flowlog --netns ").is_err());
    }

    #[test]
    fn a_verb_and_options_before_it_do_not_mix() {
        assert!(Cli::try_parse_from(["flowlog", "-d", "list"]).is_err());
    }
}
