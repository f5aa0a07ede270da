//! The admin port: publish, inspect, drain, numbers.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_server::Config;
use support::http::{admin, request};
use support::{Edge, Redis, Socket, config, until};

fn with_key() -> Config {
    let mut config = config();
    config.api_key = Some(Secret::new("key"));
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn the_publish_api_says_what_became_of_each_message() {
    let mut settings = with_key();
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
    let edge = Edge::with(with_key()).await;
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
    let edge = Edge::with(with_key()).await;
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
    let mut settings = with_key();
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
    let mut settings = with_key();
    settings.redis = redis.settings();
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

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_arrives_as_it_was_posted() {
    let mut settings = with_key();
    settings.api_rate = 10_000;
    let edge = Edge::with(settings).await;
    let mut socket = edge.login("u").await;
    let id = socket.id.clone();
    for data in
        ["12345678901234567890", "1.10", "-0", r#"{"b":1,"a":[ 2 ]}"#, r#""☕\u2028""#, "null"]
    {
        let body = format!(r#" {{"all":true,"event":"e\n","data":{data}}} "#);
        assert_eq!(admin(&edge, "POST", "/v1/publish", "key", &body).await.0, 200, "{body}");
        assert_eq!(socket.text().await, format!(r#"{{"event":"e\n","data":{data}}}"#));
    }
    // Without data there is none; exclude may be null.
    let body = format!(r#"{{"client":"{id}","event":"e","exclude":null}}"#);
    assert_eq!(admin(&edge, "POST", "/v1/publish", "key", &body).await.0, 200);
    assert_eq!(socket.text().await, r#"{"event":"e"}"#);
    let order: Vec<Value> =
        (0..1000).map(|number| json!({ "user": "u", "event": "n", "data": number })).collect();
    let (status, answer) =
        admin(&edge, "POST", "/v1/publish", "key", &Value::Array(order).to_string()).await;
    assert_eq!((status, answer["results"].as_array().map(Vec::len)), (200, Some(1000)));
    for number in 0..1000 {
        assert_eq!(socket.event("n").await, json!(number));
    }
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_body_is_refused_whole() {
    let edge = Edge::with(with_key()).await;
    let mut socket = edge.login("u").await;
    let item = r#"{"all":true,"event":"e"}"#;
    let many = format!("[{}{item}]", format!("{item},").repeat(1000));
    let deep = format!(r#"{{"all":true,"event":"e","data":{}}}"#, "[".repeat(100_000));
    for body in ["", " ", "{", "[", "nonsense", r#"{"all":true,"event":"e"} x"#, &many, &deep] {
        let (status, answer) = admin(&edge, "POST", "/v1/publish", "key", body).await;
        assert_eq!(status, 400, "{body:.40}");
        assert!(answer["error"].is_string());
    }
    assert_eq!(
        admin(&edge, "POST", "/v1/publish", "key", "[]").await,
        (200, json!({ "results": [] }))
    );
    assert_eq!(socket.settled(&edge.handle).await, []);
    // The key is a bearer's, as the header says.
    let head = "POST /v1/publish HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n";
    for authorization in ["", "Authorization: key\r\n", "Authorization: Basic key\r\n"] {
        let request = format!("{head}{authorization}\r\n{{}}");
        let answer = Socket::open(edge.admin, &request).await.1;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{authorization} {answer}");
    }
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_methods_are_told_apart() {
    let edge = Edge::with(with_key()).await;
    for (method, path, expected) in [
        ("GET", "/v1/info", 200),
        ("GET", "/metrics", 200),
        ("POST", "/v1/info", 405),
        ("POST", "/metrics", 405),
        ("DELETE", "/v1/publish", 405),
        ("POST", "/v1/connections", 405),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "/v1/publish/x", 404),
        ("POST", "/v2/publish", 404),
        // What is for clients is not here.
        ("GET", "/ws", 404),
        ("GET", "/livez", 404),
    ] {
        assert_eq!(request(edge.admin, method, path, "key", "").await.0, expected, "{path}");
    }
    let mut settings = config();
    settings.admin_listen = None;
    let closed = Edge::with(settings).await;
    assert_eq!(closed.admin, closed.address, "there is no other port");
    assert_eq!(request(closed.address, "GET", "/v1/info", "key", "").await.0, 404);
    edge.is_empty().await;
    closed.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn info_says_what_the_edge_is() {
    let edge = Edge::start().await;
    let socket = edge.member("u", &["r"]).await;
    let connecting = edge.connect().await;
    let (status, info) = admin(&edge, "GET", "/v1/info", "", "").await;
    assert_eq!(status, 200);
    assert_eq!(
        info,
        json!({
            "instance": edge.handle.instance(),
            "version": env!("CARGO_PKG_VERSION"),
            "workers": 2,
            "bus": "in-process",
            "notReady": [],
            "connections": { "authenticated": 1, "unauthorized": 1 },
            "rooms": 3,
            "users": 1,
            "channels": { "wanted": 0, "confirmed": 0 },
            "outboxBytes": info["outboxBytes"],
        })
    );
    socket.close().await;
    connecting.close().await;
    edge.is_empty().await;
}
