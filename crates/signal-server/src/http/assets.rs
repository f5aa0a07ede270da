//! The demo's web page, compiled in.

use hyper::{Response, StatusCode};

use super::{Body, respond_with};

const PAGE: &str = include_str!("../../assets/demo.html");
const SCRIPT: &str = include_str!("../../assets/demo.js");

pub(super) fn page() -> Response<Body> {
    respond_with(StatusCode::OK, "text/html; charset=utf-8", PAGE)
}

pub(super) fn script() -> Response<Body> {
    respond_with(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT)
}
