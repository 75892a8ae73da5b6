//! The line for people: what happened first, who and where last.

use std::fmt::{self, Display, Formatter, Write as _};

use super::chain::Context;
use super::kind::Kind;
use super::life::State;
use super::told::{Subject, Told};
use crate::event::{Event, Kinds, Process};
use crate::flow::Counters;
use crate::verb::live::text::Text;
use crate::verb::watch::colour::Paint;
use crate::verb::watch::line::{
    Endpoint, Seconds, Style, direction, escaped, expected, surroundings, translated_id,
    translation, zones,
};

/// Nothing is known of it.
const UNKNOWN: &str = "-";

/// Writes the line of an event, with so many callers, without its end.
pub(super) fn line(told: &Told<'_>, style: &mut Style, callers: usize, line: &mut Text) {
    style.time(told.at, line);
    put(line, format_args!("{} {:<4}", tag(told, style.paint), number(told)));
    line.push(b' ');
    match told.subject {
        Subject::Flow(event) => {
            direction(&event.flow.orig, line);
            put(line, format_args!("{}", Progress(told)));
            for (name, end) in translation(&event.flow).filter(|_| told.kind != Kind::Full) {
                line.push_str(name);
                end.push(line);
            }
            if told.kind != Kind::Full {
                translated_id(&event.flow, line);
            }
            counters(told.kind, event, line);
        }
        Subject::Expectation(expectation) => {
            let master = &expectation.master;
            expected(&expectation.tuple, line);
            put(line, format_args!("{} master=", expectation.action.name()));
            Endpoint::src(master).push(line);
            line.push_str("→");
            Endpoint::dst(master).push(line);
        }
    }
    if let Some(reason) = told.reason {
        put(line, format_args!("cause={}", reason.name()));
    }
    if let Some(hook) = told.hook {
        put(line, format_args!("hook={hook}"));
    }
    if let Some(portid) = told.portid {
        put(line, format_args!("portid={portid}"));
    }
    put(line, format_args!("by={} cpu={}", By(told), told.place.cpu));
    if let Some(netns) = &told.netns {
        put(line, format_args!("netns={netns}"));
    }
    extras(told, line);
    put(line, format_args!("fn={}", told.place.function));
    let (named, more) = told.chain.telling(callers);
    if callers > 0 {
        let more = if more && !named.is_empty() { " < …" } else { "" };
        let names = if named.is_empty() { UNKNOWN.to_owned() } else { named.join(" < ") };
        put(line, format_args!("from {names}{more}"));
    }
}

/// Writes the next part, behind a blank.
fn put(line: &mut Text, part: fmt::Arguments<'_>) {
    line.push(b' ');
    // Writing to a text cannot fail.
    let _ = line.write_fmt(part);
}

/// The end of a flow has its counters.
fn counters(kind: Kind, event: &Event, line: &mut Text) {
    if let (Kind::Destroy, Some([orig, reply])) = (kind, event.flow.counters) {
        let Counters { packets, bytes } = orig;
        let (packets_back, bytes_back) = (reply.packets, reply.bytes);
        put(line, format_args!("packets={packets}/{packets_back} bytes={bytes}/{bytes_back}"));
    }
}

fn extras(told: &Told<'_>, line: &mut Text) {
    let (zone, mark, helper) = match told.subject {
        Subject::Flow(event) => (zones(&event.flow, line), event.flow.mark, event.flow.helper),
        Subject::Expectation(expectation) => (expectation.zone, 0, expectation.helper),
    };
    surroundings(zone, mark, helper.as_ref(), line);
}

fn tag(told: &Told<'_>, paint: Paint) -> String {
    let tag = format!("[{}]", told.kind.name().to_ascii_uppercase());
    let tag = format_args!("{tag:<9}");
    let kinds = match told.kind {
        Kind::New => Kinds::NEW,
        Kind::Update => Kinds::UPDATE,
        Kind::Destroy => Kinds::DESTROY,
        Kind::Expect => Kinds::EXPECT,
        Kind::Refused | Kind::Full => Kinds::empty(),
    };
    paint.tag(kinds, tag)
}

