//! Where the fields are that the kernel programs read: their [`Layout`], filled
//! from this kernel's own description of its types.
//!
//! `FIELDS` is the one list of them. A field that every kernel has is
//! required; one that depends on the kernel's configuration or release belongs
//! to a part, and parts are there as a whole or not at all, so that a program
//! asks once. What the programs take for granted is in `FIXED` and compared,
//! as is the size of each field: a kernel in which something moved or grew in a
//! way that was not foreseen is refused by name, never misread.

use bytemuck::Zeroable;
use flowlog_ebpf::{ABSENT, ENTRY_MAX, Layout, tuple};
use thiserror::Error;

use self::Need::{Part, Required};
use self::What::{AnySize, Number, Sized};
use super::btf::{Field, KernelBtf};

#[cfg(test)]
mod debian;
#[cfg(test)]
mod tests;

/// The structure of which one piece is copied.
const ENTRY: &str = "nf_conn.";

/// Why the kernel programs cannot read this kernel's flows.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LayoutError {
    /// Something is not there.
    #[error(
        "this kernel has no {field}, which eBPF capture reads; please report it with the \
         kernel's release"
    )]
    Missing {
        /// What.
        field: &'static str,
    },
    /// A field is not as large as expected.
    #[error(
        "{field} has {found} bytes in this kernel, eBPF capture knows it with {expected}; please \
         report it with the kernel's release"
    )]
    Size {
        /// The field.
        field: &'static str,
        /// Its bytes.
        found: u32,
        /// The bytes that the programs read.
        expected: u32,
    },
    /// A field is not where it is in all kernels known so far.
    #[error(
        "{field} is at byte {found} in this kernel, eBPF capture knows it at {expected}; please \
         report it with the kernel's release"
    )]
    Place {
        /// The field.
        field: &'static str,
        /// Where it is.
        found: u32,
        /// Where the programs read it.
        expected: u32,
    },
    /// A field of an entry is not aligned as the programs read it.
    #[error(
        "{field} is at byte {found} in this kernel, eBPF capture reads it as aligned to {align}; \
         please report it with the kernel's release"
    )]
    Alignment {
        /// The field.
        field: &'static str,
        /// Where it is.
        found: u32,
        /// Of what its place must be a multiple.
        align: u32,
    },
    /// A field lies beyond the piece of an entry that is copied.
    #[error(
        "{field} ends at byte {end} in this kernel, eBPF capture copies {ENTRY_MAX} bytes of an \
         entry from byte {start} on; please report it with the kernel's release"
    )]
    TooFar {
        /// The last field.
        field: &'static str,
        /// Where it ends.
        end: u32,
        /// Where the piece begins.
        start: u32,
    },
}

