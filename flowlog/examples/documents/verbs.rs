//! flowlog(8), and a page for each verb.

use anyhow::Result;
use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::configuration;
use crate::text::{marked, paragraphs, see_also, title};

/// That of the daemons and of what root runs.
const SECTION: &str = "8";

/// File name and text of each page, that of `flowlog` first.
pub(crate) fn pages(command: &Command) -> Result<Vec<(String, String)>> {
    let mut command = command.clone().disable_help_subcommand(true);
    command.build();
    let all: Vec<_> = std::iter::once(&command).chain(command.get_subcommands()).collect();
    let names: Vec<_> = all.iter().map(|command| file(command)).collect();
    let others = |own: &String| {
        let first = all.len().min(1);
        let pages = if *own == names[0] { &names[first..] } else { &names[..first] };
        pages.iter().map(String::as_str).chain([configuration::NAME]).collect::<Vec<_>>()
    };
    let pages = all.iter().zip(&names);
    pages.map(|(command, name)| Ok((name.clone(), page(command, &others(name))?))).collect()
}

/// Its name among the pages, `flowlog-VERB`.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

fn file(command: &Command) -> String {
    format!("{}.{SECTION}", name(command))
}

fn page(command: &Command, others: &[&str]) -> Result<String> {
    let man = Man::new(command.clone());
    let mut text = Vec::new();
    let mut roff = Roff::new();
    title(&mut roff, name(command), SECTION);
    roff.control("SH", ["NAME"]);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    // One line, or whatis(1) would not know it.
    roff.text([roman(format!("{} - {about}", name(command)))]);
    roff.to_writer(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut text)?;
    }
    let mut roff = Roff::new();
    if command.has_subcommands() {
        verbs(&mut roff, command);
    }
    if let Some(help) = command.get_after_help() {
        roff.control("SH", ["NOTES"]);
        paragraphs(&mut roff, &help.to_string());
    }
    see_also(&mut roff, others.iter().copied());
    roff.to_writer(&mut text)?;
    Ok(String::from_utf8(text)?)
}

fn verbs(roff: &mut Roff, command: &Command) {
    roff.control("SH", ["VERBS"]);
    for verb in command.get_subcommands() {
        roff.control("TP", []);
        roff.text([bold(name(verb)), roman(format!("({SECTION})"))]);
        roff.text(marked(&verb.get_about().map(ToString::to_string).unwrap_or_default()));
    }
}
