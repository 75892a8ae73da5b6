//! Where a [`super::SocketOutput`] leads: an address, and the name behind it.

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::plugin::output::peer::{Address, Connected, Connection};
use crate::resolver::{Name, News, REFRESH, Resolver};

/// How often it is asked whether a look-up has ended.
const POLL: Duration = Duration::from_millis(50);
/// After a failure of the look-up or the connection no sooner than this.
const AGAIN: Duration = Duration::from_secs(2);

/// Where it leads.
pub(super) struct Route {
    address: Address,
    /// For TCP and UDP.
    name: Option<Name>,
    /// Which of the addresses is tried next.
    next: usize,
    /// A stream too is to leave an address that the name does not have any more.
    strict: bool,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Route {
    pub(super) fn new(address: Address, resolver: Resolver) -> Self {
        let name = match &address {
            Address::UnixStream(_) | Address::UnixDatagram(_) => None,
            Address::Tcp(host, port) | Address::Udp(host, port) => {
                Some(Name::new(host, *port, resolver))
            }
        };
        Self { address, name, next: 0, strict: false }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Its address is known: without one there is no attempt.
    pub(super) fn is_known(&self) -> bool {
        self.name.as_ref().is_none_or(|name| !name.addresses().is_empty())
    }

    /// How many attempts there are.
    pub(super) fn attempts(&self) -> usize {
        self.name.as_ref().map_or(1, |name| name.addresses().len().max(1))
    }

    /// One attempt.
    pub(super) fn connect(&mut self) -> io::Result<Connected> {
        let found = self.name.as_ref().map(Name::addresses).unwrap_or_default();
        let to = found.get(self.next % found.len().max(1)).copied();
        self.next = self.next.wrapping_add(1);
        Connection::open(&self.address, to)
    }

    /// The addresses of the name, for messages.
    pub(super) fn addresses(&self) -> String {
        let found = self.name.as_ref().map(Name::addresses).unwrap_or_default();
        found.iter().map(|one| one.ip().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The next answer counts for an open stream too.
    pub(super) fn be_strict(&mut self) {
        self.strict = true;
    }

    /// Starts a look-up.
    pub(super) fn ask(&mut self) -> io::Result<()> {
        self.name.as_mut().map_or(Ok(()), Name::ask)
    }

    /// A look-up has not begun just now.
    pub(super) fn may_ask(&self) -> bool {
        let asked = self.name.as_ref().and_then(Name::asked);
        asked.is_none_or(|asked| asked.elapsed() >= AGAIN)
    }

    /// What a look-up has found.
    pub(super) fn poll(&mut self) -> Option<News> {
        self.name.as_mut()?.poll()
    }

    /// When to look the name up, or to ask for the answer.
    pub(super) fn due(&self) -> Option<Instant> {
        let name = self.name.as_ref().filter(|name| !name.is_numeric())?;
        if name.is_asked() {
            return Some(Instant::now() + if name.is_late() { AGAIN } else { POLL });
        }
        let period = match self.address {
            _ if name.addresses().is_empty() => AGAIN,
            Address::Udp(..) => REFRESH,
            _ => return None,
        };
        name.asked().map(|asked| asked + period)
    }

    /// The connection leads to an address that the name does not have any more, and is to be
    /// left: a datagram socket at once, a stream when HUP has asked for it.
    pub(super) fn is_outdated(&mut self, connection: &Connection) -> bool {
        let strict = std::mem::take(&mut self.strict);
        let Some(name) = &self.name else { return false };
        if !strict && !self.address.is_datagram() {
            return false;
        }
        let known = |peer| name.addresses().iter().any(|one| one.ip() == peer);
        connection.peer().is_some_and(|peer| !known(peer.ip()))
    }

    /// What to do while it cannot be reached.
    pub(super) fn remedy(&self) -> &'static str {
        if self.is_known() {
            "Start what listens there, or name another place"
        } else {
            "See to the name servers, or give the address in numbers"
        }
    }
}
