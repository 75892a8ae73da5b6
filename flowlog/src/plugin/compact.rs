//! A record as compact bytes: Protocol Buffers, as conf/fleet/flow.proto
//! describes them. It is how records wait in the spool for the archive, and what
//! brokers carry.

use prost::Message as _;

pub use self::record::{Action, Cause, Record, Witness};
pub use self::reply::Reply;
use super::record_id::RecordId;
use super::{Body, Item};
use crate::event::{End, Expectation, Kinds, Lost};
use crate::flow::{Family, Flow, Netns, Tuple, proto};

mod meaning;
mod record;
mod reply;

/// Makes the bytes of items, and is used again for each, so that nothing is
/// allocated.
#[derive(Debug, Default)]
pub struct Encoder(Record);

impl Encoder {
    /// For those who know where records come from: the name of the host is not
    /// in them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Each record names the host.
    pub fn of_host(host: &str) -> Self {
        Self(Record { host: host.to_owned(), ..Record::default() })
    }

    /// Appends the bytes of `item`, with the half of its id that is no time if it
    /// is to be told.
    pub fn encode(&mut self, item: &Item<'_>, id: Option<RecordId>, out: &mut Vec<u8>) {
        let Self(record) = self;
        record.fill(item);
        record.hash = id.map_or(0, |id| id.hash);
        // A vector grows as it must.
        let _ = record.encode(out);
    }
}

impl Record {
    /// Reads a record in place of this one, whose buffers are used again.
    ///
    /// # Errors
    /// These are not the bytes of one.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), prost::DecodeError> {
        self.clear();
        self.merge(bytes)
    }

    /// The kinds of its event; none: it is a loss.
    pub fn kinds(&self) -> Kinds {
        Kinds::from_bits_truncate(self.kinds)
    }

    /// Becomes the record of `item`. The host is kept.
    fn fill(&mut self, item: &Item<'_>) {
        let host = std::mem::take(&mut self.host);
        self.clear();
        self.host = host;
        self.time = item.at;
        self.kinds = item.tag.bits();
        match item.body {
            Body::Flow { flow, start, end, how, counted: _, witness } => {
                self.flow(flow);
                self.start = start;
                self.stop = end;
                if let Some(how) = how {
                    self.end(how);
                }
                self.witness = Witness::from(witness).into();
            }
            Body::Expectation(expectation) => self.expectation(expectation),
            Body::Lost(Lost { source, events, since, at: _ }) => {
                self.lost_source.push_str(source);
                self.lost_events = events;
                self.lost_since = since;
            }
        }
    }

    fn flow(&mut self, flow: &Flow) {
        let Flow {
            orig,
            reply: _,
            status,
            counters,
            zone,
            reply_zone: _,
            secctx: _,
            mark,
            id,
            timeout,
            // Both may be known better than the entry tells.
            start: _,
            stop: _,
            l4_state,
            // Only a dump tells it.
            uses: _,
            helper,
            labels,
            master,
            netns,
        } = flow;
        self.tuple(orig);
        self.translated(flow);
        self.status = status.bits();
        if let Some([sent, answered]) = counters {
            self.orig_packets = Some(sent.packets);
            self.orig_bytes = Some(sent.bytes);
            self.reply_packets = Some(answered.packets);
            self.reply_bytes = Some(answered.bytes);
        }
        self.zone = (*zone).into();
        self.mark = *mark;
        self.ct_id = *id;
        self.timeout = *timeout;
        self.state = l4_state.map(u32::from);
        if let Some(helper) = helper {
            push_name(&mut self.helper, helper.as_bytes());
        }
        if let Some(labels) = labels {
            self.labels.extend_from_slice(labels);
        }
        if let Some(master) = master {
            self.master(master);
        }
        self.netns(*netns);
    }

    fn expectation(&mut self, expectation: &Expectation) {
        let Expectation { action, tuple, master, helper, zone, netns } = expectation;
        self.action = Action::from(*action).into();
        self.tuple(tuple);
        self.master(master);
        if let Some(helper) = helper {
            push_name(&mut self.helper, helper.as_bytes());
        }
        self.zone = (*zone).into();
        self.netns(*netns);
    }

    fn tuple(&mut self, tuple: &Tuple) {
        self.protocol = Some(tuple.proto.into());
        push_address(&mut self.orig_src, tuple.family, &tuple.src);
        push_address(&mut self.orig_dst, tuple.family, &tuple.dst);
        (self.orig_sport, self.orig_dport) = ports(tuple);
        if is_icmp(tuple) {
            self.icmp_type = Some(tuple.icmp_type().into());
            self.icmp_code = Some(tuple.icmp_code().into());
        }
    }

    fn translated(&mut self, flow: &Flow) {
        let Flow { orig, reply, .. } = flow;
        let (source, destination) = flow.translated();
        if source {
            push_address(&mut self.nat_src, reply.family, &reply.dst);
            // The identifier of ICMP is in the source of both directions.
            let port = if is_icmp(orig) { reply.src_l4 } else { reply.dst_l4 };
            self.nat_sport = self.orig_sport.map(|_| port.into());
        }
        if destination {
            push_address(&mut self.nat_dst, reply.family, &reply.src);
            self.nat_dport = self.orig_dport.map(|_| reply.src_l4.into());
        }
    }

    fn master(&mut self, master: &Tuple) {
        self.master_protocol = Some(master.proto.into());
        push_address(&mut self.master_src, master.family, &master.src);
        push_address(&mut self.master_dst, master.family, &master.dst);
        (self.master_sport, self.master_dport) = ports(master);
    }

    fn netns(&mut self, netns: Option<Netns>) {
        if let Some(Netns { cookie, inum }) = netns {
            self.netns_cookie = cookie;
            self.netns_inode = Some(inum);
        }
    }

    fn end(&mut self, how: &End) {
        let End { cause, portid, process } = how;
        self.cause = Cause::from(*cause).into();
        self.portid = *portid;
        if let Some(process) = process {
            self.pid = Some(process.pid);
            push_name(self.comm.get_or_insert_default(), process.comm.as_bytes());
        }
    }
}

fn is_icmp(tuple: &Tuple) -> bool {
    matches!(tuple.proto, proto::ICMP | proto::ICMPV6)
}

/// GRE has keys in place of ports, ICMP an identifier in that of the source's.
fn ports(tuple: &Tuple) -> (Option<u32>, Option<u32>) {
    let both = tuple.has_ports() || tuple.proto == proto::GRE;
    ((both || is_icmp(tuple)).then_some(tuple.src_l4.into()), both.then_some(tuple.dst_l4.into()))
}

fn push_address(to: &mut Vec<u8>, family: Family, address: &[u8; 16]) {
    to.extend_from_slice(match family {
        Family::V4 => &address[..4],
        Family::V6 => address,
    });
}

/// A name may have any bytes, text may not.
fn push_name(to: &mut String, name: &[u8]) {
    match str::from_utf8(name) {
        Ok(name) => to.push_str(name),
        Err(_) => to.push_str(&String::from_utf8_lossy(name)),
    }
}

#[cfg(test)]
mod tests;