fn number(told: &Told<'_>) -> String {
    told.known.flow.map_or_else(|| format!("#{UNKNOWN}"), |number| format!("#{number}"))
}

/// `since=0.012s state=SYN_SENT→SYN_RECV status=confirmed→seen_reply,confirmed`
struct Progress<'a>(&'a Told<'a>);

impl Display for Progress<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let told = self.0;
        match told.known.before {
            Some((_, since)) => write!(f, "since={}", Seconds(since))?,
            None => write!(f, "since={UNKNOWN}")?,
        }
        let Some(after) = told.after() else { return Ok(()) };
        let before = told.known.before.map(|(state, _)| state);
        for (name, of) in [("state", state as fn(State) -> String), ("status", status)] {
            let before = before.map_or_else(|| UNKNOWN.to_owned(), of);
            let after = of(after);
            if before == after {
                write!(f, " {name}={after}")?;
            } else {
                write!(f, " {name}={before}→{after}")?;
            }
        }
        let changes = told.changes();
        if changes.is_empty() { Ok(()) } else { write!(f, " changed={}", changes.join(",")) }
    }
}

fn state(state: State) -> String {
    state.state.to_owned()
}

/// Of no bit `none`.
fn status(state: State) -> String {
    let bits = state.bits();
    if bits.is_empty() { "none".to_owned() } else { bits.join(",") }
}

/// `conntrack(1712)`, `softirq`; of a task that may have been interrupted `?`.
struct By<'a>(&'a Told<'a>);

