//! Recorded netlink messages → lines in a file, no kernel: events per second
//! on one core, allocations per event, and with `--flows` the memory that a
//! live flow takes. Prints one JSON object. `cargo xtask bench` runs it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use flowlog::capture::Drained;
use flowlog::capture::netlink::attr::{Message, Messages};
use flowlog::capture::netlink::decode::{Kind, kind};
use flowlog::engine::Source;
use flowlog::event::Kinds;
use flowlog::stats::{Counter, Measure, SinkPlugin, Stats};
use flowlog::verb::replay;

/// Counts allocations; the work is the system allocator's.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is handed on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of this call.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Messages handed over at once, as many as a busy socket gives.
const BATCH: usize = 1024;
/// The recording is repeated to about 15,000 messages.
const REPEATS: usize = 200;
/// How long each case is measured.
const DURATION: Duration = Duration::from_secs(3);
/// Live flows for the memory case.
const FLOWS: u32 = 200_000;

fn main() -> anyhow::Result<()> {
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mixed.nl");
    let events = conntrack_messages(&fs::read(recording)?);
    let directory = tempfile::tempdir_in(std::env::temp_dir())?;
    let mut cases = serde_json::Map::new();
    // First: memory that other cases leave behind would be used again.
    cases.insert("memory".to_owned(), memory(directory.path(), &events)?);
    for (name, keys, sink) in [
        ("per_event", "event_mask=5\nhash_enable=0", LINES),
        ("per_flow", "event_mask=5\nhash_enable=1", LINES),
        ("filter", "event_mask=5\nhash_enable=0", FILTER),
        ("filter_long", "event_mask=5\nhash_enable=0", FILTER_LONG),
        ("filter_refuses", "event_mask=5\nhash_enable=0", FILTER_REFUSES),
        ("json", "event_mask=5\nhash_enable=0", JSON),
        ("json_full", "event_mask=5\nhash_enable=0", JSON_FULL),
    ] {
        cases.insert(name.to_owned(), throughput(directory.path(), keys, sink, &events)?);
    }
    cases.insert("sqlite3".to_owned(), database(directory.path(), &events)?);
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", serde_json::Value::Object(cases))?;
    Ok(())
}

/// What follows IP2STR, and the keys of the last of it.
type Sink = (&'static str, &'static str);
const LINES: Sink = ("print1:PRINTFLOW,sink:LOGEMU", "");
/// Of all events, so that the difference to no filter is its cost.
const FILTER: Sink = (
    "f1:FILTER,print1:PRINTFLOW,sink:LOGEMU",
    "[f1]\nexpr=\"!src.ip.is_private() && dst.port != 53\"",
);
const FILTER_LONG: Sink = (
    "f1:FILTER,print1:PRINTFLOW,sink:LOGEMU",
    "[f1]\nexpr=\"cause != 'early_drop' && (dst.port in [80, 443] || cause in ['deleted', 'flushed'] \
     || bytes > 1000 || protocol.number < 255) && !('dst_nat' in status && \
     dst.ip.in_net('192.0.2.0/24', '2001:db8::/32')) && kind in ['new', 'destroy']\"",
);
/// Of no event, and nothing of it can be pushed down.
const FILTER_REFUSES: Sink =
    ("f1:FILTER,print1:PRINTFLOW,sink:LOGEMU", "[f1]\nexpr=\"cause == 'early_drop'\"");
const JSON: Sink = ("sink:JSON", "");
const JSON_FULL: Sink = ("sink:JSON", "schema=full");

fn configuration(directory: &Path, keys: &str, sink: Sink) -> anyhow::Result<PathBuf> {
    let file = directory.join("flowlog.conf");
    let log = directory.join("flow.log");
    fs::write(
        &file,
        format!(
            "[global]\nstack=ct1:NFCT,ip2str1:IP2STR,{}\n\
             [ct1]\n{keys}\n[sink]\nfile=\"{}\"\n{}\n",
            sink.0,
            log.display(),
            sink.1
        ),
    )?;
    Ok(file)
}

/// The NEW and DESTROY messages of a recording: the events of the default
/// mask.
fn conntrack_messages(recording: &[u8]) -> Vec<u8> {
    let wanted = |k| matches!(k, Kind::Flow(Kinds::NEW | Kinds::DESTROY));
    let messages = Messages::new(recording).flatten().filter(|message| wanted(kind(message)));
    messages.flat_map(|message| message.bytes).copied().collect()
}

