//! Certificates of tests, and the files that an edge reads them from.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use signal_server::config::TlsFiles;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// Who signs certificates.
#[derive(Debug)]
pub struct Authority {
    pub certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
#[derive(Debug)]
pub struct Identity {
    pub certificate_pem: String,
    pub key_pem: String,
    certificate: CertificateDer<'static>,
}

/// The files that an edge reads; they go with this value.
#[derive(Debug)]
pub struct Files {
    pub files: TlsFiles,
    folder: PathBuf,
}

// === impl Authority ===

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::new(vec![]).expect("no names");
        authority.distinguished_name.push(DnType::CommonName, name);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate_pem = authority.self_signed(&key).expect("a certificate").pem();
        Self { certificate_pem, issuer: Issuer::new(authority, key) }
    }

    /// A certificate of a name or an address, with whatever else is changed in it.
    pub fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

// === impl Identity ===

impl Identity {
    /// Of the name `edge`, signed by itself.
    pub fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["edge".to_owned()]).expect("it is made");
        Self {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// A client that believes this certificate and no other.
    pub fn client(&self, version: &'static SupportedProtocolVersion) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

// === impl Files ===

impl Files {
    pub fn of(identity: &Identity) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("signal-tls-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary directory");
        let files = TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
        let this = Self { files, folder };
        this.write(&identity.certificate_pem, &identity.key_pem);
        this
    }

    /// A further file beside them; returns where.
    pub fn add(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::write(&path, text).expect("it is written");
        path
    }

    pub fn write(&self, certificate: &str, key: &str) {
        std::fs::write(&self.files.certificate, certificate).expect("it is written");
        std::fs::write(&self.files.key, key).expect("it is written");
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
