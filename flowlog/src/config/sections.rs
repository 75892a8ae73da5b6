//! One function per kind of section: its keys → its typed settings.

use std::ops::RangeInclusive;

use super::stacks::Element;
use super::*;
use crate::kernel;

/// Seconds that a period may last: a year.
const YEAR: i64 = 366 * 24 * 3600;
/// The default receive buffer is a part of the memory, one in so many.
const BUFFER_SHARE: u64 = 64;
/// Bounds of the default receive buffer, bytes.
const BUFFER_BOUNDS: RangeInclusive<u64> = 4 << 20..=64 << 20;
/// How far the default receive buffer may grow: so many times.
const BUFFER_GROWTH: usize = 4;
/// `SO_RCVBUF` is an int, and the kernel doubles it.
pub const BUFFER_LIMIT: i64 = i32::MAX as i64 / 2;

/// What `[global]` holds.
pub(super) struct Global<'a> {
    pub(super) log: LogTarget,
    pub(super) loglevel: u8,
    pub(super) nice: Option<i32>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) spool: ship::Settings,
    pub(super) values: Values<'a>,
}

pub(super) fn global<'a>(document: &Document<'a>, found: &mut Diagnostics) -> Option<Global<'a>> {
    let Some(section) = document.section("global") else {
        found.error(
            None,
            "there is no section [global]; begin the file with [global] and a line \
             stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU"
                .to_owned(),
        );
        return None;
    };
    let values = Values::new(section, catalog::GLOBAL, found);
    let log = match values.string("logfile", found) {
        None | Some("syslog") => LogTarget::Syslog,
        Some("stdout") => LogTarget::Stdout,
        Some("stderr") => LogTarget::Stderr,
        Some(path) => LogTarget::File(path.into()),
    };
    let loglevel = values.level("loglevel", found).unwrap_or(5);
    let nice = values.integer("nice", -20..=19, found).map(|nice| nice as i32);
    let metrics = metrics::read(&values, found);
    let spool = spool::read(&values, found);
    Some(Global { log, loglevel, nice, metrics, spool, values })
}

/// The section of an instance; empty where it is missing.
pub(super) fn section<'a>(
    document: &Document<'a>,
    element: &Element,
    found: &mut Diagnostics,
) -> Values<'a> {
    let Element { id, plugin, line } = element;
    let entries = match document.section(id) {
        Some(section) => return Values::new(section, plugin.keys, found),
        None => Vec::new(),
    };
    // Plugins without keys in ulogd2 have no section there.
    if matches!(plugin.name, "NFCT" | "LOGEMU" | "JSON" | "SQLITE3" | "PGSQL" | "IPFIX") {
        found.note(
            *line,
            format!(
                "there is no section [{id}] for {}; its defaults are used. ulogd2 would drop \
                 the stack: add the section, even if it is empty",
                plugin.name
            ),
        );
    }
    Values::new(grammar::Section { name: "", line: *line, entries }, plugin.keys, found)
}

pub(super) fn nfct(document: &Document<'_>, element: &Element, found: &mut Diagnostics) -> Source {
    let values = section(document, element, found);
    let event_mask = mask(&values, found);
    let hash = values.switch("hash_enable", found).unwrap_or(true);
    let max_entries = values.integer("hash_max_entries", 1..=i64::from(u32::MAX), found);
    let poll = period(&values, "pollinterval", 0, found);
    if poll.is_some() && !hash {
        found.error(
            values.line("pollinterval"),
            "`pollinterval` needs the table of live flows; set hash_enable=1, or remove \
             pollinterval"
                .to_owned(),
        );
    }
    buckets(&values, found);
    let filter = Filter {
        sources: values.list("accept_src_filter", str::parse, found),
        destinations: values.list("accept_dst_filter", str::parse, found),
        protocols: values.list("accept_proto_filter", protocols::number, found),
    };
    let mask = Kinds::from_bits_truncate(event_mask);
    if hash && poll.is_none() && mask.intersects(Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY) {
        note_silent_mask(&values, mask, element.line, found);
    }
    let mut source = Source {
        id: element.id.clone(),
        by_command_line: false,
        event_mask,
        nfct: nfct::Settings {
            mask,
            hash: hash.then(|| max_entries.unwrap_or(32768) as usize),
            poll,
            resync: period(&values, "netlink_resync_timeout", 60, found).unwrap_or_default(),
            redump: period(&values, "redump_interval", 60, found).filter(|_| poll.is_none()),
            filter,
        },
        pushed: Bounds::default(),
        buffer: buffer(&values, found),
        reliable: values.switch("reliable", found).unwrap_or(false),
        capture: CaptureChoice::default(),
        crosscheck: None,
        crosscheck_keys: crosscheck::Keys::default(),
        attach: Attach::default(),
        ring_buffer: 0,
        netns: NetnsScope::Own,
        netns_named: false,
        set_sysctls: values.switch("set_sysctls", found).unwrap_or(false),
        activate: values.switch("activate", found).unwrap_or(false),
    };
    capture::read(&values, &mut source, found);
    source
}

