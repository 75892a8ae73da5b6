//! The configuration line by line: what flowlog does with each.

use std::fmt::Write as _;

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::lines::{Line, Reading};
use crate::config::{CaptureChoice, Config, NetnsScope, Outcome, Source, Stack, Stage};
use crate::event::Kinds;
use crate::plugin::filter::pushdown::Bounds;
use crate::plugin::output::Destination;

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done as written.
    Taken,
    /// It may stand there, and changes nothing.
    Ignored,
    /// It stands where nobody reads it.
    Unread,
    /// It is done, or left out, in another way than one might think.
    Note,
    /// It has a name that nobody knows.
    Unknown,
    /// The daemon does not start with it.
    Error,
}

impl Verdict {
    const ALL: [Self; 6] =
        [Self::Taken, Self::Ignored, Self::Unread, Self::Note, Self::Unknown, Self::Error];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Ignored => "ignored",
            Self::Unread => "unread",
            Self::Note => "note",
            Self::Unknown => "unknown",
            Self::Error => "error",
        }
    }
}

impl From<Severity> for Verdict {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Note => Self::Note,
            Severity::Unknown => Self::Unknown,
            Severity::Error => Self::Error,
        }
    }
}

/// A line and what becomes of it.
#[derive(Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) number: usize,
    /// What may be shown of it.
    pub(super) text: String,
    pub(super) verdict: Verdict,
    /// What it does, or what is wrong with it; empty: its section says it.
    pub(super) what: String,
}

/// Judges every line that says something.
pub(super) fn judge(outcome: &Outcome) -> Vec<Judged> {
    outcome.lines.iter().map(|line| one(line, outcome)).collect()
}

fn one(line: &Line, outcome: &Outcome) -> Judged {
    let found: Vec<&Diagnostic> =
        outcome.diagnostics.iter().filter(|d| d.line == Some(line.number)).collect();
    let (verdict, what) = if let Some(gravest) = gravest(&found) {
        let messages: Vec<&str> = found.iter().map(|d| d.message.as_str()).collect();
        (gravest, messages.join("; "))
    } else {
        match line.reading {
            Some(Reading::Section) => (Verdict::Taken, String::new()),
            Some(Reading::Unread(why)) => (Verdict::Unread, why.to_owned()),
            Some(Reading::Key(key)) if key.is_ignored() => (Verdict::Ignored, key.help.to_owned()),
            Some(Reading::Key(key)) => {
                let said = outcome.config.as_ref().and_then(|config| {
                    stack(config, line.number).or_else(|| expression(config, line.number))
                });
                (Verdict::Taken, said.unwrap_or_else(|| key.help.to_owned()))
            }
            None => (Verdict::Unread, String::new()),
        }
    };
    let secret = match line.reading {
        Some(Reading::Key(key)) => key.is_secret(),
        // What flowlog does not know may be the password of a database.
        reading => reading.is_none() && !line.text.starts_with('['),
    };
    let text = if secret { line.word.clone() } else { line.text.clone() };
    Judged { number: line.number, text, verdict, what }
}

fn gravest(found: &[&Diagnostic]) -> Option<Verdict> {
    let severities = [Severity::Error, Severity::Unknown, Severity::Note];
    let gravest = severities.into_iter().find(|s| found.iter().any(|d| d.severity == *s));
    gravest.map(Verdict::from)
}

/// What the stack in that line does, if there is one.
fn stack(config: &Config, line: usize) -> Option<String> {
    let stack = config.stacks.iter().find(|stack| stack.line == line)?;
    let source = config.sources.get(stack.source)?;
    Some(format!("{} {}, {}", told(source), written(stack), taken(source)))
}

/// What the expression in that line does, if there is one.
fn expression(config: &Config, line: usize) -> Option<String> {
    let is_it = |stage: &Stage| matches!(stage, Stage::Filter(settings) if settings.line == line);
    let stack = config.stacks.iter().find(|stack| stack.stages.iter().any(is_it))?;
    let source = config.sources.get(stack.source)?;
    let stacks = config.stacks.iter().filter(|other| other.source == stack.source).count();
    let nothing = source.pushed == Bounds::default();
    let kernel = match (nothing, stacks) {
        (true, 1) => "nothing of it can be asked of the kernel".to_owned(),
        (true, _) => {
            "the kernel is asked for nothing, as the stacks of the source want different things"
                .to_owned()
        }
        (false, 1) => format!("the kernel lets pass {} only", source.pushed),
        (false, _) => {
            format!("the kernel lets pass what a stack of the source wants: {} only", source.pushed)
        }
    };
    Some(format!("asked of each event; {kernel}"))
}