/// Whether a kernel can be without something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// None is.
    Required,
    /// Some are; what shares a name is there together or not at all.
    Part(&'static str),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
enum What {
    /// Where a field is, which has so many bytes.
    Sized(u32),
    /// Where a field is whose size is the kernel's affair.
    AnySize,
    /// The value of an enumerator.
    Number,
}

/// One field of [`Layout`].
struct Row {
    /// Structure and path, or enumeration and enumerator; offsets of what is
    /// joined by `+` are added.
    name: &'static str,
    what: What,
    need: Need,
    slot: fn(&mut Layout) -> &mut u32,
}

const fn row(name: &'static str, what: What, need: Need, slot: fn(&mut Layout) -> &mut u32) -> Row {
    Row { name, what, need, slot }
}

/// All fields but the first two, which follow from them.
const FIELDS: [Row; 35] = [
    row("nf_conn.timeout", Sized(4), Required, |l| &mut l.timeout),
    row("nf_conn.zone.id", Sized(2), Part("zones"), |l| &mut l.zone_id),
    row("nf_conn.zone.dir", Sized(1), Part("zones"), |l| &mut l.zone_dir),
    row("nf_conn.tuplehash[0].tuple", Sized(40), Required, |l| &mut l.orig),
    row("nf_conn.tuplehash[1].tuple", Sized(40), Required, |l| &mut l.reply),
    row("nf_conn.status", Sized(8), Required, |l| &mut l.status),
    row("nf_conn.ct_net.net", Sized(8), Required, |l| &mut l.net),
    row("nf_conn.master", Sized(8), Required, |l| &mut l.master),
    row("nf_conn.mark", Sized(4), Part("marks"), |l| &mut l.mark),
    row("nf_conn.ext", Sized(8), Required, |l| &mut l.ext),
    row("nf_conn.proto.tcp.state", Sized(1), Required, |l| &mut l.tcp_state),
    row("nf_conn.proto.sctp.state", Sized(4), Part("SCTP"), |l| &mut l.sctp_state),
    row("nf_conn.proto.dccp.state", Sized(1), Part("DCCP"), |l| &mut l.dccp_state),
    row("net.net_cookie", Sized(8), Part("cookies"), |l| &mut l.net_cookie),
    row("net.ns.inum", Sized(4), Required, |l| &mut l.net_inum),
    row("nf_ct_ext.offset", AnySize, Required, |l| &mut l.ext_offsets),
    row("nf_ct_ext_id.NF_CT_EXT_HELPER", Number, Part("helpers"), |l| &mut l.ext_helper),
    row("nf_ct_ext_id.NF_CT_EXT_ACCT", Number, Required, |l| &mut l.ext_acct),
    row("nf_ct_ext_id.NF_CT_EXT_ECACHE", Number, Part("events"), |l| &mut l.ext_ecache),
    row("nf_ct_ext_id.NF_CT_EXT_TSTAMP", Number, Part("times"), |l| &mut l.ext_tstamp),
    row("nf_ct_ext_id.NF_CT_EXT_LABELS", Number, Part("labels"), |l| &mut l.ext_labels),
    row("nf_conn_help.helper", Sized(8), Part("helpers"), |l| &mut l.help_helper),
    row("nf_conntrack_helper.name", Sized(16), Part("helpers"), |l| &mut l.helper_name),
    row("nf_conn_tstamp.start", Sized(8), Part("times"), |l| &mut l.tstamp_start),
    row("nf_conn_tstamp.stop", Sized(8), Part("times"), |l| &mut l.tstamp_stop),
    row("nf_ct_event.ct", Sized(8), Part("events"), |l| &mut l.event_entry),
    row("nf_ct_event.portid", Sized(4), Part("events"), |l| &mut l.event_portid),
    row("nf_conntrack_expect.tuple", Sized(40), Part("expectations"), |l| &mut l.expect_tuple),
    row("nf_conntrack_expect.mask", Sized(20), Part("expectations"), |l| &mut l.expect_mask),
    row("nf_conntrack_expect.master", Sized(8), Part("expectations"), |l| &mut l.expect_master),
    row("nf_conntrack_expect.helper", Sized(8), Part("expectations"), |l| &mut l.expect_helper),
    row("sk_buff._nfct", Sized(8), Required, |l| &mut l.skb_nfct),
    row("sk_buff.cb+netlink_skb_parms.portid", Sized(4), Part("senders"), |l| &mut l.skb_portid),
    row("tcp_conntrack.TCP_CONNTRACK_TIME_WAIT", Number, Required, |l| &mut l.tcp_time_wait),
    row("tcp_conntrack.TCP_CONNTRACK_CLOSE", Number, Required, |l| &mut l.tcp_close),
];

/// What the programs take for granted: where it is, how large, and the part
/// that cannot do without it.
const FIXED: [(&str, usize, u32, Need); 19] = [
    ("nf_conntrack_tuple.src.u3", tuple::SRC, 16, Required),
    ("nf_conntrack_tuple.src.u", tuple::SRC_L4, 2, Required),
    ("nf_conntrack_tuple.src.l3num", tuple::L3NUM, 2, Required),
    ("nf_conntrack_tuple.dst.u3", tuple::DST, 16, Required),
    ("nf_conntrack_tuple.dst.u", tuple::DST_L4, 2, Required),
    ("nf_conntrack_tuple.dst.u.icmp.type", tuple::DST_L4, 1, Required),
    ("nf_conntrack_tuple.dst.u.icmp.code", tuple::DST_L4 + 1, 1, Required),
    ("nf_conntrack_tuple.dst.protonum", tuple::PROTONUM, 1, Required),
    ("nf_conntrack_tuple.dst.dir", tuple::DIR, 1, Required),
    ("nf_conn_acct.counter[0].packets", 0, 8, Required),
    ("nf_conn_acct.counter[0].bytes", 8, 8, Required),
    ("nf_conn_acct.counter[1].packets", 16, 8, Required),
    ("nf_conn_acct.counter[1].bytes", 24, 8, Required),
    ("nf_ct_ext.offset[1]", 1, 1, Required),
    // Read together.
    ("nf_conn_tstamp.start", 0, 8, Part("times")),
    ("nf_conn_tstamp.stop", 8, 8, Part("times")),
    ("nf_conn_labels.bits", 0, 16, Part("labels")),
    ("nf_conntrack_tuple_mask.src.u3", 0, 16, Part("expectations")),
    ("nf_conntrack_tuple_mask.src.u", 16, 2, Part("expectations")),
];

/// Where everything is in this kernel.
///
/// # Errors
/// A field is missing that all kernels should have, or something is not as the
/// programs know it.
pub fn layout(btf: &KernelBtf) -> Result<Layout, LayoutError> {
    let mut layout = Layout::zeroed();
    let mut missing = Vec::new();
    let mut piece = Piece::default();
    for (field, place, bytes, need) in FIXED {
        check(btf, field, place, bytes).or_else(|error| excuse(error, need, &mut missing))?;
    }
    for row in &FIELDS {
        let value = row.value(btf).map(Some);
        let value = value.or_else(|error| excuse(error, row.need, &mut missing).map(|()| None))?;
        if let (Some(value), Sized(bytes)) = (value, row.what)
            && row.name.starts_with(ENTRY)
        {
            piece.add(row.name, value, bytes)?;
        }
        *(row.slot)(&mut layout) = value.unwrap_or(ABSENT);
    }
    (layout.entry_start, layout.entry_size) = piece.bounds()?;
    for row in FIELDS.iter().filter(|row| missing.contains(&row.need)) {
        *(row.slot)(&mut layout) = ABSENT;
    }
    Ok(layout)
}

/// Each field of a layout by the kernel's name for it, and its value.
pub fn describe(layout: &Layout) -> impl Iterator<Item = (&'static str, u32)> + use<> {
    let mut layout = *layout;
    let piece = [("entry_start", layout.entry_start), ("entry_size", layout.entry_size)];
    let fields = FIELDS.iter().map(move |row| (row.name, *(row.slot)(&mut layout)));
    piece.into_iter().chain(fields)
}

/// The piece of an entry that holds all fields. It does not begin with the
/// entry: a lock stands in front, of 4 bytes, or 32 with PREEMPT_RT, or more with
/// lockdep.
#[derive(Default)]
struct Piece {
    /// Where its first field begins.
    start: Option<u32>,
    /// Its last field, and where that ends.
    last: (&'static str, u32),
}

impl Piece {
    /// What the programs copy in words.
    const WORD: u32 = 8;

    /// A field of so many bytes is part of it.
    fn add(&mut self, field: &'static str, found: u32, bytes: u32) -> Result<(), LayoutError> {
        let align = bytes.min(Self::WORD);
        if !found.is_multiple_of(align) {
            return Err(LayoutError::Alignment { field, found, align });
        }
        let end = found.saturating_add(bytes);
        if end > self.last.1 {
            self.last = (field, end);
        }
        self.start = Some(self.start.map_or(found, |start| start.min(found)));
        Ok(())
    }

    /// Where it begins, and how many bytes it has.
    fn bounds(&self) -> Result<(u32, u32), LayoutError> {
        let start = self.start.unwrap_or(0) & !(Self::WORD - 1);
        let (field, end) = self.last;
        match end.saturating_sub(start) {
            size if size as usize <= ENTRY_MAX => Ok((start, size)),
            _ => Err(LayoutError::TooFar { field, end, start }),
        }
    }
}

/// Notes the part that has to do without something missing; any other error
/// stays one.
fn excuse(error: LayoutError, need: Need, missing: &mut Vec<Need>) -> Result<(), LayoutError> {
    match (&error, need) {
        (LayoutError::Missing { .. }, Part(_)) => {
            missing.push(need);
            Ok(())
        }
        _ => Err(error),
    }
}

/// Compares a field with what the programs take for granted.
fn check(
    btf: &KernelBtf,
    field: &'static str,
    place: usize,
    bytes: u32,
) -> Result<(), LayoutError> {
    let found = find(btf, field)?.offset;
    let expected = place as u32;
    if found != expected {
        return Err(LayoutError::Place { field, found, expected });
    }
    sized(btf, field, bytes).map(|_| ())
}

impl Row {
    fn value(&self, btf: &KernelBtf) -> Result<u32, LayoutError> {
        match self.what {
            Sized(bytes) => sized(btf, self.name, bytes),
            AnySize => find(btf, self.name).map(|found| found.offset),
            Number => number(btf, self.name),
        }
    }
}

/// Where a field is that has so many bytes.
fn sized(btf: &KernelBtf, field: &'static str, expected: u32) -> Result<u32, LayoutError> {
    let Field { offset, size: found } = find(btf, field)?;
    if found != expected {
        return Err(LayoutError::Size { field, found, expected });
    }
    Ok(offset)
}

fn find(btf: &KernelBtf, field: &'static str) -> Result<Field, LayoutError> {
    let missing = LayoutError::Missing { field };
    let mut sum = Field { offset: 0, size: 0 };
    for part in field.split('+') {
        let found = part.split_once('.').and_then(|(name, path)| btf.field(name, path));
        let Field { offset, size } = found.ok_or(missing.clone())?;
        sum = Field { offset: sum.offset.saturating_add(offset), size };
    }
    Ok(sum)
}

fn number(btf: &KernelBtf, field: &'static str) -> Result<u32, LayoutError> {
    let found = field.split_once('.').and_then(|(of, name)| btf.enum_value(of, name));
    let number = found.and_then(|number| u32::try_from(number).ok());
    number.ok_or(LayoutError::Missing { field })
}
