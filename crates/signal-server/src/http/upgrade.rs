//! The WebSocket handshake (RFC 6455 §4.2), and who is refused it.
//!
//! It decides by the request's head alone, in this order: is it an upgrade, is it well formed, may its
//! page connect, is there room, and for one more of this address and in this second. Who is refused is
//! not kept: the connection ends behind the answer. A name of a subprotocol that is not known is not
//! echoed. A client of `signal.v1` may bring a token; it is taken along unread, and neither echoed nor
//! logged. The query is never looked at.

use fastwebsockets::upgrade::upgrade;
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{Request, Response, StatusCode, Version};
use signal_core::redis::Secret;
use signal_core::v1::{TOKEN_PREFIX, Variant};
use std::sync::atomic::Ordering;

use super::{Body, Peer, text};
use crate::config::Origins;
use crate::server::{Refusal, Shared};

/// Seconds after which a refused client may try again.
const RETRY_AFTER_SECONDS: &str = "5";

/// The same, where the next second has room for others.
const RETRY_AFTER_SECOND: &str = "1";

/// Characters of a key: 16 bytes in base64.
const KEY_CHARACTERS: usize = 24;

/// A client that is let in, not logged in.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// How it is to be spoken to.
    pub(crate) variant: Variant,
    /// What it wants to log in with, if it has brought that along.
    pub(crate) token: Option<Secret>,
}

/// The answer; with what the client asked for, if it is accepted.
pub(super) fn respond(
    shared: &Shared,
    request: &Request<Incoming>,
    peer: &Peer,
) -> (Response<Body>, Option<Accepted>) {
    match check(shared, request, peer) {
        Ok(()) => accept(shared, request.headers()),
        Err((reason, mut response)) => {
            shared.refused.count(reason);
            // Who is refused is not kept for another request.
            let close = HeaderValue::from_static("close");
            response.headers_mut().entry(CONNECTION).or_insert(close);
            (*response, None)
        }
    }
}

type Refused = (Refusal, Box<Response<Body>>);

fn check(shared: &Shared, request: &Request<Incoming>, peer: &Peer) -> Result<(), Refused> {
    let headers = request.headers();
    let refuse = |status, why: &'static str| Err((Refusal::Malformed, Box::new(text(status, why))));
    if request.version() != Version::HTTP_11 {
        return refuse(StatusCode::BAD_REQUEST, "a WebSocket needs HTTP/1.1\n");
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err(upgrade_required("this is a WebSocket: connect with ws:// or wss://\n"));
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return refuse(StatusCode::BAD_REQUEST, "the Connection header must say upgrade\n");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
        return Err(upgrade_required("the WebSocket version must be 13\n"));
    }
    if !headers.get(SEC_WEBSOCKET_KEY).is_some_and(is_key) {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key must be 16 bytes in base64\n");
    }
    if !is_origin_allowed(&shared.config.origins, headers) {
        let refusal = text(StatusCode::FORBIDDEN, "pages of this origin may not connect\n");
        return Err((Refusal::Origin, Box::new(refusal)));
    }
    if shared.refusing.load(Ordering::Relaxed) {
        return Err((Refusal::Draining, unavailable("draining\n")));
    }
    if shared.is_full() {
        return Err((Refusal::Cap, unavailable("at the connection cap\n")));
    }
    // Last, so that only what would be accepted counts against the rate.
    peer.upgrade(shared, headers).map_err(|reason| match reason {
        Refusal::PerAddress => (reason, unavailable("too many connections of this address\n")),
        Refusal::AcceptRate => {
            let mut response = unavailable("too many connections at once\n");
            let next_second = HeaderValue::from_static(RETRY_AFTER_SECOND);
            response.headers_mut().insert(RETRY_AFTER, next_second);
            (reason, response)
        }
        reason => (reason, unavailable("too many connections that have not logged in\n")),
    })
}

fn accept(shared: &Shared, headers: &HeaderMap) -> (Response<Body>, Option<Accepted>) {
    // The library only computes the answer to the key here; the connection is taken over elsewhere.
    let mut request = Request::new(());
    *request.headers_mut() = headers.clone();
    let Ok((response, _)) = upgrade(&mut request) else {
        return (text(StatusCode::BAD_REQUEST, "bad WebSocket handshake\n"), None);
    };
    let mut response = response.map(|_| Body::default());
    let (variant, protocol) = subprotocol(&shared.config.subprotocols, headers);
    if let Some(protocol) = protocol {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let token = if variant.is_v1() { token(headers) } else { None };
    (response, Some(Accepted { variant, token }))
}

/// The token that a client brings: as a name among its subprotocols, else as a bearer's. The first of
/// the former counts, since the client itself has written it; a proxy may add the latter.
fn token(headers: &HeaderMap) -> Option<Secret> {
    let offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .find_map(|name| name.strip_prefix(TOKEN_PREFIX))
        .or_else(|| {
            let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
    offered.filter(|token| !token.is_empty()).map(Secret::new)
}

/// The first subprotocol that the client offers and that is known: of Signal, or named by the settings
/// to mean the plain protocol. Without one it is the plain protocol.
fn subprotocol(known: &[String], headers: &HeaderMap) -> (Variant, Option<HeaderValue>) {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL)
        .filter(|offered| !offered.starts_with(TOKEN_PREFIX))
        .find_map(|offered| {
            let variant = match Variant::from_subprotocol(offered) {
                None if known.iter().any(|name| name == offered) => Variant::Plain,
                variant => variant?,
            };
            Some((variant, Some(HeaderValue::from_str(offered).ok()?)))
        })
        .unwrap_or_default()
}

/// A page may connect to the host that served it, or as the settings say. What sends no origin is no
/// page.
fn is_origin_allowed(origins: &Origins, headers: &HeaderMap) -> bool {
    let mut found = headers.get_all(ORIGIN).into_iter();
    let Some(origin) = found.next() else { return true };
    if found.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return false };
    let origin = origin.to_ascii_lowercase();
    match origins {
        Origins::Any => true,
        Origins::Listed(allowed) => allowed.contains(&origin),
        Origins::SameHost => {
            let host = headers.get(HOST).and_then(|host| host.to_str().ok());
            let of_origin =
                origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            host.is_some_and(|host| of_origin == Some(host.to_ascii_lowercase().as_str()))
        }
    }
}

fn is_key(key: &HeaderValue) -> bool {
    let key = key.as_bytes();
    key.len() == KEY_CHARACTERS
        && key.ends_with(b"==")
        && key[..KEY_CHARACTERS - 2]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

/// The items of a header that is a list, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

fn upgrade_required(why: &'static str) -> Refused {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, why);
    let headers = response.headers_mut();
    headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    (Refusal::Malformed, Box::new(response))
}

fn unavailable(why: &'static str) -> Box<Response<Body>> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    Box::new(response)
}
