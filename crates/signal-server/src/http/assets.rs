//! What a browser loads from the client port, compiled in: the client, and the demo's page.

use hyper::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Body, respond_with};

const CLIENT: &str = include_str!("../../../../clients/js/dist/signal.js");
const PAGE: &str = include_str!("../../assets/demo.html");
const SCRIPT: &str = include_str!("../../assets/demo.js");

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The client of `signal.v1`: public, and of the edge's own version, so a page of any origin may import
/// it, and asks again after a while.
pub(super) fn client() -> Response<Body> {
    let mut response = respond_with(StatusCode::OK, JAVASCRIPT, CLIENT);
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

pub(super) fn page() -> Response<Body> {
    respond_with(StatusCode::OK, "text/html; charset=utf-8", PAGE)
}

pub(super) fn script() -> Response<Body> {
    respond_with(StatusCode::OK, JAVASCRIPT, SCRIPT)
}
