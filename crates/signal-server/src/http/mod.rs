//! What the client port answers before a connection is a WebSocket, and instead.
//!
//! One connection is served on its worker with hyper, whose buffers are gone once it is upgraded: the
//! socket and what came behind the request are taken out, and the connection becomes the worker's. It
//! never reads a body and never keeps a request waiting; headers are bounded in number, size and time.

pub(crate) mod admin;
mod assets;
pub(crate) mod client;
mod forwarded;
mod health;
mod inspect;
mod revoke;
mod upgrade;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue,
    REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

pub(crate) use self::forwarded::is_trusted;
pub(crate) use self::upgrade::Accepted;
use crate::gate::Admission;
use crate::server::{Arrival, Refusal, Shared};
use crate::tls::Tls;
use crate::worker::Worker;
use crate::worker::stream::Stream;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Time to shake hands.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for all requests of one connection, so that who does not read answers is cut too.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(30);

/// The same, for a connection that only has a spare place.
const SPARE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time to take the last word.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// Sent by hand, since hyper only closes a connection that is too slow.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Sent where there is no place even to read the request.
const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\n\
      connection: close\r\n\r\n";

/// For a year, browsers that came by TLS do not come without.
const TLS_ONLY: &str = "max-age=31536000";

/// The content security policy of what is no page: it loads nothing, and stands in no frame.
const NO_PAGE: &str = "default-src 'none'; frame-ancestors 'none'";

pub(crate) type Body = Full<Bytes>;

/// A connection that has become a WebSocket.
pub(crate) struct Upgraded {
    pub(crate) stream: Stream,
    /// What its client asked for.
    pub(crate) accepted: Accepted,
    /// What came behind the request.
    pub(crate) early: Vec<u8>,
    pub(crate) admission: Box<Admission>,
}

/// Who is at the other end, and the place that it holds.
struct Peer {
    address: IpAddr,
    admission: RefCell<Box<Admission>>,
}

/// Refuses a connection for which there is no place: a word if it can be said at once, in the clear,
/// and a hard end, after which nothing is kept of it here or in the kernel.
pub(crate) fn refuse(mut stream: &std::net::TcpStream, in_clear: bool) {
    if in_clear {
        let _ = stream.write(NO_PLACE);
    }
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Serves a connection of the client port until it is done, or a WebSocket.
pub(crate) async fn serve(worker: Rc<Worker>, arrival: Arrival) {
    match serve_http(&worker, arrival).await {
        Some(upgraded) => worker.open(upgraded),
        None => worker.shared().give_back(worker.id()),
    }
}

async fn serve_http(worker: &Worker, arrival: Arrival) -> Option<Upgraded> {
    let Arrival { stream, address, admission } = arrival;
    let peer = Peer { address: address.ip(), admission: RefCell::new(admission) };
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "a connection could not be taken over");
            return None;
        }
    };
    let shared = worker.shared();
    let (stream, accepted, early) = match &shared.tls {
        None => {
            let (stream, accepted, early) = serve_requests(shared, stream, &peer).await?;
            (Stream::Plain(stream), accepted, early)
        }
        // Apart, since a handshake is large, and most edges have none.
        Some(tls) => Box::pin(serve_tls(shared, tls, stream, &peer)).await?,
    };
    let admission = peer.admission.into_inner();
    Some(Upgraded { stream, accepted, early, admission })
}

/// Shakes hands, then serves as in the clear.
async fn serve_tls(
    shared: &Shared,
    tls: &Tls,
    stream: TcpStream,
    peer: &Peer,
) -> Option<(Stream, Accepted, Vec<u8>)> {
    let is_spare = peer.admission.borrow().is_spare();
    let within = if is_spare { SPARE_TIMEOUT } else { HANDSHAKE_TIMEOUT };
    let stream = match tls.accept(stream, within).await {
        Ok(stream) => Box::new(stream),
        Err(error) => {
            debug!(address = %peer.address, %error, "a TLS handshake failed");
            shared.refused.count(match error.kind() {
                io::ErrorKind::TimedOut => Refusal::TooSlow,
                _ => Refusal::Tls,
            });
            return None;
        }
    };
    let (stream, accepted, early) = serve_requests(shared, stream, peer).await?;
    let (socket, session) = stream.into_inner();
    Some((Stream::tls(socket, session), accepted, early))
}

