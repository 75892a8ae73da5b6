//! What `flowlog watch` and `flowlog top` take alike: which events, and where from.

use clap::Args;

use super::flows::{Flows, Place};
use super::{CaptureKind, within};
use crate::config::{self, Attach, BUFFER_LIMIT, CaptureChoice};
use crate::event::{Cause, Kinds};
use crate::verb::listening::Listening;
use crate::verb::watch::Selection;

#[derive(Debug, Args)]
pub(super) struct SelectionArgs {
    /// Kinds of events: new, update, destroy, assured, confirmed, expect, helper, gc
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    #[arg(default_value = "new,update,destroy,expect")]
    event: Vec<Kinds>,
    #[command(flatten)]
    flows: Flows,
    /// Ends with one of these causes, and nothing else; by eBPF only
    #[arg(long, value_name = "CAUSE", value_delimiter = ',', value_parser = cause)]
    cause: Vec<Cause>,
    #[command(flatten)]
    place: Place,
    /// Where events come from
    #[arg(long, value_enum, default_value_t = CaptureKind::Auto)]
    capture: CaptureKind,
    /// Make the kernel track connections meanwhile
    #[arg(long)]
    activate: bool,
    /// Receive buffer of netlink [default: as netlink_socket_buffer_size]
    #[arg(long, value_name = "BYTES", value_parser = within(1..=BUFFER_LIMIT))]
    netlink_buffer_size: Option<u32>,
}

impl From<SelectionArgs> for Listening {
    fn from(args: SelectionArgs) -> Self {
        Self {
            selection: Selection {
                kinds: args.event.into_iter().collect(),
                causes: args.cause,
                ..args.flows.into()
            },
            netns: args.place.netns,
            capture: CaptureChoice::from(args.capture),
            attach: Attach::from(args.place.attach),
            activate: args.activate,
            ring_buffer: config::ring_size(args.place.ring_buffer_size),
            netlink_buffer: args
                .netlink_buffer_size
                .map_or_else(config::default_buffers, |bytes| (bytes as usize, bytes as usize)),
        }
    }
}

fn kind(text: &str) -> Result<Kinds, String> {
    Kinds::from_name(&text.to_ascii_uppercase())
        .filter(|_| text.chars().all(|c| c.is_ascii_lowercase()))
        .ok_or_else(|| {
            "write new, update, destroy, assured, confirmed, expect, helper or gc".to_owned()
        })
}

fn cause(text: &str) -> Result<Cause, String> {
    let found = Cause::ALL.into_iter().find(|cause| cause.name() == text);
    found.ok_or_else(|| {
        format!("it is no cause; write one of {}", Cause::ALL.map(Cause::name).join(", "))
    })
}
