//! Records out of memory instead of the ring: for tests and benchmarks, which
//! need no kernel.

use std::io;
use std::os::fd::OwnedFd;

use super::clock::Clock;
use super::decode::Decoder;
use super::reader::Reader;
use crate::capture::{Capture, Drained, Progress, RecordSink};
use crate::stats::{Counter, Stats};

/// Jiffies in a second, of the kernel that made the records.
const HZ: u32 = 250;

/// What a recording begins with.
pub const MAGIC: &[u8; 8] = b"flowring";

/// [`MAGIC`], then records one after the other, each after its length in eight
/// bytes of native order, so that they are aligned as in the ring.
pub struct Replay {
    records: Vec<u8>,
    position: usize,
    reader: Reader,
    stats: Stats,
}

impl Replay {
    /// Replays a recording. When it has been read dry, it begins again.
    pub fn new(records: Vec<u8>, stats: Stats) -> Self {
        stats.use_ebpf();
        let reader = Reader::new(Decoder { hz: HZ }, stats.clone());
        Self { records, position: MAGIC.len(), reader, stats }
    }
}

impl Capture for Replay {
    fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        Ok(Vec::new())
    }

    fn drain(&mut self, budget: usize, sink: &mut dyn RecordSink) -> io::Result<Progress> {
        let clock = Clock::now();
        let mut messages = 0;
        while messages < budget
            && let Some((length, rest)) = self.records[self.position..].split_first_chunk()
        {
            let length = u64::from_ne_bytes(*length) as usize;
            let record = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
            self.reader.take(record, clock, sink);
            self.position += size_of::<u64>() + length;
            messages += 1;
        }
        self.reader.hand_on(sink);
        self.stats.add(Counter::EbpfRecords, messages as u64);
        if messages == budget {
            return Ok(Progress { messages, drained: Drained::More });
        }
        self.position = MAGIC.len();
        Ok(Progress { messages, drained: Drained::Dry })
    }

    fn queue_events(&self) -> usize {
        usize::MAX
    }
}
