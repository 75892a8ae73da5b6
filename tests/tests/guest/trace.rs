//! `flowlog trace`: the life of connections with the kernel's functions, who called them, and what
//! was before; what is lost; and that nothing stays.

mod refused;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::burst::udp_burst;
use tests::lab::{Lab, SingleNs};
use tests::mass::mass;
use tests::poll;
use tests::traffic;
use tests::watch::{Watch, Watched, command};

use super::attach::InKernel;
use super::by_ebpf;
use super::causes::{COLLECTION, connect};
use super::kernel::has_module_btf;
use super::refusals::INCAPABLE;
use super::watch::conntrack;

const FLOWS: u32 = 20;
/// Flows of the mixed traffic, some of each kind.
const MIXED: u32 = 500;
/// The functions of beginnings, changes and ends, as all kernels here have them.
const INSERT: &str = "__nf_conntrack_hash_insert";
const CHANGE: &str = "ctnetlink_conntrack_event";
const DELETE: &str = "__nf_ct_delete_from_lists";

/// The objects of a trace, which must have lost nothing.
fn events(watched: &Watched) -> Result<Vec<Value>> {
    ensure!(watched.summary()?[2] == 0, "{}", watched.stderr);
    let parse = |line: &String| serde_json::from_str(line).with_context(|| line.clone());
    watched.lines.iter().map(parse).collect()
}

/// A member that is a text, or nothing.
fn word<'v>(event: &'v Value, path: &str) -> &'v str {
    event.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// Whether a function of this name, or a part of it that the compiler made, is among the callers.
fn calls(event: &Value, function: &str) -> bool {
    let callers = event["callers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    callers.into_iter().any(|name| name.split('.').next() == Some(function))
}

fn ends(lines: &[String], words: &str) -> usize {
    lines.iter().filter(|line| line.contains(words)).count()
}

/// A connection over the loopback that is closed by both ends.
fn dialogue(single: &SingleNs, from: u16) -> Result<()> {
    single.namespace().enter(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000))?;
        let client = connect(from, 9000)?;
        let (mut served, _) = listener.accept()?;
        client.shutdown(Shutdown::Write)?;
        served.read_to_end(&mut Vec::new())?;
        drop(served);
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_tcp_connection_from_its_beginning_to_its_end() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let traces = ["kprobe", "fentry"].map(|method| {
            let args = format!("--netns self --proto tcp --port 4006 -o json --attach {method}");
            Watch::trace(&[], single.namespace(), &args)
        });
        dialogue(&single, 4006)?;
        let pid = conntrack(single.namespace(), &["-D", "-p", "tcp", "--orig-port-src", "4006"])?;
        for trace in traces {
            let trace = trace?;
            trace.wait_lines("the end", |lines| ends(lines, r#""event":"destroy""#) == 1)?;
            let events = events(&trace.end(Signal::SIGTERM)?)?;
            ensure_life(&events)?;
            let end = events.last().context("no end")?;
            let by_conntrack = word(end, "/task/comm") == "conntrack"
                && end["task"]["pid"] == pid
                && word(end, "/context") == "task"
                && word(end, "/cause") == "deleted"
                && calls(end, "ctnetlink_del_conntrack");
            ensure!(by_conntrack, "not by conntrack ({pid}): {end:#}");
        }
        Ok(())
    })
}

