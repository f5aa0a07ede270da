//! Credentials that are renewed in place: other rights, another end, never another user.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_server::auth::jwt::expiry;
use signal_server::config::{Auth, KeySource};
use signal_server::{AuthError, Credentials, Grant, Signal};
use support::keys::signed_with_secret;
use support::web::{Reply, Web};
use support::{Edge, Socket, config, until};

const SECRET: &str = "a secret of some length, for tests only";

async fn connect(edge: &Edge, data: &Value) -> Socket {
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
    let connected = socket.event("connected").await;
    connected["id"].as_str().expect("an id").clone_into(&mut socket.id);
    socket
}

async fn refresh(socket: &mut Socket, data: &Value) -> (String, Value) {
    socket.ask(json!({ "event": "refresh", "data": data, "id": "refresh" })).await
}

/// Which of these rooms a client hears.
async fn heard(edge: &Edge, socket: &mut Socket, rooms: &[&str]) -> Vec<Value> {
    for room in rooms {
        edge.handle.send_to_room(room, "e", room).await.expect("it is published");
    }
    let mut heard = Vec::new();
    for frame in socket.settled(&edge.handle).await {
        let support::Frame::Text(text) = frame else { panic!("{frame:?}") };
        let mut message: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(message["event"], "e", "{text}");
        heard.push(message["data"].take());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_follow_the_new_token() {
    let mut settings = config();
    settings.workers = 1;
    settings.rooms = vec!["lobby".parse().unwrap()];
    settings.auth = Auth::jwt(KeySource::Secret(Secret::new(SECRET)));
    let edge = Edge::with(settings).await;
    let token = |user: &str, rooms: Value, join: Value| {
        let claims = json!({ "sub": user, "rooms": rooms, "join": join });
        json!({ "token": signed_with_secret(Algorithm::HS256, SECRET.as_bytes(), &claims) })
    };
    let first = token("u", json!(["branch:*"]), json!(["till:1", "till:2", "branch:9"]));
    let mut socket = connect(&edge, &first).await;
    let join =
        json!({ "event": "join", "data": { "rooms": ["lobby", "branch:1", "staff"] }, "id": 1 });
    let (_, joined) = socket.ask(join).await;
    assert_eq!(joined["denied"], json!(["staff"]));
    let all =
        ["lobby", "branch:1", "branch:9", "staff", "till:1", "till:2", "till:3", "ws-default"];
    let heard_first = ["lobby", "branch:1", "branch:9", "till:1", "till:2", "ws-default"];
    assert_eq!(heard(&edge, &mut socket, &all).await, heard_first);

    // Another user's, and one that is no good, change nothing.
    for bad in [
        token("other", json!(["*"]), json!(["till:3"])),
        json!({ "token": "nonsense" }),
        json!({}),
        json!(null),
    ] {
        let (event, data) = refresh(&mut socket, &bad).await;
        assert_eq!((&*event, &data["code"]), ("error", &json!("authentication_failed")));
    }
    assert_eq!(heard(&edge, &mut socket, &all).await, heard_first);

    // Other rights. What is not assigned any more stays only where it may be asked for: branch:9.
    let second = token("u", json!(["branch:9", "staff"]), json!(["till:2", "till:3", "ws:x"]));
    assert_eq!(refresh(&mut socket, &second).await.0, "ack");
    let heard_second = ["lobby", "branch:9", "till:2", "till:3", "ws-default"];
    assert_eq!(heard(&edge, &mut socket, &all).await, heard_second);
    // The new patterns are those that count.
    let join = json!({ "event": "join", "data": { "rooms": ["staff", "branch:1"] }, "id": 2 });
    let (_, joined) = socket.ask(join).await;
    assert_eq!((&joined["rooms"], &joined["denied"]), (&json!(["staff"]), &json!(["branch:1"])));
    // None at all.
    assert_eq!(refresh(&mut socket, &token("u", json!([]), json!([]))).await.0, "ack");
    assert_eq!(heard(&edge, &mut socket, &all).await, ["lobby", "ws-default"]);
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_says_when_credentials_end_and_renews_them() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let end = |seconds: u128| u64::try_from(now + seconds * 1000).unwrap();
    let grant =
        |seconds| Reply::Answer(200, json!({ "userId": "u", "expires": end(seconds) }).to_string());
    let web = Web::start(grant(30)).await;
    let mut settings = config();
    settings.auth = Auth::webhook(web.url("/").parse().unwrap());
    let edge = Edge::with(settings).await;
    let mut socket = connect(&edge, &json!({})).await;
    assert!(socket.event("expiring").await["in"].as_u64().unwrap() <= 31_000);
    web.answers(Reply::Answer(403, String::new()));
    assert_eq!(refresh(&mut socket, &json!({})).await.1["code"], "authentication_failed");
    web.answers(Reply::Close);
    assert_eq!(refresh(&mut socket, &json!({})).await.1["code"], "authentication_error");
    web.answers(grant(3600));
    assert_eq!(
        refresh(&mut socket, &json!({ "n": 1 })).await,
        ("ack".to_owned(), json!({ "expires": end(3600) }))
    );
    assert!(web.asked().last().unwrap().body.ends_with(",\"credentials\":{\"n\":1}}"));
    // Ones without an end do not end.
    web.answers(Reply::Answer(200, json!({ "userId": "u" }).to_string()));
    assert_eq!(refresh(&mut socket, &json!({})).await, ("ack".to_owned(), json!({})));
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_comes_too_late_saves_nobody() {
    let web = Web::start(Reply::Answer(200, "{}".to_owned())).await;
    let mut settings = config();
    settings.auth = Auth::webhook(web.url("/").parse().unwrap());
    // So that the refresh is still under way when the grace is over.
    if let Auth::Webhook(webhook) = &mut settings.auth {
        webhook.timeout = Duration::from_secs(30);
    }
    let edge = Edge::with(settings).await;
    let ends = json!({ "userId": "u", "expires": expiry(Duration::from_secs(1)) * 1000 });
    web.answers(Reply::Answer(200, ends.to_string()));
    let mut socket = connect(&edge, &json!({})).await;
    socket.event("expiring").await;
    web.answers(Reply::Late(200, json!({ "userId": "u" }).to_string()));
    socket.send(&json!({ "event": "refresh", "id": 1 })).await;
    until("it is asked", async || web.asked().len() == 2).await;
    assert_eq!(socket.closed().await, (4500, "Credentials revoked".to_owned()));
    web.go_on(1);
    socket.end().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_under_way_keeps_its_place_among_the_requests() {
    let web =
        Web::start(Reply::Answer(200, json!({ "userId": "u", "rooms": ["a"] }).to_string())).await;
    let mut settings = config();
    settings.rooms = vec![];
    settings.auth = Auth::webhook(web.url("/").parse().unwrap());
    let edge = Edge::with(settings).await;
    let mut socket = connect(&edge, &json!({})).await;
    web.answers(Reply::Late(200, json!({ "userId": "u", "rooms": ["b"] }).to_string()));
    socket.send(&json!({ "event": "refresh", "id": "refresh" })).await;
    socket.send(&json!({ "event": "join", "data": { "rooms": ["a", "b"] }, "id": "join" })).await;
    until("it is asked", async || web.asked().len() == 2).await;
    web.go_on(1);
    // What came behind the refresh is judged by what the refresh brought.
    assert_eq!(socket.event("ack").await, json!({}));
    assert_eq!(socket.event("ack").await, json!({ "rooms": ["b"], "denied": ["a"] }));
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedder_may_refuse_a_refresh() {
    let once = async |_, credentials: Credentials| match credentials.json() {
        "{}" => Ok(Grant::user("u")),
        "1" => Err(AuthError::Rejected("no".to_owned())),
        _ => panic!("on purpose"),
    };
    let edge = Edge::build(Signal::builder().config(config()).authenticator(once)).await;
    let mut socket = connect(&edge, &json!({})).await;
    assert_eq!(refresh(&mut socket, &json!(1)).await.1["code"], "authentication_failed");
    // One that panics has failed, and the client is still there.
    let (event, _) = refresh(&mut socket, &json!(2)).await;
    assert_eq!(event, "error");
    assert_eq!(refresh(&mut socket, &json!({})).await.0, "ack");
    socket.close().await;
    edge.stop().await;
}
