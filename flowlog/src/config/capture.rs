//! Where the events of a source come from and of which namespaces: the keys
//! `capture`, `attach`, `ring_buffer_size`, `netns`, and what goes together.

use std::fmt;
use std::path::Path;

use nix::unistd::{SysconfVar, sysconf};

use super::*;
use crate::netns;

/// The default ring, bytes: about 80,000 events.
pub const RING: u32 = 16 << 20;
/// Bounds of the ring, bytes.
pub const RING_BOUNDS: std::ops::RangeInclusive<i64> = 4096..=1 << 30;
/// The page that is assumed if the system does not tell, bytes.
const PAGE: u32 = 4096;

/// Where events come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureChoice {
    /// eBPF where it can be had, else netlink.
    #[default]
    Auto,
    /// eBPF or nothing.
    Ebpf,
    /// nfnetlink_conntrack.
    Netlink,
    /// Both, compared event by event; or nothing.
    Both,
}

impl CaptureChoice {
    /// The word for it.
    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Both => "both",
        }
    }
}

/// How eBPF programs are attached to the kernel's functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// fentry where it can be had, else kprobes.
    #[default]
    Auto,
    /// kprobes.
    Kprobe,
    /// fentry and fexit, which cost less.
    Fentry,
}

/// The network namespaces whose events are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetnsScope {
    /// All there are and will be, as only eBPF sees them.
    All,
    /// flowlog's own.
    Own,
    /// One, by the path of its file or its name for `ip netns` (see
    /// [`crate::netns::resolve`]).
    Path(PathBuf),
}

impl NetnsScope {
    /// The scope that is written as `text`: `all`, `self`, a name or a path.
    pub fn new(text: &str) -> Self {
        match text {
            "all" => Self::All,
            "self" => Self::Own,
            path => Self::Path(path.into()),
        }
    }

    /// The namespace in which sockets are to be opened; absent: flowlog's own.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::All | Self::Own => None,
            Self::Path(path) => Some(path),
        }
    }

    /// Whether both mean the same.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(a), Self::Path(b)) => netns::resolve(a) == netns::resolve(b),
            _ => self == other,
        }
    }
}

impl fmt::Display for NetnsScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Own => f.write_str("self"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// Two wishes that do not go together.
pub(super) struct Conflict {
    /// The key that is to be changed.
    pub(super) key: &'static str,
    /// What, and what to do.
    pub(super) why: String,
}

impl Source {
    /// Takes over what the command line says: it outranks the file.
    ///
    /// # Errors
    /// It does not go together with what the file says.
    pub fn override_capture(
        &mut self,
        capture: Option<CaptureChoice>,
        netns: Option<NetnsScope>,
    ) -> Result<(), String> {
        if let Some(capture) = capture {
            self.capture = capture;
        }
        if let Some(netns) = netns {
            self.netns = netns;
            self.netns_named = true;
        }
        self.settle().map_err(|conflict| format!("[{}] {}", self.id, conflict.why))
    }

    /// Chooses what follows from the keys together.
    fn settle(&mut self) -> Result<(), Conflict> {
        let polls = self.nfct.poll.is_some();
        match self.capture {
            CaptureChoice::Ebpf | CaptureChoice::Both if polls => {
                let why = format!(
                    "`capture={}` does not go with pollinterval, which reads the table over \
                     netlink; set capture=auto, or remove pollinterval",
                    self.capture.word()
                );
                return Err(Conflict { key: "capture", why });
            }
            CaptureChoice::Auto if polls => self.capture = CaptureChoice::Netlink,
            CaptureChoice::Auto
            | CaptureChoice::Ebpf
            | CaptureChoice::Netlink
            | CaptureChoice::Both => {}
        }
        self.crosscheck = self.crosscheck_keys.settings(self.capture, polls)?;
        let netlink = self.capture == CaptureChoice::Netlink;
        if !self.netns_named {
            self.netns = if netlink { NetnsScope::Own } else { NetnsScope::All };
        }
        if netlink && self.netns == NetnsScope::All {
            let remedy = if polls { "remove pollinterval" } else { "set capture=auto" };
            let why = format!(
                "`netns=all` cannot be had over netlink, which sees one namespace only; {remedy}, \
                 or set netns=self or a name"
            );
            return Err(Conflict { key: "netns", why });
        }
        Ok(())
    }
}

/// Reads the keys of this file into `source`.
pub(super) fn read(values: &Values<'_>, source: &mut Source, found: &mut Diagnostics) {
    use CaptureChoice::{Auto, Both, Ebpf, Netlink};
    let choices = [Auto, Ebpf, Netlink, Both].map(|choice| (choice.word(), choice));
    source.capture = values.choice("capture", &choices, found).unwrap_or_default();
    let choices = [("auto", Attach::Auto), ("kprobe", Attach::Kprobe), ("fentry", Attach::Fentry)];
    source.attach = values.choice("attach", &choices, found).unwrap_or_default();
    source.ring_buffer = ring_buffer(values, found);
    source.crosscheck_keys = crosscheck::Keys::read(values, found);
    if let Some(scope) = scope(values, found) {
        source.netns = scope;
        source.netns_named = true;
    }
    if let Err(Conflict { key, why }) = source.settle() {
        found.error(values.line(key), why);
        return;
    }
    crosscheck::note_unused(values, source, found);
    if source.capture == Netlink {
        if let Some(text) = untold_by_netlink(source.event_mask) {
            found.note(values.line("event_mask"), text);
        }
        for key in ["attach", "ring_buffer_size"] {
            if let Some(line) = values.line(key) {
                found.note(line, format!("`{key}` is for eBPF, which is not used; remove it"));
            }
        }
    }
}

/// What netlink cannot tell of an `event_mask`; absent: it tells all.
pub fn untold_by_netlink(event_mask: u32) -> Option<String> {
    (event_mask & Kinds::GC.bits() != 0).then(|| {
        format!(
            "`event_mask={event_mask:#x}`: netlink does not tell which flows were destroyed by \
             garbage collection (0x80), so none is logged as [GC]; their end is logged with 0x04"
        )
    })
}

/// `netns`, and its older form `network_namespace_path`.
fn scope(values: &Values<'_>, found: &mut Diagnostics) -> Option<NetnsScope> {
    let mut text = |key| values.string(key, found).filter(|text| !text.is_empty());
    let scope = text("netns").map(NetnsScope::new);
    let path = text("network_namespace_path").map(|path| NetnsScope::Path(path.into()));
    if let (Some(scope), Some(path)) = (&scope, &path)
        && !scope.is(path)
    {
        found.error(
            values.line("netns"),
            format!(
                "`netns={scope}` contradicts `network_namespace_path={path}`; remove one of them"
            ),
        );
    }
    scope.or(path)
}

/// The kernel takes rings of a power of two of pages.
fn ring_buffer(values: &Values<'_>, found: &mut Diagnostics) -> u32 {
    let Some(size) = values.integer("ring_buffer_size", RING_BOUNDS, found) else { return RING };
    let rounded = ring_size(size as u32);
    if i64::from(rounded) != size {
        found.note(
            values.line("ring_buffer_size"),
            format!(
                "`ring_buffer_size={size}`: the kernel takes powers of two from its page of \
                 {} bytes on, so the ring has {rounded}; write that",
                page()
            ),
        );
    }
    rounded
}

/// The ring that the kernel takes in place of one of `bytes`.
pub fn ring_size(bytes: u32) -> u32 {
    bytes.max(page()).next_power_of_two()
}

fn page() -> u32 {
    sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map_or(PAGE, |page| page as u32)
}
