//! Logins that a service decides: what it is asked, what its answers mean, and what it cannot do.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use signal_server::Config;
use signal_server::config::{Auth, WebhookSettings};
use support::http::request;
use support::web::{Reply, Web};
use support::{Edge, Socket, config, until, within};

const V1: &str = "signal.v1.json";

fn asking(web: &Web) -> Config {
    asking_at(&web.url("/login?of=signal"), Duration::from_secs(20))
}

fn asking_at(url: &str, timeout: Duration) -> Config {
    let mut config = config();
    config.rooms = vec![];
    config.auth_timeout = Duration::from_secs(20);
    let url = url.parse().expect("a URL");
    config.auth = Auth::Webhook(WebhookSettings { url, timeout });
    config
}

fn answer(value: &Value) -> Reply {
    Reply::Answer(200, value.to_string())
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("64 bits")
}

async fn authenticate(socket: &mut Socket, data: &Value) {
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
}

/// A login that must not work; `error` is what is said of it.
async fn refused(edge: &Edge, error: &str) {
    let mut socket = edge.connect().await;
    authenticate(&mut socket, &json!({ "token": "t" })).await;
    socket.error(error).await;
    assert_eq!(socket.closed().await, (4003, "Authentication failed".to_owned()));
    socket.end().await;
}

