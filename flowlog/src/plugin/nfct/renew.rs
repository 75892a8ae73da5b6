//! What becomes of the live flows when their network namespace was removed and
//! another one of its name has been entered.

use super::tracker::Tracker;
use super::{Nfct, Settings};
use crate::event::{Cause, Lost};
use crate::plugin::Downstream;

impl Nfct {
    /// Ends every live flow, reports that an unknown number of events of the new
    /// namespace is lost, and begins anew with its table.
    pub fn begin_anew(&mut self, settings: Settings, at: u64, out: &mut dyn Downstream) {
        let flows = self.tracker.as_ref().map(|tracker| tracker.table.all()).unwrap_or_default();
        for entry in flows {
            self.vanished(&entry, at, Some(Cause::NetnsGone), out);
        }
        self.lost(Lost::noticed("netns", 1, at), out);
        self.tracker = settings.hash.map(|max_entries| Tracker::new(max_entries, &settings));
        self.settings = settings;
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bench, Out, flow};
    use crate::event::Kinds;
    use crate::flow::Status;

    #[test]
    fn flows_of_the_removed_namespace_end_and_the_table_is_read_again() {
        let mut bench = Bench::new(Kinds::DESTROY, Some(10));
        for id in 1..=2 {
            bench.event(Kinds::NEW, 10, &flow(id, Status::empty()));
        }
        let settings = bench.nfct.settings.clone();
        bench.nfct.begin_anew(settings, 30, &mut bench.outs);
        let outs = bench.take();
        assert_eq!(outs.len(), 3, "{outs:?}");
        for out in &outs[..2] {
            assert_eq!(*out, Out::Flow(Kinds::DESTROY, Some(10), Some(30)));
        }
        assert_eq!(outs[2], Out::Lost(1));
        assert_eq!((bench.nfct.live(), bench.nfct.lost_total()), (0, 1));
        // The same flow of the new namespace is another one.
        bench.dump(&[&flow(1, Status::empty())]);
        assert_eq!((bench.nfct.live(), bench.nfct.preexisting()), (1, 1));
    }
}
