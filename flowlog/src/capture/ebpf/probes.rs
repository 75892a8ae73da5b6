//! The programs in the kernel: loaded, attached by one of two methods, and gone
//! with this value.
//!
//! aya loads the object, makes the maps and attaches kprobes. It cannot attach
//! fentry to a function of a module (aya 0.14 looks functions up in the
//! kernel's own BTF only, and conntrack is a module nearly everywhere), so
//! those programs are taken out of the object here and loaded by `bpf`.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::Map;
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfLoader};
use flowlog_ebpf::Settings;
use thiserror::Error;
use tracing::debug;

use self::kprobes::KprobeLink;
pub use self::object::maps;
use self::object::{OBJECT, TracingObject};
use super::bpf;
use super::btf::{Argument, KernelBtf};
use super::hooks::{At, Attachment, Hook, Way};
use crate::capture::netlink::exchange::is_transient_errno;

mod kprobes;
mod object;
mod usage;

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// A breakpoint or a call of ftrace; any function that has a symbol.
    Kprobe,
    /// A trampoline; functions that BTF knows. Costs a little less.
    Fentry,
}

impl Method {
    /// Its name, which programs have before theirs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kprobe => "kprobe",
            Self::Fentry => "fentry",
        }
    }
}

/// Why programs could not be loaded or attached.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// The object or its maps are refused.
    #[error("the eBPF object is refused: {0}")]
    Object(String),
    /// The kernel cannot make the maps.
    #[error("the maps of the eBPF programs cannot be made: {cause}")]
    Maps {
        /// Why not.
        cause: String,
        /// The kernel's error, if it gave one.
        errno: Option<i32>,
    },
    /// A program is refused.
    #[error("{method} on {function} is refused: {cause}")]
    Refused {
        /// The method.
        method: &'static str,
        /// The function.
        function: &'static str,
        /// The kernel's reason.
        cause: String,
        /// The kernel's error, if it gave one.
        errno: Option<i32>,
    },
    /// No way of a hook can be gone.
    #[error("the kernel tells nothing of {tells}: {tried}")]
    NoWay {
        /// What the hook tells.
        tells: &'static str,
        /// Each way, and why not.
        tried: String,
        /// The last error of the kernel.
        errno: Option<i32>,
    },
}

impl ProbeError {
    /// The kernel's error, if it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Object(_) => None,
            Self::Maps { errno, .. } | Self::Refused { errno, .. } | Self::NoWay { errno, .. } => {
                *errno
            }
        }
    }

    /// The same may succeed a little later: the kernel was short of memory, or busy.
    pub fn is_transient(&self) -> bool {
        self.errno().is_some_and(is_transient_errno)
    }
}

/// How large the maps are whose size is not always the same.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of the ring: a power of two, in pages.
    pub ring: u32,
    /// Namespaces whose messages can be counted.
    pub namespaces: u32,
    /// Messages that can be under way while two sources are compared.
    pub messages: u32,
    /// Allocations that can be under way while they are traced.
    pub allocations: u32,
    /// Tasks that can be in a function that says why a flow ends, or in one whose
    /// exit needs what its entry was given.
    pub tasks: u32,
}

impl Sizes {
    /// By name of the map.
    fn of_maps(self) -> [(&'static str, u32); 6] {
        let Self { ring, namespaces, messages, allocations, tasks } = self;
        [
            (maps::RECORDS, ring),
            (maps::LEDGER, namespaces),
            (maps::MESSAGES, messages),
            (maps::ALLOCATIONS, allocations),
            (maps::TASKS, tasks),
            (maps::CALLS, tasks),
        ]
    }
}

/// Programs at work.
pub struct Probes {
    method: Method,
    /// A failure that may pass is an error, and no reason for a second choice.
    retried: bool,
    ebpf: Ebpf,
    tracing: Option<TracingObject>,
    /// Programs of fentry, with the links that keep them attached.
    traced: Vec<Traced>,
    /// aya's programs that are loaded, by name, and where they are attached.
    probed: BTreeMap<String, Vec<KprobeLink>>,
    /// Misses of kprobes that have been detached, by program.
    missed_before: BTreeMap<String, u64>,
    hidden: HashSet<String>,
    #[cfg(feature = "ebpf-log")]
    messages: super::messages::Messages,
}

impl Probes {
    /// Puts what the programs had to say among the daemon's messages.
    #[cfg(feature = "ebpf-log")]
    pub fn tell(&mut self) {
        self.messages.tell();
    }

