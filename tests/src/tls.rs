//! TLS for servers that have none: an authority with its certificates, and a proxy that takes off
//! what flowlog puts on.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use crate::namespace::Namespace;

/// An authority, and the certificates that it has signed, in a directory that vanishes with it.
#[derive(Debug)]
pub struct Authority {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one, whose certificate is `ca.pem`.
    ///
    /// # Errors
    /// Its files cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let directory = tempfile::Builder::new().prefix("flowlog-ca-").tempdir()?;
        fs::write(directory.path().join("ca.pem"), issuer.pem())?;
        Ok(Self { directory, issuer })
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Makes a certificate for a name or an address: `NAME.pem`, and its key `NAME.key`.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn certify(&self, name: &str) -> Result<()> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        fs::write(self.path(&format!("{name}.pem")), certificate.pem())?;
        Ok(fs::write(self.path(&format!("{name}.key")), key.serialize_pem())?)
    }

    /// A server of that name, which may want a certificate of its clients.
    ///
    /// # Errors
    /// rustls does not take it.
    pub fn server(&self, name: &str, wants: bool) -> Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([name.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let builder = ServerConfig::builder();
        let builder = if wants {
            let mut roots = RootCertStore::empty();
            roots.add(self.issuer.as_ref().der().clone())?;
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(roots.into()).build()?)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(builder.with_single_cert(vec![certificate.der().clone()], key)?)
    }
}

/// Listens with TLS, and hands on what it hears without. Dropped, it hangs up.
#[derive(Debug)]
pub struct Proxy {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Proxy {
    /// Stands at `address` of the namespace `outside` for the server who listens at the same
    /// address of `inside`: so it may tell its clients where it is.
    ///
    /// # Errors
    /// The port is taken.
    pub fn start(
        outside: &Namespace,
        inside: &Namespace,
        address: SocketAddr,
        config: ServerConfig,
    ) -> Result<Self> {
        let listener = outside.enter(|| Ok(TcpListener::bind(address)?))?;
        listener.set_nonblocking(true)?;
        let inside = fs::File::open(inside.path())?;
        let (end, ended) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // What it connects to is there; the listener stays where it was bound.
            setns(inside, CloneFlags::CLONE_NEWNET).context("setns")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let acceptor = TlsAcceptor::from(Arc::new(config));
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                tokio::select! {
                    result = serve(&listener, address, acceptor) => result,
                    _ = ended => Ok(()),
                }
            })
        });
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // Whoever connects now sees that nobody listens.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: &tokio::net::TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            match acceptor.accept(stream).into_fallible().await {
                Ok(mut outer) => {
                    // Nobody listens there while the test has the server down.
                    let Ok(mut inner) = TcpStream::connect(address).await else { return };
                    // Either side may break off.
                    let _ = copy_bidirectional(&mut outer, &mut inner).await;
                }
                // The client may have sent more: it reads the alert if that is read as well.
                Err((_, mut stream)) => {
                    let _ = stream.shutdown().await;
                    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                }
            }
        });
    }
}
