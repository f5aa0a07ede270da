//! The HTTP client of an edge: it asks for keys, and for logins.
//!
//! One [`Client`] for each URL of the settings. It keeps a few idle connections for a moment, so that
//! logins that follow each other pay for TCP and TLS once. It follows no redirect, reads no more of an
//! answer than it is told to, and never logs what it carries. It knows no time: whoever asks sets the
//! deadline, and a future that is dropped takes its connection with it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::debug;

use crate::config::HttpUrl;

/// Idle connections that are kept: what a burst of logins leaves behind.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// How long an idle connection is good for. Shorter than servers keep one (Node's 5 s is the shortest
/// that is common), so that a request hardly ever meets a connection that is just being closed.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// Bytes and lines of an answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

const AGENT: &str = concat!("signal/", env!("CARGO_PKG_VERSION"));

/// Asks one URL; see the module.
pub(crate) struct Client {
    url: HttpUrl,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// What came back, whatever it says.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("no whole answer came")]
    Http(#[from] hyper::Error),
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

/// Why there cannot be a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("this system has no certificate authorities to trust; SSL_CERT_FILE may name some")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Rustls(#[from] tokio_rustls::rustls::Error),
    #[error("no certificate can be for this host")]
    Name,
}

// === impl Client ===

impl Client {
    pub(crate) fn new(url: HttpUrl) -> Result<Self, TlsError> {
        let tls = url.is_tls().then(|| tls(url.host())).transpose()?;
        Ok(Self { url, tls, idle: Mutex::default() })
    }

    /// Asks for what the URL names.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the connection that it used.
    pub(crate) async fn get(&self, body_bytes_max: usize) -> Result<Answer, ClientError> {
        self.request(Method::GET, Bytes::new(), body_bytes_max).await
    }

    /// Posts JSON.
    ///
    /// # Cancel safety
    ///
    /// Dropped, it closes the connection that it used; whether the server acts is not known then.
    pub(crate) async fn post(
        &self,
        json: String,
        body_bytes_max: usize,
    ) -> Result<Answer, ClientError> {
        self.request(Method::POST, json.into(), body_bytes_max).await
    }

    async fn request(
        &self,
        method: Method,
        body: Bytes,
        body_bytes_max: usize,
    ) -> Result<Answer, ClientError> {
        let mut request = Request::builder()
            .method(&method)
            .uri(self.url.target())
            .header(HOST, self.url.authority())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json");
        if method == Method::POST {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let mut request = request.body(Full::new(body)).expect("its parts come from a valid URL");
        loop {
            let idle = self.take_idle().await;
            let is_reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => Box::pin(self.connect()).await?,
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let answer = read(response, body_bytes_max).await?;
                    self.keep(sender);
                    return Ok(answer);
                }
                // The idle connection had just ended, and nothing was sent: the next one.
                Err(mut error) => match error.take_message() {
                    Some(unsent) if is_reused => request = unsent,
                    _ => return Err(error.into_error().into()),
                },
            }
        }
    }

    /// An idle connection that is still open.
    async fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        loop {
            let Idle { mut sender, since } = self.idle.lock().pop()?;
            if since.elapsed() < IDLE_TIME_MAX && sender.ready().await.is_ok() {
                return Some(sender);
            }
        }
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock();
        idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < IDLE_TIME_MAX);
        if idle.len() < IDLE_CONNECTIONS_MAX && !sender.is_closed() {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let connect = async {
            let stream = TcpStream::connect((self.url.host(), self.url.port())).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect.await.map_err(ClientError::Connect)?;
        match &self.tls {
            None => speak(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                Box::pin(speak(stream.map_err(ClientError::Connect)?)).await
            }
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Trusts what the system trusts, and speaks HTTP/1.1.
fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), TlsError> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Speaks HTTP on a connection, which a task of its own carries until it ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, ClientError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%error, "a connection to a server ended");
        }
    });
    Ok(sender)
}

async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Answer, ClientError> {
    let status = response.status();
    let mut body = response.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(ClientError::TooLarge(bytes_max));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(ClientError::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Answer { status, body: bytes.freeze() })
}
