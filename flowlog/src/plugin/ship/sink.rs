//! A sink that ships: an encoder, and what its records are handed to.

use std::path::Path;

use crate::plugin::output::Output;
use crate::plugin::record_id::{Identifier, RecordId};
use crate::plugin::{Item, Scratch};

use super::{Client, Record, Shipment, Start};

/// How a sink encodes an item.
pub trait Encode {
    /// Writes the body of the record to `out`, which is empty; returns whether there
    /// is to be one. `scratch` holds what the plugins before have made of the item.
    fn encode(
        &mut self,
        item: &Item<'_>,
        id: RecordId,
        scratch: &Scratch,
        out: &mut Vec<u8>,
    ) -> bool;
}

/// The sink.
pub struct Shipped {
    encoder: Box<dyn Encode>,
    identifier: Identifier,
    body: Vec<u8>,
    output: Output,
}

impl Shipped {
    /// Prepares a sink whose far side is reached by a client of that kind.
    pub fn open<C: Client + 'static>(
        start: &Start<'_>,
        encoder: impl Encode + 'static,
        settings: C::Settings,
    ) -> Self {
        Self {
            encoder: Box::new(encoder),
            identifier: Identifier::of_this_host(),
            body: Vec::new(),
            output: Output::Shipped(Box::new(Shipment::open::<C>(start, settings))),
        }
    }

    /// Has made that directory, which goes with the privileges.
    pub fn owning(mut self, directory: &Path) -> Self {
        if let Output::Shipped(shipment) = &mut self.output {
            shipment.own(directory);
        }
        self
    }

    /// Takes an item.
    pub fn push(&mut self, item: &Item<'_>, scratch: &Scratch) {
        let Self { encoder, identifier, body, output } = self;
        let Output::Shipped(shipment) = output else { return };
        let id = identifier.id(item);
        body.clear();
        if encoder.encode(item, id, scratch, body) {
            shipment.push(&Record { id, flow: identifier.flow(item), body });
        }
    }

    /// Where it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Where it writes, to be written to.
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }
}
