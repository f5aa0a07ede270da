//! The admin port: publish, numbers, for services in other languages and for operators.
//!
//! Served on the runtime of the caller of [`Signal::run`](crate::Signal::run), apart from the workers.
//! A request's body is bounded, and a publish goes through the same handle as everyone's. Without an
//! API key the publish API is off; nothing here is for the open network.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use signal_core::channel::Target;
use tracing::{Instrument as _, debug, info_span, warn};

use super::{Body, HEAD_TIMEOUT, http_settings, inspect, json, respond_with, revoke, text};
use crate::bus::PublishError;
use crate::handle::{Publication, SendError, Sent};
use crate::server::Shared;

/// Bytes of a request's body: a batch of a few of the largest envelopes.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Items in one request.
const ITEMS_MAX: usize = 1000;

/// Time to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// One message, as producers post it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    room: Option<String>,
    user: Option<String>,
    client: Option<String>,
    #[serde(default)]
    all: bool,
    event: String,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(default)]
    exclude: Option<Vec<String>>,
}

/// A value that is there, even if it is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Serves the admin port until it is dropped.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return warn!(%error, "the admin port cannot be served"),
    };
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept a connection on the admin port");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(Box::pin(respond(&shared, request)).await) }
            });
            let connection =
                http_settings(HEAD_TIMEOUT).serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                debug!(%error, "a request on the admin port failed");
            }
        });
    }
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    const PATHS: [&str; 6] =
        ["/v1/publish", "/v1/revoke", "/v1/info", "/v1/connections", "/v1/drain", "/metrics"];
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (method, path.as_str()) {
        (Method::POST, "/v1/publish") => Box::pin(publish(shared, request)).await,
        (Method::POST, "/v1/revoke") => revoke::revoke(shared, request).await,
        (Method::POST, "/v1/drain") => drain(shared, &request),
        (Method::GET, "/v1/info") => info(shared).await,
        (Method::GET, "/v1/connections") => inspect::list(shared, request.uri().query()).await,
        (Method::GET, "/metrics") => metrics(shared).await,
        (method, path) => match path.strip_prefix("/v1/connections/") {
            Some(id) if method == Method::DELETE => match unauthorized(shared, &request) {
                Some(refusal) => refusal,
                None => inspect::close(shared, id).await,
            },
            None if !PATHS.contains(&path) => text(StatusCode::NOT_FOUND, "not found\n"),
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "wrong method\n"),
        },
    }
}

/// Begins the drain; the answer does not wait for it.
fn drain(shared: &Arc<Shared>, request: &Request<Incoming>) -> Response<Body> {
    if let Some(refusal) = unauthorized(shared, request) {
        return refusal;
    }
    shared.handle().drain();
    json(StatusCode::ACCEPTED, &json!({ "draining": true }))
}

