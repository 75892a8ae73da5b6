//! A loss says since when events may be missing: since the source was last read until it was
//! empty, however long it stood still.

use super::*;
use crate::archive::clock::Moment;

const SECOND: u64 = 1_000_000_000;

#[derive(Default)]
struct Losses(Vec<Lost>);

impl Downstream for Losses {
    fn push(&mut self, item: &Item<'_>) {
        if let Body::Lost(lost) = item.body {
            assert_eq!(item.at, lost.at);
            self.0.push(lost);
        }
    }
}

fn nfct() -> Nfct {
    Bench::new(Kinds::NEW, None).nfct
}

#[test]
fn a_loss_reaches_back_to_when_the_source_was_read_dry() {
    let (mut nfct, mut out) = (nfct(), Losses::default());
    let now = Moment::now();
    let stood_still = Duration::from_secs(90);
    nfct.caught_up(now.before(stood_still));
    nfct.record(Record::Lost(Lost::noticed("netlink", 3, now.wall)), &mut out);
    let since = now.wall - 90 * SECOND;
    assert_eq!(out.0, [Lost { source: "netlink", events: 3, since, at: now.wall }]);
    // One report a second: each source's are one, from the first on, and keep their names.
    nfct.record(Record::Lost(Lost::noticed("netlink", 4, now.wall + 1)), &mut out);
    nfct.caught_up(now);
    nfct.record(Record::Lost(Lost::noticed("netlink_malformed", 1, now.wall + 2)), &mut out);
    nfct.record(Record::Lost(Lost::noticed("netlink", 5, now.wall + 3)), &mut out);
    assert_eq!(out.0.len(), 1);
    assert!(nfct.deadline().is_some());
    nfct.finish(&mut out);
    let [_, netlink, malformed] = out.0[..] else { panic!("{:?}", out.0) };
    assert_eq!((netlink.events, netlink.since, netlink.at), (9, since, now.wall + 3));
    assert_eq!((malformed.source, malformed.events), ("netlink_malformed", 1));
    // The steady clock goes on between two of its readings.
    assert!(malformed.since <= now.wall && malformed.since > now.wall - SECOND, "{malformed:?}");
    assert_eq!(nfct.lost_total(), 13);
}

/// By the steady clock: what it shows now is no measure of what has passed.
#[test]
fn a_clock_that_was_set_back_makes_no_loss_shorter() {
    let (mut nfct, mut out) = (nfct(), Losses::default());
    let now = Moment::now();
    std::thread::sleep(Duration::from_millis(20));
    nfct.caught_up(Moment { wall: now.wall + 3600 * SECOND, steady: now.steady });
    nfct.record(Record::Lost(Lost::noticed("ebpf", 3, now.wall)), &mut out);
    let [lost] = out.0[..] else { panic!("{:?}", out.0) };
    let passed = now.wall - lost.since;
    assert!((20_000_000..SECOND).contains(&passed), "{passed}");
}
