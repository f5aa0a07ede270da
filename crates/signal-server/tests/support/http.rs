//! Requests to the admin port, and to whatever speaks HTTP.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Edge, within};

/// Status and JSON of a request to the admin port.
pub async fn admin(edge: &Edge, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
    let (status, body) = request(edge.admin, method, path, key, body).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

/// Status and JSON of what a port answers to a GET.
pub async fn get_json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (status, body) = request(address, "GET", path, "", "").await;
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")))
}

/// Status and body of what a port answers; the key is sent as an API key.
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: &str,
    body: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\nAuthorization: Bearer {key}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    // A server may refuse, and close, before it has read all of a large body.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}
