//! How a server of Redis is entered: user, password, TLS, RESP3.
//!
//! Owns reading the password's and the certificates' files, once, before anything else runs, and the
//! first words on a connection. It never tries twice, never takes longer than the timeout, and never
//! shows a secret.

use std::{
    error::Error,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use signal_core::redis::{RedisSettings, TlsSettings};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use super::{
    resp::{NotResp, Reply, read_reply, write_command},
    slots::Address,
};
use crate::EmitterError;

const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// How producers, and the publishing halves of edges, show in `CLIENT LIST`.
const CLIENT_NAME: &[u8] = b"signal-emitter";

/// The answer to the first words is a few hundred bytes.
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// What every connection of one emitter has in common.
#[derive(Clone)]
pub(super) struct Access {
    /// The longest that connecting, or a command without a deadline of its own, takes.
    pub(super) timeout: Duration,
    username: Option<String>,
    password: Option<String>,
    tls: Option<TlsConnector>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("redis refused the connection: {0}")]
    Refused(String),
    #[error("redis closed the connection")]
    Closed,
    #[error("redis does not answer any more")]
    Silent,
    #[error("redis sent something without an end")]
    Endless,
    #[error("redis answered something that was not asked")]
    OutOfStep,
    #[error(transparent)]
    NotResp(#[from] NotResp),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The bytes to and from a server.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
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

    /// Connects, logs in, and switches to RESP3.
    pub(super) async fn connect(&self, address: &Address) -> Result<Stream, LinkError> {
        let attempt = async {
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
            stream.set_nodelay(true)?;
            let mut stream = match &self.tls {
                None => Stream::Plain(stream),
                Some(tls) => {
                    let name =
                        ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
                    Stream::Tls(Box::new(tls.connect(name, stream).await?))
                }
            };
            self.greet(&mut stream).await?;
            Ok(stream)
        };
        timeout(self.timeout, attempt).await.unwrap_or(Err(LinkError::ConnectTimeout))
    }

    async fn greet(&self, stream: &mut Stream) -> Result<(), LinkError> {
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &self.password {
            let user = self.username.as_deref().unwrap_or("default");
            hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
        }
        hello.extend([b"SETNAME", CLIENT_NAME]);
        let mut command = Vec::new();
        write_command(&mut command, &hello);
        stream.write_all(&command).await?;
        stream.flush().await?;
        let mut buffer = Vec::new();
        loop {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(LinkError::Closed);
            }
            match read_reply(&buffer)? {
                Some((Reply::Refused(words), _)) => return Err(LinkError::Refused(words)),
                Some((Reply::Value(_), taken)) if taken == buffer.len() => return Ok(()),
                Some(_) => return Err(LinkError::OutOfStep),
                None if buffer.len() > GREETING_BYTES_MAX => return Err(LinkError::Endless),
                None => {}
            }
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

fn tls(settings: &TlsSettings) -> Result<TlsConnector, EmitterError> {
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
    Ok(TlsConnector::from(Arc::new(config)))
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

// === impl LinkError ===

impl LinkError {
    /// Whether trying again changes nothing, until somebody changes a setting.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            // Redis is loading its data, or has no room: that passes.
            Self::Refused(words) => {
                !words.starts_with("LOADING") && !words.contains("max number of clients")
            }
            _ => false,
        }
    }
}

// === impl Stream ===

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
