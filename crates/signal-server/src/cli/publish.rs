//! One `POST /v1/publish` to an edge, as a producer in any language would make it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Failure, host_and_port};

/// A request takes no longer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Posts the JSON text of a message (or a batch) to the admin port at `via`; returns the edge's answer.
pub(crate) async fn post(
    via: &Uri,
    key: &str,
    message: String,
) -> Result<serde_json::Value, Failure> {
    let request = post_unbounded(via, key, message);
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure::unavailable(format!("{via} did not answer in time"))),
    }
}

async fn post_unbounded(
    via: &Uri,
    key: &str,
    message: String,
) -> Result<serde_json::Value, Failure> {
    let (Some("http"), Some(authority)) = (via.scheme_str(), via.authority()) else {
        return Err(Failure::usage("--via takes an address like http://127.0.0.1:3001"));
    };
    let stream = TcpStream::connect(host_and_port(authority))
        .await
        .map_err(|error| Failure::unavailable(format!("no edge at {via}: {error}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Failure::other)?;
    let connection = tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri("/v1/publish")
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Bearer {key}"))
        .body(Full::new(Bytes::from(message)))
        .map_err(Failure::usage)?;
    let response = sender.send_request(request).await.map_err(Failure::unavailable)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let body = body.map_err(|error| Failure::unavailable(error.to_string()))?.to_bytes();
    let answer: serde_json::Value = serde_json::from_slice(&body)
        .map_err(|_| Failure::other(format!("{via} is no edge's admin port")))?;
    if status.is_success() && status != StatusCode::MULTI_STATUS {
        return Ok(answer);
    }
    let error = answer["error"].as_str().map_or_else(|| answer.to_string(), str::to_owned);
    Err(match status.as_u16() {
        400..500 => Failure::usage(error),
        _ => Failure::unavailable(error),
    })
}