    /// Makes the maps, and prepares the programs for `method`.
    ///
    /// # Errors
    /// The kernel refuses a map.
    pub fn new(
        method: Method,
        settings: &Settings,
        sizes: Sizes,
        retried: bool,
    ) -> Result<Self, ProbeError> {
        let mut loader = EbpfLoader::new();
        for (name, size) in sizes.of_maps() {
            loader.map_max_entries(name, size);
        }
        let ebpf = loader
            // The programs relocate nothing; without this all of the kernel's
            // BTF would be read and kept.
            .btf(None)
            .override_global(object::SETTINGS, bytemuck::bytes_of(settings), true)
            .load(OBJECT)
            .map_err(|error| ProbeError::Maps { cause: chain(&error), errno: os_error(&error) })?;
        let tracing = match method {
            Method::Kprobe => None,
            Method::Fentry => Some(TracingObject::new(&ebpf)?),
        };
        #[cfg(feature = "ebpf-log")]
        let mut ebpf = ebpf;
        #[cfg(feature = "ebpf-log")]
        let messages = super::messages::Messages::new(&mut ebpf)
            .map_err(|error| ProbeError::Object(chain(&error)))?;
        Ok(Self {
            #[cfg(feature = "ebpf-log")]
            messages,
            method,
            retried,
            ebpf,
            tracing,
            traced: Vec::new(),
            probed: BTreeMap::new(),
            missed_before: BTreeMap::new(),
            hidden: hidden(),
        })
    }

    /// A map of the programs, once.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn take_map(&mut self, name: &str) -> Result<Map, ProbeError> {
        let missing = || ProbeError::Object(format!("it has no map {name}"));
        self.ebpf.take_map(name).ok_or_else(missing)
    }

