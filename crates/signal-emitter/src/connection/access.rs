//! How a server of Redis is entered: user, password, TLS.
//!
//! Owns reading the password's and the certificates' files, once, before anything else runs. It never
//! connects, and never shows a secret.

use std::{error::Error, io, path::Path, sync::Arc, time::Duration};

use fred::types::config::{Config, ServerConfig, TlsConfig, TlsConnector};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};
use signal_core::redis::{RedisSettings, TlsSettings};

use super::slots::Address;
use crate::EmitterError;

const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// What every connection of one emitter has in common.
#[derive(Clone)]
pub(super) struct Access {
    /// The longest that connecting, or a command without a deadline of its own, takes.
    pub(super) timeout: Duration,
    username: Option<String>,
    password: Option<String>,
    tls: Option<TlsConfig>,
}

// === impl Access ===

impl Access {
    pub(super) fn new(settings: &RedisSettings, timeout: Duration) -> Result<Self, EmitterError> {
        Ok(Self {
            timeout: timeout.max(TIMEOUT_MIN),
            username: settings.username.clone(),
            password: password(settings)?,
            tls: settings.tls.as_ref().map(tls).transpose()?,
        })
    }

    /// The client's settings for one server.
    pub(super) fn config(&self, address: &Address) -> Config {
        Config {
            server: ServerConfig::new_centralized(address.host.clone(), address.port),
            username: self.username.clone(),
            password: self.password.clone(),
            tls: self.tls.clone(),
            // At the start as later: Redis is away, and will be back.
            fail_fast: false,
            ..Config::default()
        }
    }
}

/// Read once, before anything else runs on this emitter.
fn password(settings: &RedisSettings) -> Result<Option<String>, EmitterError> {
    if let Some(path) = &settings.password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EmitterError::PasswordFile { path: path.clone(), source })?;
        return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let password = settings.password.as_ref().map(|secret| secret.expose().to_owned());
    // A user without a password logs in with any, but must log in.
    Ok(password.or_else(|| settings.username.as_ref().map(|_| String::new())))
}

fn tls(settings: &TlsSettings) -> Result<TlsConfig, EmitterError> {
    let failed = |source: Box<dyn Error + Send + Sync>| EmitterError::Certificates {
        path: settings.ca_file.clone(),
        source,
    };
    let roots = match &settings.ca_file {
        Some(path) => roots_of(path).map_err(failed)?,
        None => roots_of_system().map_err(failed)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.into()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(config).into())
}

fn roots_of(path: &Path) -> Result<RootCertStore, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    checked(roots)
}

/// One certificate that cannot be read does not take the others away.
fn roots_of_system() -> Result<RootCertStore, Box<dyn Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    checked(roots)
}

fn checked(roots: RootCertStore) -> Result<RootCertStore, Box<dyn Error + Send + Sync>> {
    match roots.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "there is no certificate").into()),
        false => Ok(roots),
    }
}
