//! The stacks of the lab: every sink that runs on one machine, and the configuration with them.

use std::fmt::Write as _;
use std::path::Path;

use super::record::Form;

/// Which flows a stack gets, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A record for the beginning and one for the end of each flow of the load.
    Events,
    /// A record for each flow of the load, when it has ended.
    Connections,
    /// A record for the beginning of each flow of the inner namespace.
    Inner,
}

impl Source {
    /// Its id in the configuration.
    pub fn id(self) -> &'static str {
        match self {
            Self::Events => "ct1",
            Self::Connections => "ct3",
            Self::Inner => "ct2",
        }
    }

    /// Records of a flow.
    pub fn records(self) -> u64 {
        match self {
            Self::Events => 2,
            Self::Connections | Self::Inner => 1,
        }
    }
}

/// A stack with its sink.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// Its name in reports and for `--sinks`; with a 1 behind it the id of the sink.
    pub name: &'static str,
    /// The plugin of the sink.
    pub plugin: &'static str,
    /// Where its records come from.
    pub source: Source,
    /// How its records look.
    pub form: Form,
    /// Records have an id, so that one that comes twice is known as such.
    pub has_id: bool,
    /// Keys of its section; `@…@` is a directory of the lab.
    keys: &'static str,
}

const fn stack(name: &'static str, plugin: &'static str, keys: &'static str) -> Stack {
    Stack { name, plugin, source: Source::Events, form: Form::Line, has_id: false, keys }
}

const fn with_id(form: Form, stack: Stack) -> Stack {
    Stack { form, has_id: true, ..stack }
}

/// All stacks.
pub const ALL: [Stack; 17] = [
    stack("emu", "LOGEMU", "file=\"@logs@/emu/flows.log\"\nsync=1"),
    stack("pipe", "LOGEMU", "file=\"@run@/pipe\""),
    with_id(Form::Json, stack("jfile", "JSON", "file=\"@logs@/json/flows.json\"\nschema=full")),
    with_id(Form::Json, stack("junix", "JSON", "mode=unix\nfile=\"@run@/junix\"\nschema=full")),
    with_id(
        Form::Json,
        stack("jtcp", "JSON", "mode=tcp\nhost=json.chaos.example\nport=6000\nschema=full"),
    ),
    stack("sdgram", "SYSLOG", "server=\"unix:@run@/sdgram\""),
    stack("sudp", "SYSLOG", "server=\"udp://log.chaos.example:6514\""),
    stack("stcp", "SYSLOG", "server=\"tcp://log.chaos.example:6515\""),
    with_id(Form::Columns, stack("sqlite", "SQLITE3", "db=\"@db@/live/flow.db\"")),
    with_id(
        Form::Columns,
        stack("parquet", "PARQUET", "directory=\"@archive@/live\"\nrotate_interval=10s"),
    ),
    with_id(Form::Columns, stack("pg", "PGSQL", "host=127.0.0.1\ndb=flowlog\nuser=flowlog")),
    with_id(Form::Json, stack("nats", "NATS", "stream=FLOWS")),
    with_id(Form::Columns, stack("ch", "CLICKHOUSE", "user=flowlog\npassword=secret")),
    // Its records are the same, byte for byte, when they come twice.
    with_id(Form::Line, stack("ipfix", "IPFIX", "host=127.0.0.1")),
    with_id(Form::Json, stack("kafka", "KAFKA", "brokers=\"@kafka@\"\ntopic=flows")),
    Stack { source: Source::Inner, ..stack("inner", "LOGEMU", "file=\"@run@/inner.log\"") },
    Stack { source: Source::Connections, ..stack("hash", "LOGEMU", "file=\"@run@/hash.log\"") },
];

/// Where the directories of the lab are, and what else stands in keys.
#[derive(Debug)]
pub struct Places<'p> {
    /// The names between `@`, and what stands for them.
    pub places: &'p [(&'p str, String)],
    /// Records may take so much in the spool.
    pub spool: &'p Path,
    /// The name of the inner namespace.
    pub inner: &'p str,
}

/// Bytes that each sink may keep in memory: little, so that faults reach the end of it.
const BUFFER: u32 = 4 << 20;
/// Bytes that the spool may have.
pub const SPOOL: u64 = 96 << 20;
/// Keys of sources by netlink: nothing is lost while the daemon stands still for a second.
const ROOMY: &str =
    "netlink_socket_buffer_size=33554432\nnetlink_socket_buffer_maxsize=134217728\n";

/// The configuration with these stacks.
pub fn configuration(stacks: &[Stack], places: &Places<'_>) -> String {
    let mut text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nnice=-10\nmetrics={}\nspool_dir=\"{}\"\n\
         spool_max_bytes={SPOOL}\n",
        crate::metrics::ADDRESS,
        places.spool.display()
    );
    let mut sections = String::new();
    for stack in stacks {
        let (source, name) = (stack.source.id(), stack.name);
        let between = match stack.form {
            Form::Line if stack.plugin != "IPFIX" => "ip2str1:IP2STR,print1:PRINTFLOW,",
            _ => "",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "stack={source}:NFCT,{between}{name}1:{}", stack.plugin);
        let mut keys = stack.keys.to_owned();
        for (place, path) in places.places {
            keys = keys.replace(&format!("@{place}@"), path);
        }
        let _ = writeln!(sections, "[{name}1]\n{keys}\nbuffer_max_bytes={BUFFER}");
    }
    let has = |source| stacks.iter().any(|stack| stack.source == source);
    for (source, keys) in [
        (Source::Events, "event_mask=5\nhash_enable=0".to_owned()),
        (Source::Inner, format!("event_mask=1\nhash_enable=0\nnetns={}", places.inner)),
        (
            Source::Connections,
            "event_mask=4\nhash_enable=1\nhash_max_entries=524288\nnetlink_resync_timeout=2\n\
             redump_interval=3"
                .to_owned(),
        ),
    ] {
        if has(source) {
            let id = source.id();
            let _ = writeln!(
                sections,
                "[{id}]\ncapture=netlink\naccept_dst_filter=198.19.0.0/16\n{ROOMY}{keys}"
            );
        }
    }
    text + &sections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stack_has_its_section_and_its_source() {
        let spool = Path::new("/spool");
        let logs = [("logs", "/l".to_owned())];
        let places = Places { places: &logs, spool, inner: "name" };
        let text = configuration(&ALL[..1], &places);
        for words in [
            "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n",
            "[emu1]\nfile=\"/l/emu/flows.log\"\nsync=1\n",
            "[ct1]\n",
        ] {
            assert!(text.contains(words), "{words}\n{text}");
        }
        assert!(!text.contains("ct2") && !text.contains("JSON"));
        assert!(configuration(&ALL, &places).contains("netns=name\n"));
    }
}
