//! Who flowlog is to NATS.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;

use crate::plugin::ship::Trouble;

/// Who flowlog is.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// Nobody in particular.
    Nobody,
    /// A user with a password.
    Password(String, String),
    /// Whoever knows a word.
    Token(String),
    /// A file with a JWT and its key, as `nsc` makes it.
    Credentials(PathBuf),
    /// A file with the seed of a key.
    Nkey(PathBuf),
}

/// Passwords are not shown.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())
    }
}

impl Auth {
    /// The key that says it.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Password(..) => "user",
            Self::Token(_) => "token",
            Self::Credentials(_) => "creds",
            Self::Nkey(_) => "nkey",
        }
    }

    /// Tells who flowlog is. Files are read for each connection, so that renewed
    /// ones are found.
    pub(super) fn sign(&self, options: ConnectOptions) -> Result<ConnectOptions, Trouble> {
        match self {
            Self::Nobody => Ok(options),
            Self::Password(user, password) => {
                Ok(options.user_and_password(user.clone(), password.clone()))
            }
            Self::Token(token) => Ok(options.token(token.clone())),
            Self::Credentials(file) => {
                let text = self.read(file)?;
                options.credentials(&text).map_err(|error| {
                    Trouble::refused(format!(
                        "`creds={}` has no credentials: {error}; name a file as `nsc generate \
                         creds` makes it",
                        file.display()
                    ))
                })
            }
            Self::Nkey(file) => {
                let text = self.read(file)?;
                let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
                seed.map(|seed| options.nkey(seed.to_owned())).ok_or_else(|| {
                    Trouble::refused(format!(
                        "`nkey={}` has no line with the seed of a user, which begins with SU; name \
                         a file as `nk -gen user` makes it",
                        file.display()
                    ))
                })
            }
        }
    }

    fn read(&self, file: &Path) -> Result<String, Trouble> {
        fs::read_to_string(file).map_err(|error| {
            Trouble::refused(format!(
                "`{}={}` cannot be read: {error}; put it there, readable for the user that \
                 flowlog runs as",
                self.key(),
                file.display()
            ))
        })
    }
}
