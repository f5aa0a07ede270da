//! TLS to an edge: whose certificates a client believes, and the handshake.
//!
//! It owns the authorities, which are the system's or those of one file, and what lets a later handshake
//! resume an earlier session. It must never go on with a certificate that does not verify, and there is
//! no switch for that. A handshake is bounded in time, by the caller's word for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{CertificateError, ClientConfig, Error as TlsError, RootCertStore};

/// See the module.
#[derive(Clone)]
pub(crate) struct Tls {
    connector: TlsConnector,
}

// === impl Tls ===

impl Tls {
    /// Trusts these authorities, or the system's.
    pub(crate) fn new(authorities: Option<Arc<RootCertStore>>) -> Result<Self, String> {
        let authorities = authorities.map_or_else(of_system, Ok)?;
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("the provider has the default versions")
                .with_root_certificates(authorities)
                .with_no_client_auth();
        // A proxy that has HTTP/2 as well must not choose it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Shakes hands with the edge of this name.
    pub(crate) async fn handshake(
        &self,
        name: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("a certificate cannot be for {name:?}"))?;
        self.connector.connect(name, stream).await.map_err(|error| in_words(&error))
    }
}

/// The authorities of a file in PEM, of which there must be some.
pub(crate) fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let mut authorities = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        authorities.add(certificate).map_err(|error| error.to_string())?;
    }
    match authorities.is_empty() {
        true => Err("there is no certificate in it".to_owned()),
        false => Ok(authorities),
    }
}

/// One certificate that cannot be read does not take the others away.
fn of_system() -> Result<Arc<RootCertStore>, String> {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match authorities.is_empty() {
        true => Err("this system has no certificates of authorities".to_owned()),
        false => Ok(Arc::new(authorities)),
    }
}

/// What is wrong with a certificate, where that is what is wrong.
fn in_words(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
    match cause {
        Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate is of no authority that is trusted here".to_owned()
        }
        Some(TlsError::InvalidCertificate(why)) => format!("its certificate is no good: {why}"),
        _ => error.to_string(),
    }
}
