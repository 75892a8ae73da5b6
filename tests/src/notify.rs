//! What a service tells its manager, see sd_notify(3): the manager's end of the socket.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use anyhow::Result;

/// The variable that tells a service where the socket is.
pub const VARIABLE: &str = "NOTIFY_SOCKET";

/// The socket of a manager.
#[derive(Debug)]
pub struct Notify(UnixDatagram);

impl Notify {
    /// Makes it, for everybody to write to.
    ///
    /// # Errors
    /// It is there already.
    pub fn bind(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }

    /// What has come since the last time, such as `READY=1`.
    ///
    /// # Errors
    /// The socket is broken.
    pub fn words(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        let mut message = [0; 4096];
        loop {
            match self.0.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]).into_owned();
                    words.extend(text.lines().map(str::to_owned));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(words),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether this was among it.
    ///
    /// # Errors
    /// As [`Notify::words`].
    pub fn has(&self, word: &str) -> Result<bool> {
        Ok(self.words()?.iter().any(|told| told == word))
    }
}
