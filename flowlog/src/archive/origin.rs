//! Which sink has written an archive, and what it gets of each connection: by that a
//! reader judges what it means that there is no record.

use std::fmt::{self, Display, Formatter};

/// Where records come from. Archives that do not state it have the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The sink, under one name in all that it writes; empty: not known.
    pub sink: String,
    /// The beginning of each connection is recorded, not its end alone.
    pub beginnings: bool,
}

/// The words before each of them.
const BEGINNINGS: &str = "beginnings=";
const SINK: &str = " sink=";

impl Origin {
    /// Reads what [`Display`] has written; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Self> {
        let (beginnings, sink) = text.strip_prefix(BEGINNINGS)?.split_once(SINK)?;
        let beginnings = match beginnings {
            "0" => false,
            "1" => true,
            _ => return None,
        };
        Some(Self { sink: sink.to_owned(), beginnings })
    }
}

impl Display for Origin {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { sink, beginnings } = self;
        write!(f, "{BEGINNINGS}{}{SINK}{sink}", u8::from(*beginnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_as_it_was_written() {
        for beginnings in [false, true] {
            let origin = Origin { sink: "gate netns=all ct1/arc 1".to_owned(), beginnings };
            assert_eq!(Origin::parse(&origin.to_string()), Some(origin));
        }
        for wrong in ["", "sink=a", "beginnings=2 sink=a", "beginnings=1"] {
            assert_eq!(Origin::parse(wrong), None, "{wrong}");
        }
    }
}
