//! What the client port answers before a connection is a WebSocket, and instead.
//!
//! One connection is served on its worker with hyper, whose buffers are gone once it is upgraded: the
//! socket and what came behind the request are taken out, and the connection becomes the worker's. It
//! never reads a body and never keeps a request waiting; headers are bounded in number, size and time.

pub(crate) mod admin;
mod assets;
mod health;
mod inspect;
mod upgrade;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use signal_core::v1::Variant;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tracing::debug;

use crate::server::Shared;
use crate::worker::Worker;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Time to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Sent by hand, since hyper only closes a connection that is too slow.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

pub(crate) type Body = Full<Bytes>;

/// Serves a connection of the client port until it is done, or a WebSocket.
pub(crate) async fn serve(worker: Rc<Worker>, stream: std::net::TcpStream, address: SocketAddr) {
    let Some((stream, variant, mut early)) = serve_http(&worker, stream, address).await else {
        worker.shared().give_back(worker.id());
        return;
    };
    worker.open(stream, variant, &mut early);
}

/// Serves requests; returns the socket, how its client wants frames, and what came behind the request,
/// once it is upgraded.
async fn serve_http(
    worker: &Worker,
    stream: std::net::TcpStream,
    address: SocketAddr,
) -> Option<(TcpStream, Variant, Vec<u8>)> {
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "a connection could not be taken over");
            return None;
        }
    };
    let upgraded = Cell::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let (response, variant) = respond(worker.shared(), &request);
        upgraded.set(variant);
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut connection = http_settings().serve_connection(TokioIo::new(stream), service);
    let outcome = poll_fn(|context| connection.poll_without_shutdown(context)).await;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if let (Some(variant), Ok(())) = (upgraded.get(), &outcome) {
        // A copy: the buffer is a part of hyper's, which would stay with it.
        return Some((stream, variant, parts.read_buf.to_vec()));
    }
    if let Err(error) = outcome {
        debug!(%address, %error, "a request failed");
        if error.is_timeout() {
            let _ = stream.write_all(TOO_SLOW).await;
        }
    }
    None
}

fn http_settings() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}

/// The answer; with a variant if it is an upgrade.
fn respond(shared: &Shared, request: &Request<Incoming>) -> (Response<Body>, Option<Variant>) {
    let path = request.uri().path();
    if path == shared.config.path {
        return match only_get(request) {
            Some(refusal) => (refusal, None),
            None => upgrade::respond(shared, request),
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
    response
}