/// Beginning, answer, assured, both ends closed, end; each with what was before.
fn ensure_life(events: &[Value]) -> Result<()> {
    let told: Vec<_> = events
        .iter()
        .map(|event| (word(event, "/event"), word(event, "/function"), word(event, "/after/state")))
        .collect();
    let update = |state| ("update", CHANGE, state);
    let mut expected = vec![("new", INSERT, "SYN_SENT"), update("SYN_RECV")];
    expected.extend(["ESTABLISHED", "FIN_WAIT", "LAST_ACK", "TIME_WAIT"].map(update));
    expected.push(("destroy", DELETE, "TIME_WAIT"));
    // The acknowledgement of the first FIN may come alone.
    let mut distinct = told.clone();
    distinct.retain(|(_, _, state)| *state != "CLOSE_WAIT");
    distinct.dedup();
    ensure!(distinct == expected, "{told:#?}");
    let changed = |event: &Value, what: &str| {
        event["changed"].as_array().is_some_and(|list| list.iter().any(|word| word == what))
    };
    ensure!(changed(&events[1], "reply") && changed(&events[2], "assured"), "{events:#?}");
    ensure!(events[0].get("before").is_none(), "{:#}", events[0]);
    ensure!(calls(&events[0], "__nf_conntrack_confirm"), "{:#}", events[0]);
    for pair in events.windows(2) {
        let follows = pair[1]["before"] == pair[0]["after"]
            && pair[1]["flow"] == pair[0]["flow"]
            && pair[1]["since"].as_u64().is_some();
        ensure!(follows, "{:#}\nafter {:#}", pair[1], pair[0]);
    }
    for event in events {
        let whole = event["cpu"].as_u64().is_some()
            && ["task", "softirq"].contains(&word(event, "/context"))
            && event["orig"]["sport"] == 4006;
        ensure!(whole, "{event:#}");
    }
    Ok(())
}

/// The collector's work is told with its task and its callers.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn the_collector_is_named() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 1)])?;
        let args = "--netns self --event destroy --cause expired_gc --stack full";
        let trace = Watch::trace(&[], single.namespace(), args)?;
        udp_burst(&single, 4001, 0, FLOWS)?;
        poll::within(COLLECTION, "the collector", || {
            Ok((single.namespace().conntrack_count()? == 0).then_some(()))
        })?;
        let watched = trace.end(Signal::SIGINT)?;
        ensure!(!watched.lines.is_empty(), "it has collected nothing: {watched:#?}");
        for line in &watched.lines {
            let (who, callers) =
                line.split_once(&format!(" fn={DELETE} from ")).context("no fn")?;
            let right = who.contains(" cause=expired_gc by=kworker/")
                && who.contains("state=UNREPLIED status=confirmed")
                && callers.contains("gc_worker < process_one_work");
            ensure!(right, "{line}");
        }
        Ok(())
    })
}

/// Of each flow of the mixed traffic the whole life is told, each event with what was before.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn lives_of_the_mixed_traffic() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        lab.add_mass_rules()?;
        let trace = Watch::trace(&[], lab.router(), "--netns self -o json --summary")?;
        mass(&lab, MIXED)?;
        lab.router().flush_conntrack()?;
        let complete = |lines: &[String]| {
            ends(lines, r#""event":"destroy""#) >= ends(lines, r#""event":"new""#)
                && ends(lines, r#""event":"new""#) >= MIXED as usize
        };
        trace.wait_lines("the ends", complete)?;
        let watched = trace.end(Signal::SIGTERM)?;
        let mut events = events(&watched)?;
        let summary = events.pop().context("no summary")?;
        let mut lives = BTreeMap::<_, Vec<_>>::new();
        for event in &events {
            lives.entry(event["flow"].as_u64()).or_default().push(event);
        }
        let number = |name: &str| events.iter().filter(|e| word(e, "/event") == name).count();
        for name in ["new", "update", "destroy"] {
            ensure!(summary["events"][name] == number(name), "{name}: {summary:#}");
        }
        ensure!(summary["functions"][INSERT] == number("new"), "{summary:#}");
        ensure!(number("new") == number("destroy") && number("update") > 0, "{summary:#}");
        for life in lives.values().filter(|life| word(life[0], "/event") != "refused") {
            let (first, last) = (word(life[0], "/event"), word(life[life.len() - 1], "/event"));
            ensure!((first, last) == ("new", "destroy"), "{life:#?}");
            let follows = life.windows(2).all(|pair| {
                pair[1]["before"] == pair[0]["after"]
                    && pair[1]["orig"]["src"] == pair[0]["orig"]["src"]
            });
            ensure!(follows, "{life:#?}");
        }
        Ok(())
    })
}

