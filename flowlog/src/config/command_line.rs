//! A source that the command line asks for, as `flowlog watch` does: one
//! without a file, a table or stacks.

use super::*;

/// What is wanted of it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What messages call it.
    pub id: String,
    /// Which events.
    pub mask: Kinds,
    /// Of which flows.
    pub filter: Filter,
    /// Where from.
    pub capture: CaptureChoice,
    /// How eBPF is attached.
    pub attach: Attach,
    /// Of which namespaces; absent: of all that the capture can see.
    pub netns: Option<NetnsScope>,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
    /// The receive buffer of netlink, bytes: at start and at most.
    pub buffer: (usize, usize),
    /// Make the kernel track connections meanwhile.
    pub activate: bool,
}

impl Source {
    /// The source that does what is wanted.
    ///
    /// # Errors
    /// Two wishes do not go together, and what to do.
    pub fn by_command_line(wanted: Wanted) -> Result<Self, String> {
        let Wanted { id, mask, filter, capture, attach, netns, ring_buffer, buffer, activate } =
            wanted;
        let mut source = Self {
            id,
            by_command_line: true,
            event_mask: mask.bits(),
            pushed: Bounds::default(),
            nfct: nfct::Settings {
                mask,
                hash: None,
                poll: None,
                resync: Duration::ZERO,
                redump: None,
                filter,
            },
            capture,
            crosscheck: None,
            crosscheck_keys: crosscheck::Keys::default(),
            attach,
            ring_buffer,
            buffer,
            reliable: false,
            netns: NetnsScope::Own,
            netns_named: false,
            set_sysctls: false,
            activate,
        };
        source.override_capture(None, netns)?;
        Ok(source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(capture: CaptureChoice, netns: Option<NetnsScope>) -> Result<Source, String> {
        Source::by_command_line(Wanted {
            id: "watch".to_owned(),
            mask: Kinds::NEW,
            filter: Filter::default(),
            capture,
            attach: Attach::Auto,
            netns,
            ring_buffer: RING,
            buffer: default_buffers(),
            activate: false,
        })
    }

    #[test]
    fn it_sees_all_namespaces_that_it_can() {
        let scope = |capture| wanted(capture, None).unwrap().netns;
        assert_eq!(scope(CaptureChoice::Auto), NetnsScope::All);
        assert_eq!(scope(CaptureChoice::Ebpf), NetnsScope::All);
        assert_eq!(scope(CaptureChoice::Netlink), NetnsScope::Own);
        assert!(wanted(CaptureChoice::Both, None).unwrap().crosscheck.is_some());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = wanted(CaptureChoice::Netlink, Some(NetnsScope::All)).unwrap_err();
        assert!(refused.starts_with("[watch] `netns=all` cannot be had over netlink"), "{refused}");
    }
}
