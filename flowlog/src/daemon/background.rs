//! Going to the background. The parent waits until the daemon runs, and exits
//! with its code: a broken start is seen by whoever started it.
#![expect(unsafe_code, reason = "fork has no safe form")]

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

/// Who goes on after [`fork_to_background`].
pub enum Role {
    /// The process that was started: exit with this code.
    Parent(ExitCode),
    /// The daemon.
    Daemon(Readiness),
}

/// Tells the waiting parent how the start went. Dropped without a word it
/// tells failure.
pub struct Readiness(File);

/// Forks. Call before there are threads.
///
/// # Errors
/// The kernel has no resources for another process.
pub fn fork_to_background() -> io::Result<Role> {
    let (reader, writer) = pipe()?;
    // SAFETY: the process has one thread yet, so the child finds no lock held
    // by a thread that does not exist there.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut code = [0];
            let told = File::from(reader).read(&mut code)? == 1;
            if told && code == [0] {
                return Ok(Role::Parent(ExitCode::SUCCESS));
            }
            // It has failed and ends by itself.
            waitpid(child, None)?;
            Ok(Role::Parent(if told { ExitCode::from(code[0]) } else { ExitCode::FAILURE }))
        }
        ForkResult::Child => {
            drop(reader);
            setsid()?;
            Ok(Role::Daemon(Readiness(File::from(writer))))
        }
    }
}

impl Readiness {
    /// The daemon runs: leaves the terminal and the directory, and releases
    /// the parent.
    ///
    /// # Errors
    /// /dev/null cannot be opened.
    pub fn ready(mut self) -> io::Result<()> {
        chdir("/")?;
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        dup2_stdin(null.as_fd())?;
        dup2_stdout(null.as_fd())?;
        dup2_stderr(null.as_fd())?;
        self.0.write_all(&[0])
    }
}