/// What a helper expects is told with who had it expect that.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn expectations() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        let trace = Watch::trace(&[], lab.router(), "--netns self --event expect -o json")?;
        traffic::mix(&lab, 37_000)?;
        trace
            .wait_lines("an expectation's end", |lines| ends(lines, r#""action":"destroy""#) > 0)?;
        let events = events(&trace.end(Signal::SIGTERM)?)?;
        let actions: Vec<_> = events.iter().map(|event| word(event, "/action")).collect();
        ensure!(actions.contains(&"new") && actions.contains(&"destroy"), "{events:#?}");
        for event in &events {
            // It is made at the end of a packet's way, and fulfilled at the beginning of another's.
            let is_new = word(event, "/action") == "new";
            let way = if is_new { "nf_hook_slow" } else { "nf_conntrack_in" };
            let right = word(event, "/helper") == "ftp"
                && event["master"]["dport"] == 21
                && word(event, "/function") == "nf_ct_expect_event_report"
                && word(event, "/context") == "softirq"
                && calls(event, way);
            ensure!(right, "{event:#}");
        }
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn only_what_is_wanted_counted_at_the_end() -> Result<()> {
    by_ebpf(|| {
        let (single, other) = (SingleNs::new()?, SingleNs::new()?);
        let args = format!(
            "--netns {} --event new,destroy --src 198.18.0.0/16 --port 4001 --summary",
            single.namespace().name()
        );
        let trace = Watch::trace(&[], other.namespace(), &args)?;
        for port in [4000, 4001] {
            udp_burst(&single, port, 0, FLOWS)?;
        }
        udp_burst(&other, 4001, 0, FLOWS)?;
        for namespace in [single.namespace(), other.namespace()] {
            conntrack(namespace, &["-F"])?;
        }
        trace.wait_lines("the ends", |lines| ends(lines, "[DESTROY]") >= FLOWS as usize)?;
        let watched = trace.end(Signal::SIGTERM)?;
        let [shown, filtered, lost] = watched.summary()?;
        ensure!([shown, lost] == [2 * u64::from(FLOWS), 0], "{}", watched.stderr);
        // By port here; all of the other namespace by the programs.
        ensure!(filtered >= 4 * u64::from(FLOWS), "{}", watched.stderr);
        let flushed =
            watched.with(&["[DESTROY] #", ":4001 → ", " cause=flushed ", "by=conntrack("]);
        ensure!(flushed.len() == FLOWS as usize, "{watched:#?}");
        let counted = ["new", "destroy", "flushed", INSERT, DELETE];
        for name in counted.map(|name| format!("{FLOWS:>10} {name}")) {
            ensure!(watched.lines.contains(&name), "no {name:?} in {:#?}", watched.lines);
        }
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_is_lost_is_told_by_name() -> Result<()> {
    const MANY: u32 = 2000;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let args = "--netns self --event new --ring-buffer-size 65536";
        let trace = Watch::trace(&[], single.namespace(), args)?;
        trace.process.freeze()?;
        udp_burst(&single, 4000, 0, MANY)?;
        trace.process.thaw()?;
        trace.wait_lines("a loss", |lines| ends(lines, "[LOST]") > 0)?;
        let watched = trace.end(Signal::SIGTERM)?;
        let [shown, _, lost] = watched.summary()?;
        ensure!(lost > 0 && lost == watched.lost(), "{lost} lost: {watched:#?}");
        ensure!(shown + lost == u64::from(MANY), "{shown} shown, {lost} lost, {MANY} made");
        let named = format!("flowlog: lost by eBPF: new {lost}; raise --ring-buffer-size");
        ensure!(watched.stderr.contains(&named), "{}", watched.stderr);
        Ok(())
    })
}

/// Another function stands in for one that a compiler has hidden.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_other_functions() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let hidden = format!("FLOWLOG_HIDE_FUNCTIONS={INSERT},{DELETE}");
        let args = "--netns self --event new,destroy -o json";
        let trace = Watch::trace(&["env", &hidden], single.namespace(), args)?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        conntrack(single.namespace(), &["-F"])?;
        trace.wait_lines("all", |lines| lines.len() >= 2 * FLOWS as usize)?;
        let watched = trace.end(Signal::SIGTERM)?;
        ensure!(watched.stderr.contains("in place of a better hook"), "{}", watched.stderr);
        let events = events(&watched)?;
        let told = |event: &str, function: &str| {
            let is = |e: &&Value| word(e, "/event") == event && word(e, "/function") == function;
            events.iter().filter(is).count()
        };
        let counts = [told("new", CHANGE), told("destroy", "nf_ct_destroy")];
        ensure!(counts == [FLOWS as usize; 2] && events.len() == 2 * FLOWS as usize, "{events:#?}");
        Ok(())
    })
}