/// Serves requests; returns the stream, what its client asked for, and what came behind the request,
/// once it is upgraded.
async fn serve_requests<S>(
    shared: &Shared,
    stream: S,
    peer: &Peer,
) -> Option<(S, Accepted, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (head_timeout, requests_timeout) = match peer.admission.borrow().is_spare() {
        true => (SPARE_TIMEOUT, 2 * SPARE_TIMEOUT),
        false => (HEAD_TIMEOUT, REQUESTS_TIMEOUT),
    };
    let (upgraded, has_asked) = (Cell::new(None), Cell::new(false));
    let service = service_fn(|request: Request<Incoming>| {
        let (mut response, accepted) = respond(shared, &request, peer);
        if shared.tls.is_some() {
            let policy = HeaderValue::from_static(TLS_ONLY);
            response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, policy);
        }
        upgraded.set(accepted);
        has_asked.set(true);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let settings = http_settings(head_timeout);
    let mut connection = settings.serve_connection(TokioIo::new(stream), service);
    let served = poll_fn(|context| connection.poll_without_shutdown(context));
    let mut outcome = timeout(requests_timeout, served).await;
    if outcome.is_err() {
        // Not in the middle of an answer, if its client reads it.
        Pin::new(&mut connection).graceful_shutdown();
        let served = poll_fn(|context| connection.poll_without_shutdown(context));
        outcome = timeout(LAST_WORD_TIMEOUT, served).await;
    }
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    match outcome {
        Ok(Ok(())) => {
            // A copy: the buffer is a part of hyper's, which would stay with it.
            return Some((stream, upgraded.take()?, parts.read_buf.to_vec()));
        }
        Ok(Err(error)) => {
            debug!(address = %peer.address, %error, "a request failed");
            match refusal(&error) {
                // It was kept for another request, and none has come.
                Some(Refusal::TooSlow) if has_asked.get() => {}
                Some(Refusal::TooSlow) => {
                    shared.refused.count(Refusal::TooSlow);
                    let _ = timeout(LAST_WORD_TIMEOUT, stream.write_all(TOO_SLOW)).await;
                }
                Some(reason) => shared.refused.count(reason),
                None => {}
            }
        }
        Err(_) => shared.refused.count(Refusal::TooSlow),
    }
    None
}

/// What is wrong with a request, if it is the request.
fn refusal(error: &hyper::Error) -> Option<Refusal> {
    match error {
        _ if error.is_timeout() => Some(Refusal::TooSlow),
        _ if error.is_parse_too_large() => Some(Refusal::HeadTooLarge),
        _ if error.is_parse() => Some(Refusal::Malformed),
        _ => None,
    }
}

fn http_settings(head_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}

// === impl Peer ===

impl Peer {
    /// Turns its place into that of a WebSocket.
    fn upgrade(&self, shared: &Shared, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut admission = self.admission.borrow_mut();
        let proxies = &shared.config.trusted_proxies;
        if shared.gate.counts_addresses() && is_trusted(proxies, self.address) {
            admission.set_address(forwarded::client_address(proxies, self.address, headers))?;
        }
        admission.upgrade()
    }
}

/// The answer; with what the client asked for if it is an upgrade.
fn respond(
    shared: &Shared,
    request: &Request<Incoming>,
    peer: &Peer,
) -> (Response<Body>, Option<Accepted>) {
    let path = request.uri().path();
    if path == shared.config.path {
        return match only_get(request) {
            Some(refusal) => (refusal, None),
            None => upgrade::respond(shared, request, peer),
        };
    }
    (respond_plain(shared, request, path), None)
}

fn respond_plain(shared: &Shared, request: &Request<Incoming>, path: &str) -> Response<Body> {
    let answer = match path {
        "/livez" => health::live(),
        "/readyz" => health::ready(shared),
        "/signal.js" => assets::client(),
        "/" if shared.config.demo_page => assets::page(),
        "/demo.js" if shared.config.demo_page => assets::script(),
        _ => return text(StatusCode::NOT_FOUND, "not found\n"),
    };
    only_get(request).unwrap_or(answer)
}

/// The refusal of any method but GET.
fn only_get(request: &Request<Incoming>) -> Option<Response<Body>> {
    (request.method() != Method::GET).then(|| {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is allowed\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        response
    })
}

pub(crate) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    respond_with(status, "text/plain; charset=utf-8", text)
}

pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    respond_with(status, "application/json", format!("{value}\n"))
}

pub(crate) fn respond_with(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(NO_PAGE));
    response
}
