use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConnection, ConnectionCommon, ServerConfig, ServerConnection};
use tempfile::TempDir;

use super::*;

/// An authority, and files in a directory.
struct Lab {
    directory: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Lab {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let lab = Self { directory: tempfile::tempdir().unwrap(), authority };
        lab.write("ca.pem", &lab.authority.pem());
        lab
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// A certificate for a name, as files.
    fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        Identity {
            certificate: self.write(&format!("{name}.pem"), &certificate.pem()),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    fn trusting(&self) -> Settings {
        Settings { ca: Some(self.directory.path().join("ca.pem")), identity: None }
    }

    /// A server of that name, which may want a certificate of its clients.
    fn server(&self, name: &str, wants: bool) -> ServerConnection {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants {
            let roots = Arc::new(self.trusting().roots().unwrap());
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (chain, key) = self.identity(name).read().unwrap();
        ServerConnection::new(Arc::new(builder.with_single_cert(chain, key).unwrap())).unwrap()
    }
}

fn hand<A, B>(from: &mut ConnectionCommon<A>, to: &mut ConnectionCommon<B>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = bytes.as_slice();
    let mut result = Ok(());
    while !bytes.is_empty() && result.is_ok() {
        to.read_tls(&mut bytes).unwrap();
        result = to.process_new_packets().map(drop);
    }
    result
}

/// A handshake of a client with `settings`, who wants the server `localhost`.
fn handshake(settings: &Settings, mut server: ServerConnection) -> Result<(), Trouble> {
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(settings.client_config()?, name).unwrap();
    let told = |error| {
        let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
        trouble("localhost:1", &io::Error::other(wrapped)).unwrap()
    };
    for _ in 0..8 {
        hand(&mut client, &mut server).ok();
        hand(&mut server, &mut client).map_err(told)?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn why<T>(result: Result<T, Trouble>) -> String {
    let trouble = result.err().unwrap();
    assert!(trouble.needs_a_person());
    trouble.to_string()
}

#[test]
fn a_server_of_the_authority_is_trusted_and_others_are_not() {
    let (lab, other) = (Lab::new("authority"), Lab::new("another"));
    handshake(&lab.trusting(), lab.server("localhost", false)).unwrap();
    let told = why(handshake(&other.trusting(), lab.server("localhost", false)));
    assert!(
        told.starts_with("no TLS with localhost:1: invalid peer certificate: Unknown"),
        "{told}"
    );
    assert!(told.ends_with("name the file of the authority that has signed it with `tls_ca=`"));
    let told = why(handshake(&lab.trusting(), lab.server("example.org", false)));
    assert!(
        told.contains("example.org") && told.ends_with("as its certificate names it"),
        "{told}"
    );
}

/// A server whose certificate `openssl req -x509` would make, and who trusts it.
fn self_signed(
    change: impl FnOnce(&mut CertificateParams),
) -> (TempDir, Settings, impl Fn() -> ServerConnection) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("server.pem");
    fs::write(&file, certificate.pem()).unwrap();
    let settings = Settings { ca: Some(file.clone()), identity: None };
    let server = move || {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates("tls_ca", &file).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        ServerConnection::new(Arc::new(config)).unwrap()
    };
    (directory, settings, server)
}

#[test]
fn a_self_signed_certificate_is_its_own_authority() {
    let (_directory, settings, server) = self_signed(|_| {});
    handshake(&settings, server()).unwrap();
    // As without `basicConstraints`.
    let (_directory, settings, server) = self_signed(|params| params.is_ca = IsCa::NoCa);
    handshake(&settings, server()).unwrap();
    // Without alternative names libpq takes the common name.
    for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let (_directory, settings, server) = self_signed(|params| {
            params.subject_alt_names = Vec::new();
            params.is_ca = is_ca;
            params.distinguished_name.push(DnType::CommonName, "localhost");
        });
        handshake(&settings, server()).unwrap();
    }
}

#[test]
fn a_self_signed_certificate_is_checked_all_the_same() {
    let (_directory, _, server) = self_signed(|_| {});
    let (_other_directory, other, _) = self_signed(|_| {});
    let told = why(handshake(&other, server()));
    assert!(told.contains("`tls_ca=`"), "{told}");
    let (_directory, expired, server) = self_signed(|params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let told = why(handshake(&expired, server()));
    assert!(told.contains("has to be renewed"), "{told}");
    let elsewhere = |params: &mut CertificateParams, common: &str| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("db1".try_into().unwrap())];
        params.distinguished_name.push(DnType::CommonName, common);
    };
    // A common name counts for nothing beside alternative names.
    for common in ["db1", "localhost"] {
        let (_directory, named, server) = self_signed(|params| elsewhere(params, common));
        let told = why(handshake(&named, server()));
        assert!(told.ends_with("as its certificate names it"), "{told}");
    }
}

#[test]
fn a_server_may_ask_who_flowlog_is() {
    let (lab, other) = (Lab::new("authority"), Lab::new("another"));
    let known = Settings { identity: Some(lab.identity("flowlog")), ..lab.trusting() };
    handshake(&known, lab.server("localhost", true)).unwrap();
    let told = why(handshake(&lab.trusting(), lab.server("localhost", true)));
    assert!(told.ends_with("name one with `tls_cert=` and `tls_key=`"), "{told}");
    let strange = Settings { identity: Some(other.identity("flowlog")), ..lab.trusting() };
    let told = why(handshake(&strange, lab.server("localhost", true)));
    assert!(told.contains("received fatal alert"), "{told}");
}

#[test]
fn a_server_without_tls_is_told() {
    let lab = Lab::new("authority");
    let config = lab.trusting().client_config().unwrap();
    let mut client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    client.read_tls(&mut &b"SSH-2.0-OpenSSH_9.2p1\r\n"[..]).unwrap();
    let error = client.process_new_packets().unwrap_err();
    let told = trouble("h:22", &error).unwrap().to_string();
    assert!(told.ends_with("name its port for TLS, or set tls=0"), "{told}");
    assert_eq!(trouble("h:22", &io::Error::other("no TLS at all")), None);
}

#[test]
fn a_file_that_is_of_no_use_is_named() {
    let lab = Lab::new("authority");
    let (one, other) = (lab.identity("one"), lab.identity("other"));
    let with = |certificate: &Path, key: &Path| Settings {
        identity: Some(Identity { certificate: certificate.into(), key: key.into() }),
        ..lab.trusting()
    };
    let missing = lab.directory.path().join("missing.pem");
    let empty = lab.write("empty.pem", "nothing\n");
    let cut = lab.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    let ca = |file: &Path| Settings { ca: Some(file.into()), identity: None };
    for (settings, parts) in [
        (ca(&missing), ["`tls_ca=", "missing.pem` cannot be read"]),
        (ca(&empty), ["empty.pem` has no certificate", "it holds none"]),
        (ca(&cut), ["cut.pem` has no certificate", "section end"]),
        (ca(&one.key), ["one.key` has no certificate", "BEGIN CERTIFICATE"]),
        (with(&one.certificate, &other.key), ["is not the key of", "other.key"]),
        (with(&one.certificate, &one.certificate), ["`tls_key=", "has no private key"]),
        (with(&missing, &one.key), ["`tls_cert=", "put it there"]),
    ] {
        let told = why(settings.client_config());
        assert!(parts.iter().all(|part| told.contains(part)), "{told}");
    }
    with(&one.certificate, &one.key).client_config().unwrap();
}

#[test]
fn this_host_trusts_somebody() {
    let roots = Settings::default().roots();
    // A host without certificates is told so.
    if let Err(trouble) = roots {
        assert!(trouble.to_string().contains("install the package ca-certificates"));
    }
}
