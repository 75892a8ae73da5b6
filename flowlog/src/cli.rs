//! Arguments → a verb → an exit code. A command line of ulogd2, without a verb,
//! means `run`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::RangedI64ValueParser;
use clap::error::ErrorKind;
use clap::{Args, Command, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::values::parse_duration;
use crate::config::{
    self, Attach, BUFFER_LIMIT, CaptureChoice, MAX_PENDING, MAX_PENDING_BOUNDS, NetnsScope, RING,
    RING_BOUNDS, WINDOW_MS, WINDOW_MS_BOUNDS,
};
use crate::verb::{self, audit, list, run};

mod flows;
mod selection;
mod top;
mod trace;
mod watch;
mod who;

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
        /// Say too which outputs this user could not open anew, as with `run -u`
        #[arg(short, long = "uid", value_name = "USER")]
        user: Option<String>,
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
    /// Show events live, of all network namespaces; logs no flow
    // Boxed, as it has more to say than the others.
    Watch(Box<watch::Watch>),
    /// Follow connections through the kernel, and those that it refuses; logs no flow
    Trace(Box<trace::Trace>),
    /// Show rates, causes and who has most of the events, as a screen; logs no flow
    Top(Box<top::Top>),
    /// Compare what eBPF and netlink tell for a while; logs no flow
    Audit(Audit),
    /// Tell who had an address and port at a time, from what PARQUET and SQLITE3 have written
    Who(Box<who::Who>),
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

#[derive(Debug, Args)]
#[command(after_help = AUDIT_HELP)]
struct Audit {
    /// How long: a number with ms, s, m, h or d; without one of them, of seconds
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = lasting)]
    lasting: Duration,
    /// Network namespace: a name of `ip netns`, or a path
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// How eBPF is attached to the kernel's functions
    #[arg(long, value_enum, default_value_t = AttachKind::Auto)]
    attach: AttachKind,
    /// Milliseconds that an event waits for the other source to tell it too
    #[arg(long, value_name = "N", default_value_t = WINDOW_MS)]
    #[arg(value_parser = within(WINDOW_MS_BOUNDS))]
    window_ms: u32,
    /// Events that wait at most
    #[arg(long, value_name = "N", default_value_t = MAX_PENDING)]
    #[arg(value_parser = within(MAX_PENDING_BOUNDS))]
    max_pending: u32,
    /// Room for eBPF events that wait to be read
    #[arg(long, value_name = "BYTES", default_value_t = RING, value_parser = within(RING_BOUNDS))]
    ring_buffer_size: u32,
    /// Receive buffer of netlink [default: as netlink_socket_buffer_size]
    #[arg(long, value_name = "BYTES", value_parser = within(1..=BUFFER_LIMIT))]
    netlink_buffer_size: Option<u32>,
}

const AUDIT_HELP: &str = "\
Exit codes: 0 every difference is explained, 1 some is not or nothing could be
compared, 2 usage. SIGINT and SIGTERM end it early, with the report.";

