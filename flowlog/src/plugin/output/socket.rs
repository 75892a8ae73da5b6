//! Records to a peer who may be away or slow. The loop never waits for him:
//! records do, up to a bound. They are kept until they have arrived, as far as
//! the kernel tells, so that what was under way when a connection broke is sent
//! again.

use std::io;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use self::route::Route;
use super::backlog::Backlog;
use super::peer::{Address, Connected, Connection, Sent};
use super::{CHUNK, Counted};
use crate::ratelimit::RateLimit;
use crate::resolver::{News, Resolver};
use crate::stats::Measure;

mod route;

/// From a break to the first attempt to connect again; each that fails doubles
/// it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How soon it is tried again with a peer who is slow, or not yet there.
const SOON: Duration = Duration::from_millis(20);
/// How soon it is asked again whether the last records have arrived.
const CONFIRM: Duration = Duration::from_secs(1);
/// How long an exit waits for a peer.
const GRACE: Duration = Duration::from_secs(1);

enum State {
    /// Away; not tried before then.
    Down(Instant),
    /// Connecting, since then.
    Connecting(Connection, Instant),
    Up(Connection),
}

/// A peer, and the records for him.
pub struct SocketOutput {
    route: Route,
    state: State,
    /// Threads may be started: names are looked up.
    begun: bool,
    /// The daemon ends: he is waited for until then.
    end: Option<Instant>,
    pause: Duration,
    /// Attempts in a row that failed, of one for each of his addresses.
    failed: usize,
    /// He was away: that he is back is worth telling.
    broken: bool,
    /// He took no more: records wait.
    full: bool,
    backlog: Backlog,
    buffer_max: usize,
    /// Bytes that may gather until the next attempt.
    limit: usize,
    /// While there is no room at all: no attempt with each record.
    crowded: Option<Instant>,
    complaints: RateLimit,
    counted: Counted,
}

impl SocketOutput {
    /// Begins to connect. A name is looked up from [`SocketOutput::begin`] on.
    pub fn open(address: Address, buffer_max: usize, counted: Counted) -> Self {
        Self::new(Route::new(address, Resolver::default()), buffer_max, counted)
    }

    fn new(route: Route, buffer_max: usize, counted: Counted) -> Self {
        let mut output = Self {
            route,
            state: State::Down(Instant::now()),
            begun: false,
            end: None,
            failed: 0,
            pause: FIRST_PAUSE,
            broken: false,
            full: false,
            backlog: Backlog::new(),
            buffer_max,
            limit: CHUNK.min(buffer_max),
            crowded: None,
            complaints: RateLimit::per_second(),
            counted,
        };
        output.establish();
        output
    }

    /// From now on threads may be started, and names be looked up.
    pub fn begin(&mut self) {
        self.begun = true;
        self.look_up();
    }

