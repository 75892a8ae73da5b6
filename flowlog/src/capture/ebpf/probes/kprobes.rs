//! Kprobes: aya loads their programs, and each is attached by a link of its own
//! where the kernel has such links, which know how often the probe was missed.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::kprobe::KProbeLinkId;
use aya::programs::{KProbe, Program, ProgramError};
use tracing::debug;

use super::super::bpf;
use super::super::hooks::{At, Attachment};
use super::{ProbeError, Probes, chain, errno};

/// Where a kprobe is attached.
pub(super) enum KprobeLink {
    /// Detached when it is closed. Knows of misses from Linux 6.7 on.
    Own(OwnedFd),
    /// One of aya's, on kernels without such links.
    Aya(KProbeLinkId),
}

impl KprobeLink {
    /// How often the kernel missed it; absent where it does not count that.
    pub(super) fn misses(&self) -> Option<u64> {
        match self {
            Self::Own(link) => bpf::kprobe_misses(link.as_fd()),
            Self::Aya(_) => None,
        }
    }
}

impl Probes {
    /// Loads the program, once, and attaches it.
    pub(super) fn attach_kprobe(&mut self, attachment: &Attachment) -> Result<(), ProbeError> {
        let Attachment { function, program: name, at, .. } = *attachment;
        let name = format!("kprobe_{name}");
        let refused = |error: &dyn std::error::Error, errno| ProbeError::Refused {
            method: "kprobe",
            function,
            cause: chain(error),
            errno,
        };
        let missing = || ProbeError::Object(format!("it has no program {name}"));
        let program = self.ebpf.program_mut(&name).ok_or_else(missing)?;
        let program: &mut KProbe =
            program.try_into().map_err(|error: ProgramError| refused(&error, None))?;
        if !self.probed.contains_key(&name) {
            program.load().map_err(|error| refused(&error, errno(&error)))?;
        }
        let links = self.probed.entry(name).or_default();
        let own = program.fd().map_err(|error| refused(&error, errno(&error)))?;
        let link = match bpf::attach_kprobe(own.as_fd(), function, at == At::Exit) {
            Ok(link) => KprobeLink::Own(link),
            // Whatever the reason is, aya knows more ways, and says why none works.
            Err(error) => {
                debug!("no link for {function}: {error}");
                let link = program.attach(function, 0);
                KprobeLink::Aya(link.map_err(|error| refused(&error, errno(&error)))?)
            }
        };
        links.push(link);
        Ok(())
    }

    /// Detaches a program from all functions. What was missed until now stays
    /// known.
    pub(super) fn detach_kprobe(&mut self, name: &str) {
        let links = self.probed.get_mut(name).map(std::mem::take).unwrap_or_default();
        let missed: u64 = links.iter().filter_map(KprobeLink::misses).sum();
        *self.missed_before.entry(name.to_owned()).or_default() += missed;
        for link in links {
            if let KprobeLink::Aya(link) = link
                && let Some(Program::KProbe(program)) = self.ebpf.program_mut(name)
                && let Err(error) = program.detach(link)
            {
                debug!("{name} cannot be detached: {}", chain(&error));
            }
        }
    }
}
