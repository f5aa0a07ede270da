//! Looking at connections, and closing one: for people at three in the morning.
//!
//! A listing is bounded, and made of what workers say at that moment; nothing is kept.

use std::sync::Arc;

use hyper::{Response, StatusCode};
use serde_json::json;
use signal_core::close::CloseCode;
use signal_core::id::ClientId;

use super::admin::fail;
use super::{Body, json};
use crate::counts::ConnectionInfo;
use crate::server::Shared;

/// Connections in one listing.
const LIMIT_MAX: usize = 1000;
const LIMIT_DEFAULT: usize = 100;

/// `GET /v1/connections?user=&room=&client=&limit=`.
pub(super) async fn list(shared: &Arc<Shared>, query: Option<&str>) -> Response<Body> {
    let (mut user, mut room, mut client, mut limit) = (None, None, None, LIMIT_DEFAULT);
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(value) = percent_decoded(value) else {
            return fail(StatusCode::BAD_REQUEST, "the query is not percent-encoded UTF-8");
        };
        match name {
            "user" => user = Some(value),
            "room" => room = Some(value),
            "client" => match ClientId::parse(&value) {
                Some(id) => client = Some(id),
                None => return fail(StatusCode::BAD_REQUEST, "client is no client id of Signal"),
            },
            "limit" => match value.parse() {
                Ok(number) if (1..=LIMIT_MAX).contains(&number) => limit = number,
                _ => return fail(StatusCode::BAD_REQUEST, "limit is a number from 1 to 1000"),
            },
            _ => return fail(StatusCode::BAD_REQUEST, "known are user, room, client and limit"),
        }
    }
    let found = shared.handle().connections(user.as_deref(), room.as_deref(), client, limit).await;
    match found {
        Ok(found) => {
            let found: Vec<_> = found.iter().map(describe).collect();
            json(StatusCode::OK, &json!({ "connections": found }))
        }
        Err(error) => fail(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// `DELETE /v1/connections/{id}`.
pub(super) async fn close(shared: &Arc<Shared>, id: &str) -> Response<Body> {
    let Some(client) = ClientId::parse(id) else {
        return fail(StatusCode::BAD_REQUEST, "that is no client id of Signal");
    };
    match shared.handle().close(client, CloseCode::Kicked).await {
        Ok(true) => json(StatusCode::OK, &json!({ "closed": true })),
        Ok(false) => fail(StatusCode::NOT_FOUND, "no such client on this edge"),
        Err(error) => fail(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn describe(connection: &ConnectionInfo) -> serde_json::Value {
    json!({
        "client": connection.client.to_string(),
        "user": connection.user.as_deref(),
        "state": connection.state,
        "protocol": connection.variant.subprotocol().unwrap_or("plain"),
        "worker": connection.client.worker(),
        "ageSeconds": connection.age.as_secs(),
        "silenceSeconds": connection.silence.as_secs(),
        "rooms": connection.rooms.iter().map(|room| &**room).collect::<Vec<_>>(),
        "outboxBytes": connection.outbox_bytes,
        "receivedBytes": connection.received_bytes,
        "sentBytes": connection.sent_bytes,
    })
}

/// Undoes the encoding of a query's value (RFC 3986 §2.1, `+` for a space).
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
