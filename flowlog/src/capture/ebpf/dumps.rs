//! What still goes over netlink: dumps and queries of the table, and the
//! listener that makes the kernel gather changes. All of it concerns the one
//! namespace that the sockets were opened in.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Instant;

use super::{DumpKind, Flow, FlowKey, Unable};
use crate::capture::RecordSink;
use crate::capture::netlink::socket::NetfilterSocket;
use crate::capture::netlink::{Requests, request};
use crate::event::Record;
use crate::flow::{Netns, Tuple};
use crate::stats::Stats;

/// `NFNLGRP_CONNTRACK_EXP_UPDATE`: a group that the kernel sends nothing to
/// (no such call in net/netfilter/nf_conntrack_netlink.c, 5.4 to 7.2). A
/// listener makes it gather changes all the same, where `nf_conntrack_events`
/// is 2, and without writing that sysctl; it goes with the socket.
const SILENT_GROUP: u32 = 5;

/// Requests over netlink.
pub(super) struct Dumps {
    requests: Requests,
    netns: Netns,
    listener: Option<NetfilterSocket>,
}

impl Dumps {
    /// Opens the sockets in the current network namespace, whose inode number
    /// is `inum`, and has the kernel load ctnetlink.
    pub(super) fn open(inum: u32, stats: Stats) -> Result<Self, Unable> {
        let cannot = |what| move |cause| Unable::Netlink { what, cause };
        let requests = Requests::open(stats).map_err(cannot("conntrack cannot be talked to"))?;
        load_ctnetlink().map_err(cannot("nf_conntrack_netlink cannot be loaded"))?;
        Ok(Self { requests, netns: Netns { cookie: None, inum }, listener: None })
    }

    /// From now on the kernel gathers changes of flows that begin.
    pub(super) fn arm(&mut self) -> Result<(), Unable> {
        let join = || {
            let listener = NetfilterSocket::open()?;
            listener.join(SILENT_GROUP)?;
            Ok(listener)
        };
        let what = "the kernel cannot be made to gather changes";
        self.listener = Some(join().map_err(|cause| Unable::Netlink { what, cause })?);
        Ok(())
    }

    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.requests.descriptor()
    }

    /// As [`Capture::take_renewed`](crate::capture::Capture::take_renewed).
    pub(super) fn take_renewed(&mut self) -> bool {
        self.requests.take_renewed()
    }

    /// When to drain though nothing is readable.
    pub(super) fn due(&self) -> Option<Instant> {
        self.requests.due()
    }

    pub(super) fn start(&mut self, kind: DumpKind) -> io::Result<()> {
        self.requests.start_dump(kind)
    }

    pub(super) fn query(&mut self, flows: Vec<FlowKey>) -> io::Result<()> {
        self.requests.query(flows)
    }

    /// Receives a reply, if one is waited for.
    pub(super) fn receive(&mut self) {
        self.requests.receive();
    }

    /// Why the table cannot be read.
    pub(super) fn trouble(&self) -> Option<String> {
        self.requests.trouble()
    }

    /// As [`Requests::hand_on`].
    pub(super) fn hand_on(&mut self, sink: &mut dyn RecordSink) -> Option<usize> {
        let mut sink = InNamespace { sink, netns: self.netns };
        self.requests.hand_on(&mut sink)
    }
}

/// Adds what netlink does not say: the namespace.
struct InNamespace<'a> {
    sink: &'a mut dyn RecordSink,
    netns: Netns,
}

impl RecordSink for InNamespace<'_> {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Known(flow, at) => {
                let flow = Flow { netns: Some(self.netns), ..flow.clone() };
                self.sink.record(Record::Known(&flow, at));
            }
            Record::DumpDone { complete, netns: _ } => {
                let netns = Some(self.netns.inum);
                self.sink.record(Record::DumpDone { complete, netns });
            }
            other => self.sink.record(other),
        }
    }
}

/// Asks ctnetlink for a flow that cannot be: the kernel loads the module for
/// whatever is asked (`nfnetlink_rcv_msg`, net/netfilter/nfnetlink.c, 6.12),
/// and nf_conntrack with it.
fn load_ctnetlink() -> io::Result<()> {
    let nothing = FlowKey { orig: Tuple::default(), zone: 0 };
    NetfilterSocket::open()?.send(&request::get(&nothing, 1))
}
