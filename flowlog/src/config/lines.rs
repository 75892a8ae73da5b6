//! What each line of a configuration is to flowlog: all of them are told by
//! `flowlog check`, also those that mean nothing.

use std::collections::BTreeMap;

use super::catalog::Key;
use super::grammar::Document;

/// What a line is to flowlog.
#[derive(Clone, Copy, Debug)]
pub enum Reading {
    /// The header of a section that is read.
    Section,
    /// The header of a section that is not read, and why not.
    Unread(&'static str),
    /// An entry of a section that is read.
    Key(&'static Key),
}

/// What is known of the lines of a file, by their numbers.
pub type Readings = BTreeMap<usize, Reading>;

/// A line that is neither empty nor a comment.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// All of it but the blanks around it.
    pub text: String,
    /// Its first word: what can be shown of a line that is not flowlog's, whose
    /// value may be a password.
    pub word: String,
    /// What it is to flowlog; absent: nothing.
    pub reading: Option<Reading>,
}

/// All lines of a file that say something.
pub(super) fn lines(document: &Document<'_>, readings: &Readings) -> Vec<Line> {
    let line = |(number, word, text): (usize, &str, &str)| Line {
        number,
        text: text.trim().to_owned(),
        word: word.to_owned(),
        reading: readings.get(&number).copied(),
    };
    document.said().map(line).collect()
}
