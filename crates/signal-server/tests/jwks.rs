//! Keys that are fetched: rotated, withdrawn, and from a server that hangs, lies or is away.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use signal_server::Config;
use signal_server::config::{Auth, KeySource};
use support::http::request;
use support::keys::{SigningKey, header, jwks, signed_with_secret};
use support::web::{Reply, Web};
use support::{Edge, Socket, config, until};
use tokio::time::Instant;

fn with_set(web: &Web) -> Config {
    let mut config = config();
    // A login that waits for keys has time to, on a machine however busy.
    config.auth_timeout = Duration::from_secs(10);
    config.auth = Auth::jwt(KeySource::Jwks(web.url("/keys").parse().expect("a URL")));
    config
}

/// What a login with this token is answered: the event, and the words of an error.
async fn login(edge: &Edge, token: &str) -> (String, Value) {
    let mut socket = edge.connect().await;
    authenticate(&mut socket, token).await;
    let (event, mut data) = socket.next_event().await;
    if event == "connected" {
        socket.close().await;
        return (event, data["userId"].take());
    }
    assert_eq!(socket.closed().await.0, 4003);
    socket.end().await;
    (event, data["message"].take())
}

async fn authenticate(socket: &mut Socket, token: &str) {
    socket.send(&json!({ "event": "authenticate", "data": { "token": token } })).await;
}

async fn accepted(edge: &Edge, token: &str) {
    assert_eq!(login(edge, token).await, ("connected".to_owned(), json!("u")));
}

async fn refused(edge: &Edge, token: &str) {
    assert_eq!(login(edge, token).await, ("error".to_owned(), json!("Authentication failed")));
}

/// Nobody can tell.
async fn undecided(edge: &Edge, token: &str) {
    assert_eq!(login(edge, token).await, ("error".to_owned(), json!("Authentication error")));
}

fn claims() -> Value {
    json!({ "sub": "u" })
}

