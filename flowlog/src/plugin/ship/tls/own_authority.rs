//! A server whose certificate is its own authority (`openssl req -x509`): the
//! file that `tls_ca=` names holds the very certificate. libpq takes such a one;
//! webpki refuses every certificate of an authority at the end of a chain.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::EndEntityCert;

/// `id-at-commonName`, 2.5.4.3, as DER has it.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];

/// Verifies as webpki does, and beyond it takes a certificate that stands in
/// `trusted` itself, if it is valid now and names the server.
#[derive(Debug)]
pub(super) struct OwnAuthority {
    usual: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
}

impl OwnAuthority {
    /// Trusts what is in `roots`, which was made of `trusted`.
    ///
    /// # Errors
    /// `roots` is empty.
    pub(super) fn new(
        roots: RootCertStore,
        trusted: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::client::VerifierBuilderError> {
        let provider = Arc::new(ring::default_provider());
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { usual: usual.build()?, trusted })
    }
}

impl ServerCertVerifier for OwnAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let usual = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match usual {
            Err(Error::InvalidCertificate(why))
                if is_left_to_us(&why) && self.trusted.contains(end_entity) =>
            {
                names(end_entity, server_name).map(|()| ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// What webpki says of a certificate that it has found to be valid at the time:
/// an authority's own stands at the end of the chain
/// (`check_issuer_independent_properties`, rustls-webpki 0.103), or it has
/// another name.
fn is_left_to_us(why: &CertificateError) -> bool {
    match why {
        CertificateError::Other(OtherError(why)) => {
            let why = why.downcast_ref::<webpki::Error>();
            matches!(why, Some(webpki::Error::CaUsedAsEndEntity))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => true,
        _ => false,
    }
}

/// Whether a certificate names the server: by an alternative name, or as libpq
/// has it by its common name where it has no other.
fn names(certificate: &CertificateDer<'_>, server: &ServerName<'_>) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let error = match rustls::client::verify_server_name(&parsed, server) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let Ok(entity) = EndEntityCert::try_from(certificate) else { return Err(error) };
    let alone = entity.valid_dns_names().next().is_none();
    let common = common_name(entity.subject()).filter(|_| alone);
    match common {
        Some(name) if name.eq_ignore_ascii_case(server.to_str().as_bytes()) => Ok(()),
        _ => Err(error),
    }
}

/// The common name in the DER of a subject; one of at most 127 bytes, as 64 is
/// its limit.
fn common_name(subject: &[u8]) -> Option<&[u8]> {
    let place = subject.windows(COMMON_NAME.len()).position(|window| window == COMMON_NAME)?;
    let [_kind, length, rest @ ..] = subject.get(place + COMMON_NAME.len()..)? else { return None };
    rest.get(..usize::from(*length)).filter(|_| *length < 128)
}
