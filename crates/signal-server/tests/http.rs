//! What the client port answers over HTTP: every refusal with its status, probes, limits, drain.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::Duration;

use serde_json::json;
use signal_server::config::Origins;
use support::http::get_json;
use support::socket::upgrade;
use support::{Edge, Socket, config, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The head of the answer to a request's head.
async fn head(edge: &Edge, request: &str) -> String {
    Socket::open(edge.address, request).await.1.to_ascii_lowercase()
}

async fn status(edge: &Edge, request: &str) -> u16 {
    let head = head(edge, request).await;
    head.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("{head}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_has_its_status() {
    let edge = Edge::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let without = |line: &str| upgrade("/ws", &[]).replace(line, "");
    for (request, expected) in [
        (get("/"), 404),
        (get("/nothing"), 404),
        (get("/signal.js"), 200),
        (get("/demo.js"), 404),
        (get("/metrics"), 404),
        (get("/ws"), 426),
        (get("/livez"), 200),
        (get("/readyz"), 200),
        ("POST /ws HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
        ("DELETE /livez HTTP/1.1\r\nHost: edge\r\n\r\n".to_owned(), 405),
        (upgrade("/ws", &[]).replace("HTTP/1.1", "HTTP/1.0"), 400),
        (without("Connection: Upgrade\r\n"), 400),
        (without("Upgrade: websocket\r\n"), 426),
        (without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"), 400),
        (upgrade("/ws", &[]).replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (upgrade("/ws", &[]).replace("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub2!jZQ=="), 400),
        (without("Sec-WebSocket-Version: 13\r\n"), 426),
        (upgrade("/ws", &[]).replace("Version: 13", "Version: 8"), 426),
        (upgrade("/ws?token=secret", &[]), 101),
        (upgrade("/ws", &[("X-Padding", &"x".repeat(20_000))]), 431),
        (upgrade("/ws", &[("X-Header", "x"); 70]), 431),
        (upgrade("/ws", &[("X-Header", "x"); 58]), 101),
        ("HEAD /livez HTTP/1.1\r\nHost: edge\r\n\r\n".to_owned(), 405),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("\0\u{1}\u{2}\r\n\r\n".to_owned(), 400),
        ("GET /livez HTTP/9.9\r\n\r\n".to_owned(), 400),
    ] {
        let first = request.lines().next().unwrap_or_default().to_owned();
        assert_eq!(status(&edge, &request).await, expected, "{first}");
    }
    let answer = head(&edge, &get("/ws")).await;
    assert!(answer.contains("sec-websocket-version: 13\r\n"), "{answer}");
    let answer =
        head(&edge, "POST /livez HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n\r\n").await;
    assert!(answer.contains("allow: get\r\n"), "{answer}");
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_takes_too_long_is_given_up() {
    let edge = Edge::start().await;
    let (_, answer) = Socket::open(edge.address, "GET /ws HTTP/1.1\r\nHost: edge\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_sites_may_not_connect() {
    let listed = Origins::Listed(vec!["https://pos.example".to_owned()]);
    for (origins, origin, expected) in [
        (Origins::SameHost, "http://edge", 101),
        (Origins::SameHost, "HTTPS://EDGE", 101),
        (Origins::SameHost, "http://edge:81", 403),
        (Origins::SameHost, "http://evil.example", 403),
        (Origins::SameHost, "http://edge.evil.example", 403),
        (Origins::SameHost, "null", 403),
        (listed.clone(), "https://pos.example", 101),
        (listed.clone(), "http://pos.example", 403),
        (listed.clone(), "https://pos.example.evil", 403),
        (listed.clone(), "http://edge", 403),
        (Origins::Any, "null", 101),
    ] {
        let mut settings = config();
        settings.origins = origins.clone();
        let edge = Edge::with(settings).await;
        let request = upgrade("/ws", &[("Origin", origin)]);
        assert_eq!(status(&edge, &request).await, expected, "{origins:?} {origin}");
        // What sends no origin is no browser.
        assert_eq!(status(&edge, &upgrade("/ws", &[])).await, 101);
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_cap_connections_are_refused_and_the_edge_is_not_ready() {
    let mut settings = config();
    settings.max_connections = 2;
    let edge = Edge::with(settings).await;
    let one = edge.login("a").await;
    let two = edge.login("b").await;
    let refused = head(&edge, &upgrade("/ws", &[])).await;
    assert!(refused.starts_with("http/1.1 503 ") && refused.contains("retry-after: "), "{refused}");
    assert_eq!(edge.handle.readiness(), ["at the connection cap"]);
    one.close().await;
    until("there is room", async || edge.handle.readiness().is_empty()).await;
    edge.login("c").await.close().await;
    two.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_serves_several_requests() {
    let edge = Edge::start().await;
    let request = "GET /readyz HTTP/1.1\r\nHost: edge\r\n\r\n";
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let mut seen = String::new();
    for count in 1..=3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        while seen.matches("{\"ready\":true,\"reasons\":[]}").count() < count
            && seen.matches("{\"reasons\":[],\"ready\":true}").count() < count
        {
            let mut chunk = [0; 1024];
            let read = support::within("an answer", stream.read(&mut chunk)).await.unwrap();
            assert!(read > 0, "closed after {seen}");
            seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
        }
    }
    // And becomes a WebSocket after all.
    stream.write_all(upgrade("/ws", &[]).as_bytes()).await.unwrap();
    while !seen.contains("HTTP/1.1 101 ") {
        let mut chunk = [0; 1024];
        let read = support::within("an answer", stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    drop(stream);
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn live_says_nothing_of_what_ready_says() {
    let mut settings = config();
    settings.max_connections = 1;
    let edge = Edge::with(settings).await;
    assert_eq!(get_json(edge.address, "/livez").await, (200, json!({ "live": true })));
    let ready = json!({ "ready": true, "reasons": [] });
    assert_eq!(get_json(edge.address, "/readyz").await, (200, ready.clone()));
    let socket = edge.login("u").await;
    let full = json!({ "ready": false, "reasons": ["at the connection cap"] });
    assert_eq!(get_json(edge.address, "/readyz").await, (503, full));
    assert_eq!(get_json(edge.address, "/livez").await.0, 200);
    socket.close().await;
    until("it is ready", async || get_json(edge.address, "/readyz").await == (200, ready.clone()))
        .await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_refuses_once_its_delay_is_over() {
    let draining = (503, json!({ "ready": false, "reasons": ["draining"] }));
    let mut settings = config();
    settings.drain_delay = Duration::from_hours(1);
    let mut waiting = Edge::with(settings.clone()).await;
    waiting.begin_stop();
    until("it drains", async || get_json(waiting.address, "/readyz").await == draining).await;
    // A balancer that has not noticed yet still sends clients, and they are served.
    let mut served = waiting.login("u").await;
    waiting.handle.broadcast("e", &1).await.unwrap();
    assert_eq!(served.event("e").await, json!(1));
    served.close().await;
    waiting.is_empty().await;

    settings.drain_delay = Duration::ZERO;
    settings.drain_window = Duration::from_hours(1);
    let mut refusing = Edge::with(settings).await;
    let connected = refusing.login("u").await;
    refusing.begin_stop();
    until("it refuses", async || status(&refusing, &upgrade("/ws", &[])).await == 503).await;
    let refused = head(&refusing, &upgrade("/ws", &[])).await;
    assert!(refused.contains("retry-after: "), "{refused}");
    assert_eq!(get_json(refusing.address, "/readyz").await, draining);
    assert_eq!(get_json(refusing.address, "/livez").await.0, 200);
    // The last client goes, and the edge does not wait for the rest of its window.
    connected.close().await;
    refusing.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_behind_the_request_are_not_lost() {
    let edge = Edge::start().await;
    let login = r#"{"event":"authenticate","data":{"userId":"early"}}"#;
    let mut stream = TcpStream::connect(edge.address).await.unwrap();
    let mut bytes = upgrade("/ws", &[]).into_bytes();
    bytes.extend(support::socket::frame(0x81, login.as_bytes()));
    // And the next frame begins in the same segment.
    let heartbeat = support::socket::frame(0x89, b"ping");
    bytes.extend(&heartbeat[..3]);
    stream.write_all(&bytes).await.unwrap();
    stream.write_all(&heartbeat[3..]).await.unwrap();
    let mut seen = String::new();
    while !seen.ends_with("ping") {
        let mut chunk = [0; 1024];
        let read = support::within("an answer", stream.read(&mut chunk)).await.unwrap();
        assert!(read > 0, "closed after {seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    assert!(seen.contains(r#""userId":"early""#), "{seen}");
    drop(stream);
    edge.is_empty().await;
}

/// Each is given up or answered; none keeps a place.
#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_peers_that_go_leave_nothing() {
    let edge = Edge::start().await;
    let mut garbage: u32 = 1;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            garbage = garbage.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            garbage.to_be_bytes()[0]
        })
        .take(2000)
        .collect();
        let _ = stream.write_all(&bytes).await;
    }
    for end in [0, 1, 20, 100] {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(&upgrade("/ws", &[]).as_bytes()[..end]).await.unwrap();
    }
    edge.login("u").await.close().await;
    edge.is_empty().await;
    edge.stop().await;
}
