//! The object of the programs: what it must have, and the programs for fentry,
//! which are taken out of it here.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};

use aya::Ebpf;
use aya::maps::{Map, MapData};
use aya_obj::Object;

use super::super::bpf::{self, Tracing};
use super::{ProbeError, chain};

/// The programs, built from `flowlog-ebpf`.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/flowlog-ebpf.o"));

/// The global variable that the programs' settings are written to.
pub(super) const SETTINGS: &str = "SETTINGS";

/// The maps that the daemon asks for by name; a test looks for each.
pub mod maps {
    /// The ring.
    pub const RECORDS: &str = "RECORDS";
    /// What the programs count.
    pub const COUNTS: &str = "COUNTS";
    /// Networks of the filters, by source.
    pub const SOURCES: &str = "SOURCES";
    /// And by destination.
    pub const DESTINATIONS: &str = "DESTINATIONS";
    /// Messages that were due, by namespace.
    pub const LEDGER: &str = "LEDGER";
    /// Messages that are being built, by task.
    pub const MESSAGES: &str = "MESSAGES";
    /// Allocations that are under way, by task.
    pub const ALLOCATIONS: &str = "ALLOCATIONS";
    /// What tasks are in, by task.
    pub const TASKS: &str = "TASKS";
    /// Calls whose exits need what their entries were given, by task.
    pub const CALLS: &str = "CALLS_UNDER_WAY";
    /// All of them.
    pub const ALL: [&str; 9] =
        [RECORDS, COUNTS, SOURCES, DESTINATIONS, LEDGER, MESSAGES, ALLOCATIONS, TASKS, CALLS];
}

/// The programs for fentry, out of the same object and with the same maps as
/// aya's.
pub(super) struct TracingObject {
    object: Object,
    /// The BTF of modules, by name.
    modules: HashMap<String, OwnedFd>,
}

impl TracingObject {
    pub(super) fn new(ebpf: &Ebpf) -> Result<Self, ProbeError> {
        let broken = |error: &dyn std::error::Error| ProbeError::Object(chain(error));
        let mut object = Object::parse(OBJECT).map_err(|error| broken(&error))?;
        let maps = std::mem::take(&mut object.maps);
        let used: Vec<(&str, RawFd, &aya_obj::Map)> = maps
            .iter()
            .filter_map(|(name, map)| {
                let made = map_data(ebpf.map(name)?)?;
                Some((name.as_str(), made.fd().as_fd().as_raw_fd(), map))
            })
            .collect();
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(used.into_iter(), &sections)
            .and_then(|()| object.relocate_calls(&sections))
            .map_err(|error| broken(&error))?;
        Ok(Self { object, modules: HashMap::new() })
    }

    /// Opens the BTF of a module, once.
    pub(super) fn open_module(&mut self, name: Option<&str>) -> io::Result<()> {
        if let Some(name) = name
            && !self.modules.contains_key(name)
        {
            self.modules.insert(name.to_owned(), bpf::module_btf(name)?);
        }
        Ok(())
    }

    pub(super) fn load(
        &self,
        name: &str,
        at_exit: bool,
        function: u32,
        module: Option<&str>,
    ) -> Result<OwnedFd, bpf::Refusal> {
        let missing = || bpf::Refusal::from(io::Error::other(format!("no program {name}")));
        let program = self.object.programs.get(name).ok_or_else(missing)?;
        let code = self.object.functions.get(&program.function_key()).ok_or_else(missing)?;
        bpf::load(&Tracing {
            name,
            license: &program.license,
            instructions: &code.instructions,
            at_exit,
            function,
            module: module.and_then(|name| self.modules.get(name)).map(|btf| btf.as_fd()),
        })
    }
}

/// What the kernel knows a map by. Only the kinds that the programs have.
fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::PerCpuHashMap(data)
        | Map::RingBuf(data) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use aya_obj::generated::bpf_map_type;
    use bytemuck::Zeroable as _;

    use super::super::{Method, Sizes};
    use super::*;
    use crate::capture::ebpf::hooks::{self, At};
    use crate::capture::ebpf::tasks;

    /// The programs that the hooks ask for, by whether they are for an exit.
    fn asked() -> BTreeMap<String, bool> {
        let mut asked = BTreeMap::new();
        for way in hooks::all().flat_map(|hook| hook.ways) {
            let methods = [Method::Kprobe, Method::Fentry];
            for method in methods.into_iter().filter(|m| way.method.is_none_or(|own| own == *m)) {
                for attachment in way.attachments {
                    let name = format!("{}_{}", method.name(), attachment.program);
                    asked.insert(name, attachment.at == At::Exit);
                }
            }
        }
        asked
    }

    #[test]
    fn it_has_each_map_that_is_asked_for() {
        let object = Object::parse(OBJECT).unwrap();
        let missing: Vec<_> =
            maps::ALL.iter().filter(|name| !object.maps.contains_key(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    /// An LRU map of a fixed size drops entries in use on a host with many processors.
    #[test]
    fn each_map_that_drops_entries_is_sized_by_the_number_of_processors() {
        let sizes =
            Sizes { ring: 4096, namespaces: 1, messages: 7, allocations: 7, tasks: 7 }.of_maps();
        let object = Object::parse(OBJECT).unwrap();
        let lru = [bpf_map_type::BPF_MAP_TYPE_LRU_HASH, bpf_map_type::BPF_MAP_TYPE_LRU_PERCPU_HASH];
        let lru = lru.map(|kind| kind as u32);
        let dropping = object.maps.iter().filter(|(_, map)| lru.contains(&map.map_type()));
        let dropping: BTreeSet<_> = dropping.map(|(name, _)| name.as_str()).collect();
        let by_tasks = sizes.iter().filter(|(_, size)| *size == 7).map(|(name, _)| *name);
        assert_eq!(dropping, by_tasks.collect());
        assert!(dropping.contains(maps::CALLS), "{dropping:?}");
        // What the lists of free entries keep, and as much in use.
        for processors in [1, 2, 64, 512, 8192] {
            assert!(tasks(processors) as usize >= 2 * 128 * processors, "{processors}");
        }
    }

    #[test]
    fn it_has_the_settings_with_their_size() {
        let settings = flowlog_ebpf::Settings::zeroed();
        let globals = |name, value| HashMap::from([(name, (value, true))]);
        let mut object = Object::parse(OBJECT).unwrap();
        let bytes = bytemuck::bytes_of(&settings);
        object.patch_map_data(globals(SETTINGS, bytes)).unwrap();
        let mut object = Object::parse(OBJECT).unwrap();
        assert!(object.patch_map_data(globals(SETTINGS, &bytes[4..])).is_err());
    }

    #[test]
    fn it_has_each_program_that_a_hook_asks_for_and_no_other() {
        use aya_obj::ProgramSection as Section;
        let object = Object::parse(OBJECT).unwrap();
        let asked = asked();
        assert!(asked.len() > 60, "{asked:?}");
        let has: BTreeSet<_> = object.programs.keys().collect();
        let wanted: BTreeSet<_> = asked.keys().collect();
        assert_eq!(has, wanted);
        for (name, at_exit) in &asked {
            let right = match (&object.programs[name].section, name.starts_with("kprobe_")) {
                (Section::KProbe, true) | (Section::FEntry { .. }, false) => !at_exit,
                (Section::KRetProbe, true) | (Section::FExit { .. }, false) => *at_exit,
                _ => false,
            };
            assert!(right, "{name}: {:?}", object.programs[name].section);
        }
    }
}
