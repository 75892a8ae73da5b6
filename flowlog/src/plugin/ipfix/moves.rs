//! Whether the name of a collector has got another address: over UDP nothing else tells.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::resolver::{Name, News};

/// How often it is asked whether a look-up has ended.
const POLL: Duration = Duration::from_millis(200);
/// The same of one that takes long.
const LATE: Duration = Duration::from_secs(2);

/// Looks the name up again and again.
pub(super) struct Moves {
    name: Name,
    /// Where the session leads.
    peer: IpAddr,
    period: Duration,
    due: Instant,
}

impl Moves {
    /// Absent where it is an address that is configured.
    pub(super) fn new(name: Name, peer: SocketAddr, period: Duration) -> Option<Self> {
        let due = Instant::now() + period;
        (!name.is_numeric()).then(|| Self { name, peer: peer.ip(), period, due })
    }

    /// When to look.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Whether the name has other addresses than that of the session. It is said once.
    pub(super) fn look(&mut self) -> bool {
        let now = Instant::now();
        if !self.name.is_asked() {
            // Where it cannot be started the next one is tried as late.
            let started = self.name.ask().is_ok();
            self.due = now + if started { POLL } else { self.period };
            return false;
        }
        let answer = self.name.poll();
        self.due = now
            + match answer {
                None if self.name.is_late() => LATE,
                Some(News::Late(_)) => LATE,
                None => POLL,
                Some(_) => self.period,
            };
        let is_known = matches!(answer, Some(News::Changed | News::Same));
        is_known && !self.name.addresses().iter().any(|one| one.ip() == self.peer)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;
    use crate::resolver::Resolver;

    /// Looks until the next answer has come; returns whether it has moved.
    fn next(moves: &mut Moves, asked: &AtomicU8) -> bool {
        let before = asked.load(Ordering::Acquire);
        let begin = Instant::now();
        loop {
            assert!(begin.elapsed() < Duration::from_secs(20), "it is not looked up");
            let moved = moves.look();
            if moved || asked.load(Ordering::Acquire) > before && !moves.name.is_asked() {
                return moved;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn another_address_is_found_and_a_failure_is_none() {
        let (last, asked) = (Arc::new(AtomicU8::new(1)), Arc::new(AtomicU8::new(0)));
        let resolver = Resolver::new({
            let (last, asked) = (last.clone(), asked.clone());
            move |_, port| {
                let found = match last.load(Ordering::Acquire) {
                    0 => Err(io::ErrorKind::NotFound.into()),
                    last => Ok(vec![([192, 0, 2, last], port).into()]),
                };
                asked.fetch_add(1, Ordering::Release);
                found
            }
        });
        let of = |host: &str| {
            let name = Name::new(host, 4739, resolver.clone());
            Moves::new(name, ([192, 0, 2, 1], 4739).into(), Duration::from_millis(5))
        };
        assert!(of("192.0.2.1").is_none());
        let mut moves = of("collector.example.org").unwrap();
        assert!(!next(&mut moves, &asked), "it has the address");
        last.store(0, Ordering::Release);
        assert!(!next(&mut moves, &asked), "it is not known");
        last.store(2, Ordering::Release);
        assert!(next(&mut moves, &asked));
    }
}
