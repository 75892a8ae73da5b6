//! The subject of messages, with the host's name in it.

/// Stands for the name of the host.
const HOST: &str = "{host}";

/// What is wrong with a subject to publish to, if anything is.
///
/// # Errors
/// A word is empty, or has signs that mean something else or nothing.
pub fn check(subject: &str) -> Result<(), String> {
    let plain = subject.replace(HOST, "host");
    let bad = |word: &str| {
        word.is_empty()
            || word.bytes().any(|byte| {
                !byte.is_ascii_graphic() || matches!(byte, b'*' | b'>' | b'{' | b'}' | b'$')
            })
    };
    match plain.split('.').find(|word| bad(word)) {
        None => Ok(()),
        Some(word) => Err(format!(
            "is no subject because of `{word}`: write words with dots between them, such as \
             flowlog.{HOST}, without blanks, `*`, `>` and `$`"
        )),
    }
}

/// The subject of messages of the host of that name: a dot in it would begin a new
/// word, and becomes `_`, as does what no subject has.
pub fn of_host(subject: &str, host: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let word: String = host.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    subject.replace(HOST, if word.is_empty() { "_" } else { &word })
}

/// The subjects of all hosts: words with a name in them are any word.
pub fn of_all(subject: &str) -> String {
    let words = subject.split('.').map(|word| if word.contains(HOST) { "*" } else { word });
    words.collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_one_word() {
        assert_eq!(of_host("flowlog.{host}", "fw1.example.org"), "flowlog.fw1_example_org");
        assert_eq!(of_host("a.{host}.b", ""), "a._.b");
        assert_eq!(of_host("flows", "fw1"), "flows");
        assert_eq!(of_all("flowlog.{host}"), "flowlog.*");
        assert_eq!(of_all("site1.x-{host}.flows"), "site1.*.flows");
    }

    #[test]
    fn a_wrong_subject_is_told() {
        for good in ["flowlog", "flowlog.{host}", "a.b-c_d.{host}-x"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a..b", "a.", "a b", "flowlog.*", "flowlog.>", "{name}", "$JS.x", "a.ü"] {
            let why = check(bad).unwrap_err();
            assert!(why.contains("such as flowlog.{host}"), "{why}");
        }
    }
}
