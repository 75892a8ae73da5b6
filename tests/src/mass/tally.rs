//! Lines of a log, held against the flows of a mass: which flow a line is of is read from its
//! addresses, and the whole line must be that of the flow. What is kept is a count for each flow,
//! so that logs that are too long for memory can be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::Mass;
use super::kind;
use crate::lines::{self, Line};

/// How often each flow of a mass has a line with each tag.
#[derive(Debug)]
pub struct Tally<'m> {
    mass: &'m Mass,
    /// By tags: one for each flow.
    counts: BTreeMap<String, Vec<u32>>,
    /// Lines that are none of the mass.
    pub others: Vec<Line>,
}

impl<'m> Tally<'m> {
    /// Of no line.
    pub fn new(mass: &'m Mass) -> Self {
        Self { mass, counts: BTreeMap::new(), others: Vec::new() }
    }

    /// Of the lines of a file that is complete.
    ///
    /// # Errors
    /// It cannot be read, or a line is torn.
    pub fn read(mass: &'m Mass, file: &Path) -> Result<Self> {
        let mut tally = Self::new(mass);
        let mut file = BufReader::new(File::open(file)?);
        let mut line = String::new();
        while file.read_line(&mut line)? > 0 {
            lines::parse(&line)?.into_iter().for_each(|line| tally.add(line));
            line.clear();
        }
        Ok(tally)
    }

    /// Counts a line.
    pub fn add(&mut self, line: Line) {
        match self.number(&line) {
            Some(index) => {
                let flows = self.mass.numbers.len();
                let tag = self.counts.entry(line.tag().to_owned());
                tag.or_insert_with(|| vec![0; flows])[index] += 1;
            }
            None => self.others.push(line),
        }
    }

    /// The place in the mass of the flow that the line is of.
    fn number(&self, line: &Line) -> Option<usize> {
        let numbers = &self.mass.numbers;
        let words = |key: &str| line.text.split(' ').find_map(|word| word.strip_prefix(key));
        let low = match words("SRC=")?.parse().ok()? {
            IpAddr::V4(address) => u32::from(address) & 0xffff,
            IpAddr::V6(address) => {
                let [.., high, low] = Ipv6Addr::segments(&address);
                u32::from(high) << 16 | u32::from(low)
            }
        };
        // What has no port is one of those that have the same address.
        let mut candidates = (low..numbers.end).step_by(1 << 16);
        if let Some(port) = words("SPT=") {
            let high = port.parse::<u16>().ok()?.checked_sub(kind::FIRST_PORT)?;
            let number = u32::from(high) << 16 | low & 0xffff;
            candidates = (number..number.checked_add(1)?).step_by(1);
        }
        let text = flow_part(line);
        let mut fitting = candidates.filter(|number| numbers.contains(number));
        let number = fitting.find(|number| kind::flow(*number).line(line.tag()) == text)?;
        Some((number - numbers.start) as usize)
    }

    /// How many lines with this tag the flows have.
    pub fn sum(&self, tag: &str) -> u64 {
        self.counts.get(tag).into_iter().flatten().map(|count| u64::from(*count)).sum()
    }

    /// Checks that each flow has just one line with this tag.
    ///
    /// # Errors
    /// One has none or several.
    pub fn ensure_each_once(&self, tag: &str) -> Result<()> {
        let counts = self.counts.get(tag).with_context(|| format!("no line has [{tag}]"))?;
        let strange =
            counts.iter().zip(self.mass.numbers.clone()).filter(|(count, _)| **count != 1);
        self.ensure_none(tag, strange)
    }

    /// Checks that no flow has more than one line with this tag.
    ///
    /// # Errors
    /// One has.
    pub fn ensure_none_twice(&self, tag: &str) -> Result<()> {
        let counts = self.counts.get(tag).into_iter().flatten();
        self.ensure_none(
            tag,
            counts.zip(self.mass.numbers.clone()).filter(|(count, _)| **count > 1),
        )
    }

    fn ensure_none<'c>(
        &self,
        tag: &str,
        strange: impl Iterator<Item = (&'c u32, u32)>,
    ) -> Result<()> {
        let told = |(count, number): (&u32, u32)| {
            format!("{count}×, a {:?}: {}", kind::Kind::of(number), kind::flow(number).line(tag))
        };
        let strange: Vec<_> = strange.map(told).collect();
        let some = &strange[..strange.len().min(20)];
        ensure!(
            strange.is_empty(),
            "{} flows: {some:#?}\nothers: {:#?}",
            strange.len(),
            self.some()
        );
        Ok(())
    }

    /// Some of the lines of others.
    fn some(&self) -> &[Line] {
        &self.others[..self.others.len().min(20)]
    }

    /// Checks that all lines were of the mass.
    ///
    /// # Errors
    /// Some were not.
    pub fn ensure_no_others(&self) -> Result<()> {
        ensure!(self.others.is_empty(), "{} strange lines: {:#?}", self.others.len(), self.some());
        Ok(())
    }
}

/// The line up to the end of the flow, without counters.
fn flow_part(line: &Line) -> String {
    let mut text = line.without_counters();
    let end = text.match_indices("BYTES=0 ").nth(1).map(|(at, words)| at + words.len());
    text.truncate(end.unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Mass;
    use super::super::kind::flow;
    use super::{Line, Tally};

    fn line(text: String) -> Line {
        Line { time: String::new(), host: String::new(), text }
    }

    #[test]
    fn each_line_is_of_its_flow() {
        let mass = Mass { numbers: 30..70_000, packets: 0, elapsed: Duration::ZERO };
        let mut tally = Tally::new(&mass);
        for number in 30..70_000 {
            let text = flow(number).line("DESTROY").replacen("PKTS=0", "PKTS=3", 1);
            tally.add(line(text + "CAUSE=flushed "));
        }
        tally.ensure_each_once("DESTROY").unwrap();
        tally.ensure_no_others().unwrap();
        tally.add(line(flow(40).line("NEW")));
        assert!(tally.ensure_each_once("NEW").is_err());
        tally.ensure_none_twice("NEW").unwrap();
        tally.add(line(flow(40).line("NEW")));
        assert!(tally.ensure_none_twice("NEW").is_err());
        // Of another mass, and nearly of this one.
        tally.add(line(flow(29).line("NEW")));
        tally.add(line(flow(41).line("NEW").replacen("198.18", "198.19", 1)));
        assert_eq!(tally.others.len(), 2);
    }
}
