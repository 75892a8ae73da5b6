//! What the programs themselves have to say (feature `ebpf-log`), among the
//! daemon's messages at level debug.

use aya::Ebpf;
use aya_log::{EbpfLogger, Error};
use log::{Log, Metadata, Record};
use tracing::debug;

/// The programs' messages.
pub(super) struct Messages(EbpfLogger<Debug>);

impl Messages {
    /// Takes the map of messages out of the object.
    ///
    /// # Errors
    /// It has none.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, Error> {
        EbpfLogger::init_with_logger(ebpf, Debug).map(Self)
    }

    /// Hands on what has come.
    pub(super) fn tell(&mut self) {
        self.0.flush();
    }
}

/// aya-log's messages, as those of flowlog.
struct Debug;

impl Log for Debug {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        debug!("eBPF: {}", record.args());
    }

    fn flush(&self) {}
}
