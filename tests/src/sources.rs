//! One configuration with several sources, so that one process shows how different keys log the
//! same traffic: source number n is `[ctN]`, and its lines are in a file of its own.

use std::fmt::Write;

/// The configuration: each of `keys` is what stands in the section of a source, `print` what
/// stands in the one `[print1]` of all. `@DIR@` is as for [`crate::daemon::config`].
pub fn config<T: AsRef<str>>(keys: &[T], print: &str) -> String {
    let mut text = "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n".to_owned();
    let mut sections = format!("[print1]\n{print}\n");
    for (number, keys) in (1..).zip(keys) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "stack=ct{number}:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu{number}:LOGEMU"
        );
        let _ = write!(
            sections,
            "[ct{number}]\n{}\n[emu{number}]\nfile=\"@DIR@/{}\"\nsync=0\n",
            keys.as_ref(),
            file(number)
        );
    }
    text + &sections
}

/// The name of the file with the lines of source `number`, counted from 1.
pub fn file(number: usize) -> String {
    format!("flows-{number}.log")
}

#[cfg(test)]
mod tests {
    use super::config;

    #[test]
    fn each_source_has_its_stack_its_keys_and_its_file() {
        let text = config(&["event_mask=1", "event_mask=4"], "extras=1");
        for line in [
            "stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU",
            "stack=ct2:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU",
            "[print1]\nextras=1",
            "[ct2]\nevent_mask=4",
            "[emu2]\nfile=\"@DIR@/flows-2.log\"",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line}\n{text}");
        }
    }
}
