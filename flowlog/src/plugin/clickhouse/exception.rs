//! What a server says instead of taking records, and what to do about it.

use crate::plugin::ship::Trouble;

/// Whether it may pass by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Passes,
    NeedsAPerson,
}

use Kind::{NeedsAPerson, Passes};

/// The most of its text that is told, bytes.
const LIMIT: usize = 300;

/// Codes of src/Common/ErrorCodes.cpp, which never change, and remedies. 18.16 has 192
/// to 195 for what is 516 today, and 291 for 497.
const KNOWN: [(&[u32], Kind, &str); 17] = [
    (
        &[192, 193, 194, 516],
        NeedsAPerson,
        "correct `user=` and `password=`, or make the user there",
    ),
    (&[195], NeedsAPerson, "allow the address of this host for the user there"),
    (&[291, 497], NeedsAPerson, "GRANT INSERT, SHOW COLUMNS ON the table TO the user"),
    (&[164], NeedsAPerson, "the user may only read: give it another profile, or name another one"),
    (&[81], NeedsAPerson, "make it by conf/fleet/clickhouse.sql, or correct `database=`"),
    (&[60], NeedsAPerson, "make it by conf/fleet/clickhouse.sql, or correct `table=`"),
    (
        &[10, 16, 47],
        NeedsAPerson,
        "the table has changed: compare it with conf/fleet/clickhouse.sql",
    ),
    (
        &[27, 32, 33, 53, 117, 131],
        NeedsAPerson,
        "the table has changed: compare its types with conf/fleet/clickhouse.sql",
    ),
    (&[115], NeedsAPerson, "take it out of `settings=`"),
    (&[469], NeedsAPerson, "take the constraint off the table"),
    (&[242], Passes, "the table's replica has lost its keeper: see to that"),
    (&[241], Passes, "the server lacks memory: give it more, or set a smaller batch_max_bytes"),
    (&[243], Passes, "make room on the server's disk"),
    (
        &[252],
        Passes,
        "inserts are too small for their number: set a larger `linger`, or settings=async_insert=1&wait_for_async_insert=1 where the server has that",
    ),
    (
        &[202],
        Passes,
        "the server has too many queries: raise its max_concurrent_queries, or set a larger `linger`",
    ),
    (&[201], Passes, "the user's quota is used up: raise it"),
    (&[159, 209, 210], Passes, "see what the server's own log says"),
];

/// An exception.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exception<'a> {
    code: u32,
    text: &'a str,
}

impl<'a> Exception<'a> {
    /// Reads the answer of a server; `None`: it is no exception. Its code stands before
    /// it, in releases of today in a header too.
    pub(super) fn read(body: &'a str, header: Option<u32>) -> Option<Self> {
        let said = body.trim_start().strip_prefix("Code: ").and_then(|rest| {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..digits].parse().ok()
        });
        let text = body.split_once("DB::Exception: ").map_or(body, |(_, text)| text);
        let end = [", e.what() = ", ". (", " (version ", "\n"].iter();
        let end = end.filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
        let text = &text[..text.floor_char_boundary(end.min(LIMIT))];
        Some(Self { code: header.or(said)?, text: text.trim_end_matches(['.', ' ', ':']) })
    }

    /// As what stands in the way, with the remedy.
    pub(super) fn trouble(&self, server: &str) -> Trouble {
        let Self { code, text } = self;
        let known = KNOWN.iter().find(|(codes, ..)| codes.contains(code));
        let (kind, remedy) = known
            .map_or((Passes, "see what the server's own log says"), |&(_, kind, remedy)| {
                (kind, remedy)
            });
        let what = format!("ClickHouse at {server} refuses (code {code}): {text}; {remedy}");
        match kind {
            NeedsAPerson => Trouble::refused(what),
            Passes => Trouble::passing(what),
        }
    }
}

#[cfg(test)]
mod tests;
