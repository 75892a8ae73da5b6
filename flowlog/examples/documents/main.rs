//! Writes the manual pages and the completions for shells into a directory, from the definition of
//! the command line and the list of keys: `cargo run -p flowlog --example documents -- DIRECTORY`.
//! It is no part of flowlog, so that flowlog does not have to carry what writes them.
//!
//! [`verbs`] writes flowlog(8) and a page for each verb, [`configuration`] flowlog.conf(5);
//! [`text`] is what both write with.

mod configuration;
mod text;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Command;
use clap_complete::{Shell, generate_to};

/// The shells, and the directory of the completions for each.
const SHELLS: [(Shell, &str); 3] =
    [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")];

fn main() -> Result<()> {
    let directory = std::env::args_os().nth(1).context("name the directory to write into")?;
    write(Path::new(&directory))
}

/// Writes everything: `man/PAGE.SECTION`, `completions/SHELL/FILE`.
fn write(directory: &Path) -> Result<()> {
    let man = fresh(directory, "man")?;
    let command = visible(&flowlog::cli::command());
    let mut pages = verbs::pages(&command)?;
    let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
    let configuration = configuration::page(&names);
    pages.push((configuration::NAME.to_owned(), configuration));
    for (name, text) in pages {
        let file = man.join(name);
        fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    for (shell, name) in SHELLS {
        let into = fresh(directory, &format!("completions/{name}"))?;
        generate_to(shell, &mut command.clone(), "flowlog", &into)
            .with_context(|| into.display().to_string())?;
    }
    Ok(())
}

/// The definition without what is hidden, which completions would show. clap cannot take a verb
/// away, so it is put together anew.
fn visible(command: &Command) -> Command {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    Command::new("flowlog")
        .version(env!("CARGO_PKG_VERSION"))
        .about(command.get_about().cloned().unwrap_or_default())
        .after_help(command.get_after_help().cloned().unwrap_or_default())
        .args_conflicts_with_subcommands(command.is_args_conflicts_with_subcommands_set())
        .args(command.get_arguments())
        .subcommands(verbs)
}

/// A directory of its own without what an older definition has left there.
fn fresh(above: &Path, name: &str) -> Result<PathBuf> {
    let directory = above.join(name);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| directory.display().to_string())?;
    }
    fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    Ok(directory)
}
