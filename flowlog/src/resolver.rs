//! Host names are looked up beside the caller: getaddrinfo(3) has no timeout, and a silent
//! name server or a module of nsswitch.conf can keep it for minutes. Each look-up has a
//! thread of its own, which nothing waits for, the exit of the process neither.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

/// Look-ups under way at once: each holds a thread, for as long as it hangs.
const MAX_LOOKUPS: usize = 64;
static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
/// How long a look-up may take before it is reported.
const LATE: Duration = Duration::from_secs(10);

/// How often the name of a peer is looked up that says nothing when it moves: over UDP.
pub const REFRESH: Duration = Duration::from_secs(50);

/// What a look-up has found.
pub type Answer = io::Result<Vec<SocketAddr>>;

/// Looks a host and port up, and may take as long as it likes.
type LookUp = dyn Fn(&str, u16) -> Answer + Send + Sync;

/// What looks names up: the system's resolver, or that of a test.
#[derive(Clone)]
pub struct Resolver(Arc<LookUp>);

impl Default for Resolver {
    fn default() -> Self {
        Self::new(|host, port| Ok((host, port).to_socket_addrs()?.collect()))
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolver {
    /// One that asks `look_up`, on a thread for each question.
    pub fn new(look_up: impl Fn(&str, u16) -> Answer + Send + Sync + 'static) -> Self {
        Self(Arc::new(look_up))
    }

    /// Starts a look-up.
    ///
    /// # Errors
    /// Too many hang already, or no thread can be started.
    pub fn start(&self, host: &str, port: u16) -> io::Result<Lookup> {
        let slot = Slot::take()?;
        let (sender, answer) = mpsc::channel();
        let (look_up, host) = (self.0.clone(), host.to_owned());
        thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let found = look_up(&host, port)
                .and_then(|found| if found.is_empty() { Err(no_address()) } else { Ok(found) });
            drop(slot);
            // The caller may have left.
            let _ = sender.send(found);
        })?;
        Ok(Lookup { since: Instant::now(), answer })
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the name has no address")
}

/// One of the threads that may hang.
struct Slot;

impl Slot {
    fn take() -> io::Result<Self> {
        let before = LOOKUPS.fetch_add(1, Ordering::Relaxed);
        // Given back where there are too many.
        let slot = Self;
        if before < MAX_LOOKUPS {
            return Ok(slot);
        }
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("{MAX_LOOKUPS} names are being looked up already"),
        ))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        LOOKUPS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A look-up under way.
#[derive(Debug)]
pub struct Lookup {
    since: Instant,
    answer: Receiver<Answer>,
}

impl Lookup {
    /// The answer, if there is one by now.
    pub fn poll(&self) -> Option<Answer> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(no_address())),
        }
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// The name cannot be looked up, or there is no answer at `deadline`.
    pub fn wait(self, deadline: Instant) -> Answer {
        let limit = deadline.saturating_duration_since(Instant::now());
        match self.answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(no_address()),
            Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {:.0} s", self.since.elapsed().as_secs_f64()),
            )),
        }
    }
}

/// What has become known of a name.
#[derive(Debug)]
pub enum News {
    /// It has these addresses, which are others than before.
    Changed,
    /// It has the addresses that it had.
    Same,
    /// It cannot be looked up: the addresses known before stay in use.
    Failed(io::Error),
    /// No answer has come for so long, which is reported once for each look-up.
    Late(Duration),
}

/// A host and its port, and the addresses that it had when it was last looked up.
#[derive(Debug)]
pub struct Name {
    host: String,
    port: u16,
    resolver: Resolver,
    found: Vec<SocketAddr>,
    /// It is an address itself: there is nothing to look up.
    numeric: bool,
    lookup: Option<Lookup>,
    late: bool,
    /// When the last look-up began.
    asked: Option<Instant>,
}

impl Name {
    /// A name, which is not looked up yet, or an address, which is known.
    pub fn new(host: &str, port: u16, resolver: Resolver) -> Self {
        let address: Option<IpAddr> = host.parse().ok();
        let found: Vec<_> =
            address.map(|address| SocketAddr::new(address, port)).into_iter().collect();
        Self {
            host: host.to_owned(),
            port,
            resolver,
            numeric: !found.is_empty(),
            found,
            lookup: None,
            late: false,
            asked: None,
        }
    }

