//! Batches of the spool → inserts.

use hyper::body::Bytes;

use super::frame::{BLOCK, Frames};
use super::http::Http;
use super::row::{self, COLUMNS};
use super::{ENCODING, Settings, table};
use crate::plugin::compact::Record;
use crate::plugin::ship::{Appetite, Batch, Client, Delivered, Trouble};

/// A server that has the table.
pub(super) struct Server {
    http: Http,
    /// The column `host`.
    host: String,
    /// The query of an insert, as it stands in an URL.
    insert: String,
    frames: Option<Frames>,
    record: Record,
    /// Rows of a block.
    rows: Vec<u8>,
}

impl Client for Server {
    type Settings = Settings;

    fn appetite(settings: &Settings) -> Appetite {
        Appetite { bytes: settings.batch, linger: settings.linger }
    }

    async fn connect(settings: &Settings) -> Result<Self, Trouble> {
        let mut http = Http::new(settings)?;
        let name = format!("{}.{}", quoted(&settings.database), quoted(&settings.table));
        let describe = format!("DESCRIBE TABLE {name} FORMAT TabSeparated");
        let answer = http.post("", describe.into()).await?;
        table::check(&name, &answer)?;
        Ok(Self {
            http,
            host: settings.hostname.clone().unwrap_or_default(),
            insert: insert(settings, &name),
            frames: settings.compressed.then(Frames::new).transpose()?,
            record: Record::default(),
            rows: Vec::new(),
        })
    }

    async fn deliver(&mut self, batch: &Batch) -> Result<Delivered, Trouble> {
        if batch.encoding() != ENCODING {
            return Err(Trouble::refused(format!(
                "another version of flowlog has spooled records as `{}`: have it deliver them, or \
                 move the spool away",
                batch.encoding()
            )));
        }
        let mut delivered = Delivered::default();
        let body = self.body(batch, &mut delivered)?;
        if delivered.records == 0 {
            return Ok(delivered);
        }
        delivered.bytes = body.len() as u64;
        let answer = self.http.post(&self.insert, body).await?;
        if !answer.is_empty() {
            let server = self.http.server();
            return Err(Trouble::passing(format!(
                "ClickHouse at {server} answers an insert with {answer:?}; see what its own log says"
            )));
        }
        Ok(delivered)
    }
}

impl Server {
    /// The rows of a batch, as they are sent.
    fn body(&mut self, batch: &Batch, delivered: &mut Delivered) -> Result<Bytes, Trouble> {
        let Self { host, frames, record, rows, .. } = self;
        let mut body = Vec::new();
        rows.clear();
        for spooled in batch.records() {
            if let Err(error) = record.read(spooled.body) {
                delivered.refused += 1;
                delivered.why = Some(format!("it is damaged: {error}"));
                continue;
            }
            row::write(record, spooled.id, host, rows);
            delivered.records += 1;
            if let Some(frames) = frames
                && rows.len() >= BLOCK
            {
                frames.append(rows, &mut body)?;
                rows.clear();
            }
        }
        match frames {
            Some(frames) if !rows.is_empty() => frames.append(rows, &mut body)?,
            Some(_) => {}
            None => body = std::mem::take(rows),
        }
        Ok(body.into())
    }
}

/// The query of an insert. It is acknowledged when it has been written as a whole.
fn insert(settings: &Settings, table: &str) -> String {
    let names: Vec<_> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let statement = format!("INSERT INTO {table} ({}) FORMAT RowBinary", names.join(","));
    let mut query = format!("wait_end_of_query=1&query={}", escaped(&statement));
    if settings.compressed {
        query += "&decompress=1";
    }
    if !settings.settings.is_empty() {
        query += "&";
        query += &settings.settings;
    }
    query
}

/// A name in SQL.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// Text in the query of an URL.
fn escaped(text: &str) -> String {
    let mut url = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                url.push(byte.into());
            }
            _ => url += &format!("%{byte:02X}"),
        }
    }
    url
}

#[cfg(test)]
mod tests;