/// What only a trace needs is attached by a trace only, and goes with it.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn nothing_is_attached_for_others_or_left() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let before = InKernel::look()?;
        let watch = Watch::start(single.namespace(), "--capture ebpf")?;
        let (_, watched) = InKernel::look()?.beyond(&before);
        watch.end(Signal::SIGTERM)?;
        let own = ["nf_ct_destroy", "__nf_conntrack_alloc"].map(str::to_owned);
        ensure!(!watched.iter().any(|function| own.contains(function)), "{watched:?}");
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            let mut trace = Watch::trace(&[], single.namespace(), "")?;
            let (programs, traced) = InKernel::look()?.beyond(&before);
            ensure!(own.iter().all(|function| traced.contains(function)), "{traced:?}");
            ensure!(programs.len() > 5, "{programs:?}");
            trace.process.signal(signal)?;
            trace.process.wait()?;
            poll::until("the kernel to free all", || {
                let (programs, functions) = InKernel::look()?.beyond(&before);
                Ok((programs.is_empty() && functions.is_empty()).then_some(()))
            })?;
        }
        Ok(())
    })
}

/// Without eBPF it ends with the reason, the remedy, and what works instead. On a kernel without
/// BTF of its modules nothing has to be taken away.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_ebpf_it_says_what_to_do() -> Result<()> {
    let single = SingleNs::new()?;
    let (wrapper, words): (&[&str], [&str; 2]) = if has_module_btf() {
        (&INCAPABLE, ["CAP_BPF and CAP_PERFMON missing", "run flowlog as root"])
    } else {
        (&[], ["BTF", "CONFIG_DEBUG_INFO_BTF_MODULES"])
    };
    let mut command = command(wrapper, single.namespace())?;
    let done = command.args(["trace", "--for", "1"]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.code() == Some(1) && done.stdout.is_empty(), "{:?}\n{said}", done.status);
    let ours = ["connections cannot be traced: ", "`flowlog watch` shows events over netlink"];
    for word in words.iter().chain(&ours) {
        ensure!(said.contains(word), "no {word:?} in {said}");
    }
    ensure!(!said.contains("capture=netlink"), "a remedy that is none here: {said}");
    Ok(())
}

/// It ends by itself, too.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn it_ends_after_a_time_or_a_number() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let by_time = Watch::trace(&[], single.namespace(), "--netns self --for 1s")?;
        let by_number = Watch::trace(&[], single.namespace(), "--netns self --count 3")?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        let watched = by_number.wait()?;
        ensure!(watched.lines.len() == 3, "{watched:#?}");
        let begin = std::time::Instant::now();
        by_time.wait()?;
        ensure!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
        Ok(())
    })
}
