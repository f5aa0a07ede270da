//! What the two ports answer over HTTP: every refusal with its status, probes, publish, metrics.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::{Value, json};
use signal_server::config::Origins;
use support::socket::upgrade;
use support::{Edge, Redis, Socket, config, until};
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

/// Status and JSON of a request to the admin port.
async fn admin(edge: &Edge, method: &str, path: &str, key: &str, body: &str) -> (u16, Value) {
    let (status, body) = request(edge.admin, method, path, key, body).await;
    (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
}

async fn request(
    address: std::net::SocketAddr,
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
    let _ = support::within("an answer", stream.read_to_end(&mut answer)).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_request_has_its_status() {
    let edge = Edge::start().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
    let without = |line: &str| upgrade("/ws", &[]).replace(line, "");
    for (request, expected) in [
        (get("/"), 404),
        (get("/nothing"), 404),
        (get("/signal.js"), 404),
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
        ("nonsense\r\n\r\n".to_owned(), 400),
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
    let mut chunk = [0; 1024];
    let read = support::within("an answer", stream.read(&mut chunk)).await.unwrap();
    assert!(chunk[..read].starts_with(b"HTTP/1.1 101 "));
    drop(stream);
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publish_api_says_what_became_of_each_message() {
    let mut settings = config();
    settings.api_key = Some(signal_core::redis::Secret::new("key"));
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let mut socket = edge.member("u", &["r"]).await;
    let id = socket.id.clone();
    let post =
        async |body: Value| admin(&edge, "POST", "/v1/publish", "key", &body.to_string()).await;

    assert_eq!(post(json!({ "room": "r", "event": "e", "data": 1 })).await.0, 200);
    assert_eq!(post(json!({ "user": "u", "event": "e", "data": 2 })).await.0, 200);
    assert_eq!(post(json!({ "client": id, "event": "e", "data": 3 })).await.0, 200);
    assert_eq!(post(json!({ "all": true, "event": "e", "data": 4 })).await.0, 200);
    assert_eq!(post(json!({ "room": "r", "event": "e", "data": 0, "exclude": [id] })).await.0, 200);
    for number in 1..=4 {
        assert_eq!(socket.event("e").await, json!(number));
    }
    let (status, answer) = post(json!([
        { "room": "r", "event": "e", "data": 5 }, { "room": "r" }, 7, { "room": "r", "event": "e", "data": 6 },
    ]))
    .await;
    let ok: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|result| &result["ok"]).collect();
    assert_eq!((status, ok), (207, vec![&json!(true), &json!(false), &json!(false), &json!(true)]));
    for number in 5..=6 {
        assert_eq!(socket.event("e").await, json!(number));
    }
    for bad in [
        json!({ "event": "e" }),
        json!({ "room": "r", "user": "u", "event": "e" }),
        json!({ "room": "", "event": "e" }),
        json!({ "room": "r", "event": "" }),
        json!({ "room": "r", "event": "e", "date": 1 }),
        json!("text"),
    ] {
        let (status, answer) = post(bad.clone()).await;
        assert_eq!((status, &answer["ok"]), (400, &json!(false)), "{bad}");
        assert!(answer["error"].is_string());
    }
    let large = json!({ "room": "r", "event": "e", "data": "x".repeat(600_000) });
    assert_eq!(post(large).await.0, 413);
    let huge = format!("[{}]", " ".repeat(5_000_000));
    assert_eq!(admin(&edge, "POST", "/v1/publish", "key", &huge).await.0, 413);
    for key in ["", "kex", "key2"] {
        assert_eq!(admin(&edge, "POST", "/v1/publish", key, "{}").await.0, 401, "{key}");
    }
    assert_eq!(admin(&edge, "GET", "/v1/publish", "key", "").await.0, 405);
    assert_eq!(admin(&edge, "GET", "/nothing", "key", "").await.0, 404);
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_listed_and_closed() {
    let mut settings = config();
    settings.api_key = Some(signal_core::redis::Secret::new("key"));
    let edge = Edge::with(settings).await;
    let mut ann = edge.member("ann b", &["branch:1"]).await;
    let bob = edge.member("bob", &["branch:1"]).await;
    let connecting = edge.connect().await;
    let list = async |query: &str| {
        let (status, answer) =
            admin(&edge, "GET", &format!("/v1/connections{query}"), "", "").await;
        let found = answer["connections"].as_array().cloned().unwrap_or_default();
        (status, found)
    };
    assert_eq!(list("").await.1.len(), 3);
    assert_eq!(list("?limit=2").await.1.len(), 2);
    assert_eq!(list("?room=branch:1").await.1.len(), 2);
    assert_eq!(list("?room=branch%3A1&user=bob").await.1.len(), 1);
    assert_eq!(list("?user=nobody").await, (200, vec![]));
    let (_, found) = list("?user=ann+b").await;
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&found["client"], &found["state"]), (&json!(ann.id), &json!("authenticated")));
    assert_eq!(found["rooms"].as_array().unwrap().len(), 3);
    assert!(found["receivedBytes"].as_u64() > Some(0) && found["sentBytes"].as_u64() > Some(0));
    for bad in ["?limit=0", "?limit=x", "?client=x", "?name=x", "?user=%f", "?user=%ff"] {
        assert_eq!(list(bad).await.0, 400, "{bad}");
    }
    let path = format!("/v1/connections/{}", ann.id);
    assert_eq!(admin(&edge, "DELETE", &path, "wrong", "").await.0, 401);
    assert_eq!(admin(&edge, "DELETE", &path, "key", "").await.0, 200);
    assert_eq!(ann.closed().await, (4501, "Kicked".to_owned()));
    ann.end().await;
    assert_eq!(admin(&edge, "DELETE", &path, "key", "").await.0, 404);
    assert_eq!(admin(&edge, "DELETE", "/v1/connections/x", "key", "").await.0, 400);
    assert_eq!(admin(&edge, "POST", &path, "key", "").await.0, 405);
    bob.close().await;
    connecting.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_can_be_asked_for() {
    let mut settings = config();
    settings.api_key = Some(signal_core::redis::Secret::new("key"));
    let edge = Edge::with(settings).await;
    let mut socket = edge.login("u").await;
    assert_eq!(admin(&edge, "POST", "/v1/drain", "", "").await.0, 401);
    assert_eq!(admin(&edge, "GET", "/v1/drain", "key", "").await.0, 405);
    assert_eq!(admin(&edge, "POST", "/v1/drain", "key", "").await.0, 202);
    assert_eq!(socket.closed().await.0, 1001);
    socket.end().await;
    edge.ended().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publish_api_has_a_rate() {
    let mut settings = config();
    settings.api_key = Some(signal_core::redis::Secret::new("key"));
    settings.api_rate = 3;
    let edge = Edge::with(settings).await;
    let item = json!({ "room": "r", "event": "e" });
    let post =
        async |body: Value| admin(&edge, "POST", "/v1/publish", "key", &body.to_string()).await.0;
    assert_eq!(post(json!([item, item, item, item])).await, 429);
    assert_eq!(post(json!([item, item, item])).await, 200);
    assert_eq!(post(item.clone()).await, 429);
    until("it refills", async || post(item.clone()).await == 200).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_the_publish_api_is_off() {
    let edge = Edge::start().await;
    let (status, answer) = admin(&edge, "POST", "/v1/publish", "", "{}").await;
    assert_eq!(status, 403);
    assert!(answer["error"].as_str().unwrap().contains("SIGNAL_API_KEY"));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_bus_away_a_publish_is_accepted_for_this_edge() {
    let mut redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.api_key = Some(signal_core::redis::Secret::new("key"));
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut socket = edge.member("u", &["r"]).await;
    redis.kill();
    until("the publisher notices", async || {
        edge.handle.readiness().iter().any(|reason| reason.contains("publisher"))
    })
    .await;
    let body = json!({ "room": "r", "event": "e", "data": 1 }).to_string();
    let (status, answer) = admin(&edge, "POST", "/v1/publish", "key", &body).await;
    assert_eq!((status, &answer["bus"]), (202, &json!(false)));
    assert_eq!(socket.event("e").await, json!(1));
    socket.close().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_those_that_the_document_lists() {
    let edge = Edge::start().await;
    let socket = edge.member("u", &["r"]).await;
    let (status, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    assert_eq!(status, 200);
    let document = include_str!("../../../docs/metrics.md");
    let listed: std::collections::BTreeSet<&str> = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split('|').nth(1).unwrap_or_default().split('`'))
        .filter(|word| word.starts_with("signal_"))
        .map(|word| word.split('{').next().unwrap_or_default())
        .collect();
    let served: std::collections::BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(served, listed);
    // The markers with which the harness waited for the join.
    let published = page.lines().find_map(|line| {
        line.strip_prefix("signal_publishes_total{result=\"taken\",kind=\"room\"} ")
    });
    assert!(published.and_then(|count| count.parse::<u64>().ok()) >= Some(2), "{page}");
    assert!(page.contains("\nsignal_connections{state=\"authenticated\"} 1\n"), "{page}");
    let (_, info) = admin(&edge, "GET", "/v1/info", "", "").await;
    assert_eq!(info["connections"], json!({ "authenticated": 1 }));
    assert_eq!(info["instance"], edge.handle.instance());
    socket.close().await;
    edge.is_empty().await;
}