/// What is told of flows.
fn told(source: &Source) -> String {
    if let Some(period) = source.nfct.poll {
        return format!("the table of flows, read every {} s,", period.as_secs());
    }
    let mut kinds = String::new();
    for (kind, name) in Kinds::NAMES {
        if source.nfct.mask.contains(kind) {
            let comma = if kinds.is_empty() { "" } else { ", " };
            let _ = write!(kinds, "{comma}{}", name.to_ascii_lowercase());
        }
    }
    match source.nfct.hash {
        Some(_) => format!("events ({kinds}), a flow's beginning and end as one,"),
        None => format!("every event ({kinds})"),
    }
}

fn written(stack: &Stack) -> String {
    match stack.stages.last() {
        Some(Stage::LogEmu(settings)) => format!("as a line to {}", settings.file.display()),
        Some(Stage::Syslog(settings)) => {
            format!("as a message to {}", place(&settings.output.destination))
        }
        Some(Stage::Json(settings)) => {
            format!("as a JSON object to {}", place(&settings.output.destination))
        }
        Some(Stage::Sqlite3(settings)) if settings.table.is_empty() => {
            format!("as a row of the database {}", settings.db.display())
        }
        Some(Stage::Sqlite3(settings)) => format!(
            "as a row of the table {} of the database {}",
            settings.table,
            settings.db.display()
        ),
        Some(Stage::Ipfix(settings)) => {
            format!("as an IPFIX record to {}", settings.collector())
        }
        Some(Stage::Parquet(settings)) => {
            format!("as a row of the archive in {}", settings.archive.directory.display())
        }
        Some(Stage::Pgsql(settings)) => format!("as a row to {}", settings.target.place()),
        Some(Stage::Kafka(settings)) => format!("as a message to {}", settings.far),
        Some(Stage::Nats(settings)) => format!("as a message to {}", settings.far),
        Some(Stage::Clickhouse(settings)) => format!(
            "as a row of the table {}.{} of ClickHouse at {}",
            settings.database,
            settings.table,
            settings.url.shown()
        ),
        Some(Stage::Ip2Str | Stage::PrintFlow(_) | Stage::Filter(_)) | None => {
            "to nobody".to_owned()
        }
    }
}

fn place(destination: &Destination) -> String {
    match destination {
        Destination::File { path, sync: _ } => path.display().to_string(),
        Destination::Socket(address) => address.to_string(),
    }
}

/// How events are taken, and where.
fn taken(source: &Source) -> String {
    let scope = |scope: &NetnsScope| match scope {
        NetnsScope::All => "of all network namespaces".to_owned(),
        NetnsScope::Own => "of flowlog's own network namespace".to_owned(),
        NetnsScope::Path(path) => format!("of the network namespace {}", path.display()),
    };
    let wanted = scope(&source.netns);
    match source.capture {
        CaptureChoice::Netlink => format!("over netlink {wanted}"),
        CaptureChoice::Ebpf => format!("by eBPF {wanted}"),
        CaptureChoice::Both => format!("by eBPF and netlink {wanted}, compared"),
        CaptureChoice::Auto if source.netns == NetnsScope::All => {
            let own = scope(&NetnsScope::Own);
            format!("by eBPF {wanted}, where that cannot be had over netlink {own}")
        }
        CaptureChoice::Auto => format!("by eBPF, where that cannot be had over netlink, {wanted}"),
    }
}

