//! `POST /v1/revoke`: a service withdraws credentials.
//!
//! The body is read like that of a publish, bounded in size and time, and counts against its rate.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;
use signal_core::revocation::Subject;

use super::admin::{fail, read_body, too_many, unauthorized};
use super::{Body, json};
use crate::handle::{SendError, Sent};
use crate::server::Shared;

/// What is to be revoked: exactly one of these.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    user: Option<String>,
    client: Option<String>,
    token: Option<String>,
}

pub(super) async fn revoke(shared: &Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    if let Some(refusal) = unauthorized(shared, &request) {
        return refusal;
    }
    let body = match read_body(request).await {
        Ok(body) => body,
        Err(refusal) => return *refusal,
    };
    let subject = match serde_json::from_slice::<Item>(&body) {
        Ok(Item { user: Some(user), client: None, token: None }) => Subject::User(user.into()),
        Ok(Item { user: None, client: Some(id), token: None }) => Subject::Client(id.into()),
        Ok(Item { user: None, client: None, token: Some(id) }) => Subject::Token(id.into()),
        Ok(_) => {
            let error = "exactly one of user, client and token has to be given";
            return fail(StatusCode::BAD_REQUEST, error);
        }
        Err(error) => return fail(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    if !shared.api_allowance.lock().take(1, shared.config.api_rate) {
        return too_many();
    }
    match shared.handle().revoke(subject).await {
        Ok(Sent::Published(published)) => {
            json(StatusCode::OK, &json!({ "ok": true, "receivers": published.receivers }))
        }
        Ok(Sent::Local) => json(StatusCode::OK, &json!({ "ok": true, "receivers": 1 })),
        Ok(Sent::LocalOnly) => json(StatusCode::ACCEPTED, &json!({ "ok": true, "bus": false })),
        Err(error @ SendError::Revocation(_)) => fail(StatusCode::BAD_REQUEST, &error.to_string()),
        // This edge has obeyed; whether the others have is not known.
        Err(error) => fail(StatusCode::BAD_GATEWAY, &error.to_string()),
    }
}