    /// Takes a record in two parts.
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        let length = front.len() + rest.len();
        if self.backlog.len() + length > self.limit && !self.make_room(length) {
            self.lost();
            return;
        }
        self.backlog.push(front, rest);
    }

    /// Makes room for `length` bytes, if it can be had.
    #[cold]
    fn make_room(&mut self, length: usize) -> bool {
        if self.crowded.is_none_or(|since| since.elapsed() > SOON) {
            self.write();
            self.crowded = None;
        }
        self.limit = (self.backlog.len() + CHUNK).min(self.buffer_max);
        // A record longer than the buffer is taken too.
        let room = self.backlog.is_empty() || self.backlog.len() + length <= self.limit;
        if !room && self.crowded.is_none() {
            self.crowded = Some(Instant::now());
        }
        room
    }

    #[cold]
    fn lost(&mut self) {
        let Counted { noun, stats } = &self.counted;
        stats.add(Measure::Lost, 1);
        if self.complaints.allow() {
            let (waiting, lost) = (self.backlog.len(), stats.get(Measure::Lost));
            warn!(
                "{} is away or slow: {waiting} bytes wait, {lost} {noun} lost so far. See what \
                 keeps it, or raise buffer_max_bytes",
                self.route
            );
        }
    }

    /// Ends a batch: what has gathered is sent, as far as it can be.
    pub fn flush(&mut self) {
        self.follow_name();
        if !self.backlog.is_empty() {
            self.write();
        }
    }

    /// See [`super::Output::retry_in`].
    pub fn retry_in(&self) -> Option<Duration> {
        let now = Instant::now();
        // Also while nothing waits: the next record is to go to the right address.
        let name = self.route.due().map(|due| due.saturating_duration_since(now));
        let waits = (!self.backlog.is_empty()).then(|| match self.state {
            // The look-up has a time of its own.
            State::Down(_) if !self.route.is_known() => None,
            State::Down(until) => Some(until.saturating_duration_since(now)),
            State::Connecting(..) => Some(SOON),
            State::Up(_) if self.full => Some(SOON),
            State::Up(_) => Some(CONFIRM),
        });
        [name, waits.flatten()].into_iter().flatten().min()
    }

    /// Where he is.
    pub fn address(&self) -> &Address {
        self.route.address()
    }

    /// His address is known.
    pub fn is_known(&self) -> bool {
        self.route.is_known()
    }

    /// See [`super::Output::fill`].
    pub fn fill(&self) -> (usize, usize) {
        (self.backlog.len(), self.buffer_max)
    }

    /// He could not be reached, and has not been since.
    pub fn is_failing(&self) -> bool {
        self.broken
    }

    /// See [`super::Output::close`].
    pub fn close(&mut self) {
        let end = self.end.unwrap_or_else(|| Instant::now() + GRACE);
        self.hurry();
        while !self.backlog.is_empty() {
            self.write();
            if self.is_settled() || Instant::now() > end {
                break;
            }
            std::thread::sleep(SOON / 4);
        }
        if let State::Up(connection) = &self.state
            && connection.error().is_ok()
        {
            self.end_in_flight();
        }
        let records = self.backlog.records();
        if records > 0 {
            let Counted { noun, stats } = &self.counted;
            stats.add(Measure::Lost, records);
            warn!("{records} {noun} for {} are lost at exit", self.route);
            self.backlog = Backlog::new();
        }
    }

    /// At exit: nothing more is to be learned of what was sent. The peer of a stream may yet
    /// confirm or read it; of datagrams that were queued the kernel says nothing.
    fn is_settled(&self) -> bool {
        self.backlog.unsent().is_empty() && self.route.address().is_datagram()
    }

    /// The kernel goes on with what it has taken. Whether the peer of a stream gets it is not
    /// known: a process that ends leaves it unread, as a host that is away does.
    fn end_in_flight(&mut self) {
        let in_flight = self.backlog.in_flight();
        if self.route.address().is_datagram() {
            self.arrived(in_flight);
            return;
        }
        let (records, _) = self.backlog.release(in_flight);
        if records > 0 {
            let Counted { noun, stats } = &self.counted;
            stats.add(Measure::Unsure, records);
            let route = &self.route;
            warn!("{records} {noun} for {route} are not known to have arrived at exit");
        }
    }

    /// Has the name looked up again, and tries at once if the peer is away.
    pub fn reopen(&mut self) {
        self.route.be_strict();
        self.look_up();
        self.hurry();
        self.flush();
    }

    fn look_up(&mut self) {
        if self.begun
            && let Err(error) = self.route.ask()
        {
            // As if no name server had answered: a known address stays in use.
            self.learn(News::Failed(error));
        }
    }

    /// Takes note of what a look-up has found, and begins one when it is time.
    fn follow_name(&mut self) {
        if let Some(news) = self.route.poll() {
            self.learn(news);
        }
        if self.route.due().is_some_and(|due| due <= Instant::now()) {
            self.look_up();
        }
    }

    #[cold]
    fn learn(&mut self, news: News) {
        let known = self.route.is_known();
        match news {
            News::Changed => {
                info!("{} has the address {} now", self.route, self.route.addresses());
                self.moved();
            }
            News::Same => self.moved(),
            News::Failed(error) if known => {
                if self.complaints.allow() {
                    let route = &self.route;
                    warn!(
                        "{route} cannot be looked up, and its old address stays in use: {error}. \
                         Correct the name, or see /etc/resolv.conf"
                    );
                }
            }
            News::Failed(error) => {
                let why = format!("its name cannot be looked up: {error}");
                self.break_off(&io::Error::new(error.kind(), why));
            }
            News::Late(time) => {
                let rest = if known { "its old address stays in use" } else { "records wait" };
                let (route, seconds) = (&self.route, time.as_secs());
                warn!(
                    "{route}: no name server has answered for {seconds} s; {rest}. See \
                     /etc/resolv.conf, or write an address in place of the name"
                );
            }
        }
    }

    /// The name was looked up: leaves an address that it does not have any more.
    fn moved(&mut self) {
        if matches!(self.state, State::Down(_)) {
            self.hurry();
        }
        let State::Up(connection) = &self.state else { return };
        if !self.route.is_outdated(connection) {
            return;
        }
        if connection.is_refusable() && connection.error().is_ok() {
            self.arrived(self.backlog.in_flight());
        }
        let repeated = self.backlog.rewind();
        self.counted.stats.add(Measure::Repeated, repeated);
        self.state = State::Down(Instant::now());
        self.establish();
    }

    /// The daemon ends: all peers share a moment, and each gets what it takes at once.
    pub fn end(&mut self, deadline: Instant) {
        self.end = Some(deadline.min(Instant::now() + GRACE));
        self.hurry();
        self.flush();
    }

    fn hurry(&mut self) {
        self.pause = FIRST_PAUSE;
        if let State::Down(until) = &mut self.state {
            *until = Instant::now();
        }
    }

    /// Has a connection, if one can be had now.
    fn establish(&mut self) {
        if !self.route.is_known() {
            // The look-up goes on by itself, see `follow_name`.
            return;
        }
        loop {
            let now = Instant::now();
            let result = match std::mem::replace(&mut self.state, State::Down(now)) {
                State::Down(until) if until <= now => self.route.connect(),
                State::Connecting(connection, since) => match connection.is_up(since) {
                    Ok(true) => Ok(Connected::Yes(connection)),
                    Ok(false) => Ok(Connected::Soon(connection, since)),
                    Err(error) => Err(error),
                },
                unchanged => {
                    self.state = unchanged;
                    return;
                }
            };
            match result {
                Ok(Connected::Yes(connection)) => {
                    self.state = State::Up(connection);
                    self.failed = 0;
                    // Nobody need be there to connect a datagram socket to.
                    if !self.route.address().is_datagram() {
                        self.reached();
                    }
                    return;
                }
                Ok(Connected::Soon(connection, since)) => {
                    self.state = State::Connecting(connection, since);
                    return;
                }
                Err(error) => {
                    // A name may have several addresses: all are tried, then there is a pause.
                    self.failed += 1;
                    if self.failed >= self.route.attempts() {
                        self.failed = 0;
                        self.break_off(&error);
                        return;
                    }
                }
            }
        }
    }

    fn write(&mut self) {
        self.establish();
        let result = self.confirm().and_then(|()| {
            if self.route.address().is_datagram() { self.send_records() } else { self.send_bytes() }
        });
        if let Err(error) = result {
            self.break_off(&error);
        }
    }

    /// Forgets what has arrived; fails if the connection is broken.
    fn confirm(&mut self) -> io::Result<()> {
        let State::Up(connection) = &self.state else { return Ok(()) };
        let sent = self.backlog.in_flight();
        if sent > 0 && connection.is_refusable() {
            connection.error()?;
        }
        let (arrived, open) = connection.arrived(sent);
        self.arrived(arrived);
        open
    }

    fn send_bytes(&mut self) -> io::Result<()> {
        let State::Up(connection) = &self.state else { return Ok(()) };
        self.full = false;
        while !self.backlog.unsent().is_empty() {
            match connection.send(self.backlog.unsent()) {
                Ok(Sent::Bytes(count)) => self.backlog.advance(count),
                Ok(Sent::Full | Sent::TooLong) => {
                    self.full = true;
                    break;
                }
                Err(error) => {
                    let (arrived, _) = connection.arrived(self.backlog.in_flight());
                    self.arrived(arrived);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn send_records(&mut self) -> io::Result<()> {
        self.full = false;
        loop {
            let State::Up(connection) = &self.state else { return Ok(()) };
            let Some(record) = self.backlog.next_record() else { return Ok(()) };
            let length = record.len();
            match connection.send(record)? {
                Sent::Bytes(_) => {
                    let refusable = connection.is_refusable();
                    // Had the one before been refused, this would have failed.
                    self.arrived(self.backlog.in_flight());
                    self.backlog.advance(length);
                    if !refusable {
                        self.arrived(length);
                    }
                }
                Sent::Full => {
                    self.full = true;
                    return Ok(());
                }
                Sent::TooLong => {
                    self.arrived(self.backlog.in_flight());
                    self.backlog.drop_next();
                    self.counted.stats.add(Measure::Errors, 1);
                    self.lost();
                }
            }
        }
    }

    /// The first `bytes` have arrived.
    fn arrived(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let (records, bytes) = self.backlog.release(bytes);
        self.counted.stats.add(Measure::Records, records);
        self.counted.stats.add(Measure::Bytes, bytes);
        self.limit = (self.backlog.len() + CHUNK).min(self.buffer_max);
        if self.route.address().is_datagram() {
            self.reached();
        }
    }

    /// The peer is there.
    fn reached(&mut self) {
        self.pause = FIRST_PAUSE;
        if self.broken {
            self.broken = false;
            self.counted.stats.add(Measure::Reconnects, 1);
            info!("{} is reached again", self.route);
        }
    }

    #[cold]
    fn break_off(&mut self, error: &io::Error) {
        let Counted { noun, stats } = &self.counted;
        stats.add(Measure::Errors, 1);
        stats.add(Measure::Repeated, self.backlog.rewind());
        self.state = State::Down(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.broken = true;
        self.full = false;
        if self.complaints.allow() {
            let (waiting, lost) = (self.backlog.len(), stats.get(Measure::Lost));
            warn!(
                "{} cannot be reached: {error}; {waiting} bytes wait, {lost} {noun} lost so far. \
                 {}",
                self.route,
                self.route.remedy()
            );
        }
        // It may have another address by now.
        if self.route.may_ask() {
            self.look_up();
        }
    }
}

#[cfg(test)]
mod tests;
