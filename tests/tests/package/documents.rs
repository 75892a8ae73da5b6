//! Manual pages and completions, as installed.

use std::fs;

use anyhow::{Result, ensure};
use tests::debian::Debian;

/// The verbs that `flowlog --help` names.
fn verbs(debian: &Debian) -> Result<Vec<String>> {
    let help = debian.run("flowlog --help")?;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = lines.take_while(|line| !line.is_empty());
    let names = names.filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
    let verbs: Vec<_> = names.filter(|name| name != "help").collect();
    ensure!(verbs.iter().any(|verb| verb == "run"), "the verbs are {verbs:?}");
    Ok(verbs)
}

/// A page for each verb, found by its name, and none has a fault.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn every_verb_has_a_page_without_warnings() -> Result<()> {
    let debian = Debian::with_package()?;
    let mut pages = vec!["flowlog.8".to_owned(), "flowlog.conf.5".to_owned()];
    pages.extend(verbs(&debian)?.iter().map(|verb| format!("flowlog-{verb}.8")));
    for page in &pages {
        let said = debian.run(&format!(
            "man --where {page} | grep -qx '/usr/share/man/man./{page}.gz'\n\
             man --warnings -E UTF-8 -Tutf8 -Z {page} 2>&1 >/dev/null"
        ))?;
        ensure!(said.is_empty(), "man {page}:\n{said}");
    }
    let mut installed = Vec::new();
    for section in ["man5", "man8"] {
        for file in fs::read_dir(debian.path(&format!("/usr/share/man/{section}")))? {
            let name = file?.file_name().to_string_lossy().into_owned();
            installed.extend(
                name.strip_prefix("flowlog").and(name.strip_suffix(".gz").map(str::to_owned)),
            );
        }
    }
    installed.sort();
    pages.sort();
    ensure!(installed == pages, "the pages are {installed:?}, not {pages:?}");
    let key = debian.run("man flowlog.conf | tr -s ' ' | grep -A2 '^ *ring_buffer_size='")?;
    ensure!(key.contains("Room for eBPF events"), "flowlog.conf(5) tells no key:\n{key}");
    Ok(())
}

/// Each shell completes a verb from its beginning.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn shells_complete_verbs() -> Result<()> {
    let debian = Debian::with_package()?;
    let bash = ". /usr/share/bash-completion/completions/flowlog
        COMP_WORDS=(flowlog au) COMP_CWORD=1; _flowlog flowlog au flowlog; echo \"${COMPREPLY[*]}\"";
    let said = debian.run(&format!("bash -c '{bash}'"))?;
    ensure!(said.trim() == "audit", "bash completes au as {said:?}");
    let said = debian.run("fish -c 'complete -C \"flowlog au\"'")?;
    ensure!(said.split_whitespace().next() == Some("audit"), "fish completes au as {said:?}");
    // zsh completes in a terminal only.
    let zsh = "autoload -U compinit && compinit -D -d /tmp/dump && echo $_comps[flowlog]";
    let said = debian
        .run(&format!("zsh -n /usr/share/zsh/vendor-completions/_flowlog; zsh -c '{zsh}'"))?;
    ensure!(said.trim() == "_flowlog", "zsh completes flowlog by {said:?}");
    let zsh = debian.text("/usr/share/zsh/vendor-completions/_flowlog")?;
    for verb in verbs(&debian)? {
        ensure!(zsh.contains(&format!("\n'{verb}:")), "zsh does not know {verb}");
    }
    ensure!(!zsh.contains("replay"), "zsh knows what is hidden");
    Ok(())
}
