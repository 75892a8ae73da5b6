//! Data records → messages of one transport session: header, sets, the sequence
//! number, and the templates that the far side needs (RFC 7011, 3 and 8).

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::template::Template;
use crate::plugin::ship::Record;

const VERSION: u16 = 10;
const HEADER: usize = 16;
const SET_HEADER: usize = 4;
/// The length of a message is told by 16 bits.
pub(super) const LONGEST: usize = u16::MAX as usize;
/// Room for any template and a record of it.
const LARGEST: usize = 320;
/// Length of a message that has it, behind its header and other templates.
pub(super) const SHORTEST: usize = 512;

/// When templates are told again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// After so long.
    pub every: Duration,
    /// After so many messages.
    pub messages: u32,
}

/// What came of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the message.
    Yes,
    /// The message has no room for it: finish it, and add the record to the next.
    Full,
    /// It has no template of this version of flowlog, or not its length.
    Alien,
}

/// Makes the messages of one session.
pub(super) struct Messages {
    domain: u32,
    /// How long a message may be.
    limit: usize,
    refresh: Option<Refresh>,
    /// Data records of the messages before this one.
    sequence: u32,
    /// Those that records have had.
    templates: Vec<Told>,
    refreshed: Instant,
    /// Messages since then.
    since: u32,
    /// The message that is being made.
    message: Vec<u8>,
    /// Its data records.
    records: u32,
    /// The set at its end that takes further records: number, place.
    open: Option<(u16, usize)>,
}

/// A template, and whether the far side has been told of it lately.
struct Told {
    template: Template,
    lately: bool,
}

impl Messages {
    /// Of a session that begins. Without `refresh` a template is told once.
    pub(super) fn new(domain: u32, limit: usize, refresh: Option<Refresh>) -> Self {
        debug_assert!((SHORTEST..=LONGEST).contains(&limit), "{limit}");
        Self {
            domain,
            limit,
            refresh,
            sequence: 0,
            templates: Vec::new(),
            refreshed: Instant::now(),
            since: 0,
            message: vec![0; HEADER],
            records: 0,
            open: None,
        }
    }

    /// Adds a record whose body [`super::record`] has written.
    pub(super) fn add(&mut self, record: &Record<'_>) -> Added {
        let Some((id, fields)) = record.body.split_first_chunk() else { return Added::Alien };
        let id = u16::from_be_bytes(*id);
        if self.message.len() == HEADER {
            self.refresh();
        }
        let Some(index) = self.template(id) else { return Added::Alien };
        let Told { template, lately } = &self.templates[index];
        if fields.len() != template.length {
            return Added::Alien;
        }
        let is_open = self.open.is_some_and(|(open, _)| open == id);
        let announced = if *lately { 0 } else { template.set.len() };
        let opened = if is_open && announced == 0 { 0 } else { SET_HEADER };
        let flow_id = template.flow_id;
        if self.message.len() + announced + opened + template.whole() > self.limit {
            return Added::Full;
        }
        if announced > 0 {
            self.announce(index);
        }
        if opened > 0 {
            self.open(id);
        }
        self.message.extend_from_slice(fields);
        if flow_id {
            self.message.extend_from_slice(&record.flow.to_be_bytes());
        }
        self.records += 1;
        Added::Yes
    }

    /// Data records that it has.
    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// The message as it goes out.
    pub(super) fn finish(&mut self) -> &[u8] {
        self.close();
        let length = self.message.len() as u16;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Its 32 bits last until 2106.
        let time = since.as_secs() as u32;
        let header = &mut self.message[..HEADER];
        header[..2].copy_from_slice(&VERSION.to_be_bytes());
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header[4..8].copy_from_slice(&time.to_be_bytes());
        header[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        header[12..].copy_from_slice(&self.domain.to_be_bytes());
        &self.message
    }

    /// Begins the next message: this one has gone out.
    pub(super) fn next(&mut self) {
        self.sequence = self.sequence.wrapping_add(self.records);
        self.since = self.since.saturating_add(1);
        self.message.truncate(HEADER);
        self.records = 0;
        self.open = None;
    }

    fn template(&mut self, id: u16) -> Option<usize> {
        let known = self.templates.iter().position(|told| told.template.id == id);
        known.or_else(|| {
            self.templates.push(Told { template: Template::of(id)?, lately: false });
            Some(self.templates.len() - 1)
        })
    }

    /// Templates that are due go to the front of the message, as many as leave
    /// room for a record with its own; others follow before their records, or
    /// in the next message.
    fn refresh(&mut self) {
        let Some(Refresh { every, messages }) = self.refresh else { return };
        if self.since >= messages || self.refreshed.elapsed() >= every {
            self.templates.iter_mut().for_each(|told| told.lately = false);
            self.refreshed = Instant::now();
            self.since = 0;
        }
        for index in 0..self.templates.len() {
            let Told { template, lately } = &self.templates[index];
            if !lately && self.message.len() + template.set.len() + LARGEST <= self.limit {
                self.announce(index);
            }
        }
    }

    fn announce(&mut self, index: usize) {
        self.close();
        let Told { template, lately } = &mut self.templates[index];
        self.message.extend_from_slice(&template.set);
        *lately = true;
    }

    fn open(&mut self, id: u16) {
        self.close();
        self.open = Some((id, self.message.len()));
        self.message.extend_from_slice(&id.to_be_bytes());
        self.message.extend_from_slice(&[0; 2]);
    }

    /// Ends the set at the end, if there is one.
    fn close(&mut self) {
        if let Some((_, start)) = self.open.take() {
            let length = (self.message.len() - start) as u16;
            self.message[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
