//! `cargo xtask pictures`: docs/pictures, drawn from real runs. Each command runs in a
//! pseudo-terminal in a guest, with traffic made for it ([`tests::pictures`] has the list); what
//! its terminal shows comes back here, and [`svg`] draws it.

mod svg;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use ::tests::pictures::{PICTURES, Picture};
use anyhow::{Context as _, Result, bail, ensure};

use crate::cargo::{self, workspace};
use crate::say::say;
use crate::vm::{self, Ending, Guest, Machine, kernel};
use crate::{interrupt, packages, setup};

/// How long the guest may take for each picture, besides its own time, and for its boot.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes that a picture may have: it is loaded with the page that it stands in.
const LARGEST: usize = 60_000;
/// The configuration that is checked in a picture: the one that is shipped.
const CONFIGURATION: &str = "conf/flowlog.conf";
/// The guest's shell runs it with the names of pictures.
const COMMAND: &str = "cp flowlog.conf /etc/ && mkdir -p /var/log/flowlog && FLOWLOG_BIN=/host/flowlog exec ./pictures \"$@\"";

/// What `cargo xtask pictures` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which; all if none is named
    #[arg(value_name = "NAME", value_parser = known)]
    names: Vec<String>,
    /// The series of the kernel
    #[arg(long, value_name = "SERIES", default_value = "6.12", value_parser = vm::series)]
    kernel: String,
}

fn known(name: &str) -> Result<String, String> {
    let names = PICTURES.iter().map(|picture| picture.name).collect::<Vec<_>>().join(", ");
    let found = Picture::named(name).map(|picture| picture.name.to_owned());
    found.ok_or_else(|| format!("there is no such picture, but {names}"))
}

/// Takes the pictures and writes them.
///
/// # Errors
/// The guest cannot be run, or a command failed in it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !packages::provide(&[packages::GUESTS, packages::LAB])? || !setup::for_build()? {
        return Ok(ExitCode::FAILURE);
    }
    interrupt::watch()?;
    let wanted = |picture: &&Picture| {
        args.names.is_empty() || args.names.iter().any(|name| name == picture.name)
    };
    let wanted: Vec<_> = PICTURES.iter().filter(wanted).collect();
    let taken = take(&wanted, &args.kernel)?;
    let directory = workspace().join("docs/pictures");
    fs::create_dir_all(&directory)?;
    for (picture, bytes) in wanted.iter().zip(taken) {
        let mut terminal = vt100::Parser::new(picture.rows, picture.columns, 0);
        terminal.process(&bytes);
        let drawn = svg::draw(terminal.screen(), picture.command);
        let size = drawn.len();
        ensure!(
            size <= LARGEST,
            "{} has {size} bytes, more than {LARGEST}: give it fewer rows or columns",
            picture.name
        );
        let file = directory.join(format!("{}.svg", picture.name));
        fs::write(&file, drawn).with_context(|| file.display().to_string())?;
        say!("{}: {size} bytes", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What makes a terminal show what each of the commands has shown.
fn take(pictures: &[&Picture], series: &str) -> Result<Vec<Vec<u8>>> {
    let place = tempfile::Builder::new().prefix("flowlog-pictures-").tempdir()?;
    let (given, taken) = (place.path().join("host"), place.path().join("out"));
    fs::create_dir(&given)?;
    let files = [
        (cargo::flowlog()?, "flowlog"),
        (cargo::pictures()?, "pictures"),
        (workspace().join(CONFIGURATION), "flowlog.conf"),
    ];
    for (file, name) in files {
        fs::copy(&file, given.join(name))
            .with_context(|| format!("cannot copy {}", file.display()))?;
    }
    let names = pictures.iter().map(|picture| picture.name.to_owned());
    let command = ["sh", "-c", COMMAND, "pictures"].map(str::to_owned).into_iter().chain(names);
    let own: u64 = pictures.iter().map(|picture| picture.seconds).sum();
    let guest = Guest {
        kernel: &kernel::provide(series)?,
        machine: Machine::default(),
        directory: Some(&given),
        command: &command.collect::<Vec<_>>(),
        out: Some(&taken),
        limit: Duration::from_secs(own) + PATIENCE * (pictures.len() as u32 + 1),
    };
    let mut output = Vec::new();
    let ending = guest.run(&mut output)?;
    if ending != Ending::Exit(0) {
        let words = ending.words(guest.limit).unwrap_or_default();
        bail!("{}{words}the pictures could not be taken", String::from_utf8_lossy(&output));
    }
    let read = |picture: &&Picture| {
        let file = taken.join(picture.name);
        fs::read(&file).with_context(|| format!("{} did not come back", picture.name))
    };
    pictures.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use ::tests::pictures::PICTURES;

    use super::{LARGEST, svg};
    use crate::cargo::workspace;

    /// Whoever changes a command has to draw its picture anew.
    #[test]
    fn each_picture_shows_its_command() {
        for picture in PICTURES {
            let file = workspace().join(format!("docs/pictures/{}.svg", picture.name));
            let drawn = fs::read_to_string(&file).unwrap_or_default();
            let right = drawn.contains(&svg::title(picture.command)) && drawn.len() <= LARGEST;
            assert!(right, "not drawn: run `cargo xtask pictures {}`", picture.name);
        }
    }
}
