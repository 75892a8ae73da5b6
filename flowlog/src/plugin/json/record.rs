//! Whole records with `schema=full`, for files and for whoever is far away.

use super::text::Text;
use super::{close, full};
use crate::plugin::ip2str::Addresses;
use crate::plugin::record_id::RecordId;
use crate::plugin::{Item, Scratch};

/// Makes records of items, each in the same buffer.
#[derive(Debug)]
pub struct Records {
    host: String,
    text: Text,
    /// Where IP2STR does not stand before.
    addresses: Addresses,
}

impl Records {
    /// For records of the host of that name.
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), text: Text::compact(), addresses: Addresses::default() }
    }

    /// The record of an item, with what the plugins before have made of it.
    pub fn record(&mut self, item: &Item<'_>, id: RecordId, scratch: &Scratch) -> &[u8] {
        let Self { host, text, addresses } = self;
        let addresses = if scratch.addresses.are_set() {
            &scratch.addresses
        } else {
            addresses.set(item);
            addresses
        };
        text.clear();
        text.open();
        full::members(item, addresses, text);
        text.string("host", host.as_bytes());
        text.id("record", id);
        close(scratch, text);
        text.as_bytes()
    }
}