/// How many lines there are of each verdict, those that there are.
pub(super) fn counts(lines: &[Judged]) -> String {
    let count = |verdict| lines.iter().filter(|line| line.verdict == verdict).count();
    let counted = Verdict::ALL.into_iter().map(|verdict| (verdict, count(verdict)));
    let said = counted.filter(|(_, count)| *count > 0);
    said.map(|(verdict, count)| format!("{count} {}", verdict.name()))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config;

    fn judged(text: &str) -> Vec<Judged> {
        judge(&config::parse(Path::new("u.conf"), text))
    }

    const STACK: &str = "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU";

    #[test]
    fn every_line_that_says_something_is_judged() {
        let text = format!(
            "# a comment\nlost=1\n[global]\n\nplugin=\"/usr/lib/x.so\"\n{STACK}\n\
             #stack=ct2:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU\n\
             stack=log1:NFLOG,emu2:LOGEMU\n\
             [ct1]\nevent_mask=0x04\nhash_enable=0\nhash_buckets=1\nevnt=1\n[ct2]\n[log1]\n\
             group=0\n[mysql1]\npass=\"secret\"\n[emu1]\nfile=/tmp/x\nsync=yes\n"
        );
        let lines = judged(&text);
        let verdicts: Vec<_> =
            lines.iter().map(|l| (l.number, l.verdict.name(), l.text.as_str())).collect();
        assert_eq!(
            verdicts,
            [
                (2, "unread", "lost"),
                (3, "taken", "[global]"),
                (5, "ignored", "plugin=\"/usr/lib/x.so\""),
                (6, "taken", STACK),
                (8, "note", "stack=log1:NFLOG,emu2:LOGEMU"),
                (9, "taken", "[ct1]"),
                (10, "taken", "event_mask=0x04"),
                (11, "taken", "hash_enable=0"),
                (12, "ignored", "hash_buckets=1"),
                (13, "unknown", "evnt"),
                (14, "unread", "[ct2]"),
                (15, "unread", "[log1]"),
                (16, "unread", "group"),
                (17, "note", "[mysql1]"),
                (18, "unread", "pass"),
                (19, "taken", "[emu1]"),
                (20, "taken", "file=/tmp/x"),
                (21, "error", "sync=yes"),
            ]
        );
        assert_eq!(lines[10].what, "the stack that names it is commented out");
        assert_eq!(lines[11].what, "the stack that names it is left out");
        assert!(lines[17].what.contains("is no number"), "{}", lines[17].what);
        assert_eq!(counts(&lines), "7 taken, 2 ignored, 5 unread, 2 note, 1 unknown, 1 error");
    }

    #[test]
    fn passwords_are_not_shown() {
        let text = "[global]\nstack=ct1:NFCT,pg1:PGSQL\n[ct1]\n[pg1]\nuser=u\npass=\"hidden\n\
                    connstring=\"host=a password=hidden\"\n";
        let lines = judged(text);
        let shown: Vec<_> = lines.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(shown[4..], ["user=u", "pass", "connstring"]);
        assert!(lines[5].what.contains("the rest of the line is used"), "{}", lines[5].what);
        assert!(lines.iter().all(|line| !line.what.contains("hidden")), "{lines:?}");
    }

    fn what_the_stack_does(sections: &str) -> String {
        judged(&format!("[global]\n{STACK}\n{sections}")).remove(1).what
    }

    #[test]
    fn a_stack_is_told_in_words() {
        assert_eq!(
            what_the_stack_does("[ct1]\n[emu1]\nfile=/var/log/x"),
            "events (new, destroy), a flow's beginning and end as one, as a line to /var/log/x, \
             by eBPF of all network namespaces, where that cannot be had over netlink of \
             flowlog's own network namespace"
        );
        assert_eq!(
            what_the_stack_does("[ct1]\nhash_enable=0\nevent_mask=4\nnetns=blue\n[emu1]\nfile=/x"),
            "every event (destroy) as a line to /x, by eBPF, where that cannot be had over \
             netlink, of the network namespace blue"
        );
        let poll = what_the_stack_does("[ct1]\npollinterval=60\n[emu1]\nfile=/x");
        assert!(poll.starts_with("the table of flows, read every 60 s, as a line to /x, over"));
    }

    #[test]
    fn an_expression_says_what_the_kernel_is_asked() {
        const FILTERED: &str =
            "stack=ct1:NFCT,f1:FILTER,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU";
        let told = |stacks: &str, expression: &str| {
            let text = format!(
                "[global]\n{stacks}\n[ct1]\n[emu1]\nfile=/x\n[f1]\nexpr=\"{expression}\"\n"
            );
            let lines = judged(&text);
            let line = lines.into_iter().find(|line| line.text.starts_with("expr")).unwrap();
            assert_eq!(line.verdict, Verdict::Taken, "{}", line.what);
            line.what
        };
        assert_eq!(
            told(FILTERED, "proto == 'tcp' && src.ip.in_net('10.0.0.0/8')"),
            "asked of each event; the kernel lets pass sources 10.0.0.0/8; protocols tcp only"
        );
        assert_eq!(
            told(FILTERED, "cause == 'lost'"),
            "asked of each event; nothing of it can be asked of the kernel"
        );
        assert_eq!(
            told(&format!("{FILTERED}\n{STACK}"), "proto == 'tcp'"),
            "asked of each event; the kernel is asked for nothing, as the stacks of the source \
             want different things"
        );
    }
}