async fn metrics(shared: &Arc<Shared>) -> Response<Body> {
    match shared.handle().counts().await {
        Ok(counts) => {
            let body = crate::metrics::render(shared, &counts);
            respond_with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        Err(error) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn info(shared: &Arc<Shared>) -> Response<Body> {
    let counts = match shared.handle().counts().await {
        Ok(counts) => counts,
        Err(error) => return text(StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    };
    let info = json!({
        "instance": shared.instance.name,
        "version": env!("CARGO_PKG_VERSION"),
        "workers": shared.queues.len(),
        "bus": if shared.redis.is_some() { "redis" } else { "in-process" },
        "notReady": shared.not_ready(),
        "connections": counts.connections,
        "rooms": counts.rooms,
        "users": counts.users,
        "channels": { "wanted": counts.channels_wanted, "confirmed": counts.channels_confirmed },
        "outboxBytes": counts.outbox_bytes,
    });
    json(StatusCode::OK, &info)
}

async fn publish(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if let Some(refusal) = unauthorized(shared, &request) {
        return refusal;
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let allowed = |count| shared.api_allowance.lock().take(count, shared.config.api_rate);
    let is_batch = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !is_batch {
        return match serde_json::from_slice::<Item<'_>>(&body) {
            Ok(_) if !allowed(1) => too_many(),
            Ok(item) => {
                let (status, answer) = publish_item(shared, &item).await;
                json(status, &answer)
            }
            Err(error) => fail(StatusCode::BAD_REQUEST, &error.to_string()),
        };
    }
    match serde_json::from_slice::<Vec<&RawValue>>(&body) {
        Ok(items) if items.len() <= ITEMS_MAX && !allowed(items.len()) => too_many(),
        Ok(items) if items.len() <= ITEMS_MAX => publish_batch(shared, &items).await,
        Ok(_) => fail(StatusCode::BAD_REQUEST, "a batch has at most 1000 items"),
        Err(error) => fail(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

/// A request's body, bounded in size and time; else the answer to give.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Box<Response<Body>>> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let refusal = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => return Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            fail(StatusCode::PAYLOAD_TOO_LARGE, "the body is over 4 MiB")
        }
        Ok(Err(error)) => fail(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => fail(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
    };
    Err(Box::new(refusal))
}

/// Publishes items one after another, so that they keep their order; each has its own result.
async fn publish_batch(shared: &Arc<Shared>, items: &[&RawValue]) -> Response<Body> {
    let mut worst = StatusCode::OK;
    let mut results = Vec::with_capacity(items.len());
    for item in items {
        let (status, answer) = match serde_json::from_str::<Item<'_>>(item.get()) {
            Ok(item) => publish_item(shared, &item).await,
            Err(error) => {
                (StatusCode::BAD_REQUEST, json!({ "ok": false, "error": error.to_string() }))
            }
        };
        worst = worst.max(status);
        results.push(answer);
    }
    let status = if worst.is_success() { worst } else { StatusCode::MULTI_STATUS };
    json(status, &json!({ "results": results }))
}

async fn publish_item(shared: &Arc<Shared>, item: &Item<'_>) -> (StatusCode, serde_json::Value) {
    let refuse = |error: &str| (StatusCode::BAD_REQUEST, json!({ "ok": false, "error": error }));
    let target = match (&item.room, &item.user, &item.client, item.all) {
        (Some(room), None, None, false) => Target::Room(room),
        (None, Some(user), None, false) => Target::User(user),
        (None, None, Some(client), false) => Target::Client(client),
        (None, None, None, true) => Target::Broadcast,
        _ => return refuse("exactly one of room, user, client and all has to be given"),
    };
    let exclude = item.exclude.iter().flatten();
    let mut publication = Publication::to(target, item.event.as_str()).exclude(exclude);
    if let Some(data) = item.data {
        publication = publication.json(data);
    }
    let published = shared.handle().publish(publication).instrument(info_span!("publish")).await;
    match published {
        Ok(Sent::Local) => (StatusCode::OK, json!({ "ok": true, "receivers": 1 })),
        Ok(Sent::Published(published)) => {
            (StatusCode::OK, json!({ "ok": true, "receivers": published.receivers }))
        }
        Ok(Sent::LocalOnly) => (StatusCode::ACCEPTED, json!({ "ok": true, "bus": false })),
        Err(error) => {
            let status = match &error {
                SendError::Publish(PublishError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
                SendError::Publish(_) | SendError::Ended => StatusCode::BAD_GATEWAY,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, json!({ "ok": false, "error": error.to_string() }))
        }
    }
}

pub(super) fn too_many() -> Response<Body> {
    let mut response = fail(StatusCode::TOO_MANY_REQUESTS, "over SIGNAL_API_RATE, try again");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

pub(super) fn unauthorized(shared: &Shared, request: &Request<Incoming>) -> Option<Response<Body>> {
    let Some(key) = &shared.config.api_key else {
        return Some(fail(StatusCode::FORBIDDEN, "this API is off: set SIGNAL_API_KEY"));
    };
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    (!same(given.as_bytes(), key.expose().as_bytes()))
        .then(|| fail(StatusCode::UNAUTHORIZED, "the API key is missing or wrong"))
}

/// Compares in a time that does not tell where the first difference is.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

pub(super) fn fail(status: StatusCode, error: &str) -> Response<Body> {
    json(status, &json!({ "ok": false, "error": error }))
}
