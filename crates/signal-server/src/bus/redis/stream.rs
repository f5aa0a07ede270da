//! A connection to one Redis node, plain or with TLS, logged in and switched to RESP3.
//!
//! It owns how a node is reached: name resolution, TLS, `HELLO` with the credentials. It never tries
//! twice, and never takes longer than [`CONNECT_TIMEOUT`]. Nothing is kept but the TLS settings, which
//! are read once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use redis_protocol::resp3::types::OwnedFrame;
use signal_core::redis::{RedisSettings, TlsSettings};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::push::{NotResp, Received, decode_front};
use super::topology::{Node, NotAView, VIEW_BYTES_MAX, View};
use crate::config::ConfigError;

/// Connecting, and the answer to HELLO, take no longer than this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Asking for the view of the cluster takes no longer than this, connecting included.
const VIEW_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection could not be made, or ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum RedisError {
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("redis refused the connection: {0}")]
    Refused(String),
    #[error("redis closed the connection")]
    Closed,
    #[error("the probe did not come back")]
    Silent,
    #[error("redis sent something without an end")]
    Endless,
    #[error("redis answered something that was not asked")]
    OutOfStep,
    #[error(transparent)]
    NotResp(#[from] NotResp),
    #[error(transparent)]
    NotAView(#[from] NotAView),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How any node is reached.
pub(crate) struct Access {
    settings: RedisSettings,
    tls: Option<TlsConnector>,
}

/// The bytes to and from a node.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

// === impl Access ===

impl Access {
    /// Reads the certificates, if TLS is on.
    pub(crate) fn new(settings: RedisSettings) -> Result<Self, ConfigError> {
        let tls = settings.tls.as_ref().map(tls_connector).transpose()?;
        Ok(Self { settings, tls })
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    /// Connects to a node and switches to RESP3.
    pub(super) async fn connect(&self, node: &Node) -> Result<Stream, RedisError> {
        let attempt = async {
            let stream = TcpStream::connect((node.host.as_str(), node.port)).await?;
            stream.set_nodelay(true)?;
            let mut stream = match &self.tls {
                None => Stream::Plain(stream),
                Some(tls) => {
                    let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
                    Stream::Tls(Box::new(tls.connect(name, stream).await?))
                }
            };
            let mut hello = vec!["HELLO", "3"];
            if let Some(password) = &self.settings.password {
                let user = self.settings.username.as_deref().unwrap_or("default");
                hello.extend(["AUTH", user, password.expose()]);
            } else if let Some(user) = &self.settings.username {
                // A user without a password logs in with any, but must log in.
                hello.extend(["AUTH", user, ""]);
            }
            hello.extend(["SETNAME", "signal-edge"]);
            call(&mut stream, &hello).await?;
            Ok(stream)
        };
        timeout(CONNECT_TIMEOUT, attempt).await.unwrap_or(Err(RedisError::ConnectTimeout))
    }

    /// What a node says of its cluster.
    pub(super) async fn view(&self, node: &Node) -> Result<View, RedisError> {
        let attempt = async {
            let mut stream = self.connect(node).await?;
            let text = match call(&mut stream, &["CLUSTER", "NODES"]).await? {
                OwnedFrame::BlobString { data, .. } | OwnedFrame::VerbatimString { data, .. } => {
                    String::from_utf8_lossy(&data).into_owned()
                }
                other => format!("{other:?}"),
            };
            Ok(View::parse(&text, node)?)
        };
        timeout(VIEW_TIMEOUT, attempt).await.unwrap_or(Err(RedisError::ConnectTimeout))
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn tls_connector(settings: &TlsSettings) -> Result<TlsConnector, ConfigError> {
    const CA_FILE: &str = "APP_ENV_WEBSOCKET_REDIS_TLS_CA_FILE";
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca_file {
        let problem = |problem: String| ConfigError::File {
            name: CA_FILE,
            path: path.display().to_string(),
            problem,
        };
        let certificates =
            CertificateDer::pem_file_iter(path).map_err(|error| problem(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| problem(error.to_string()))?;
            roots.add(certificate).map_err(|error| problem(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(problem("there is no certificate in it".to_owned()));
        }
    } else {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            return Err(ConfigError::Conflict(format!(
                "APP_ENV_WEBSOCKET_REDIS_TLS is on and this system has no certificates of \
                 authorities, {CA_FILE} has to name them"
            )));
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends a command and waits for its reply.
async fn call(stream: &mut Stream, arguments: &[&str]) -> Result<OwnedFrame, RedisError> {
    let mut command = Vec::new();
    write_command(&mut command, arguments.len());
    for argument in arguments {
        write_bulk(&mut command, argument.as_bytes());
    }
    stream.write_all(&command).await?;
    let mut buffer = Vec::new();
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(RedisError::Closed);
        }
        match decode_front(&buffer, VIEW_BYTES_MAX)? {
            Some((Received::Refused(words), _)) => return Err(RedisError::Refused(words)),
            Some((Received::Reply(reply), _)) => return Ok(reply),
            Some(_) => return Err(RedisError::OutOfStep),
            None if buffer.len() > VIEW_BYTES_MAX => return Err(RedisError::Endless),
            None => {}
        }
    }
}

/// Begins a command of so many arguments, its name included.
pub(super) fn write_command(out: &mut Vec<u8>, arguments: usize) {
    out.extend_from_slice(format!("*{arguments}\r\n").as_bytes());
}

/// Appends an argument.
pub(super) fn write_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
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
