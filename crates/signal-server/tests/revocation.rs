//! Credentials that are withdrawn: whose connections end, who may come back, and that a revocation wins
//! whatever is under way.

#![allow(clippy::large_futures, reason = "a test runs once")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_emitter::{Emitter, EmitterConfig, EmitterError};
use signal_server::config::{Auth, JwtSettings, KeySource};
use signal_server::{Credentials, Grant, Sent, Signal};
use support::http::{admin, request};
use support::{Edge, Redis, Socket, config, until};
use tokio::sync::Semaphore;

const SECRET: &str = "a secret of some length, for tests only";

const REVOKED: (u16, &str) = (4500, "Credentials revoked");

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token that was issued so many seconds from now.
fn token(user: &str, id: &str, issued_in: i64) -> String {
    let claims = json!({
        "sub": user,
        "jti": id,
        "iat": now().saturating_add_signed(issued_in),
        "exp": now() + 600,
    });
    encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn edge_with_tokens(redis: Option<&Redis>) -> Edge {
    let mut settings = config();
    settings.auth = Auth::Jwt(JwtSettings {
        keys: KeySource::Secret(Secret::new(SECRET)),
        issuer: None,
        audience: None,
    });
    settings.api_key = Some(Secret::new("key"));
    if let Some(redis) = redis {
        settings.redis = redis.settings();
    }
    let edge = Edge::with(settings).await;
    edge.ready().await;
    edge
}

async fn emitter(redis: &Redis) -> Emitter {
    Emitter::connect(EmitterConfig::new(redis.settings())).await.unwrap()
}

async fn authenticate(edge: &Edge, token: &str) -> Socket {
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.send(&json!({ "event": "authenticate", "data": { "token": token } })).await;
    socket
}

async fn login(edge: &Edge, token: &str) -> Socket {
    let mut socket = authenticate(edge, token).await;
    let connected = socket.event("connected").await;
    connected["id"].as_str().unwrap().clone_into(&mut socket.id);
    socket
}

/// The edge ends it, and says why.
async fn revoked(mut socket: Socket) {
    let (code, reason) = socket.closed().await;
    assert_eq!((code, reason.as_str()), REVOKED);
    socket.end().await;
}

async fn refused(edge: &Edge, token: &str) {
    let mut socket = authenticate(edge, token).await;
    assert_eq!(socket.event("error").await["code"], json!("authentication_failed"));
    revoked(socket).await;
}

/// A metric's value.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_edge_obeys_a_producer_at_once() {
    let redis = Redis::start().await;
    let edges = [edge_with_tokens(Some(&redis)).await, edge_with_tokens(Some(&redis)).await];
    let emitter = emitter(&redis).await;
    let (mut ann, mut bob) = (Vec::new(), Vec::new());
    for (index, edge) in edges.iter().enumerate() {
        // Enough that each worker has one.
        for number in 0..4 {
            ann.push(login(edge, &token("ann", &format!("a{index}{number}"), -5)).await);
        }
        bob.push(login(edge, &token("bob", "b", -5)).await);
    }
    // By the id of one connection.
    let one = ann.remove(0);
    assert_eq!(emitter.revoke_client(&one.id).await.unwrap().receivers(), Some(2));
    revoked(one).await;
    // By the id of one token.
    emitter.revoke_token("a13").await.unwrap();
    revoked(ann.pop().unwrap()).await;
    // By the user, from the handle of an edge and so for both.
    let sent = edges[0].handle.revoke_user("ann").await.unwrap();
    assert!(
        matches!(sent, Sent::Published(published) if published.receivers == Some(2)),
        "{sent:?}"
    );
    for socket in ann {
        revoked(socket).await;
    }
    // Nobody else has noticed.
    for (edge, socket) in edges.iter().zip(&mut bob) {
        assert_eq!(socket.settled(&edge.handle).await, []);
        assert_eq!(metric(edge, "signal_revocations_total{of=\"user\"}").await, 1);
        assert_eq!(metric(edge, "signal_revocations_total{of=\"client\"}").await, 1);
        assert_eq!(metric(edge, "signal_revocations_total{of=\"token\"}").await, 1);
        assert_eq!(metric(edge, "signal_revocations").await, 2);
        assert_eq!(metric(edge, "signal_revoked_total{what=\"connection\"}").await, 4);
    }
    for socket in bob {
        socket.close().await;
    }
    for edge in edges {
        edge.is_empty().await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_back_with_the_same_credentials() {
    let redis = Redis::start().await;
    let edge = edge_with_tokens(Some(&redis)).await;
    let emitter = emitter(&redis).await;
    let old = token("ann", "old", -5);
    let socket = login(&edge, &old).await;
    emitter.revoke_user("ann").await.unwrap();
    revoked(socket).await;
    refused(&edge, &old).await;
    refused(&edge, &token("ann", "other", -1)).await;
    // Without a time of issue it may be an old one.
    let claims = json!({ "sub": "ann", "exp": now() + 600 });
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    refused(&edge, &encode(&Header::default(), &claims, &key).unwrap()).await;
    // One that was issued since is good, and others are untouched.
    let mut back = login(&edge, &token("ann", "new", 2)).await;
    login(&edge, &token("bob", "b", -5)).await.close().await;
    // Nor is a revoked token good for a refresh; what the client has goes on.
    emitter.revoke_token("next").await.unwrap();
    until("it is known", async || metric(&edge, "signal_revocations").await == 2).await;
    let refresh =
        json!({ "event": "refresh", "data": { "token": token("ann", "next", 2) }, "id": 1 });
    let (event, error) = back.ask(refresh).await;
    assert_eq!((event.as_str(), &error["code"]), ("error", &json!("authentication_failed")));
    // A refresh changes by which token the connection is known.
    let refresh =
        json!({ "event": "refresh", "data": { "token": token("ann", "newer", 2) }, "id": 2 });
    assert_eq!(back.ask(refresh).await.0, "ack");
    emitter.revoke_token("new").await.unwrap();
    until("it is known", async || metric(&edge, "signal_revocations").await == 3).await;
    assert_eq!(back.settled(&edge.handle).await, []);
    emitter.revoke_token("newer").await.unwrap();
    revoked(back).await;
    assert_eq!(metric(&edge, "signal_revoked_total{what=\"login\"}").await, 4);
    edge.is_empty().await;
    edge.stop().await;
}

/// An edge whose logins wait for a permit each; the credentials are the grant.
async fn slow_edge() -> (Edge, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let gate = permits.clone();
    let authenticate = move |_client, credentials: Credentials| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.expect("it stays open").forget();
            let mut grant = Grant::user(credentials.string("userId").unwrap_or_default());
            grant.token_id = credentials.string("token");
            Ok(grant)
        }
    };
    let builder = Signal::builder().config(config()).authenticator(authenticate);
    (Edge::build(builder).await, permits)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_wins_over_a_login_under_way() {
    let (edge, permits) = slow_edge().await;
    for by in ["user", "token", "client"] {
        let mut socket = edge.connect().await;
        let data = json!({ "userId": by, "token": by });
        socket.send(&json!({ "event": "authenticate", "data": data })).await;
        until("the login waits", async || {
            edge.counts().await.connections.get("authenticating") == Some(&1)
        })
        .await;
        if by == "client" {
            let found = edge.handle.connections(None, None, None, 10).await.unwrap();
            edge.handle.revoke_client(&found[0].client.to_string()).await.unwrap();
            revoked(socket).await;
            permits.add_permits(1);
            continue;
        }
        match by {
            "user" => edge.handle.revoke_user(by).await.unwrap(),
            _ => edge.handle.revoke_token(by).await.unwrap(),
        };
        permits.add_permits(1);
        socket.error("Authentication failed").await;
        revoked(socket).await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_wins_over_a_refresh_under_way() {
    let (edge, permits) = slow_edge().await;
    let ask = |event: &str, user: &str, token: &str| json!({ "event": event, "data": { "userId": user, "token": token }, "id": token });
    let login = async |user: &str| {
        let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
        permits.add_permits(1);
        let (event, connected) = socket.ask(ask("authenticate", user, "first")).await;
        assert_eq!(event, "connected");
        connected["id"].as_str().unwrap().clone_into(&mut socket.id);
        socket
    };
    // The user: closed at once, whatever the refresh would have brought.
    let mut ann = login("ann").await;
    ann.send(&ask("refresh", "ann", "second")).await;
    ann.settled(&edge.handle).await;
    edge.handle.revoke_user("ann").await.unwrap();
    let (code, reason) = ann.closed().await;
    assert_eq!((code, reason.as_str()), REVOKED);
    permits.add_permits(1);
    ann.end().await;
    // The token that the refresh brings: refused, and what the client had goes on.
    let mut bob = login("bob").await;
    bob.send(&ask("refresh", "bob", "second")).await;
    bob.settled(&edge.handle).await;
    edge.handle.revoke_token("second").await.unwrap();
    assert_eq!(bob.settled(&edge.handle).await, []);
    permits.add_permits(1);
    let answer: Value = serde_json::from_str(&bob.text().await).unwrap();
    assert_eq!((&answer["event"], &answer["id"]), (&json!("error"), &json!("second")));
    // The token that it has: closed while the refresh waits.
    bob.send(&ask("refresh", "bob", "third")).await;
    bob.settled(&edge.handle).await;
    edge.handle.revoke_token("first").await.unwrap();
    revoked(bob).await;
    permits.add_permits(1);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_revokes() {
    let redis = Redis::start().await;
    let edge = edge_with_tokens(Some(&redis)).await;
    let post = async |key: &str, body: Value| {
        admin(&edge, "POST", "/v1/revoke", key, &body.to_string()).await
    };
    assert_eq!(post("wrong", json!({ "user": "ann" })).await.0, 401);
    assert_eq!(admin(&edge, "GET", "/v1/revoke", "key", "").await.0, 405);
    for bad in [
        json!({}),
        json!([]),
        json!({ "user": "" }),
        json!({ "user": 7 }),
        json!({ "user": "ann", "token": "t" }),
        json!({ "room": "r" }),
        json!({ "user": "u".repeat(1025) }),
    ] {
        let (status, answer) = post("key", bad.clone()).await;
        assert_eq!((status, &answer["ok"]), (400, &json!(false)), "{bad}");
    }
    let (ann, bob) =
        (login(&edge, &token("ann", "a", -5)).await, login(&edge, &token("bob", "b", -5)).await);
    let one = json!({ "ok": true, "receivers": 1 });
    assert_eq!(post("key", json!({ "user": "ann" })).await, (200, one.clone()));
    revoked(ann).await;
    assert_eq!(post("key", json!({ "token": "b" })).await, (200, one.clone()));
    revoked(bob).await;
    let carl = login(&edge, &token("carl", "c", -5)).await;
    assert_eq!(post("key", json!({ "client": carl.id })).await, (200, one));
    revoked(carl).await;
    // Of nobody here, and of no client at all: not an error, since others may know them.
    assert_eq!(post("key", json!({ "user": "nobody" })).await.0, 200);
    assert_eq!(post("key", json!({ "client": "no id" })).await.0, 200);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_bus_away_an_edge_obeys_its_own() {
    let mut redis = Redis::start().await;
    let edge = edge_with_tokens(Some(&redis)).await;
    let (ann, bob) = (token("ann", "a", -5), token("bob", "b", -5));
    let (first, second) = (login(&edge, &ann).await, login(&edge, &bob).await);
    redis.kill();
    until("the edge knows", async || !edge.handle.readiness().is_empty()).await;
    until("it is away", async || {
        edge.handle.revoke_user("ann").await.ok() == Some(Sent::LocalOnly)
    })
    .await;
    revoked(first).await;
    let answer = admin(&edge, "POST", "/v1/revoke", "key", "{\"user\":\"bob\"}").await;
    assert_eq!(answer, (202, json!({ "ok": true, "bus": false })));
    revoked(second).await;
    refused(&edge, &ann).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_on_the_channel_disturbs_nobody() {
    let redis = Redis::start().await;
    let edge = edge_with_tokens(Some(&redis)).await;
    let mut socket = login(&edge, &token("ann", "a", -5)).await;
    let ours = format!(
        "{{\"serverId\":\"{}\",\"type\":\"revoke\",\"user\":\"ann\",\"ts\":1}}",
        edge.handle.instance()
    );
    for (text, reason) in [
        ("nonsense", "revocation_not_json"),
        ("\u{0}", "revocation_not_json"),
        ("[]", "revocation_shape"),
        ("{\"serverId\":\"x\",\"type\":\"revoke\",\"user\":\"ann\"}", "revocation_shape"),
        (
            "{\"serverId\":\"x\",\"type\":\"revoke\",\"user\":[\"ann\"],\"ts\":1}",
            "revocation_shape",
        ),
        ("{\"serverId\":\"x\",\"type\":\"user\",\"user\":\"ann\",\"ts\":1}", "revocation_shape"),
        ("{\"serverId\":\"x\",\"type\":\"revoke\",\"ts\":1}", "revocation_subject"),
    ] {
        assert_eq!(redis.publish("ws:revoke", text).await, 1);
        let name = format!("signal_bus_decode_errors_total{{reason=\"{reason}\"}}");
        until("it is counted", async || {
            request(edge.admin, "GET", "/metrics", "", "").await.1.contains(&name)
        })
        .await;
    }
    // What it published itself, it obeyed then.
    assert_eq!(redis.publish("ws:revoke", &ours).await, 1);
    // On another channel it is no revocation.
    let other = "{\"serverId\":\"x\",\"type\":\"revoke\",\"user\":\"ann\",\"ts\":1}";
    assert_eq!(redis.publish("ws:user:ann", other).await, 1);
    assert_eq!(socket.settled(&edge.handle).await, []);
    assert_eq!(redis.publish("ws:revoke", other).await, 1);
    revoked(socket).await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_may_be_kept_from_revoking() {
    let redis = Redis::start().await;
    let edge = edge_with_tokens(Some(&redis)).await;
    let rule = ["ACL", "SETUSER", "sale", "on", ">pass", "resetchannels", "&ws:user:*", "+@all"];
    assert_eq!(redis.command(&rule).await, "+OK\r\n");
    let mut settings = redis.settings();
    settings.username = Some("sale".to_owned());
    settings.password = Some(Secret::new("pass"));
    let emitter = Emitter::connect(EmitterConfig::new(settings)).await.unwrap();
    let mut socket = login(&edge, &token("ann", "a", -5)).await;
    let error = emitter.revoke_user("ann").await.unwrap_err();
    assert!(
        matches!(&error, EmitterError::Redis(words) if words.starts_with("NOPERM")),
        "{error:?}"
    );
    emitter.to_user("ann").event("e").send().await.unwrap();
    assert_eq!(socket.event("e").await, Value::Null);
    for empty in [emitter.revoke_user("").await, emitter.revoke_token(&"t".repeat(1025)).await] {
        assert!(matches!(empty, Err(EmitterError::InvalidTarget(_))), "{empty:?}");
    }
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}
