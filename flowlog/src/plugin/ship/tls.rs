//! TLS as all sinks that ship have it: whom they trust, who they say they are, and
//! what to do when a handshake fails.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore,
};

use self::own_authority::OwnAuthority;
use super::Trouble;

mod own_authority;

/// The keys `tls_ca`, `tls_cert` and `tls_key` of a sink with `tls=1`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// A file with the certificates of authorities; absent: those that this host trusts.
    pub ca: Option<PathBuf>,
    /// Who flowlog is; absent: nobody in particular.
    pub identity: Option<Identity>,
}

/// A certificate, and the key that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The file of the certificate, and those between it and an authority.
    pub certificate: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
}

impl Settings {
    /// Reads the files: for each connection, so that renewed ones are found.
    ///
    /// # Errors
    /// A file is missing or is not what it should be.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, Trouble> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| cannot(&error))?;
        let builder = match &self.ca {
            None => builder.with_root_certificates(self.roots()?),
            Some(file) => {
                let trusted = certificates("tls_ca", file)?;
                let verifier = OwnAuthority::new(self.roots()?, trusted);
                let verifier = verifier.map_err(|error| cannot(&error))?;
                // It trusts what the usual verifier trusts and the file's own
                // certificates, and checks names and times of both.
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
        };
        let Some(identity) = &self.identity else {
            return Ok(Arc::new(builder.with_no_client_auth()));
        };
        let (chain, key) = identity.read()?;
        let config = builder.with_client_auth_cert(chain, key);
        config.map(Arc::new).map_err(|error| identity.unfit(&error))
    }

    fn roots(&self) -> Result<RootCertStore, Trouble> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.ca else {
            let native = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(native.certs);
            if roots.is_empty() {
                let why = native.errors.first().map(|error| format!(" ({error})"));
                return Err(Trouble::refused(format!(
                    "this host trusts no authority{}: install the package ca-certificates, or name \
                     a file of certificates with `tls_ca=`",
                    why.unwrap_or_default()
                )));
            }
            return Ok(roots);
        };
        for certificate in certificates("tls_ca", file)? {
            roots.add(certificate).map_err(|error| no_certificate("tls_ca", file, &error))?;
        }
        Ok(roots)
    }
}

type Proof = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Identity {
    fn read(&self) -> Result<Proof, Trouble> {
        let Self { certificate, key } = self;
        let chain = certificates("tls_cert", certificate)?;
        let proof = PrivateKeyDer::from_pem_slice(&read("tls_key", key)?).map_err(|error| {
            let why = match error {
                PemError::NoItemsFound => "it holds none".to_owned(),
                error => error.to_string(),
            };
            Trouble::refused(format!(
                "`tls_key={}` has no private key in PEM that could be read ({why}): name a file \
                 with `BEGIN PRIVATE KEY`, without a password",
                key.display()
            ))
        })?;
        Ok((chain, proof))
    }

    fn unfit(&self, error: &Error) -> Trouble {
        let Self { certificate, key } = self;
        let (certificate, key) = (certificate.display(), key.display());
        Trouble::refused(match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => format!(
                "`tls_key={key}` is not the key of the certificate in `tls_cert={certificate}`: \
                 name the two files that were made together"
            ),
            error => format!(
                "`tls_cert={certificate}` and `tls_key={key}` are of no use: {error}; name a \
                 certificate and its key in PEM (RSA, ECDSA or Ed25519)"
            ),
        })
    }
}

fn cannot(error: &dyn std::fmt::Display) -> Trouble {
    Trouble::refused(format!("TLS cannot be had: {error}"))
}

/// Makes ring what does the work of TLS where a library does not ask for one.
pub fn provide() {
    // Whoever was first has provided as much.
    let _ = ring::default_provider().install_default();
}

/// The certificates in a file, at least one.
fn certificates(key: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Trouble> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(key, file)?).collect();
    match found {
        Ok(list) if list.is_empty() => Err(no_certificate(key, file, &"it holds none")),
        Ok(list) => Ok(list),
        Err(error) => Err(no_certificate(key, file, &error)),
    }
}

fn no_certificate(key: &str, file: &Path, why: &dyn std::fmt::Display) -> Trouble {
    Trouble::refused(format!(
        "`{key}={}` has no certificate in PEM that could be read ({why}): name a file with `BEGIN \
         CERTIFICATE`",
        file.display()
    ))
}

fn read(key: &str, file: &Path) -> Result<Vec<u8>, Trouble> {
    fs::read(file).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "make it readable for the user that flowlog runs as",
            _ => "put it there, or name another file",
        };
        Trouble::refused(format!("`{key}={}` cannot be read: {error}; {remedy}", file.display()))
    })
}

/// What a failed handshake with `peer` means, if TLS is what failed: clients hand it
/// on wrapped in errors of their own.
pub fn trouble(peer: &str, error: &(dyn StdError + 'static)) -> Option<Trouble> {
    let remedy = match find(error)? {
        Error::InvalidCertificate(why) => untrusted(why).to_owned(),
        Error::InvalidMessage(_) => {
            "it does not speak TLS there: name its port for TLS, or set tls=0".to_owned()
        }
        Error::AlertReceived(alert) => refused(*alert).to_owned(),
        _ => "see what its own log says".to_owned(),
    };
    let error = find(error)?;
    Some(Trouble::refused(format!("no TLS with {peer}: {error}; {remedy}")))
}

fn untrusted(why: &CertificateError) -> &'static str {
    use CertificateError as E;
    match why {
        // The latter of an authority that has the name of one that is trusted, and another key.
        E::UnknownIssuer | E::BadSignature => {
            "name the file of the authority that has signed it with `tls_ca=`"
        }
        E::NotValidForName | E::NotValidForNameContext { .. } => {
            "write the host as its certificate names it"
        }
        E::Expired | E::ExpiredContext { .. } => {
            "its certificate has to be renewed, or the clock of this host set"
        }
        E::NotValidYet | E::NotValidYetContext { .. } => "set the clock of this host",
        E::Other(_) => {
            "name the file of the authority that has signed it with `tls_ca=`, or the file of the \
             certificate itself if it is self-signed"
        }
        _ => "its certificate has to be made anew",
    }
}

fn refused(alert: AlertDescription) -> &'static str {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired | A::HandshakeFailure => {
            "it wants a certificate of flowlog: name one with `tls_cert=` and `tls_key=`"
        }
        // Some servers say the second of who has none.
        A::UnknownCA | A::BadCertificate | A::CertificateUnknown | A::CertificateExpired => {
            "it wants a certificate of flowlog that it trusts: name one with `tls_cert=` and \
             `tls_key=`"
        }
        A::ProtocolVersion => "flowlog speaks TLS 1.2 and 1.3: allow one of them there",
        _ => "see what its own log says",
    }
}

/// The error of rustls that is behind another one.
fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<Error>() {
            return Some(found);
        }
        // An I/O error tells the source of what it holds, not what it holds.
        let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match held {
            Some(held) => Some(held),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests;
