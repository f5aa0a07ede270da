//! TLS on the client port: the certificate and its key, from files that may change.
//!
//! It owns what new handshakes use, and replaces it as a whole when the files are read anew: on SIGHUP,
//! and when they have changed. Files that are no good change nothing, are logged and counted. Tickets
//! of sessions go with the certificate. It never touches a connection that stands. Handshakes are
//! bounded in time, by the caller's word for it.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use crate::config::{ConfigError, TlsFiles};
use crate::tally::Tally;

/// How often the files are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(30);

const CERTIFICATE: &str = "SIGNAL_TLS_CERT_FILE";
const KEY: &str = "SIGNAL_TLS_KEY_FILE";

/// When files were changed last, and their sizes.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// The certificate in use; see the module.
#[derive(Debug)]
pub(crate) struct Tls {
    files: TlsFiles,
    current: RwLock<Arc<ServerConfig>>,
    /// Of the files as they were read last, good or not.
    stamp: Mutex<Stamp>,
    /// Times that the files were read anew, by [`Self::RELOADS`].
    pub(crate) reloads: Tally<2>,
}

// === impl Tls ===

impl Tls {
    pub(crate) const RELOADS: [&str; 2] = ["done", "failed"];

    /// Reads the files.
    pub(crate) fn load(files: &TlsFiles) -> Result<Self, ConfigError> {
        let stamp = stamp(files);
        Ok(Self {
            current: RwLock::new(Arc::new(read(files)?)),
            files: files.clone(),
            stamp: Mutex::new(stamp),
            reloads: Tally::default(),
        })
    }

    /// Shakes hands with a client, within a time.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
        within: Duration,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.current.read().clone());
        tokio::time::timeout(within, acceptor.accept(stream)).await?
    }

    /// Reads the files anew. If they are no good, all stays as it is.
    pub(crate) fn reload(&self) -> Result<(), ConfigError> {
        // Before the files, so that a change meanwhile is seen the next time.
        *self.stamp.lock() = stamp(&self.files);
        match read(&self.files) {
            Ok(config) => {
                *self.current.write() = Arc::new(config);
                self.reloads.count(0_usize);
                Ok(())
            }
            Err(error) => {
                self.reloads.count(1_usize);
                Err(error)
            }
        }
    }

    /// Reads the files anew whenever they have changed, for ever.
    pub(crate) async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            self.reload_if_changed();
        }
    }

    fn reload_if_changed(&self) {
        if *self.stamp.lock() == stamp(&self.files) {
            return;
        }
        match self.reload() {
            Ok(()) => info!("the certificate has changed"),
            Err(error) => error!(%error, "the new certificate is no good; the old one stays"),
        }
    }
}

/// Whether files would do.
pub(crate) fn check(files: &TlsFiles) -> Result<(), ConfigError> {
    read(files).map(|_| ())
}

fn stamp(files: &TlsFiles) -> Stamp {
    [&files.certificate, &files.key].map(|path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(files: &TlsFiles) -> Result<ServerConfig, ConfigError> {
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(CERTIFICATE, &files.certificate, error))?;
    if chain.is_empty() {
        return Err(unusable(CERTIFICATE, &files.certificate, "there is no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable(KEY, &files.key, error))?;
    let apart = |error: tokio_rustls::rustls::Error| {
        ConfigError::Conflict(format!("{CERTIFICATE} and {KEY} do not go together: {error}"))
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(apart)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Tickets keep a session at the client: nothing here grows with the number of clients.
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(apart)?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

fn unusable(name: &'static str, path: &Path, problem: impl Display) -> ConfigError {
    ConfigError::File { name, path: path.display().to_string(), problem: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// Two pairs of certificate and key, in files of their own.
    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["edge".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn files(name: &str) -> TlsFiles {
        let folder = std::env::temp_dir().join(format!("signal-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        TlsFiles { certificate: folder.join("cert.pem"), key: folder.join("key.pem") }
    }

    fn write(path: &PathBuf, text: &str) {
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let files = files("bad");
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        let error = |certificate: &str, key: &str| {
            write(&files.certificate, certificate);
            write(&files.key, key);
            check(&files).unwrap_err().to_string()
        };
        assert!(error("", &key).contains("SIGNAL_TLS_CERT_FILE"));
        assert!(error("nonsense", &key).contains("there is no certificate in it"));
        assert!(error(&key, &key).contains("SIGNAL_TLS_CERT_FILE"));
        assert!(error(&certificate, "").contains("SIGNAL_TLS_KEY_FILE"));
        assert!(error(&certificate, &certificate).contains("SIGNAL_TLS_KEY_FILE"));
        assert!(error(&certificate, &other_key).contains("do not go together"));
        assert!(
            error(&certificate[..certificate.len() / 2], &key).contains("SIGNAL_TLS_CERT_FILE")
        );
        write(&files.certificate, &certificate);
        fs::remove_file(&files.key).unwrap();
        assert!(check(&files).unwrap_err().to_string().contains("SIGNAL_TLS_KEY_FILE"));
    }

    #[test]
    fn changed_files_are_read_and_bad_ones_are_not_taken() {
        let files = files("watched");
        let ((certificate, key), (new_certificate, new_key)) = (pair(), pair());
        write(&files.certificate, &certificate);
        write(&files.key, &key);
        let tls = Tls::load(&files).unwrap();
        let first = tls.current.read().clone();
        tls.reload_if_changed();
        assert_eq!(tls.reloads.get(), [0, 0], "nothing has changed");
        // The new certificate is there, and its key is not yet.
        write(&files.certificate, &format!("{new_certificate}\n"));
        tls.reload_if_changed();
        tls.reload_if_changed();
        assert_eq!(tls.reloads.get(), [0, 1], "tried once");
        assert!(Arc::ptr_eq(&first, &tls.current.read()), "the old one stays");
        write(&files.key, &format!("{new_key}\n\n"));
        tls.reload_if_changed();
        assert_eq!(tls.reloads.get(), [1, 1]);
        assert!(!Arc::ptr_eq(&first, &tls.current.read()));
    }
}
