//! Kprobes as links whose descriptor is at hand: aya 0.14 keeps it to itself, and
//! only it tells how often the kernel missed the probe.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::{self, offset_of};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_cmd, bpf_link_info, bpf_link_type,
    bpf_perf_event_type, perf_event_attr,
};

use super::{call, descriptor, zeroed};

/// Number of the kernel's events of this kind.
const TYPE: &str = "/sys/bus/event_source/devices/kprobe/type";
/// In the configuration of an event: it is the exit (`PERF_PROBE_CONFIG_IS_RETPROBE`,
/// kernel/events/core.c, 6.12).
const AT_EXIT: u64 = 1 << 0;
/// Bytes of a `bpf_link_info` up to the number of misses, its end included.
const WITH_MISSES: usize = offset_of!(bpf_link_info, __bindgen_anon_1.perf_event.__bindgen_anon_1)
    + offset_of!(Kprobe, missed)
    + size_of::<u64>();

/// What a link tells of a kprobe.
type Kprobe =
    aya_obj::generated::bpf_link_info__bindgen_ty_1__bindgen_ty_11__bindgen_ty_1__bindgen_ty_2;

/// Attaches a program to `function`, where it is entered or left; it is detached
/// when the link is closed.
///
/// # Errors
/// The function cannot be probed, the right is missing, or this kernel has no
/// such links (Linux 5.15 has).
pub(in super::super) fn attach_kprobe(
    program: BorrowedFd<'_>,
    function: &str,
    at_exit: bool,
) -> io::Result<OwnedFd> {
    let kind = fs::read_to_string(TYPE)?.trim().parse().map_err(io::Error::other)?;
    let function = CString::new(function)?;
    // SAFETY: integers only.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.size = size_of_val(&attr) as u32;
    attr.type_ = kind;
    attr.config = if at_exit { AT_EXIT } else { 0 };
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr().addr() as u64;
    let (every_process, processor, group) = (-1, 0, -1);
    // SAFETY: `attr` is a whole `perf_event_attr` that gives its size, and the name
    // that it points to lives until the call has returned.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw mut attr,
            every_process,
            processor,
            group,
            libc::c_ulong::from(PERF_FLAG_FD_CLOEXEC),
        )
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has returned a descriptor that is new and belongs to the
    // caller. The link keeps the event.
    let event = unsafe { OwnedFd::from_raw_fd(event as i32) };
    let mut attr = zeroed();
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_fd = event.as_raw_fd() as u32;
    attr.link_create.attach_type = bpf_attach_type::BPF_PERF_EVENT as u32;
    descriptor(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}

/// How often the kernel missed the probe of this link, because another kprobe was
/// at work on the processor, or because too many calls of the function were under
/// way for their exits; absent where it does not count that (Linux 6.7 does).
pub(in super::super) fn kprobe_misses(link: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: integers only.
    let mut info: bpf_link_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info = (&raw mut info).addr() as u64;
    attr.info.info_len = size_of_val(&info) as u32;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).ok()?;
    // SAFETY: the kernel has set it to the bytes that it knows.
    misses_in(&info, unsafe { attr.info.info_len } as usize)
}

/// The misses in an answer of which the kernel knows so many bytes.
fn misses_in(info: &bpf_link_info, known: usize) -> Option<u64> {
    if known < WITH_MISSES || info.type_ != bpf_link_type::BPF_LINK_TYPE_PERF_EVENT as u32 {
        return None;
    }
    // SAFETY: integers only, and the link's type says that it is this one.
    let event = unsafe { &info.__bindgen_anon_1.perf_event };
    let kinds = [
        bpf_perf_event_type::BPF_PERF_EVENT_KPROBE as u32,
        bpf_perf_event_type::BPF_PERF_EVENT_KRETPROBE as u32,
    ];
    if !kinds.contains(&event.type_) {
        return None;
    }
    // SAFETY: as above, by the type of the event.
    Some(unsafe { event.__bindgen_anon_1.kprobe.missed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(link: bpf_link_type, event: bpf_perf_event_type) -> bpf_link_info {
        // SAFETY: integers only.
        let mut info: bpf_link_info = unsafe { mem::zeroed() };
        info.type_ = link as u32;
        info.__bindgen_anon_1.perf_event.type_ = event as u32;
        info.__bindgen_anon_1.perf_event.__bindgen_anon_1.kprobe.missed = 42;
        info
    }

    /// The offsets of `struct bpf_link_info` (include/uapi/linux/bpf.h, 6.7).
    #[test]
    fn misses_are_where_the_kernel_writes_them() {
        use bpf_link_type::{BPF_LINK_TYPE_PERF_EVENT, BPF_LINK_TYPE_TRACING};
        use bpf_perf_event_type::{
            BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE, BPF_PERF_EVENT_UPROBE,
        };
        assert_eq!(WITH_MISSES, 16 + 8 + 24 + 8);
        for event in [BPF_PERF_EVENT_KPROBE, BPF_PERF_EVENT_KRETPROBE] {
            let info = answer(BPF_LINK_TYPE_PERF_EVENT, event);
            assert_eq!(misses_in(&info, size_of_val(&info)), Some(42));
            assert_eq!(misses_in(&info, 56), Some(42), "6.7");
            assert_eq!(misses_in(&info, 48), None, "6.6");
        }
        let other = answer(BPF_LINK_TYPE_PERF_EVENT, BPF_PERF_EVENT_UPROBE);
        assert_eq!(misses_in(&other, 64), None);
        let other = answer(BPF_LINK_TYPE_TRACING, BPF_PERF_EVENT_KPROBE);
        assert_eq!(misses_in(&other, 64), None);
    }

    #[test]
    fn what_is_no_link_has_no_misses() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(kprobe_misses(std::os::fd::AsFd::as_fd(&file)), None);
    }
}