fn mask(values: &Values<'_>, found: &mut Diagnostics) -> u32 {
    let range = i64::from(i32::MIN)..=i64::from(u32::MAX);
    let mask = values.integer("event_mask", range, found).unwrap_or(5) as u32;
    let line = values.line("event_mask");
    if mask & !Kinds::all().bits() != 0 {
        found.note(
            line,
            format!(
                "`event_mask={mask:#x}`: bits 8 to 31 mean nothing and are ignored; the eight \
                 events are in the bits of 0xff"
            ),
        );
    }
    if mask & Kinds::all().bits() == 0 {
        found.note(line, format!("`event_mask={mask:#x}` selects no event: nothing is logged"));
    }
    mask
}

/// With the table, NEW and UPDATE write nothing by themselves.
fn note_silent_mask(values: &Values<'_>, mask: Kinds, stack: usize, found: &mut Diagnostics) {
    if !mask.intersects(Kinds::NEW.union(Kinds::UPDATE).complement()) {
        found.note(
            values.line("event_mask").or(values.line("hash_enable")).unwrap_or(stack),
            format!(
                "`event_mask={:#x}` with hash_enable=1 writes no line: a flow is logged at its \
                 end (0x04). Set hash_enable=0 for a line per event",
                mask.bits()
            ),
        );
    }
}

fn buckets(values: &Values<'_>, found: &mut Diagnostics) {
    let range = i64::from(i32::MIN)..=i64::from(u32::MAX);
    if let Some(buckets @ ..=0) = values.integer("hash_buckets", range, found) {
        found.note(
            values.line("hash_buckets"),
            format!(
                "`hash_buckets={buckets}` would crash ulogd2; it is ignored, as flowlog's table \
                 grows by itself. Remove it"
            ),
        );
    }
}

/// The buffer at start and at most. 0 means the default, as does absence.
fn buffer(values: &Values<'_>, found: &mut Diagnostics) -> (usize, usize) {
    let mut bytes = |key| {
        let value = values.integer(key, 0..=BUFFER_LIMIT, found).unwrap_or(0);
        (value > 0).then_some(value as usize)
    };
    let size = bytes("netlink_socket_buffer_size");
    let maximum = bytes("netlink_socket_buffer_maxsize");
    match (size, maximum) {
        (None, None) => default_buffers(),
        (None, Some(maximum)) => (default_buffer().min(maximum), maximum),
        // ulogd2 ignores the size here; what was meant is clear.
        (Some(size), None) => {
            found.note(
                values.line("netlink_socket_buffer_size"),
                format!(
                    "`netlink_socket_buffer_size={size}` without \
                     netlink_socket_buffer_maxsize: the buffer has this size and does not grow. \
                     ulogd2 would ignore it"
                ),
            );
            (size, size)
        }
        (Some(size), Some(maximum)) => (size, maximum.max(size)),
    }
}

/// The receive buffer where nothing is said of it, bytes: at start and at most.
pub fn default_buffers() -> (usize, usize) {
    (default_buffer(), default_buffer() * BUFFER_GROWTH)
}

/// Room for the events of half a second at the highest rates measured, where
/// there is memory for it.
fn default_buffer() -> usize {
    let share = kernel::memory().unwrap_or(0) / BUFFER_SHARE;
    share.clamp(*BUFFER_BOUNDS.start(), *BUFFER_BOUNDS.end()) as usize
}

/// A time in seconds; 0 means none.
fn period(
    values: &Values<'_>,
    key: &str,
    default: i64,
    found: &mut Diagnostics,
) -> Option<Duration> {
    let seconds = values.integer(key, 0..=YEAR, found).unwrap_or(default);
    (seconds > 0).then(|| Duration::from_secs(seconds as u64))
}

pub(super) fn printflow(
    document: &Document<'_>,
    element: &Element,
    found: &mut Diagnostics,
) -> printflow::Settings {
    let values = section(document, element, found);
    printflow::Settings {
        fixed_icmp_labels: values
            .choice("icmp_labels", &[("ulogd", false), ("fixed", true)], found)
            .unwrap_or(false),
        all_ports: values
            .choice("ports", &[("ulogd", false), ("all", true)], found)
            .unwrap_or(false),
        loss_lines: values.switch("loss_lines", found).unwrap_or(true),
        extras: values.switch("extras", found).unwrap_or(false),
    }
}
