//! Every bit of `event_mask`, by eBPF. Other than over netlink, where each message shows what a
//! flow is like, a state is told when it begins.

use anyhow::Result;
use tests::lab::Lab;
use tests::tags::Often::{Once, Repeatedly};
use tests::tags::{ALL, ASSURED, HELPED, REPLIED, Tagged, UNHELPED, ensure_tagged};
use tests::traffic;

use super::{by_ebpf, lines_of, start, stop};

/// Keys of a source, and the lines that it gives.
type Case = (&'static str, &'static [Tagged]);

/// Changes are told once for each flow, with and without a table, the bare update aside.
const CASES: [Case; 9] = [
    ("hash_enable=0\nevent_mask=0x02", &[("UPDATE", REPLIED, Repeatedly)]),
    ("hash_enable=0\nevent_mask=0x08", &[("ASSURED", ASSURED, Once)]),
    ("hash_enable=0\nevent_mask=0x18", &[("CONFIRMED", REPLIED, Once), ("ASSURED", ASSURED, Once)]),
    ("hash_enable=0\nevent_mask=0x41", &[("NEW", UNHELPED, Once), ("NEW|HELPER", HELPED, Once)]),
    (
        "hash_enable=0\nevent_mask=0x0d",
        &[("NEW", ALL, Once), ("ASSURED", ASSURED, Once), ("DESTROY", ALL, Once)],
    ),
    ("hash_enable=0\nevent_mask=0x00", &[]),
    ("hash_enable=1\nevent_mask=0x02", &[]),
    ("hash_enable=1\nevent_mask=0x18", &[("CONFIRMED", REPLIED, Once), ("ASSURED", ASSURED, Once)]),
    ("hash_enable=1\nevent_mask=0x15", &[("CONFIRMED", REPLIED, Once), ("DESTROY", ALL, Once)]),
];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn each_bit() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        let common = "capture=ebpf\nnetns=self\nring_buffer_size=1048576";
        let daemon = start(lab.router(), common, &CASES.map(|(keys, _)| keys), "")?;
        let flows = traffic::mix(&lab, 34_000)?;
        lab.router().expire_conntrack()?;
        let finished = stop(daemon)?;
        for (source, (keys, expected)) in (1..).zip(CASES) {
            ensure_tagged(keys, &lines_of(&finished, source)?, &flows, expected)?;
        }
        Ok(())
    })
}