impl From<Audit> for audit::Options {
    fn from(args: Audit) -> Self {
        let Audit { lasting, netns, json, attach, window_ms, max_pending, .. } = args;
        Self {
            lasting,
            netns,
            json,
            attach: attach.into(),
            window: Duration::from_millis(window_ms.into()),
            max_pending: max_pending as usize,
            ring_buffer: config::ring_size(args.ring_buffer_size),
            netlink_buffer: args
                .netlink_buffer_size
                .map_or_else(config::default_buffers, |bytes| (bytes as usize, bytes as usize)),
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AttachKind {
    /// fentry where it can be had, else kprobes
    Auto,
    /// kprobes
    Kprobe,
    /// fentry, which costs less
    Fentry,
}

impl From<AttachKind> for Attach {
    fn from(kind: AttachKind) -> Self {
        match kind {
            AttachKind::Auto => Self::Auto,
            AttachKind::Kprobe => Self::Kprobe,
            AttachKind::Fentry => Self::Fentry,
        }
    }
}

/// Numbers between the bounds of a key of the configuration.
fn within(bounds: std::ops::RangeInclusive<i64>) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(bounds)
}

fn lasting(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("nothing happens in no time; give a time such as 30s".to_owned()),
        lasting => Ok(lasting),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CaptureKind {
    /// eBPF where the kernel allows it, else netlink
    Auto,
    /// eBPF or nothing
    Ebpf,
    /// nfnetlink_conntrack
    Netlink,
    /// eBPF and netlink, compared event by event
    Both,
}

impl From<CaptureKind> for CaptureChoice {
    fn from(kind: CaptureKind) -> Self {
        match kind {
            CaptureKind::Auto => Self::Auto,
            CaptureKind::Ebpf => Self::Ebpf,
            CaptureKind::Netlink => Self::Netlink,
            CaptureKind::Both => Self::Both,
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

/// The definition of the command line, for manual pages and completions.
pub fn command() -> Command {
    Cli::command()
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
        Verb::Check { config: file, json, user } => {
            verb::check::run(&config(file), json, user.as_deref())
        }
        Verb::List { output, netns } => {
            let format = match output {
                Format::Extended => list::Format::Extended,
                Format::Json => list::Format::Json,
            };
            list::run(format, netns.as_deref())
        }
        Verb::Watch(args) => verb::watch::run(&(*args).into()),
        Verb::Trace(args) => verb::trace::run(&(*args).into()),
        Verb::Top(args) => verb::top::run(&(*args).into()),
        Verb::Audit(args) => audit::run(&args.into()),
        Verb::Who(args) => match args.options() {
            Ok(options) => Ok(verb::who::run(&options)),
            Err(why) => Cli::command().error(ErrorKind::ArgumentConflict, why).exit(),
        },
        Verb::Info { plugin } => verb::info::run(plugin.as_deref()),
        #[cfg(feature = "ebpf")]
        Verb::Layout => verb::layout::run(),
        Verb::Replay { config, recording } => verb::replay::run(&config, &recording),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
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
        let args = run("flowlog --capture both").unwrap();
        assert_eq!(args.capture.map(CaptureChoice::from), Some(CaptureChoice::Both));
        let args = run("flowlog --capture auto --netns blue").unwrap();
        assert_eq!(args.netns, Some(NetnsScope::Path("blue".into())));
        assert!(run("flowlog --capture bpf").is_err() && run("flowlog --netns ").is_err());
    }

    fn audit(line: &str) -> Result<audit::Options, String> {
        let cli = Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        match cli.verb {
            Some(Verb::Audit(args)) => Ok(args.into()),
            verb => Err(format!("{verb:?}")),
        }
    }

    #[test]
    fn an_audit_has_the_defaults_of_the_configuration() {
        let options = audit("flowlog audit").unwrap();
        assert_eq!(options.lasting, Duration::from_secs(30));
        assert_eq!((options.window, options.max_pending), (Duration::from_secs(2), 262_144));
        assert_eq!((options.attach, options.ring_buffer), (Attach::Auto, 16 << 20));
        assert_eq!(options.netlink_buffer, config::default_buffers());
        let line = "flowlog audit --for 2m --netns blue --json --attach kprobe --window-ms 100 \
                    --max-pending 16 --ring-buffer-size 1000000 --netlink-buffer-size 65536";
        let options = audit(line).unwrap();
        assert_eq!(options.lasting, Duration::from_secs(120));
        assert_eq!((options.netns, options.json), (Some("blue".into()), true));
        assert_eq!((options.attach, options.ring_buffer), (Attach::Kprobe, 1 << 20));
        assert_eq!(options.netlink_buffer, (65536, 65536));
    }

    #[test]
    fn an_audit_of_no_known_time_is_refused_with_the_remedy() {
        let refused = audit("flowlog audit --for 10min").unwrap_err();
        assert!(
            refused.contains("'10min' for '--for <DURATION>': `min` is no unit; write a number")
        );
        let refused = audit("flowlog audit --for 0s").unwrap_err();
        assert!(refused.contains("give a time such as 30s"), "{refused}");
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        for option in ["window-ms 99", "max-pending 15", "ring-buffer-size 4095"] {
            let refused = audit(&format!("flowlog audit --{option}")).unwrap_err();
            assert!(refused.contains(" is not in "), "{refused}");
        }
    }

    #[test]
    fn a_verb_and_options_before_it_do_not_mix() {
        assert!(Cli::try_parse_from(["flowlog", "-d", "list"]).is_err());
    }
}