fn throughput(
    directory: &Path,
    keys: &str,
    sink: Sink,
    events: &[u8],
) -> anyhow::Result<serde_json::Value> {
    let stats = Stats::default();
    let written = || {
        stats.sum(SinkPlugin::Logemu, Measure::Records)
            + stats.sum(SinkPlugin::Json, Measure::Records)
    };
    let bytes = events.repeat(REPEATS);
    let mut source = replay::source(&configuration(directory, keys, sink)?, bytes, &stats)?;
    let log = fs::File::options().write(true).open(directory.join("flow.log"))?;
    // Buffers grow to their size, and the file gets its pages.
    round(&mut source)?;
    let messages = stats.get(Counter::NetlinkMessages);
    let lines = written();
    let mut allocations = 0;
    let mut busy = Duration::ZERO;
    while busy < DURATION {
        let allocated = ALLOCATIONS.load(Ordering::Relaxed);
        let start = Instant::now();
        round(&mut source)?;
        busy += start.elapsed();
        allocations += ALLOCATIONS.load(Ordering::Relaxed) - allocated;
        // A file that grows without end would measure the disk.
        log.set_len(0)?;
    }
    let messages = stats.get(Counter::NetlinkMessages) - messages;
    Ok(serde_json::json!({
        "events": messages,
        "lines": written() - lines,
        "events_per_second": (messages as f64 / busy.as_secs_f64()).round(),
        "allocations": allocations,
        "malformed": stats.get(Counter::NetlinkMalformed),
        "lost_lines": stats.sum(SinkPlugin::Logemu, Measure::Lost) + stats.sum(SinkPlugin::Json, Measure::Lost),
    }))
}

/// Rows of flowlog's own tables, a flow each, into a database in the directory.
fn database(directory: &Path, events: &[u8]) -> anyhow::Result<serde_json::Value> {
    let file = directory.join("flowlog.conf");
    let db = directory.join("flow.db");
    let text = format!(
        "[global]\nstack=ct1:NFCT,db1:SQLITE3\n[ct1]\nevent_mask=1\nhash_enable=0\n\
         [db1]\ndb={db:?}\n"
    );
    fs::write(&file, text)?;
    let stats = Stats::default();
    let mut source = replay::source(&file, many_flows(events, scattered)?, &stats)?;
    source.stacks.begin();
    let start = (Instant::now(), processor_time()?);
    while start.0.elapsed() < DURATION {
        round(&mut source)?;
    }
    // With what was left to the end: the log is brought into the database.
    source.stacks.close();
    let (took, cpu) = (start.0.elapsed(), processor_time()? - start.1);
    let rows = stats.sum(SinkPlugin::Sqlite3, Measure::Records);
    Ok(serde_json::json!({
        "rows": rows,
        "rows_per_second": (rows as f64 / took.as_secs_f64()).round(),
        "cpu_microseconds_per_row": cpu.as_secs_f64() * 1e6 / rows as f64,
        "bytes_per_row": fs::metadata(&db)?.len() as f64 / rows as f64,
        "lost": stats.sum(SinkPlugin::Sqlite3, Measure::Lost),
        "repeated": stats.sum(SinkPlugin::Sqlite3, Measure::Repeated),
    }))
}

/// Time that this process has had of processors.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Takes the whole recording down the stacks.
fn round(source: &mut Source) -> anyhow::Result<()> {
    while source.drain(BATCH)?.drained == Drained::More {
        source.stacks.flush();
        replay::wait(&source.stacks);
    }
    source.stacks.flush();
    Ok(())
}

/// Resident memory that each live flow takes with `hash_enable=1`.
fn memory(directory: &Path, events: &[u8]) -> anyhow::Result<serde_json::Value> {
    let keys = format!("hash_enable=1\nhash_max_entries={FLOWS}");
    let stats = Stats::default();
    let flows = many_flows(events, u32::to_be_bytes)?;
    let mut source = replay::source(&configuration(directory, &keys, LINES)?, flows, &stats)?;
    let before = resident()?;
    round(&mut source)?;
    let after = resident()?;
    anyhow::ensure!(source.nfct.live() == FLOWS as usize, "{} flows live", source.nfct.live());
    Ok(serde_json::json!({
        "flows": FLOWS,
        "bytes_per_flow": (after - before) as f64 / f64::from(FLOWS),
    }))
}

/// An address for each number, with those of neighbours far apart.
fn scattered(number: u32) -> [u8; 4] {
    number.wrapping_mul(0x9e37_79b1).to_be_bytes()
}

/// The first NEW message over IPv4, with as many source addresses.
fn many_flows(events: &[u8], address: fn(u32) -> [u8; 4]) -> anyhow::Result<Vec<u8>> {
    /// Of the IPv4 source address: the headers of message, family, tuple,
    /// addresses and attribute stand before it.
    const SOURCE: usize = 16 + 4 + 4 + 4 + 4;
    let mut messages = Messages::new(events).flatten();
    let is_new_v4 = |m: &Message<'_>| kind(m) == Kind::Flow(Kinds::NEW) && m.payload[0] == 2;
    let message = messages.find(is_new_v4).context("no NEW message over IPv4 was recorded")?.bytes;
    let mut flows = message.repeat(FLOWS as usize);
    for (number, flow) in flows.chunks_exact_mut(message.len()).enumerate() {
        flow[SOURCE..SOURCE + 4].copy_from_slice(&address(number as u32));
    }
    Ok(flows)
}

/// Resident memory of this process, bytes.
fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
