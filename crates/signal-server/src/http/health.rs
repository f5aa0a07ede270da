//! `/livez` and `/readyz`.
//!
//! Live says that this process serves, and depends on nothing else: an orchestrator that kills edges
//! because Redis is away only makes it worse. Ready says whether a new connection would be served
//! well, with the reasons if not.

use hyper::{Response, StatusCode};
use serde_json::json;

use super::{Body, json};
use crate::server::Shared;

pub(super) fn live() -> Response<Body> {
    json(StatusCode::OK, &json!({ "live": true }))
}

pub(super) fn ready(shared: &Shared) -> Response<Body> {
    let reasons = shared.not_ready();
    let ready = reasons.is_empty();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &json!({ "ready": ready, "reasons": reasons }))
}
