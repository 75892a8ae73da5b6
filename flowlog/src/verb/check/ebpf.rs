//! What `flowlog check` says of eBPF: whether each source that may use it can,
//! found by trying.

use crate::capture::ebpf::{Ability, Method, abilities};
use crate::config::{Attach, CaptureChoice, Config, Source};
use crate::kernel::Finding;

/// Name of the findings.
const NAME: &str = "eBPF";

/// The findings for the sources that may use eBPF; without a configuration, for
/// one with default settings.
pub(super) fn findings(config: Option<&Config>) -> Vec<Finding> {
    let sources = config.map_or(&[][..], |config| &config.sources);
    let may = |source: &&Source| source.capture != CaptureChoice::Netlink;
    if config.is_some() && !sources.iter().any(|source| may(&source)) {
        return Vec::new();
    }
    let needed = sources
        .iter()
        .any(|source| matches!(source.capture, CaptureChoice::Ebpf | CaptureChoice::Both));
    let fentry = sources.iter().any(|source| source.attach == Attach::Fentry);
    judge(&abilities(), needed, fentry)
}

/// Whether what is missing matters: one way is enough, unless one is asked for
/// by name.
fn judge(abilities: &[Ability], needed: bool, fentry: bool) -> Vec<Finding> {
    let can = |method| abilities.iter().any(|a| a.method == method && a.state.is_ok());
    let enough = can(Method::Kprobe) || can(Method::Fentry);
    let finding = |ability: &Ability| {
        let method = ability.method.name();
        match &ability.state {
            Ok(functions) => Finding::ok(NAME, format!("{method} on {}", functions.join(", "))),
            Err((why, remedy)) => {
                let asked = needed && fentry && ability.method == Method::Fentry;
                let what = format!("{method} cannot be used: {why}");
                match (enough, asked || needed) {
                    (_, true) if asked || !enough => Finding::problem(NAME, what, *remedy),
                    (true, _) => Finding::ok(NAME, format!("{what}; the other way is used")),
                    (false, _) => Finding::warning(
                        NAME,
                        format!("{what}; netlink is used, which tells less and costs more"),
                        *remedy,
                    ),
                }
            }
        }
    };
    abilities.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::State;

    fn states(kprobe: bool, fentry: bool, needed: bool, by_name: bool) -> Vec<State> {
        let ability = |method, able| Ability {
            method,
            state: if able { Ok(vec!["f"]) } else { Err(("no".to_owned(), "do")) },
        };
        let both = [ability(Method::Fentry, fentry), ability(Method::Kprobe, kprobe)];
        judge(&both, needed, by_name).into_iter().map(|finding| finding.state).collect()
    }

    #[test]
    fn one_way_is_enough_unless_the_other_is_asked_for() {
        use State::{Ok, Problem, Warning};
        assert_eq!(states(true, true, false, false), [Ok, Ok]);
        assert_eq!(states(true, false, false, false), [Ok, Ok]);
        assert_eq!(states(true, false, true, true), [Problem, Ok]);
        assert_eq!(states(false, false, false, false), [Warning, Warning]);
        assert_eq!(states(false, false, true, false), [Problem, Problem]);
    }
}
