//! The records in a stream of IPFIX (RFC 7011), counted by the lengths that its templates say.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

/// The sets that have templates, and templates of options, and the least number of others.
const TEMPLATES: u16 = 2;
const OPTIONS: u16 = 3;
const DATA: u16 = 256;
/// The bit of an element that is followed by the number of an enterprise.
const ENTERPRISE: u16 = 0x8000;
/// The length of an element whose length is in the record.
const VARIABLE: u16 = 0xffff;
/// Headers of a message and of a set.
const HEADER: usize = 16;
const SET: usize = 4;

/// Records of flows in whole messages; those of options are not counted.
///
/// # Errors
/// It is torn, has elements of variable length, or records before their template.
pub fn records(stream: &[u8]) -> Result<u64> {
    let mut lengths = Lengths::default();
    let mut count = 0;
    let mut rest = stream;
    while !rest.is_empty() {
        let length = usize::from(word(rest, 2)?);
        ensure!(word(rest, 0)? == 10 && length >= HEADER, "no message of IPFIX");
        let (message, next) = rest.split_at_checked(length).context("a torn message")?;
        count += lengths.of_message(message)?;
        rest = next;
    }
    Ok(count)
}

/// How long a record is, by the number of its template; nothing for options.
#[derive(Debug, Default)]
struct Lengths(HashMap<u16, Option<usize>>);

impl Lengths {
    fn of_message(&mut self, message: &[u8]) -> Result<u64> {
        let mut count = 0;
        let mut rest = &message[HEADER..];
        while !rest.is_empty() {
            let (id, length) = (word(rest, 0)?, usize::from(word(rest, 2)?));
            ensure!(length >= SET, "a set of {length} bytes");
            let (set, next) = rest.split_at_checked(length).context("a torn set")?;
            let body = &set[SET..];
            match id {
                TEMPLATES => self.learn(body, false)?,
                OPTIONS => self.learn(body, true)?,
                DATA.. => {
                    let record = self.0.get(&id).with_context(|| format!("no template {id}"))?;
                    count += record.map_or(0, |record| (body.len() / record.max(1)) as u64);
                }
                _ => {}
            }
            rest = next;
        }
        Ok(count)
    }

    /// Each template: its number, how many elements, of options how many of them are scopes.
    fn learn(&mut self, mut body: &[u8], options: bool) -> Result<()> {
        // The rest is padding.
        while body.len() > SET {
            let (id, elements) = (word(body, 0)?, word(body, 2)?);
            let mut at = if options { SET + 2 } else { SET };
            let mut record = 0;
            for _ in 0..elements {
                let length = word(body, at + 2)?;
                ensure!(length != VARIABLE, "template {id} has an element of variable length");
                record += usize::from(length);
                at += if word(body, at)? & ENTERPRISE == 0 { 4 } else { 8 };
            }
            self.0.insert(id, (!options).then_some(record));
            body = body.get(at..).context("a torn template")?;
        }
        Ok(())
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u16> {
    let two = bytes.get(at..at + 2).context("a torn message")?;
    Ok(u16::from_be_bytes([two[0], two[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with these words after its header.
    fn message(words: &[u16]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[1] = 10;
        bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[2..4].copy_from_slice(&length);
        bytes
    }

    #[test]
    fn records_are_counted_by_their_templates() -> Result<()> {
        // Template 256: element 7, two bytes, and one of an enterprise, four bytes.
        let template = message(&[2, 20, 256, 2, 7, 2, 0x8001, 4, 0, 29305]);
        // Template 257 of options: one element, a scope.
        let options = message(&[3, 14, 257, 1, 1, 149, 4]);
        let data = message(&[256, 16, 1, 2, 3, 4, 5, 6, 257, 8, 0, 1]);
        assert_eq!(records(&[template.clone(), options, data.clone()].concat())?, 2);
        assert!(records(&data).is_err(), "no template");
        assert!(records(&template[..20]).is_err(), "torn");
        Ok(())
    }
}
