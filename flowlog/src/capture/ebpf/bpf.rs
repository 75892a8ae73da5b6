//! The few calls of bpf(2) that aya 0.14 does not make: loading a program for
//! fentry with the BTF of a module, attaching it, and asking how often a
//! program was passed over, or a kprobe missed. Everything goes through [`call`].
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::time::Duration;

use aya_obj::generated::{
    bpf_attach_type, bpf_attr, bpf_btf_info, bpf_cmd, bpf_insn, bpf_prog_info, bpf_prog_type,
};

use crate::capture::netlink::exchange::is_transient_errno;

pub(super) use self::kprobe::{attach_kprobe, kprobe_misses};

mod kprobe;

/// Room for what the verifier says.
const LOG: usize = 1 << 20;
/// Longest name of a kernel object, its NUL included (`BPF_OBJ_NAME_LEN`).
const NAME: usize = 16;

/// A program that is to be called when a function is entered or left.
pub(super) struct Tracing<'a> {
    /// Its name; the kernel keeps 15 bytes.
    pub(super) name: &'a str,
    /// Its licence.
    pub(super) license: &'a CStr,
    /// Its instructions, with maps and calls in place.
    pub(super) instructions: &'a [bpf_insn],
    /// Called when the function is left, with its result.
    pub(super) at_exit: bool,
    /// Number of the function in its BTF.
    pub(super) function: u32,
    /// The BTF of the function's module; none for one of the kernel proper.
    pub(super) module: Option<BorrowedFd<'a>>,
}

/// Why the kernel refuses a program.
#[derive(Debug, thiserror::Error)]
#[error("{cause}{}", if log.is_empty() { String::new() } else { format!(": {log}") })]
pub(super) struct Refusal {
    /// The kernel's error.
    pub(super) cause: io::Error,
    /// The end of what the verifier says, if it had anything to say.
    log: String,
}

impl Refusal {
    /// The kernel's error. What the verifier refuses is no question of rights,
    /// although it uses the same numbers.
    pub(super) fn errno(&self) -> Option<i32> {
        let errno = self.cause.raw_os_error();
        if self.log.is_empty() { errno } else { errno.filter(|errno| is_of_kernel(*errno)) }
    }
}

/// Whether an error of loading a program is the kernel's own, and none that the
/// verifier has for what it refuses.
pub(super) fn is_of_kernel(errno: i32) -> bool {
    errno == libc::EPERM || is_transient_errno(errno)
}

impl From<io::Error> for Refusal {
    fn from(cause: io::Error) -> Self {
        Self { cause, log: String::new() }
    }
}

/// Loads a program.
///
/// # Errors
/// `EPERM`: the right is missing; otherwise the verifier's reason.
pub(super) fn load(program: &Tracing<'_>) -> Result<OwnedFd, Refusal> {
    // Without a log first: the verifier is quicker so.
    match try_load(program, &mut []) {
        Err(cause) if !matches!(cause.raw_os_error(), Some(libc::EPERM)) => {
            let mut log = vec![0; LOG];
            try_load(program, &mut log).map_err(|cause| Refusal { cause, log: last_lines(&log) })
        }
        result => Ok(result?),
    }
}

fn try_load(program: &Tracing<'_>, log: &mut [u8]) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    // SAFETY: every field of the union is integers, for which zeros are valid.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = bpf_prog_type::BPF_PROG_TYPE_TRACING as u32;
    load.expected_attach_type = match program.at_exit {
        false => bpf_attach_type::BPF_TRACE_FENTRY as u32,
        true => bpf_attach_type::BPF_TRACE_FEXIT as u32,
    };
    for (to, from) in load.prog_name.iter_mut().take(NAME - 1).zip(program.name.bytes()) {
        *to = from.cast_signed();
    }
    load.insns = program.instructions.as_ptr().addr() as u64;
    load.insn_cnt = program.instructions.len() as u32;
    load.license = program.license.as_ptr().addr() as u64;
    load.attach_btf_id = program.function;
    if let Some(module) = program.module {
        load.__bindgen_anon_1.attach_btf_obj_fd = module.as_raw_fd() as u32;
    }
    if !log.is_empty() {
        load.log_level = 1;
        load.log_buf = log.as_mut_ptr().addr() as u64;
        load.log_size = log.len() as u32;
    }
    descriptor(bpf_cmd::BPF_PROG_LOAD, &mut attr)
}

fn last_lines(log: &[u8]) -> String {
    const LINES: usize = 6;
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join(" / ")
}

/// Attaches a program of [`load`]; it is detached when the link is closed.
///
/// # Errors
/// The function cannot be traced just now.
pub(super) fn attach(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr = zeroed();
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    descriptor(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &mut attr)
}

/// The BTF of the module `name`.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`; `ENOENT` where there is none.
pub(super) fn module_btf(name: &str) -> io::Result<OwnedFd> {
    let mut id = 0;
    loop {
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.start_id = id;
        call(bpf_cmd::BPF_BTF_GET_NEXT_ID, &mut attr)?;
        // SAFETY: the kernel has filled it.
        id = unsafe { attr.__bindgen_anon_6.next_id };
        let mut attr = zeroed();
        attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
        match descriptor(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr) {
            Ok(btf) if btf_name(&btf)? == name.as_bytes() => return Ok(btf),
            Ok(_) => {}
            // It has gone since.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
}

fn btf_name(btf: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut name = [0_u8; 64];
    // SAFETY: integers only.
    let mut info: bpf_btf_info = unsafe { mem::zeroed() };
    info.name = name.as_mut_ptr().addr() as u64;
    info.name_len = name.len() as u32;
    let mut attr = zeroed();
    attr.info.bpf_fd = btf.as_raw_fd() as u32;
    attr.info.info = (&raw mut info).addr() as u64;
    attr.info.info_len = size_of_val(&info) as u32;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(name[..end].to_vec())
}

/// What the kernel knows of a program at work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    /// How often it was passed over because it, or another of its kind, was
    /// already at work on the processor (`recursion_misses`, Linux ≥ 5.12).
    pub(super) misses: u64,
    /// How often it was called, while kernel.bpf_stats_enabled was 1.
    pub(super) runs: u64,
    /// Time spent in it then.
    pub(super) time: Duration,
}

/// What the kernel knows of a program.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn usage(program: BorrowedFd<'_>) -> io::Result<Usage> {
    // SAFETY: integers only.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    let mut attr = zeroed();
    attr.info.bpf_fd = program.as_raw_fd() as u32;
    attr.info.info = (&raw mut info).addr() as u64;
    attr.info.info_len = size_of_val(&info) as u32;
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(Usage {
        misses: info.recursion_misses,
        runs: info.run_cnt,
        time: Duration::from_nanos(info.run_time_ns),
    })
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers, for which zeros are valid.
    unsafe { mem::zeroed() }
}

fn descriptor(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    let fd = call(command, attr)?;
    // SAFETY: for these commands the kernel returns a descriptor that is new
    // and belongs to the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2). Whatever `attr` points to must outlive the call, and have the length
/// that stands beside it.
fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attr` is a whole `bpf_attr`; the callers, all in this file and in that
    // of the module `kprobe`, keep what it points to until the call has returned, and
    // give its length.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result as i32),
    }
}
