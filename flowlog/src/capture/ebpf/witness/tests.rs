//! Losses, as they are counted and told.

use super::*;

#[test]
fn losses_are_summed_and_compared_each_by_itself() {
    let some = Losses { new: 1, update: 2, destroy: 3, expect: 4, ..Losses::default() };
    let others = Losses { notices: 50, missed: 60, faults: 70, malformed: 80, ..some };
    let mut sum = some;
    sum += others;
    assert_eq!(sum - some, others);
    assert_eq!((others.events(), some.events()), (70, 10), "notices and faults are no events");
}
