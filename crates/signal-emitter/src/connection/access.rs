//! How a server of Redis is entered, by producers and by edges: user, password, TLS, RESP3.
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

use redis_protocol::resp3::types::OwnedFrame;
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

use super::resp::{NotResp, Reply, read_reply, write_command};
use crate::EmitterError;

const TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// The answer to the first words is a few hundred bytes.
const GREETING_BYTES_MAX: usize = 64 * 1024;

/// What the connections of one program have in common.
pub struct Access {
    settings: RedisSettings,
    /// How they show in `CLIENT LIST`.
    client_name: &'static str,
    timeout: Duration,
    password: Option<String>,
    tls: Option<TlsConnector>,
}

/// Why there is no connection, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Connecting took longer than the timeout.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// The user, the password, or one connection more than Redis takes; in its words.
    #[error("redis refused the connection: {0}")]
    Refused(String),
    /// The other end closed it.
    #[error("redis closed the connection")]
    Closed,
    /// Nothing has come for too long.
    #[error("redis does not answer any more")]
    Silent,
    /// What is being received is larger than anything that can be expected.
    #[error("redis sent something without an end")]
    Endless,
    /// A reply too many, or of the wrong kind.
    #[error("redis answered something that was not asked")]
    OutOfStep,
    /// The other end is no Redis, or speaks RESP2.
    #[error(transparent)]
    NotResp(#[from] NotResp),
    /// The connection failed, or could not be made.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The bytes to and from a server.
#[derive(Debug)]
pub enum Stream {
    /// In clear.
    Plain(TcpStream),
    /// Within TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Access ===

impl Access {
    /// Reads the password's and the certificates' files. The timeout is for one attempt to connect.
    ///
    /// # Errors
    ///
    /// [`EmitterError::PasswordFile`] and [`EmitterError::Certificates`].
    pub fn new(
        settings: RedisSettings,
        client_name: &'static str,
        timeout: Duration,
    ) -> Result<Self, EmitterError> {
        let password = password(&settings)?;
        let tls = settings.tls.as_ref().map(tls).transpose()?;
        Ok(Self { settings, client_name, timeout: timeout.max(TIMEOUT_MIN), password, tls })
    }

    /// What it was made of.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects, logs in, and switches to RESP3.
    ///
    /// # Errors
    ///
    /// [`LinkError`], within the timeout.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt ends, and the connection with it.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Stream, LinkError> {
        let attempt = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            let mut stream = match &self.tls {
                None => Stream::Plain(stream),
                Some(tls) => {
                    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                    Stream::Tls(Box::new(tls.connect(name, stream).await?))
                }
            };
            let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
            if let Some(password) = &self.password {
                let user = self.settings.username.as_deref().unwrap_or("default");
                hello.extend([b"AUTH", user.as_bytes(), password.as_bytes()]);
            }
            hello.extend([b"SETNAME", self.client_name.as_bytes()]);
            stream.call(&hello, GREETING_BYTES_MAX).await?;
            Ok(stream)
        };
        timeout(self.timeout, attempt).await.unwrap_or(Err(LinkError::ConnectTimeout))
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// A user without a password logs in with any, but must log in.
fn password(settings: &RedisSettings) -> Result<Option<String>, EmitterError> {
    if let Some(path) = &settings.password_file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| EmitterError::PasswordFile { path: path.clone(), source })?;
        return Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()));
    }
    let password = settings.password.as_ref().map(|secret| secret.expose().to_owned());
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

impl Stream {
    /// Sends a command, its name first, and waits for the reply: for connections that have nothing else
    /// under way. Takes no longer than the other end does.
    ///
    /// # Errors
    ///
    /// [`LinkError::Endless`] for a reply of more than so many bytes, and the others.
    pub async fn call(
        &mut self,
        parts: &[&[u8]],
        bytes_max: usize,
    ) -> Result<OwnedFrame, LinkError> {
        let mut command = Vec::new();
        write_command(&mut command, parts);
        self.write_all(&command).await?;
        // With TLS, what is written may still be on its way to the socket.
        self.flush().await?;
        let mut buffer = Vec::new();
        loop {
            if self.read_buf(&mut buffer).await? == 0 {
                return Err(LinkError::Closed);
            }
            match read_reply(&buffer)? {
                Some((Reply::Refused(words), _)) => return Err(LinkError::Refused(words)),
                Some((Reply::Value(value), taken)) if taken == buffer.len() => return Ok(value),
                Some(_) => return Err(LinkError::OutOfStep),
                None if buffer.len() > bytes_max => return Err(LinkError::Endless),
                None => {}
            }
        }
    }
}

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
