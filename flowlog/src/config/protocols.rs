//! Protocol names, from /etc/protocols; the usual ones also where that file is
//! missing.

use std::fs;

/// Names that need no /etc/protocols.
const BUILT_IN: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ospf", 89),
    ("sctp", 132),
    ("udplite", 136),
];

/// The number of the protocol called `text`, which may be a number itself.
///
/// # Errors
/// There is none, and what to write.
pub fn number(text: &str) -> Result<u8, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let file = fs::read_to_string("/etc/protocols").unwrap_or_default();
    let built_in = BUILT_IN.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    built_in.or_else(|| look_up(&file, text)).ok_or_else(|| {
        format!("`{text}` is no protocol; write a name from /etc/protocols or a number to 255")
    })
}

/// A line is `name number alias…`, with comments after `#`.
fn look_up(file: &str, wanted: &str) -> Option<u8> {
    file.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let name = words.next()?;
        let number = words.next()?.parse().ok()?;
        (name == wanted || words.any(|alias| alias == wanted)).then_some(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_aliases_and_numbers() {
        assert_eq!(number("tcp"), Ok(6));
        assert_eq!(number("6"), Ok(6));
        assert!(number("256").is_err());
        assert!(number("tpc").unwrap_err().contains("`tpc` is no protocol"));
        let file = "ip 0 IP # internet\nl2tp\t115\tL2TP # layer two";
        assert_eq!(look_up(file, "L2TP"), Some(115));
        assert_eq!(look_up(file, "layer"), None);
    }
}
