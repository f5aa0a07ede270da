//! The demo's web page, compiled in.

use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use hyper::{Response, StatusCode};

use super::{Body, respond_with};

const PAGE: &str = include_str!("../../assets/demo.html");
const SCRIPT: &str = include_str!("../../assets/demo.js");

/// What the page may do: as its own `meta` says, and it stands in no frame, which only a header can say.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; \
    style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(super) fn page() -> Response<Body> {
    let mut response = respond_with(StatusCode::OK, "text/html; charset=utf-8", PAGE);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    response
}

pub(super) fn script() -> Response<Body> {
    respond_with(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}
