//! Who gets in and into which rooms, as the settings decide it: tokens, patterns, and no check at all.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_server::auth::jwt::expiry;
use signal_server::config::{Auth, JwtSettings, KeySource};
use signal_server::{Config, Credentials, Grant, Signal, SignalError};
use support::{Edge, Frame, Socket, config};

const SECRET: &str = "a secret of some length, for tests only";

/// Settings of an edge that checks tokens, and lets clients join rooms of these patterns.
fn with_tokens(patterns: &[&str]) -> Config {
    let mut config = config();
    config.auth = Auth::jwt(KeySource::Secret(Secret::new(SECRET)));
    config.rooms = patterns.iter().map(|pattern| pattern.parse().expect("a pattern")).collect();
    config
}

/// A token with any claims at all; a minute's `exp` is added where there is none.
fn token(secret: &str, mut claims: Value) -> String {
    if claims.get("exp").is_none() {
        claims["exp"] = json!(expiry(Duration::from_mins(1)));
    }
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

async fn authenticate(socket: &mut Socket, data: &Value) {
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
}

/// Logs in with a token of these claims; returns the user that `connected` names.
async fn login(edge: &Edge, claims: Value) -> (Socket, Value) {
    let mut socket = edge.connect().await;
    authenticate(&mut socket, &json!({ "token": token(SECRET, claims) })).await;
    let mut connected = socket.event("connected").await;
    connected["id"].as_str().expect("an id").clone_into(&mut socket.id);
    (socket, connected["userId"].take())
}

async fn refused(edge: &Edge, data: &Value) {
    let mut socket = edge.connect().await;
    authenticate(&mut socket, data).await;
    socket.error("Authentication failed").await;
    assert_eq!(socket.closed().await, (4003, "Authentication failed".to_owned()), "{data:.80}");
    socket.end().await;
}

/// Asks for the rooms; returns those that the client then hears. The last one has to be allowed.
async fn heard(edge: &Edge, socket: &mut Socket, rooms: &[&str]) -> Vec<String> {
    socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
    socket.marker(&edge.handle, rooms.last().expect("a room")).await;
    for room in rooms {
        edge.handle.send_to_room(room, room, &0).await.expect("it is published");
    }
    let event = |frame| match frame {
        Frame::Text(text) => {
            let message: Value = serde_json::from_str(&text).expect("JSON");
            message["event"].as_str().expect("an event").to_owned()
        }
        frame => panic!("{frame:?}"),
    };
    let mut heard: Vec<String> =
        socket.settled(&edge.handle).await.into_iter().map(event).collect();
    heard.sort();
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_names_the_user() {
    let edge = Edge::with(with_tokens(&[])).await;
    for (claims, user) in [
        (json!({ "sub": "u-7" }), json!("u-7")),
        (json!({ "sub": "é\"☕" }), json!("é\"☕")),
        (json!({ "sub": "" }), json!("")),
        (json!({}), Value::Null),
        (json!({ "sub": "u", "rooms": [], "join": [], "else": { "any": 1 } }), json!("u")),
        // Without a setting, issuer and audience are nobody's business.
        (json!({ "sub": "u", "iss": "x", "aud": ["y"] }), json!("u")),
        // Clocks may be a little apart.
        (json!({ "sub": "u", "exp": expiry(Duration::ZERO) - 5 }), json!("u")),
    ] {
        let (socket, found) = login(&edge, claims).await;
        assert_eq!(found, user);
        socket.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_tokens_are_refused() {
    let edge = Edge::with(with_tokens(&["*"])).await;
    let good = token(SECRET, json!({ "sub": "u" }));
    let parts: Vec<&str> = good.split('.').collect();
    // {"alg":"none"}, {"alg":"None"}
    let unsigned = ["eyJhbGciOiJub25lIn0", "eyJhbGciOiJOb25lIn0"];
    let strong = encode(
        &Header::new(Algorithm::HS512),
        &json!({ "sub": "u", "exp": expiry(Duration::from_mins(1)) }),
        &EncodingKey::from_secret(SECRET.as_bytes()),
    )
    .unwrap();
    let mut tokens = vec![
        String::new(),
        "nonsense".to_owned(),
        "..".to_owned(),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}x"),
        good[..good.len() - 2].to_owned(),
        strong,
        token("another secret of some length", json!({ "sub": "u" })),
        token(SECRET, json!({ "sub": "u", "exp": expiry(Duration::ZERO) - 3600 })),
        token(SECRET, json!({ "sub": "u", "exp": 0 })),
        token(SECRET, json!({ "sub": "u", "exp": "tomorrow" })),
        token(SECRET, json!({ "sub": "u", "exp": null })),
        token(SECRET, json!({ "sub": "u", "nbf": expiry(Duration::from_hours(1)) })),
        token(SECRET, json!({ "sub": 7 })),
        token(SECRET, json!({ "sub": "u", "rooms": "*" })),
        token(SECRET, json!({ "sub": "u", "rooms": ["a*"] })),
        token(SECRET, json!({ "sub": "u", "join": [1] })),
        "x".repeat(100_000),
    ];
    tokens.extend(unsigned.map(|head| format!("{head}.{}.", parts[1])));
    tokens.extend(unsigned.map(|head| format!("{head}.{}.{}", parts[1], parts[2])));
    for token in &tokens {
        refused(&edge, &json!({ "token": token })).await;
    }
    for data in [json!({}), json!(null), json!("token"), json!([good]), json!({ "token": [good] })]
    {
        refused(&edge, &data).await;
    }
    // What would do on another edge does not here.
    refused(&edge, &json!({ "userId": "u" })).await;
    // Beyond any message, nobody looks at it.
    let mut huge = edge.connect().await;
    authenticate(&mut huge, &json!({ "token": "x".repeat(1024 * 1024) })).await;
    assert_eq!(huge.closed().await.0, 1009);
    huge.end().await;
    let counters = edge.counts().await.counters;
    assert_eq!(counters.logins_rejected, tokens.len() as u64 + 6);
    assert_eq!((counters.logins, counters.logins_failed), (0, 0));
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_and_audience_are_checked_where_they_are_set() {
    let mut settings = with_tokens(&[]);
    settings.auth = Auth::Jwt(JwtSettings {
        keys: KeySource::Secret(Secret::new(SECRET)),
        issuer: Some("shop".to_owned()),
        audience: Some("pos".to_owned()),
    });
    let edge = Edge::with(settings).await;
    for (issuer, audience) in [
        (json!("other"), json!("pos")),
        (json!("shop"), json!("other")),
        (json!("shop"), json!([])),
        (json!(null), json!("pos")),
        (json!("shop"), json!(null)),
    ] {
        let claims = json!({ "sub": "u", "iss": issuer, "aud": audience });
        refused(&edge, &json!({ "token": token(SECRET, claims) })).await;
    }
    refused(&edge, &json!({ "token": token(SECRET, json!({ "sub": "u" })) })).await;
    for audience in [json!("pos"), json!(["admin", "pos"])] {
        let claims = json!({ "sub": "u", "iss": "shop", "aud": audience });
        login(&edge, claims).await.0.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_and_claims_together_say_which_rooms() {
    let edge = Edge::with(with_tokens(&["lobby", "user:{user}:*"])).await;
    let rooms =
        ["branch:1", "branch:1:till", "user:u-8:inbox", "user:u-7:inbox", "user:*:inbox", "lobby"];
    for (claims, expected) in [
        (json!({ "sub": "u-7" }), &["lobby", "user:u-7:inbox"][..]),
        (json!({ "sub": "u-7", "rooms": ["branch:*"] }), &["branch:1", "lobby", "user:u-7:inbox"]),
        (json!({ "sub": "u-9", "rooms": ["branch:*:till"] }), &["branch:1:till", "lobby"]),
        // A user id is taken literally, and nobody's fills no pattern.
        (json!({ "sub": "*" }), &["lobby", "user:*:inbox"]),
        (json!({}), &["lobby"]),
        (json!({ "sub": "" }), &["lobby"]),
    ] {
        let (mut socket, _) = login(&edge, claims.clone()).await;
        assert_eq!(heard(&edge, &mut socket, &rooms).await, expected, "{claims}");
        socket.close().await;
    }
    let (mut all, _) = login(&edge, json!({ "rooms": ["*"] })).await;
    assert_eq!(heard(&edge, &mut all, &rooms).await.len(), rooms.len());
    all.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_patterns_nobody_joins_anything() {
    let edge = Edge::with(with_tokens(&[])).await;
    let (mut socket, _) = login(&edge, json!({ "sub": "u" })).await;
    let own = socket.id.clone();
    socket.send(&json!({ "event": "join", "data": { "rooms": ["lobby", "u", own] } })).await;
    // The answer to what comes behind shows that the join is done.
    socket.send_text("x").await;
    socket.error("Invalid message format").await;
    let counts = edge.counts().await;
    assert_eq!(counts.rooms, 2, "the default rooms");
    assert_eq!(counts.counters.joins_denied, 3);
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_put_its_client_into_rooms() {
    let mut settings = with_tokens(&[]);
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let (mut victim, _) = login(&edge, json!({ "sub": "victim" })).await;
    let victim_id = victim.id.clone();
    let join = json!(["branch:1", "branch:1", "ws-default", "", victim_id]);
    let (mut socket, _) = login(&edge, json!({ "sub": "u", "join": join })).await;
    assert_eq!(edge.counts().await.rooms, 3, "the default rooms and branch:1");
    for room in ["branch:1", "ws-default"] {
        edge.handle.send_to_room(room, "e", &room).await.unwrap();
        assert_eq!(socket.event("e").await, json!(room));
    }
    assert_eq!(victim.event("e").await, json!("ws-default"));
    // Another client's own room is nobody's to give.
    edge.handle.send_to_room(&victim_id, "secret", &1).await.unwrap();
    assert_eq!(victim.event("secret").await, json!(1));
    assert_eq!(socket.settled(&edge.handle).await, []);
    // It may leave what it was given.
    socket.send(&json!({ "event": "leave", "data": { "rooms": ["branch:1"] } })).await;
    socket.send_text("x").await;
    socket.error("Invalid message format").await;
    edge.handle.send_to_room("branch:1", "gone", &1).await.unwrap();
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    victim.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_ends_its_connection() {
    let edge = Edge::with(with_tokens(&["*"])).await;
    // Within the leeway it logs in, and has ended already.
    let claims = json!({ "sub": "u", "exp": expiry(Duration::ZERO) - 5 });
    let (mut ended, _) = login(&edge, claims).await;
    let (mut other, _) = login(&edge, json!({ "sub": "u" })).await;
    assert_eq!(ended.closed().await, (4500, "Credentials revoked".to_owned()));
    ended.end().await;
    edge.handle.send_to_user("u", "e", &1).await.unwrap();
    assert_eq!(other.event("e").await, json!(1));
    other.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn insecure_dev_believes_anyone_and_stays_on_loopback() {
    let edge = Edge::start().await;
    for (data, user) in [
        (json!({ "userId": "u" }), json!("u")),
        (json!({ "userId": "" }), json!("")),
        (json!({ "userId": 7 }), Value::Null),
        (json!({ "userId": ["u"] }), Value::Null),
        (json!({ "token": "nonsense" }), Value::Null),
        (json!([]), Value::Null),
        (json!("u"), Value::Null),
        (json!(null), Value::Null),
    ] {
        let mut socket = edge.connect().await;
        authenticate(&mut socket, &data).await;
        assert_eq!(socket.event("connected").await["userId"], user, "{data}");
        socket.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;

    let mut open = config();
    open.listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let refused = Signal::builder().config(open.clone()).bind().await;
    assert!(matches!(refused, Err(SignalError::Config(_))), "{refused:?}");
    // An embedder that decides for itself may.
    let own = async |_, _: Credentials| Ok(Grant::default());
    let edge = Edge::build(Signal::builder().config(open).authenticator(own)).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_secret_there_is_no_edge() {
    for secret in ["", "too short"] {
        let mut settings = config();
        settings.auth = Auth::jwt(KeySource::Secret(Secret::new(secret)));
        let refused = Signal::builder().config(settings).bind().await;
        assert!(matches!(refused, Err(SignalError::Config(_))), "{refused:?}");
    }
    assert!(Signal::builder().bind().await.is_err(), "the default is jwt, without a secret");
}
