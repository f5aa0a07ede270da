//! A token in the upgrade request: where it may stand, who may bring one, and that nobody sees it.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_server::config::{Auth, KeySource};
use signal_server::{AuthError, Config, Credentials, Grant, Signal};
use support::keys::signed_with_secret;
use support::socket::{Socket, frame, upgrade};
use support::web::{Reply, Web};
use support::{Edge, Frame, config};

const SECRET: &str = "a secret of some length, for tests only";
const JSON: &str = "signal.v1.json";

fn with_tokens() -> Config {
    let mut config = config();
    config.auth = Auth::jwt(KeySource::Secret(Secret::new(SECRET)));
    config
}

fn token(user: &str) -> String {
    signed_with_secret(Algorithm::HS256, SECRET.as_bytes(), &json!({ "sub": user }))
}

/// Opens a WebSocket with these headers; returns the answer's head too.
async fn open(edge: &Edge, headers: &[(&str, &str)]) -> (Socket, String) {
    let (socket, head) = Socket::open(edge.address, &upgrade("/ws", headers)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "refused: {head}");
    (socket, head.to_ascii_lowercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_online_after_one_round_trip() {
    let edge = Edge::with(with_tokens()).await;
    let (good, other) = (token("u"), token("other"));
    let entry = format!("signal.v1.token.{good}");
    let bearer = format!("Bearer {good}");
    let other_bearer = format!("Bearer {other}");
    for headers in [
        vec![("Sec-WebSocket-Protocol", format!("{JSON}, {entry}"))],
        vec![("Sec-WebSocket-Protocol", format!("{entry},{JSON}"))],
        vec![("Sec-WebSocket-Protocol", entry.clone()), ("Sec-WebSocket-Protocol", JSON.into())],
        vec![("Sec-WebSocket-Protocol", JSON.into()), ("Authorization", bearer.clone())],
        vec![
            ("Sec-WebSocket-Protocol", JSON.into()),
            ("authorization", format!("bearer  {good} ")),
        ],
        // What the client itself has written counts.
        vec![
            ("Sec-WebSocket-Protocol", format!("{JSON}, {entry}, signal.v1.token.{other}")),
            ("Authorization", other_bearer.clone()),
        ],
        // An entry without a token is none.
        vec![
            ("Sec-WebSocket-Protocol", format!("{JSON}, signal.v1.token.")),
            ("Authorization", "Basic dTpw".into()),
            ("X", bearer.clone()),
        ],
    ] {
        let borrowed: Vec<_> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        let (mut socket, head) = open(&edge, &borrowed).await;
        assert!(head.contains("sec-websocket-protocol: signal.v1.json\r\n"), "{head}");
        assert_eq!(head.matches("sec-websocket-protocol").count(), 1, "{head}");
        assert!(!head.contains("token"), "it was echoed: {head}");
        if headers.len() == 3 {
            socket.send(&json!({ "event": "join", "id": 1 })).await;
            assert_eq!(socket.event("error").await["code"], "not_authenticated");
        } else {
            assert_eq!(socket.event("connected").await["userId"], "u", "{headers:?}");
            // It is in, as if it had said so itself.
            let again = json!({ "event": "authenticate", "data": { "token": other }, "id": 1 });
            assert_eq!(socket.ask(again).await.1["code"], "already_authenticated");
        }
        socket.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_behind_the_request_is_not_lost() {
    let mut settings = with_tokens();
    settings.rooms = vec!["branch:*".parse().unwrap()];
    let edge = Edge::with(settings).await;
    let entry = format!("{JSON}, signal.v1.token.{}", token("u"));
    let request = upgrade("/ws", &[("Sec-WebSocket-Protocol", &entry)]);
    let join = json!({ "event": "join", "data": { "rooms": ["branch:1"] }, "id": 1 });
    let mut bytes = request.into_bytes();
    bytes.extend(frame(0x81, join.to_string().as_bytes()));
    let (mut socket, _) = Socket::open(edge.address, &bytes).await;
    assert_eq!(socket.event("connected").await["userId"], "u");
    assert_eq!(socket.event("ack").await["rooms"], json!(["branch:1"]));
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_token_is_answered_like_one_that_is_sent() {
    let edge = Edge::with(with_tokens()).await;
    for bad in ["nonsense", "a.b.c", &token("u")[1..], "!#$%&'*+-.^_`|~", &"x".repeat(10_000)] {
        let entry = format!("signal.v1.token.{bad}, {JSON}");
        let (mut socket, _) = open(&edge, &[("Sec-WebSocket-Protocol", &entry)]).await;
        assert_eq!(socket.event("error").await["code"], "authentication_failed");
        assert_eq!(socket.closed().await, (4003, "Authentication failed".to_owned()));
        socket.end().await;
    }
    // A megabyte does not fit into a request's head.
    for header in ["Sec-WebSocket-Protocol", "Authorization"] {
        let huge = format!("Bearer {}", "x".repeat(1024 * 1024));
        let request = upgrade("/ws", &[("Sec-WebSocket-Protocol", JSON), (header, &huge)]);
        let (_, head) = Socket::open(edge.address, &request).await;
        assert!(head.is_empty() || head.starts_with("HTTP/1.1 431 "), "{head}");
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_clients_and_queries_bring_none() {
    let mut settings = with_tokens();
    settings.subprotocols = vec!["pos-v3".to_owned(), "signal.v1.token.known".to_owned()];
    let edge = Edge::with(settings).await;
    let entry = format!("signal.v1.token.{}", token("u"));
    let bearer = format!("Bearer {}", token("u"));
    for headers in [
        vec![("Authorization", &*bearer)],
        vec![("Sec-WebSocket-Protocol", &*entry)],
        vec![("Sec-WebSocket-Protocol", "signal.v1.token.known")],
        vec![("Sec-WebSocket-Protocol", &*entry), ("Sec-WebSocket-Protocol", "pos-v3")],
    ] {
        let (mut socket, head) = open(&edge, &headers).await;
        assert!(!head.contains("token"), "it was echoed: {head}");
        socket.send(&json!({ "event": "join" })).await;
        socket.error("Not authenticated").await;
        socket.close().await;
    }
    let path = format!("/ws?token={0}&access_token={0}", token("u"));
    let mut socket =
        Socket::open(edge.address, &upgrade(&path, &[("Sec-WebSocket-Protocol", JSON)])).await.0;
    socket.send(&json!({ "event": "join" })).await;
    assert_eq!(socket.event("error").await["code"], "not_authenticated");
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_authenticator_gets_it_as_a_credential() {
    let entry = format!("{JSON}, signal.v1.token.opaque-7");
    let protocol = ("Sec-WebSocket-Protocol", &*entry);
    // An embedder's, which takes its time.
    let own = async |_, credentials: Credentials| {
        tokio::task::yield_now().await;
        match credentials.json() {
            "{\"token\":\"opaque-7\"}" => Ok(Grant::user("own")),
            other => Err(AuthError::Rejected(other.to_owned())),
        }
    };
    let edge = Edge::build(Signal::builder().config(config()).authenticator(own)).await;
    let (mut socket, _) = open(&edge, &[protocol]).await;
    assert_eq!(socket.event("connected").await["userId"], "own");
    edge.stop().await;

    let web = Web::start(Reply::Answer(200, "{\"userId\":\"asked\"}".to_owned())).await;
    let mut settings = config();
    settings.auth = Auth::webhook(web.url("/").parse().unwrap());
    let edge = Edge::with(settings).await;
    let (mut socket, _) = open(&edge, &[protocol]).await;
    assert_eq!(socket.event("connected").await["userId"], "asked");
    let question: Value = serde_json::from_str(&web.asked()[0].body).unwrap();
    assert_eq!(question["credentials"], json!({ "token": "opaque-7" }));
    edge.stop().await;

    // Anyone is believed, and nobody is named.
    let edge = Edge::start().await;
    let (mut socket, _) = open(&edge, &[protocol]).await;
    assert_eq!(socket.event("connected").await["userId"], Value::Null);
    edge.stop().await;

    // In the other form of signal.v1.
    let entry = format!("signal.v1.msgpack, signal.v1.token.{}", token("u"));
    let edge = Edge::with(with_tokens()).await;
    let (mut socket, _) = open(&edge, &[("Sec-WebSocket-Protocol", &entry)]).await;
    let Frame::Binary(connected) = socket.next().await else { panic!("not binary") };
    assert!(String::from_utf8_lossy(&connected).contains("\"userId\":\"u\""));
    edge.stop().await;
}