    /// A map of the programs.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn map_mut(&mut self, name: &str) -> Result<&mut Map, ProbeError> {
        let missing = || ProbeError::Object(format!("it has no map {name}"));
        self.ebpf.map_mut(name).ok_or_else(missing)
    }

    /// Goes the first way of `hook` that can be gone, and returns it.
    ///
    /// # Errors
    /// None can be gone.
    pub fn attach(&mut self, hook: &Hook, btf: &KernelBtf) -> Result<Way, ProbeError> {
        let mut tried = Vec::new();
        let mut errno = None;
        let fentry = self.tracing.is_some();
        let ways = hook.ways.iter().filter(|way| fentry || way.method != Some(Method::Fentry));
        for way in ways {
            match self.attach_way(way, btf) {
                Ok(()) => return Ok(*way),
                // Another function would be refused for the same reason.
                Err(error)
                    if way.method.is_none()
                        && matches!(error.errno(), Some(libc::EPERM | libc::EACCES)) =>
                {
                    return Err(error);
                }
                Err(error) if self.gives_up(&error) => return Err(error),
                Err(error) => {
                    debug!("{}: {error}", hook.tells);
                    errno = error.errno().or(errno);
                    tried.push(error.to_string());
                }
            }
        }
        Err(ProbeError::NoWay { tells: hook.tells, tried: tried.join("; "), errno })
    }

    /// A failure that may pass is a reason for a second choice from now on.
    pub(super) fn no_longer_retried(&mut self) {
        self.retried = false;
    }

    /// Whether this failure is one that may pass and is waited for.
    pub(super) fn gives_up(&self, error: &ProbeError) -> bool {
        self.retried && error.is_transient()
    }

    /// Detaches all programs of `hook`. They stay loaded, so that
    /// [`Probes::attach`] needs fewer rights the next time.
    pub fn detach(&mut self, hook: &Hook) {
        // Exits last: what is entered must be left.
        let (exits, entries): (Vec<&Attachment>, Vec<_>) = hook
            .ways
            .iter()
            .flat_map(|way| way.attachments)
            .partition(|attachment| attachment.at == At::Exit);
        for attachment in entries.into_iter().chain(exits) {
            self.detach_program(attachment.program);
        }
    }

    fn detach_program(&mut self, name: &str) {
        let (kprobe, fentry) = (format!("kprobe_{name}"), format!("fentry_{name}"));
        for traced in self.traced.iter_mut().filter(|traced| traced.name == fentry) {
            traced.link = None;
        }
        self.detach_kprobe(&kprobe);
    }

    fn attach_way(&mut self, way: &Way, btf: &KernelBtf) -> Result<(), ProbeError> {
        let method = way.method.unwrap_or(self.method);
        for attachment in way.attachments {
            self.find(method, attachment, btf)?;
        }
        // Exits first: what is entered before its exit is attached would be
        // remembered for ever.
        let (exits, entries): (Vec<_>, Vec<_>) =
            way.attachments.iter().partition(|attachment| attachment.at == At::Exit);
        for attachment in exits.into_iter().chain(entries) {
            let attached = match method {
                Method::Kprobe => self.attach_kprobe(attachment),
                Method::Fentry => self.attach_fentry(attachment, btf),
            };
            if let Err(error) = attached {
                // Half a way would tell what the next way tells again.
                way.attachments.iter().for_each(|half| self.detach_program(half.program));
                return Err(error);
            }
        }
        Ok(())
    }

    /// Whether the function is there, and is the one that is meant.
    fn find(
        &self,
        method: Method,
        attachment: &Attachment,
        btf: &KernelBtf,
    ) -> Result<(), ProbeError> {
        let Attachment { function, integer_first, .. } = *attachment;
        let no = |cause: &str| {
            Err(ProbeError::Refused {
                method: method.name(),
                function,
                cause: cause.to_owned(),
                errno: None,
            })
        };
        if self.hidden.contains(function) {
            return no("it is hidden by FLOWLOG_HIDE_FUNCTIONS");
        }
        match btf.function(function) {
            Some(found) if integer_first && found.arguments.first() != Some(&Argument::Integer) => {
                no("its first argument is none of events: another function of the same name")
            }
            Some(_) => Ok(()),
            None if method == Method::Kprobe && !integer_first => match in_kallsyms(function) {
                true => Ok(()),
                false => no("there is no such function in this kernel"),
            },
            None => no("there is no such function in the kernel's BTF"),
        }
    }

    fn attach_fentry(
        &mut self,
        attachment: &Attachment,
        btf: &KernelBtf,
    ) -> Result<(), ProbeError> {
        let Attachment { function, program, at, .. } = *attachment;
        let name = format!("fentry_{program}");
        let waits = |traced: &Traced| {
            (traced.name.as_str(), traced.function) == (&*name, function) && traced.link.is_none()
        };
        if let Some(traced) = self.traced.iter_mut().find(|traced| waits(traced))
            && let Ok(link) = bpf::attach(traced.program.as_fd())
        {
            traced.link = Some(link);
            return Ok(());
        }
        // Kernels up to 5.13 attach a program once.
        self.traced.retain(|traced| !waits(traced));
        let refused =
            |cause: String, errno| ProbeError::Refused { method: "fentry", function, cause, errno };
        let (Some(tracing), Some(found)) = (&mut self.tracing, btf.function(function)) else {
            return Err(refused("the kernel's BTF does not know it".to_owned(), None));
        };
        let of_io = |error: io::Error| refused(error.to_string(), error.raw_os_error());
        let module = found.module;
        tracing.open_module(module).map_err(of_io)?;
        let loaded = tracing
            .load(&name, at == At::Exit, found.type_id, module)
            .map_err(|error| refused(error.to_string(), error.errno()))?;
        let link = bpf::attach(loaded.as_fd()).map_err(of_io)?;
        self.traced.push(Traced { name, function, program: loaded, link: Some(link) });
        Ok(())
    }

    /// How programs are attached.
    pub fn method(&self) -> Method {
        self.method
    }
}

/// A program of fentry.
struct Traced {
    name: String,
    /// What it is for.
    function: &'static str,
    program: OwnedFd,
    /// None once it is detached.
    link: Option<OwnedFd>,
}

/// Functions that tests want to be missing: names with commas between them.
fn hidden() -> HashSet<String> {
    let names = std::env::var("FLOWLOG_HIDE_FUNCTIONS").unwrap_or_default();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Whether the kernel has a symbol of this name. Asked only where BTF does not
/// know a function: the list is long.
fn in_kallsyms(function: &str) -> bool {
    use std::io::{BufRead as _, BufReader};
    let Ok(file) = std::fs::File::open("/proc/kallsyms") else { return false };
    let mut lines = BufReader::with_capacity(1 << 16, file).split(b'\n');
    // ADDRESS TYPE NAME[\t[MODULE]]
    lines.any(|line| {
        let Ok(line) = line else { return false };
        let name = line.split(|byte| byte.is_ascii_whitespace()).nth(2);
        name == Some(function.as_bytes())
    })
}

/// An error with all its reasons, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" / ")
}

/// The kernel's error. What the verifier refuses is no question of rights,
/// although it uses the same numbers.
fn errno(error: &ProgramError) -> Option<i32> {
    if let ProgramError::LoadError { io_error, .. } = error {
        return io_error.raw_os_error().filter(|errno| bpf::is_of_kernel(*errno));
    }
    os_error(error)
}

/// The error of a system call that stands behind another one.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}
