//! A program in a pseudo-terminal: what it shows there, as a terminal would, and keys for it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::ttyname;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::poll;
use crate::process::Guarded;

/// A pseudo-terminal with a program in it.
pub struct Terminal {
    /// The program.
    pub process: Guarded,
    master: File,
    /// Kept open, so that its mode can be asked for when the program has ended.
    slave: OwnedFd,
    before: Termios,
    /// Bytes that have come and are not on the screen yet.
    come: Arc<Mutex<Vec<u8>>>,
    parser: Mutex<vt100::Parser>,
    dir: TempDir,
}

impl Terminal {
    /// Starts a program in a namespace, on a terminal of so many rows and columns, which also
    /// sends it signals for keys. Standard error goes elsewhere.
    ///
    /// # Errors
    /// There is no pseudo-terminal, or the program cannot be run.
    pub fn start(
        namespace: &Namespace,
        program: impl AsRef<std::ffi::OsStr>,
        args: &str,
        (rows, columns): (u16, u16),
    ) -> Result<Self> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).context("no pseudo-terminal")?;
        let before = tcgetattr(&pty.slave)?;
        let dir = tempfile::tempdir()?;
        // A child is no leader of a group, so that setsid replaces itself by the program.
        let mut command = namespace.command("setsid");
        command.arg("-c").arg(program).args(args.split_whitespace());
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        command.stdin(Stdio::from(pty.slave.try_clone()?));
        command.stdout(Stdio::from(pty.slave.try_clone()?));
        command.stderr(File::create(dir.path().join("stderr"))?);
        let process = Guarded::spawn(&mut command)?;
        let master = File::from(pty.master);
        let come = Arc::new(Mutex::new(Vec::new()));
        let (theirs, reader) = (Arc::clone(&come), master.try_clone()?);
        thread::spawn(move || gather(reader, &theirs));
        let parser = Mutex::new(vt100::Parser::new(rows, columns, 0));
        Ok(Self { process, master, slave: pty.slave, before, come, parser, dir })
    }

    /// Looks at the screen as it is now.
    pub fn look<T>(&self, f: impl FnOnce(&vt100::Screen) -> T) -> T {
        let come = std::mem::take(&mut *self.come.lock().unwrap_or_else(PoisonError::into_inner));
        let mut parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
        parser.process(&come);
        f(parser.screen())
    }

    /// Its rows, without blanks at their ends.
    pub fn rows(&self) -> Vec<String> {
        self.look(|screen| {
            let (_, columns) = screen.size();
            screen.rows(0, columns).map(|row| row.trim_end().to_owned()).collect()
        })
    }

    /// The first row that begins with these words.
    pub fn row(&self, words: &str) -> Option<String> {
        self.rows().into_iter().find(|row| row.trim_start().starts_with(words))
    }

    /// Waits until the rows are as `enough` wants them.
    ///
    /// # Errors
    /// They never are; with the screen as it is then.
    pub fn wait(&self, what: &str, enough: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        poll::until(what, || Ok(Some(self.rows()).filter(|rows| enough(rows)))).with_context(|| {
            format!(
                "the screen:\n{}\n{}",
                self.rows().join("\n"),
                self.stderr().unwrap_or_default()
            )
        })
    }

    /// Waits until a row begins with these words, and returns it.
    ///
    /// # Errors
    /// None ever does.
    pub fn wait_row(&self, words: &str) -> Result<String> {
        let begins = |row: &String| row.trim_start().starts_with(words);
        let rows = self.wait(words, |rows| rows.iter().any(begins))?;
        rows.into_iter().find(begins).context("the row has gone")
    }

    /// Types.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// It takes none.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(ttyname(&self.slave)?);
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        if !stty.status().context("cannot run stty")?.success() {
            bail!("stty cannot set the size");
        }
        let mut parser = self.parser.lock().unwrap_or_else(PoisonError::into_inner);
        parser.screen_mut().set_size(rows, columns);
        Ok(())
    }

    /// Whether the terminal has the mode that it had before the program was started.
    ///
    /// # Errors
    /// It tells none.
    pub fn has_mode_of_before(&self) -> Result<bool> {
        Ok(tcgetattr(&self.slave)? == self.before)
    }

    /// What the program has said on standard error.
    ///
    /// # Errors
    /// It is no text.
    pub fn stderr(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.dir.path().join("stderr"))?)
    }
}

/// Takes what comes until the terminal has gone.
fn gather(mut reader: File, come: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(length) = reader.read(&mut bytes) {
        if length == 0 {
            return;
        }
        let mut come = come.lock().unwrap_or_else(PoisonError::into_inner);
        come.extend_from_slice(&bytes[..length]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(
        not(feature = "live"),
        ignore = "needs root and network namespaces: cargo xtask test"
    )]
    fn a_program_is_seen_and_typed_to() -> Result<()> {
        let namespace = Namespace::new("terminal")?;
        let mut terminal = Terminal::start(&namespace, "cat", "-A", (5, 20))?;
        terminal.keys("word\n")?;
        terminal.wait("the echo and the answer", |rows| rows[..2] == ["word", "word$"])?;
        assert_eq!(terminal.row("wor").as_deref(), Some("word"));
        terminal.resize(3, 30)?;
        assert_eq!(terminal.rows().len(), 3);
        terminal.keys("\u{3}")?;
        assert_eq!(terminal.process.wait()?, Some(130), "Ctrl-C is a signal");
        assert!(terminal.has_mode_of_before()?);
        Ok(())
    }
}
