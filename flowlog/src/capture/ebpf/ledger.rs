//! How many netlink messages were due in each namespace, as the programs count
//! them while two sources are compared.

use std::collections::BTreeMap;

use aya::maps::{HashMap, Map, MapData, MapError, PerCpuHashMap};
use flowlog_ebpf::task::{Pending, RawMessage};
use flowlog_ebpf::{RawLedger, group};

use crate::capture::crosscheck::Due;

/// As the kernel keeps it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PerCpu(RawLedger);

#[expect(unsafe_code, reason = "aya's trait for plain data is an unsafe one")]
// SAFETY: `RawLedger` is plain data (`bytemuck::Pod`), and this is nothing else.
unsafe impl aya::Pod for PerCpu {}

/// Bytes of what the programs remember of a message that is being built.
const MESSAGE: usize = size_of::<Pending<RawMessage>>();

/// The programs' maps about messages.
pub(super) struct Ledger {
    /// By inode number of the namespace.
    due: PerCpuHashMap<MapData, u32, PerCpu>,
    /// Messages that are being built, by task.
    under_way: HashMap<MapData, u64, [u8; MESSAGE]>,
}

impl Ledger {
    /// The ledger in maps of the programs.
    ///
    /// # Errors
    /// They are other kinds of maps.
    pub(super) fn new(due: Map, under_way: Map) -> Result<Self, MapError> {
        Ok(Self { due: due.try_into()?, under_way: under_way.try_into()? })
    }

    /// Begins anew; to be called while no program is attached that counts.
    ///
    /// # Errors
    /// A map cannot be changed.
    pub(super) fn clear(&mut self) -> Result<(), MapError> {
        for netns in self.due.keys().collect::<Result<Vec<_>, _>>()? {
            self.due.remove(&netns)?;
        }
        // Of calls that had not ended when the programs were detached.
        for task in self.under_way.keys().collect::<Result<Vec<_>, _>>()? {
            self.under_way.remove(&task)?;
        }
        Ok(())
    }

    /// Messages that were due since then, by namespace.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn due(&self) -> Result<BTreeMap<u32, Due>, MapError> {
        let mut all = BTreeMap::new();
        for entry in self.due.iter() {
            let (netns, processors) = entry?;
            let sum = |group: u8| {
                processors.iter().map(|PerCpu(ledger)| ledger.due[usize::from(group)]).sum()
            };
            let due = Due {
                new: sum(group::NEW),
                update: sum(group::UPDATE),
                destroy: sum(group::DESTROY),
            };
            all.insert(netns, due);
        }
        Ok(all)
    }
}
