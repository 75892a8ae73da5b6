//! The time of day is set while the sources are compared: nothing is judged by it.

use super::*;

const DAY: i64 = 86_400_000_000_000;
const HOUR: i64 = 3_600_000_000_000;

/// An event as it was logged: kind, port, by whom it was told, and its id.
type Logged = (CheckKind, u16, Witness, Option<u32>);

/// What is logged and found where the clock is set in the middle.
fn found(ahead: i64) -> (Vec<Logged>, Vec<u64>) {
    let mut scene = Scene::new();
    scene.all(New, 1);
    // Told by one source each, with a loss that explains it.
    scene.matcher.netlink_lost(1);
    scene.ebpf(Update, 1);
    scene.notice(Update, 1);
    scene.ahead = ahead;
    scene.at += 1_000_000;
    scene.matcher.ebpf_lost(Losses { update: 1, ..Losses::default() }, scene.at);
    scene.notice(Update, 2);
    scene.netlink(Update, 2);
    scene.all(Destroy, 1);
    scene.wait();
    let checks =
        [Check::Matched, Check::OnlyEbpf, Check::OnlyNetlink, Check::Healed, Check::Unchecked];
    let sums = checks.map(|check| scene.sum(check));
    assert_eq!(scene.sum(Check::Boundary), 0, "no part of it is outside of the comparison");
    (scene.log.events, sums.into())
}

#[test]
fn a_clock_that_is_set_changes_no_verdict() {
    let without = found(0);
    assert_eq!(without.1, [2, 1, 1, 1, 0], "{without:?}");
    for ahead in [2 * DAY, DAY, HOUR, -HOUR, -DAY] {
        assert_eq!(found(ahead), without, "by {ahead} ns");
    }
}