impl Display for By<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0.context(), &self.0.place.task) {
            (Context::Softirq, _) => f.write_str("softirq"),
            (Context::Task, Some(Process { pid, comm })) => {
                write!(f, "{}({pid})", escaped(comm.as_bytes()))
            }
            (Context::Task, None) => f.write_str("idle"),
            (Context::Unknown, _) => f.write_str(UNKNOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use crate::plugin::clock::PerSecond;

    use super::super::tests::{Example, sample};
    use super::*;
    use crate::event::{Cause, Comm};
    use crate::flow::Status;
    use crate::verb::trace::kind::{Reason, Refusal};
    use crate::verb::watch::tests::{ended, expectation, named, tcp};

    fn text(example: &Example<'_>, callers: usize) -> String {
        painted(example, callers, Paint(false))
    }

    fn painted(example: &Example<'_>, callers: usize, paint: Paint) -> String {
        let mut style = Style::new(paint, PerSecond::fixed(TimeZone::UTC.into()));
        sample(example, |told| Text::string(|text| line(told, &mut style, callers, text)))
    }

    #[test]
    fn a_change_tells_what_was_before() {
        let mut event = tcp(Kinds::UPDATE);
        event.flow.l4_state = Some(2);
        event.flow.status = Status::SEEN_REPLY | Status::CONFIRMED;
        let before = State { state: "SYN_SENT", status: Status::CONFIRMED };
        let example = Example {
            kind: Kind::Update,
            before: Some((before, 12_000_000)),
            changes: 1 << 3 | 1 << 5,
            function: "ctnetlink_conntrack_event",
            callers: &["nf_ct_deliver_cached_events", "nf_confirm", "ip_output", "net_rx_action"],
            ..Example::of(&event)
        };
        assert_eq!(
            text(&example, 2),
            "22:13:20.123 [UPDATE]  #1   tcp  10.77.1.2:40003 → 10.77.1.1:8080 since=0.012s \
             state=SYN_SENT→SYN_RECV status=confirmed→seen_reply,confirmed changed=reply,protoinfo \
             snat=10.77.2.1:40003 dnat=10.77.2.2:9000 by=softirq cpu=1 netns=4026532210(blue) \
             fn=ctnetlink_conntrack_event from nf_confirm < ip_output < …"
        );
        assert!(text(&example, 0).ends_with("fn=ctnetlink_conntrack_event"));
    }

    #[test]
    fn an_end_tells_who_did_it() {
        let event = ended(Cause::Deleted);
        let state = State::of(&event);
        let example = Example {
            kind: Kind::Destroy,
            before: Some((state, 61_500_000_000)),
            reason: Some(Reason::End(Cause::Deleted)),
            portid: Some(99),
            function: "__nf_ct_delete_from_lists",
            callers: &["nf_ct_delete", "ctnetlink_del_conntrack"],
            ..Example::of(&event)
        };
        assert_eq!(
            text(&example, 9),
            "22:13:20.123 [DESTROY] #1   tcp  10.77.1.2:40003 → 10.77.1.1:8080 since=61.500s \
             state=CLOSE status=seen_reply,assured snat=10.77.2.1:40003 dnat=10.77.2.2:9000 \
             packets=6/4 bytes=420/416 cause=deleted portid=99 by=my\\x20tool(1712) cpu=1 \
             netns=4026532210(blue) fn=__nf_ct_delete_from_lists from nf_ct_delete < \
             ctnetlink_del_conntrack"
        );
    }

    #[test]
    fn what_never_began_has_no_past() {
        let mut event = tcp(Kinds::empty());
        event.flow.reply = event.flow.orig.inverse();
        let refused = Example {
            kind: Kind::Refused,
            reason: Some(Reason::Refusal(Refusal::Ruleset)),
            hook: Some("forward"),
            function: "nf_ct_destroy",
            callers: &["kfree_skb_reason", "nf_hook_slow", "ip_forward"],
            ..Example::of(&event)
        };
        assert_eq!(
            text(&refused, 9),
            "22:13:20.123 [REFUSED] #1   tcp  10.77.1.2:40003 → 10.77.1.1:8080 since=- \
             state=-→SYN_SENT status=-→none cause=ruleset hook=forward by=my\\x20tool(1712) cpu=1 \
             netns=4026532210(blue) fn=nf_ct_destroy from nf_hook_slow < ip_forward"
        );
        let full = Example {
            kind: Kind::Full,
            reason: Some(Reason::Refusal(Refusal::TableFull)),
            function: "__nf_conntrack_alloc",
            ..Example::of(&event)
        };
        assert_eq!(
            text(&full, 9),
            "22:13:20.123 [FULL]    #1   tcp  10.77.1.2:40003 → 10.77.1.1:8080 since=- \
             cause=table_full by=- cpu=1 netns=4026532210(blue) fn=__nf_conntrack_alloc from -"
        );
        let coloured = painted(&full, 0, Paint(true));
        assert!(coloured.contains("\x1b[35m[FULL]   \x1b[0m #1"), "{coloured:?}");
    }

    #[test]
    fn an_expectation() {
        let (event, expected) = (tcp(Kinds::empty()), expectation());
        let example = Example {
            kind: Kind::Expect,
            expectation: Some(&expected),
            number: None,
            function: "nf_ct_expect_event_report",
            ..Example::of(&event)
        };
        assert_eq!(
            text(&example, 0),
            "22:13:20.123 [EXPECT]  #-   tcp  10.77.1.2:* → 10.77.2.2:33033 new \
             master=10.77.1.2:40010→10.77.2.2:21 by=- cpu=1 netns=4026532210(blue) helper=ftp \
             fn=nf_ct_expect_event_report"
        );
    }

    #[test]
    fn the_idle_task_has_no_name() {
        let event = tcp(Kinds::NEW);
        let idle = Example { task: None, callers: &["x"], ..Example::of(&event) };
        assert!(text(&idle, 0).contains(" by=idle "));
        let comm = Comm::new(b"kworker/0:1");
        let task = Some(Process { pid: 33, comm });
        let worker = Example { task, callers: &["gc_worker"], ..Example::of(&event) };
        assert!(text(&worker, 0).contains(" by=kworker/0:1(33) "));
        assert_eq!(named().inum, 4_026_532_210);
    }
}