async fn metric(edge: &Edge, name: &str) -> u64 {
    let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    let line = page.lines().find_map(|line| line.strip_prefix(name)).expect("a metric");
    line.trim().parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_set_are_for_what_the_set_says() {
    let (rsa, p256, p384, edwards) =
        (SigningKey::rsa(), SigningKey::p256(), SigningKey::p384(), SigningKey::ed25519());
    let (encrypts, other) = (SigningKey::p256(), SigningKey::p256());
    let mut for_encryption = encrypts.jwk("encrypts", None);
    for_encryption["use"] = json!("enc");
    let mut signs_only = other.jwk("signs-only", None);
    signs_only["key_ops"] = json!(["sign"]);
    let web = Web::start(Reply::Answer(
        200,
        jwks(&[
            json!({ "kty": "oct", "kid": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
            json!({ "kty": "NEW", "kid": "new" }),
            json!({ "kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB" }),
            json!({ "kty": "RSA", "kid": "small", "n": "3ZWrUY0Y6IKN1qI4Bhw", "e": "AQAB" }),
            json!("no key"),
            for_encryption,
            signs_only,
            rsa.jwk("rsa-pss", Some(Algorithm::PS256)),
            rsa.jwk("rsa", None),
            p256.jwk("p256", Some(Algorithm::ES256)),
            p384.jwk("p384", None),
            edwards.jwk("ed", Some(Algorithm::EdDSA)),
        ]),
    ))
    .await;
    let edge = Edge::with(with_set(&web)).await;
    edge.ready().await;
    accepted(&edge, &rsa.token(&header(Algorithm::PS256, Some("rsa-pss")), &claims())).await;
    assert_eq!(metric(&edge, "signal_jwt_keys ").await, 5);
    for (key, algorithm, id) in [
        (&rsa, Algorithm::RS256, Some("rsa")),
        (&rsa, Algorithm::PS512, Some("rsa")),
        (&p256, Algorithm::ES256, Some("p256")),
        (&p384, Algorithm::ES384, Some("p384")),
        (&edwards, Algorithm::EdDSA, Some("ed")),
        // Without a name all that fit are tried.
        (&edwards, Algorithm::EdDSA, None),
        (&rsa, Algorithm::PS256, None),
    ] {
        accepted(&edge, &key.token(&header(algorithm, id), &claims())).await;
    }
    for (key, algorithm, id) in [
        // The set says that this key is for PS256, and that one is no RSA key.
        (&rsa, Algorithm::RS256, Some("rsa-pss")),
        (&rsa, Algorithm::RS256, Some("p256")),
        (&p256, Algorithm::ES256, Some("p384")),
        (&p256, Algorithm::ES256, Some("ed")),
        (&encrypts, Algorithm::ES256, None),
        (&other, Algorithm::ES256, None),
    ] {
        refused(&edge, &key.token(&header(algorithm, id), &claims())).await;
    }
    // A secret that anyone can fetch is none; nor is a public key.
    for secret in [&b"secret"[..], rsa.public_pem.as_bytes()] {
        refused(&edge, &signed_with_secret(Algorithm::HS256, secret, &claims())).await;
    }
    assert_eq!(web.asked().len(), 1, "nothing of that asks for another set");
    assert_eq!(web.asked()[0].line, "GET /keys HTTP/1.1");
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_works_at_once_and_nobody_can_make_an_edge_ask_more_often() {
    let (old, new) = (SigningKey::p256(), SigningKey::p256());
    let web = Web::start(Reply::Answer(200, jwks(&[old.jwk("old", None)]))).await;
    let edge = Edge::with(with_set(&web)).await;
    edge.ready().await;
    let old_token = old.token(&header(Algorithm::ES256, Some("old")), &claims());
    let new_token = new.token(&header(Algorithm::ES256, Some("new")), &claims());
    accepted(&edge, &old_token).await;

    web.answers(Reply::Answer(200, jwks(&[new.jwk("new", None)])));
    let began = Instant::now();
    accepted(&edge, &new_token).await;
    // The set without the old key has taken the place of that with it.
    refused(&edge, &old_token).await;

    // Names that nobody knows, many at once.
    let tokens: Vec<String> = (0..40)
        .map(|number| old.token(&header(Algorithm::ES256, Some(&number.to_string())), &claims()))
        .collect();
    let mut sockets = Vec::new();
    for token in &tokens {
        let mut socket = edge.connect().await;
        authenticate(&mut socket, token).await;
        sockets.push(socket);
    }
    // Others log in meanwhile.
    accepted(&edge, &new_token).await;
    for mut socket in sockets {
        socket.error("Authentication failed").await;
        assert_eq!(socket.closed().await.0, 4003);
        socket.end().await;
    }
    // One for each five seconds that have passed, and the first.
    let asked = web.asked().len() as u64;
    let allowed = 2 + began.elapsed().as_secs() / 5;
    assert!((3..=allowed).contains(&asked), "{asked} of {allowed}");
    assert_eq!(metric(&edge, "signal_jwks_fetches_total{result=\"ok\"}").await, asked);
    edge.is_empty().await;
    edge.stop().await;
}

/// An edge that has a good set keeps it, whatever comes next.
async fn keeps_the_last_good_set(bad: impl FnOnce(&str) -> Reply) {
    let key = SigningKey::ed25519();
    let good = jwks(&[key.jwk("k", None)]);
    let web = Web::start(Reply::Answer(200, good.clone())).await;
    let edge = Edge::with(with_set(&web)).await;
    let token = key.token(&header(Algorithm::EdDSA, Some("k")), &claims());
    // The first login may come before the keys, and waits for them.
    accepted(&edge, &token).await;
    web.answers(bad(&good));
    edge.handle.reload().expect("there are no files");
    until("the fetch fails", async || {
        metric(&edge, "signal_jwks_fetches_total{result=\"failed\"}").await > 0
    })
    .await;
    accepted(&edge, &token).await;
    assert_eq!(edge.handle.readiness(), Vec::<String>::new());
    // A key that is not known cannot be asked for, so nobody can tell.
    let other = SigningKey::ed25519();
    undecided(&edge, &other.token(&header(Algorithm::EdDSA, Some("other")), &claims())).await;
    assert!(web.asked().iter().all(|asked| asked.line == "GET /keys HTTP/1.1"), "a redirect");
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_good_set_is_kept() {
    tokio::join!(
        keeps_the_last_good_set(|_| Reply::Close),
        keeps_the_last_good_set(|_| Reply::Answer(200, "garbage".to_owned())),
        keeps_the_last_good_set(|good| Reply::Answer(302, good.to_owned())),
        keeps_the_last_good_set(|good| Reply::Answer(
            200,
            format!("{}{good}", " ".repeat(257 * 1024))
        )),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_without_keys_is_not_ready() {
    let key = SigningKey::p384();
    let web = Web::start(Reply::Answer(200, jwks(&[]))).await;
    let edge = Edge::with(with_set(&web)).await;
    let token = key.token(&header(Algorithm::ES384, None), &claims());
    undecided(&edge, &token).await;
    assert_eq!(edge.handle.readiness(), ["no keys of tokens have been fetched"]);
    assert_eq!(metric(&edge, "signal_jwt_keys ").await, 0);
    web.answers(Reply::Answer(200, jwks(&[key.jwk("k", None)])));
    accepted(&edge, &token).await;
    edge.ready().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_hangs_holds_nobody_up() {
    let key = SigningKey::p256();
    let good = jwks(&[key.jwk("k", None)]);
    let web = Web::start(Reply::Late(200, good)).await;
    let mut settings = with_set(&web);
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let token = key.token(&header(Algorithm::ES256, Some("k")), &claims());
    let mut waiting = edge.connect().await;
    authenticate(&mut waiting, &token).await;
    // The worker serves others meanwhile.
    let mut other = edge.connect().await;
    other.send_text("[]").await;
    other.error("Invalid message format").await;
    authenticate(&mut other, "garbage").await;
    other.error("Authentication failed").await;
    other.end().await;
    // It is answered, without the server: nobody can tell.
    waiting.error("Authentication error").await;
    assert_eq!(waiting.closed().await.0, 4003);
    waiting.end().await;
    // It hangs no longer.
    web.go_on(1000);
    accepted(&edge, &token).await;
    edge.is_empty().await;
    edge.stop().await;
}