    /// Its addresses; none before the first answer.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.found
    }

    /// It is an address: there is nothing to look up.
    pub fn is_numeric(&self) -> bool {
        self.numeric
    }

    /// Whether it is looked up at the moment.
    pub fn is_asked(&self) -> bool {
        self.lookup.is_some()
    }

    /// Whether the look-up has been reported as late.
    pub fn is_late(&self) -> bool {
        self.late
    }

    /// When the last look-up began; `None` of an address, and before the first.
    pub fn asked(&self) -> Option<Instant> {
        self.asked
    }

    /// Starts a look-up, unless one is under way or the name is an address.
    ///
    /// # Errors
    /// As [`Resolver::start`].
    pub fn ask(&mut self) -> io::Result<()> {
        if self.numeric || self.lookup.is_some() {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        self.late = false;
        self.lookup = Some(self.resolver.start(&self.host, self.port)?);
        Ok(())
    }

    /// What has become known since the last call.
    pub fn poll(&mut self) -> Option<News> {
        let lookup = self.lookup.as_ref()?;
        match lookup.poll() {
            Some(answer) => {
                self.lookup = None;
                Some(match answer {
                    Ok(found) => self.learn(found),
                    Err(error) => News::Failed(error),
                })
            }
            None if !self.late && lookup.since.elapsed() >= LATE => {
                self.late = true;
                Some(News::Late(LATE))
            }
            None => None,
        }
    }

    /// Name servers answer in any order: what is known is kept where the set is the same.
    fn learn(&mut self, found: Vec<SocketAddr>) -> News {
        let same = found.iter().all(|one| self.found.contains(one))
            && self.found.iter().all(|one| found.contains(one));
        if same {
            return News::Same;
        }
        self.found = found;
        News::Changed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 514).into()
    }

    fn news(name: &mut Name) -> News {
        let start = Instant::now();
        loop {
            if let Some(news) = name.poll() {
                return news;
            }
            assert!(start.elapsed() < Duration::from_secs(30), "no answer");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn an_address_needs_no_look_up() {
        let never = Resolver::new(|_, _| unreachable!("it is an address"));
        for host in ["192.0.2.1", "2001:db8::1"] {
            let mut name = Name::new(host, 514, never.clone());
            assert_eq!(name.addresses().len(), 1);
            name.ask().unwrap();
            assert!(!name.is_asked() && name.poll().is_none());
        }
    }

    #[test]
    fn a_name_keeps_its_addresses_until_there_are_others() {
        let answers = Mutex::new(vec![
            Ok(vec![address(3)]),
            Err(io::Error::other("no route")),
            Ok(vec![address(2), address(1)]),
            Ok(vec![address(1), address(2)]),
        ]);
        let resolver = Resolver::new(move |_, _| answers.lock().unwrap().pop().unwrap());
        let mut name = Name::new("loghost", 514, resolver);
        assert!(name.addresses().is_empty());
        let mut next = || {
            name.ask().unwrap();
            let news = news(&mut name);
            (news, name.addresses().to_vec())
        };
        let both = [address(1), address(2)];
        let (first, found) = next();
        assert!(matches!(first, News::Changed) && found == both, "{first:?} {found:?}");
        let (again, found) = next();
        assert!(matches!(again, News::Same) && found == both, "another order: {again:?}");
        let (failed, found) = next();
        assert!(matches!(failed, News::Failed(_)) && found == both, "{failed:?} {found:?}");
        let (other, found) = next();
        assert!(matches!(other, News::Changed) && found == [address(3)], "{other:?} {found:?}");
    }

    #[test]
    fn a_look_up_that_hangs_keeps_nothing_waiting() {
        let (release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let resolver = Resolver::new(move |_, _| {
            let _ = hang.lock().unwrap().recv();
            Ok(vec![address(1)])
        });
        let mut name = Name::new("loghost", 514, resolver.clone());
        let start = Instant::now();
        name.ask().unwrap();
        // Under way already.
        name.ask().unwrap();
        assert!(name.poll().is_none());
        let bounded = resolver.start("other", 1).unwrap().wait(start + Duration::from_millis(20));
        assert_eq!(bounded.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
        drop(release);
        assert!(matches!(news(&mut name), News::Changed));
    }
}
