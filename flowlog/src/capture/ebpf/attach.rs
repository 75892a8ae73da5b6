//! Which programs the settings need: attached by the method that can be had, with
//! their filters filled. Whatever is less than it could be is said.

use std::sync::Once;

use aya::maps::{Map, lpm_trie};
use flowlog_ebpf::NetworkKey;
use tracing::{debug, warn};

use super::Settings;
use super::btf::KernelBtf;
use super::hooks::{self, Hook};
use super::probes::{Method, ProbeError, Probes, maps};
use super::selfcheck::Hooked;
use super::trace::{self, Functions};
use super::unable::{self, Unable};
use crate::capture::filter::{Filter, Network};
use crate::config::Attach;

/// Prefix lengths count from the family, which stands before the address.
const FAMILY_BITS: u32 = 8;

static SAID: Once = Once::new();
const UNCOUNTED: &str = "this kernel does not count the kprobes that it misses while another is \
                         at work on the processor (Linux 6.7 does): events lost by that are \
                         neither in ebpf.missed nor in [LOST]";

/// Programs at work.
pub(super) struct Attached {
    pub(super) probes: Probes,
    /// What a self-check needs; absent where not both are attached.
    pub(super) hooked: Option<Hooked>,
    /// By kind of record, where a trace asks for them.
    pub(super) functions: Functions,
}

/// Attaches what the settings need, ends first: an end without a beginning can
/// be logged, a beginning without an end would be kept for ever.
pub(super) fn attach(
    settings: &Settings,
    for_programs: &flowlog_ebpf::Settings,
    btf: &KernelBtf,
) -> Result<Attached, Unable> {
    let with = |method| -> Result<_, Unable> {
        unable::preconditions(method)?;
        let mut probes = Probes::new(method, for_programs, settings.sizes(), settings.retried)?;
        fill_filters(&mut probes, &settings.filter)?;
        let mut hooks = Hooks { probes: &mut probes, btf, amiss: Vec::new() };
        let (hooked, functions) = match &settings.traced {
            Some(refusals) => (None, trace::attach_all(settings, *refusals, &mut hooks)?),
            None => (attach_all(settings, &mut hooks)?, Functions::default()),
        };
        // Said only now: if this method is not used, it does not matter.
        for text in hooks.amiss {
            warn!("{text}");
        }
        if probes.has_uncounted_kprobe(hooks::tells_events) {
            // Once, however many sources there are.
            SAID.call_once(|| warn!("{UNCOUNTED}"));
        }
        Ok(Attached { probes, hooked, functions })
    };
    match settings.attach {
        Attach::Kprobe => with(Method::Kprobe),
        Attach::Fentry => with(Method::Fentry),
        Attach::Auto => with(Method::Fentry).or_else(|error| {
            if settings.retried && error.is_transient() {
                return Err(error);
            }
            debug!("fentry cannot be had: {error}");
            with(Method::Kprobe)
        }),
    }
}

/// Programs that are being attached.
pub(super) struct Hooks<'a> {
    probes: &'a mut Probes,
    btf: &'a KernelBtf,
    /// What is less than it could be.
    pub(super) amiss: Vec<String>,
}

impl Hooks<'_> {
    /// Attaches what tells something, and returns the function it is told by.
    pub(super) fn attach(&mut self, hook: &Hook) -> Result<&'static str, ProbeError> {
        let way = self.probes.attach(hook, self.btf)?;
        let function = way.attachments[0].function;
        debug!("{} by {function}: {}", hook.tells, way.why);
        if let Some(lost) = way.lost {
            self.amiss.push(format!(
                "{} are told by {function}, in place of a better hook: {lost}",
                hook.tells
            ));
        }
        Ok(function)
    }

    /// Attaches what tells why flows end, as far as it can be had.
    ///
    /// # Errors
    /// What may pass, where it is tried again.
    pub(super) fn attach_activities(&mut self) -> Result<(), ProbeError> {
        for hook in &hooks::ACTIVITIES {
            match self.attach(hook) {
                Ok(_) => {}
                Err(error) if self.probes.gives_up(&error) => return Err(error),
                Err(error) => {
                    self.amiss.push(format!("{} will not be reported: {error}", hook.tells));
                }
            }
        }
        Ok(())
    }
}

/// Attaches all that the settings need.
fn attach_all(settings: &Settings, hooks: &mut Hooks<'_>) -> Result<Option<Hooked>, ProbeError> {
    let mut removed = None;
    let mut inserted = None;
    if settings.wants_ends() {
        removed = Some(hooks.attach(&hooks::REMOVED)?);
        hooks.attach_activities()?;
    }
    if settings.wants_new() {
        inserted = Some(hooks.attach(&hooks::INSERTED)?);
    }
    if settings.wants_expectations() {
        hooks.attach(&hooks::EXPECTED)?;
    }
    if settings.wants_updates() {
        hooks.attach(&hooks::CHANGED)?;
    }
    Ok(inserted.zip(removed).map(|(inserted, removed)| Hooked { inserted, removed }))
}

/// Puts the networks of the filters into the programs' maps.
fn fill_filters(probes: &mut Probes, filter: &Filter) -> Result<(), Unable> {
    for (name, networks) in
        [(maps::SOURCES, &filter.sources), (maps::DESTINATIONS, &filter.destinations)]
    {
        if !networks.is_empty() {
            fill(probes.map_mut(name)?, networks)?;
        }
    }
    Ok(())
}

fn fill(map: &mut Map, networks: &[Network]) -> Result<(), Unable> {
    let mut trie: lpm_trie::LpmTrie<_, NetworkKey, u8> = lpm_trie::LpmTrie::try_from(map)?;
    for network in networks {
        let mut key: NetworkKey = [0; size_of::<NetworkKey>()];
        let (family, bytes) = match network.address() {
            std::net::IpAddr::V4(v4) => (crate::flow::Family::V4, v4.octets().to_vec()),
            std::net::IpAddr::V6(v6) => (crate::flow::Family::V6, v6.octets().to_vec()),
        };
        key[0] = family as u8;
        key[1..=bytes.len()].copy_from_slice(&bytes);
        let length = FAMILY_BITS + u32::from(network.length());
        trie.insert(&lpm_trie::Key::new(length, key), 1, 0)?;
    }
    Ok(())
}
