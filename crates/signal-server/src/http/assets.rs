//! What a browser loads from the client port, compiled in: the client, and the demo's page.

use hyper::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue,
};
use hyper::{Response, StatusCode};

use super::{Body, respond_with};

const CLIENT: &str = include_str!("../../../../clients/js/dist/signal.js");
const PAGE: &str = include_str!("../../assets/demo.html");
const SCRIPT: &str = include_str!("../../assets/demo.js");

/// What the page may do: as its own `meta` says, and it stands in no frame, which only a header can say.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
    style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";
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
    let mut response = respond_with(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

pub(super) fn script() -> Response<Body> {
    respond_with(StatusCode::OK, JAVASCRIPT, SCRIPT)
}
