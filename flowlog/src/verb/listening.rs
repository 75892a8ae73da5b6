//! What a verb that shows events listens to: which events, and where from.

use crate::config::{Attach, CaptureChoice, NetnsScope, Source, Wanted};
use crate::verb::watch::Selection;

/// What cannot be had over netlink.
pub(super) const UNTOLD_BY_NETLINK: &str = "netlink tells no causes of ends, no processes and no \
                                            flows of other network namespaces";

/// What the command line selects, and the capture for it.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Which events.
    pub selection: Selection,
    /// Of which namespaces; absent: of all that the capture can see.
    pub netns: Option<NetnsScope>,
    /// Where events come from.
    pub capture: CaptureChoice,
    /// How eBPF is attached.
    pub attach: Attach,
    /// Make the kernel track connections meanwhile.
    pub activate: bool,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
    /// The receive buffer of netlink, bytes: at start and at most.
    pub netlink_buffer: (usize, usize),
}

impl Listening {
    /// The source that has what is to be shown; messages call it `id`.
    ///
    /// # Errors
    /// Two wishes do not go together, and what to do.
    pub(super) fn source(&self, id: &str) -> Result<Source, String> {
        let Self { selection, netns, capture, attach, .. } = self;
        selection.check()?;
        let needs_ebpf = selection.needs_ebpf();
        let capture = match capture {
            CaptureChoice::Netlink if needs_ebpf => {
                return Err("netlink does not tell why a flow has ended, so `--cause` and \
                            `--event gc` cannot be had; leave out --capture"
                    .to_owned());
            }
            // What is asked for by name is not left out in silence.
            CaptureChoice::Auto if needs_ebpf => CaptureChoice::Ebpf,
            other => *other,
        };
        Source::by_command_line(Wanted {
            id: id.to_owned(),
            mask: selection.mask(),
            filter: selection.pushed_down(),
            capture,
            attach: *attach,
            netns: netns.clone(),
            ring_buffer: self.ring_buffer,
            buffer: self.netlink_buffer,
            activate: self.activate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cause, Kinds};
    use crate::verb::watch::tests::listening;

    #[test]
    fn what_only_ebpf_tells_is_not_asked_of_netlink() {
        let capture = |listening: Listening| listening.source("top").map(|source| source.capture);
        let all = Selection { kinds: Kinds::NEW | Kinds::DESTROY, ..Selection::default() };
        assert_eq!(capture(listening(all.clone())).unwrap(), CaptureChoice::Auto);
        let gc = Selection { kinds: Kinds::GC, ..all.clone() };
        assert_eq!(capture(listening(gc)).unwrap(), CaptureChoice::Ebpf);
        let deleted = listening(Selection { causes: vec![Cause::Deleted], ..all });
        assert_eq!(capture(deleted.clone()).unwrap(), CaptureChoice::Ebpf);
        let deleted = Listening { capture: CaptureChoice::Netlink, ..deleted };
        assert!(capture(deleted).unwrap_err().contains("leave out --capture"));
    }
}