async fn outcomes(edge: &Edge, result: &str) -> u64 {
    let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    let name = format!("signal_webhook_requests_total{{result=\"{result}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name)).expect("a metric");
    line.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_about_the_credentials_and_its_answer_is_the_grant() {
    let expires = now() + 3_600_000;
    let web = Web::start(answer(&json!({
        "userId": "u-7",
        "rooms": ["branch:*", "user:{user}"],
        "join": ["branch:12", "ws:room:x", "", "branch:12"],
        "expires": expires,
        "metadata": { "tills": [1, 2] },
        "more": "is passed over",
    })))
    .await;
    let edge = Edge::with(asking(&web)).await;
    let mut socket = Socket::connect_as(edge.address, V1).await;
    let credentials = json!({ "token": "t\u{e9}\"", "deep": { "numbers": [1.5, 10] } });
    authenticate(&mut socket, &credentials).await;
    let connected = socket.event("connected").await;
    assert_eq!(connected["userId"], "u-7");
    assert_eq!(connected["expires"], json!(expires));

    let asked = web.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line, "POST /login?of=signal HTTP/1.1");
    let head = asked[0].head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/json\r\n"), "{head}");
    assert!(head.contains(&format!("host: {}\r\n", web.address)), "{head}");
    let question: Value = serde_json::from_str(&asked[0].body).expect("JSON");
    assert_eq!(question, json!({ "clientId": connected["id"], "credentials": credentials }));

    // It is in the room that was assigned, and may join those that were granted.
    edge.handle.send_to_room("branch:12", "e", &1).await.unwrap();
    assert_eq!(socket.event("e").await, json!(1));
    let join = json!({ "event": "join", "data": { "rooms": ["branch:1", "user:u-7", "user:u-8", "lobby"] }, "id": 1 });
    let (_, joined) = socket.ask(join).await;
    assert_eq!(joined["rooms"], json!(["branch:1", "user:u-7"]));
    assert_eq!(joined["denied"], json!(["user:u-8", "lobby"]));
    socket.close().await;
    assert_eq!(outcomes(&edge, "accepted").await, 1);
    assert_eq!(edge.counts().await.counters.joins_denied, 4, "two assigned, two asked for");
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_say_little() {
    let web = Web::start(answer(&json!({}))).await;
    let edge = Edge::with(asking(&web)).await;
    for (said, user) in [
        (json!({}), Value::Null),
        (json!({ "userId": null, "rooms": null, "join": null, "expires": null }), Value::Null),
        (json!({ "userId": "" }), json!("")),
    ] {
        web.answers(answer(&said));
        let mut socket = edge.connect().await;
        authenticate(&mut socket, &Value::Null).await;
        assert_eq!(socket.event("connected").await["userId"], user);
        socket.close().await;
    }
    assert!(web.asked()[0].body.ends_with("\"credentials\":{}}"), "{}", web.asked()[0].body);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rejected_is_not_undecided() {
    let web = Web::start(Reply::Close).await;
    let edge = Edge::with(asking(&web)).await;
    for status in [401, 403] {
        web.answers(Reply::Answer(status, "{\"userId\":\"u\"}".to_owned()));
        refused(&edge, "Authentication failed").await;
    }
    // Credentials that have ended are as good as rejected.
    web.answers(answer(&json!({ "userId": "u", "expires": now() - 60_000 })));
    refused(&edge, "Authentication failed").await;
    assert_eq!(outcomes(&edge, "rejected").await, 3);

    let good = "{\"userId\":\"u\"}".to_owned();
    let unusable = [
        Reply::Answer(500, good.clone()),
        Reply::Answer(302, good.clone()),
        Reply::Answer(204, String::new()),
        Reply::Answer(201, good.clone()),
        Reply::Answer(404, good.clone()),
        Reply::Answer(429, good.clone()),
        Reply::Answer(200, String::new()),
        Reply::Answer(200, "garbage".to_owned()),
        Reply::Answer(200, "null".to_owned()),
        Reply::Answer(200, "[\"u\",[],[],null,null]".to_owned()),
        Reply::Answer(200, format!("{good}{good}")),
        Reply::Answer(200, "[".repeat(60_000)),
        answer(&json!({ "userId": 7 })),
        answer(&json!({ "rooms": "*" })),
        answer(&json!({ "rooms": ["a*"] })),
        answer(&json!({ "rooms": vec!["a"; 257] })),
        answer(&json!({ "join": [1] })),
        answer(&json!({ "expires": "tomorrow" })),
        // Seconds.
        answer(&json!({ "expires": now() / 1000 + 60 })),
        answer(&json!({ "userId": "u", "padding": "x".repeat(64 * 1024) })),
        Reply::Raw(
            [&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..], &{
                let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
                chunk.repeat(5).into_bytes()
            }]
            .concat(),
        ),
    ];
    let count = unusable.len() as u64;
    for reply in unusable {
        web.answers(reply);
        refused(&edge, "Authentication error").await;
    }
    assert_eq!(outcomes(&edge, "unusable").await, count);

    let unreachable = [
        Reply::Close,
        Reply::Raw(b"garbage\r\n\r\n".to_vec()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}".to_vec()),
        Reply::Raw(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n{{}}", "x".repeat(64 * 1024)).into()),
        Reply::Raw(format!("HTTP/1.1 200 OK\r\n{}\r\n{{}}", "X: x\r\n".repeat(65)).into()),
    ];
    let count = unreachable.len() as u64;
    for reply in unreachable {
        web.answers(reply);
        refused(&edge, "Authentication error").await;
    }
    assert_eq!(outcomes(&edge, "unreachable").await, count);
    assert!(web.asked().iter().all(|asked| asked.line.starts_with("POST /login")), "a redirect");
    let counters = edge.counts().await.counters;
    assert_eq!((counters.logins, counters.logins_rejected), (0, 3));
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_or_silent_decides_nothing() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", port.local_addr().unwrap());
    drop(port);
    let edge = Edge::with(asking_at(&nobody, Duration::from_secs(5))).await;
    refused(&edge, "Authentication error").await;
    assert_eq!(outcomes(&edge, "unreachable").await, 1);
    edge.stop().await;

    let web = Web::start(Reply::Late(200, "{}".to_owned())).await;
    let edge = Edge::with(asking_at(&web.url("/"), Duration::from_millis(100))).await;
    refused(&edge, "Authentication error").await;
    assert_eq!(outcomes(&edge, "timeout").await, 1);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_holds_up_nobody_but_those_who_ask_it() {
    let web = Web::start(answer(&json!({ "userId": "early" }))).await;
    let mut settings = asking(&web);
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let mut early = edge.connect().await;
    authenticate(&mut early, &json!({})).await;
    early.event("connected").await;

    web.answers(Reply::Late(200, "{\"userId\":\"late\"}".to_owned()));
    let mut waiting = Vec::new();
    for _ in 0..200 {
        let mut socket = edge.connect().await;
        authenticate(&mut socket, &json!({})).await;
        waiting.push(socket);
    }
    // So many ask at once and no more.
    until("the service is asked", async || web.asked().len() > 128).await;
    edge.handle.send_to_user("early", "e", &1).await.unwrap();
    assert_eq!(early.event("e").await, json!(1));
    waiting[150].send(&json!({ "event": "join", "data": { "rooms": ["x"] } })).await;
    waiting[150].error("Not authenticated").await;
    assert_eq!(web.asked().len(), 129);
    // Some give up; the others get their turn.
    for _ in 0..20 {
        waiting.pop().expect("there are more").close().await;
    }
    web.go_on(1000);
    for socket in &mut waiting {
        assert_eq!(socket.event("connected").await["userId"], "late");
    }
    for socket in waiting {
        socket.close().await;
    }
    early.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_wait_in_vain_are_told_in_time() {
    let web = Web::start(Reply::Late(200, "{}".to_owned())).await;
    let edge = Edge::with(asking_at(&web.url("/"), Duration::from_secs(2))).await;
    let mut waiting = Vec::new();
    for _ in 0..140 {
        let mut socket = edge.connect().await;
        authenticate(&mut socket, &json!({})).await;
        waiting.push(socket);
    }
    for mut socket in waiting {
        socket.error("Authentication error").await;
        socket.end().await;
    }
    let (busy, timeout) = (outcomes(&edge, "busy").await, outcomes(&edge, "timeout").await);
    assert_eq!(busy + timeout, 140);
    assert!(timeout >= 128, "{timeout}");
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let web = Web::start(answer(&json!({ "userId": "u" }))).await;
    let edge = Edge::with(asking(&web)).await;
    let login = async || {
        let mut socket = edge.connect().await;
        authenticate(&mut socket, &json!({})).await;
        socket.event("connected").await;
        socket.close().await;
    };
    for _ in 0..20 {
        login().await;
    }
    let connections = web.connections();
    assert!(connections < 10, "{connections} for 20 logins");
    // A server that closes them costs nothing but another one.
    web.answers(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".to_vec()));
    for _ in 0..5 {
        login().await;
    }
    assert_eq!(outcomes(&edge, "accepted").await, 25);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_a_client_that_has_gone_is_dropped() {
    let web =
        Web::start(Reply::Late(200, "{\"userId\":\"gone\",\"join\":[\"r\"]}".to_owned())).await;
    let edge = Edge::with(asking(&web)).await;
    let mut socket = edge.connect().await;
    authenticate(&mut socket, &json!({})).await;
    until("the service is asked", async || web.asked().len() == 1).await;
    socket.close().await;
    until("it has gone", async || edge.counts().await.connections_total() == 0).await;
    web.go_on(1);
    within("its answer", async { while outcomes(&edge, "accepted").await == 0 {} }).await;
    edge.is_empty().await;
    assert_eq!(edge.counts().await.counters.logins, 0);
    edge.stop().await;
}
