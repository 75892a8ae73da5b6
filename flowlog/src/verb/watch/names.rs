//! The names that `ip netns` gave to network namespaces.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::line::escaped;
use crate::flow::Netns;
use crate::netns;
use crate::verb::live::text::Text;

/// Between two looks for names that are missing.
const PERIOD: Duration = Duration::from_secs(1);
/// Namespaces that are remembered at most.
const MOST: usize = 4096;

/// Names that were found. The cookie in the key is never used again, so a name
/// stays right, also for what is told of a namespace when it goes.
#[derive(Debug)]
pub(in crate::verb) struct Names {
    found: HashMap<Netns, Rc<str>>,
    /// The last one with a name: nearly always that of the next event too.
    last: Option<(Netns, Named)>,
    /// All there were at the last look.
    listed: BTreeMap<u32, String>,
    looked: Option<Instant>,
    list: fn() -> BTreeMap<u32, String>,
}

impl Names {
    pub(in crate::verb) fn new() -> Self {
        Self::of(netns::names)
    }

    /// As others list them.
    pub(in crate::verb) fn of(list: fn() -> BTreeMap<u32, String>) -> Self {
        Self { found: HashMap::new(), last: None, listed: BTreeMap::new(), looked: None, list }
    }

    /// The namespace with its name, if it has one.
    pub(in crate::verb) fn named(&mut self, netns: Netns) -> Named {
        if let Some((last, named)) = &self.last
            && *last == netns
        {
            return named.clone();
        }
        let named = self.known(netns);
        if named.name.is_none() {
            return self.named_at(netns, Instant::now());
        }
        self.last = Some((netns, named.clone()));
        named
    }

    /// The same, if its name has been found already.
    pub(in crate::verb) fn known(&self, netns: Netns) -> Named {
        Named { inum: netns.inum, name: self.found.get(&netns).cloned() }
    }

    fn named_at(&mut self, netns: Netns, now: Instant) -> Named {
        let Netns { inum, .. } = netns;
        if self.found.contains_key(&netns) {
            return self.known(netns);
        }
        if self.looked.is_none_or(|looked| now.duration_since(looked) >= PERIOD) {
            self.listed = (self.list)();
            self.looked = Some(now);
        }
        let name: Option<Rc<str>> =
            self.listed.get(&inum).map(|name| escaped(name.as_bytes()).into());
        if let Some(name) = &name {
            if self.found.len() >= MOST {
                self.found.clear();
            }
            self.found.insert(netns, name.clone());
        }
        Named { inum, name }
    }
}

/// A namespace as it is shown: `4026532210(blue)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::verb) struct Named {
    /// Its inode number.
    pub(in crate::verb) inum: u32,
    /// Its name in /run/netns.
    pub(in crate::verb) name: Option<Rc<str>>,
}

impl Named {
    /// Writes it.
    pub(super) fn push(&self, line: &mut Text) {
        line.number("", self.inum.into());
        if let Some(name) = &self.name {
            line.push(b'(');
            line.push_str(name);
            line.push(b')');
        }
    }
}

impl Display for Named {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&Text::string(|text| self.push(text)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local!(static LOOKS: Cell<u32> = const { Cell::new(0) });

    /// From the second look on 7 has a name.
    fn list() -> BTreeMap<u32, String> {
        LOOKS.set(LOOKS.get() + 1);
        match LOOKS.get() {
            1 => BTreeMap::from([(5, "blue sky".to_owned())]),
            2 => BTreeMap::from([(7, "red".to_owned())]),
            _ => BTreeMap::from([(5, "other".to_owned())]),
        }
    }

    #[test]
    fn names_are_looked_for_once_a_second_and_kept() {
        let netns = |inum: u32| Netns { cookie: Some(inum.into()), inum };
        let (mut names, now) = (Names::of(list), Instant::now());
        let mut at = |inum, after| names.named_at(netns(inum), now + after).to_string();
        assert_eq!(at(5, Duration::ZERO), r"5(blue\x20sky)");
        assert_eq!(at(7, Duration::ZERO), "7");
        assert_eq!(at(7, PERIOD / 2), "7");
        assert_eq!(at(7, PERIOD), "7(red)");
        // It has gone, and its number is used again by another.
        assert_eq!(at(5, PERIOD * 3), r"5(blue\x20sky)");
        let other = Netns { cookie: Some(99), inum: 5 };
        assert_eq!(names.named_at(other, now + PERIOD * 3).to_string(), "5(other)");
        assert_eq!(LOOKS.get(), 3);
    }
}
