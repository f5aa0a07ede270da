//! Tokens of every algorithm, and those that try to pass for another: secrets and public keys of files.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use signal_core::redis::Secret;
use signal_server::auth::jwt::expiry;
use signal_server::config::{Auth, JwtSettings, KeySource};
use signal_server::{Config, Signal};
use support::keys::{SigningKey, header, signed_with_secret};
use support::{Edge, config};

const SECRET: &str = "a secret of some length, for tests only";

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A file of a test, which goes with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("signal-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("it can be written");
        Self(path)
    }

    fn write(&self, text: &str) {
        fs::write(&self.0, text).expect("it can be written");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn with_keys(keys: KeySource) -> Config {
    let mut config = config();
    config.auth = Auth::jwt(keys);
    config
}

/// Whom a token logs in; `None` if it is refused.
async fn login(edge: &Edge, token: &str) -> Option<String> {
    let mut socket = edge.connect().await;
    let data = json!({ "token": token });
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
    let (event, data) = socket.next_event().await;
    if event == "connected" {
        socket.close().await;
        return Some(data["userId"].as_str().expect("a user").to_owned());
    }
    assert_eq!((event.as_str(), data), ("error", json!({ "message": "Authentication failed" })));
    assert_eq!(socket.closed().await.0, 4003);
    socket.end().await;
    None
}

async fn accepted(edge: &Edge, token: &str) {
    assert_eq!(login(edge, token).await.as_deref(), Some("u"), "{token}");
}

async fn refused(edge: &Edge, token: &str) {
    assert_eq!(login(edge, token).await, None, "{token}");
}

fn claims() -> Value {
    json!({ "sub": "u" })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_of_a_public_key() {
    let keys = [SigningKey::rsa(), SigningKey::p256(), SigningKey::p384(), SigningKey::ed25519()];
    let text: String = keys.iter().map(|key| key.public_pem.as_str()).collect();
    let file = File::new("every-key.pem", &format!("of four issuers\n{text}"));
    let edge = Edge::with(with_keys(KeySource::PublicKeyFile(file.0.clone()))).await;
    let [rsa, p256, p384, edwards] = &keys;
    let algorithms = RSA.iter().map(|algorithm| (rsa, *algorithm)).chain([
        (p256, Algorithm::ES256),
        (p384, Algorithm::ES384),
        (edwards, Algorithm::EdDSA),
    ]);
    for (key, algorithm) in algorithms {
        accepted(&edge, &key.token(&header(algorithm, None), &claims())).await;
        // A file's keys have no names, so a token's name for its key says nothing.
        accepted(&edge, &key.token(&header(algorithm, Some("k")), &claims())).await;
        let old = json!({ "sub": "u", "exp": expiry(Duration::ZERO) - 60 });
        refused(&edge, &key.token(&header(algorithm, None), &old)).await;
        let future = json!({ "sub": "u", "nbf": expiry(Duration::from_mins(1)) });
        refused(&edge, &key.token(&header(algorithm, None), &future)).await;
    }
    // The same kinds of keys, but others.
    for (key, algorithm) in [
        (SigningKey::rsa(), Algorithm::RS256),
        (SigningKey::p256(), Algorithm::ES256),
        (SigningKey::p384(), Algorithm::ES384),
        (SigningKey::ed25519(), Algorithm::EdDSA),
    ] {
        refused(&edge, &key.token(&header(algorithm, None), &claims())).await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_key_is_no_secret() {
    let rsa = SigningKey::rsa();
    let file = File::new("confusion.pem", &rsa.public_pem);
    let edge = Edge::with(with_keys(KeySource::PublicKeyFile(file.0.clone()))).await;
    let good = rsa.token(&header(Algorithm::RS256, None), &claims());
    accepted(&edge, &good).await;
    let der = pem::parse(&rsa.public_pem).unwrap();
    // The public key, in each form that a verifier might hold it in, as the secret of an HMAC.
    for secret in [
        rsa.public_pem.as_bytes(),
        rsa.public_pem.trim_end().as_bytes(),
        der.contents(),
        // Behind the head of a SubjectPublicKeyInfo: the key itself.
        &der.contents()[24..],
        b"",
    ] {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            refused(&edge, &signed_with_secret(algorithm, secret, &claims())).await;
        }
    }
    // Another name for the algorithm of a good signature, none among them.
    let [_, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!() };
    for algorithm in
        ["none", "None", "NONE", "", "HS256", "PS256", "RS384", "ES256", "EdDSA", "rs256", "RS1"]
    {
        let head = base64(&json!({ "alg": algorithm, "typ": "JWT" }).to_string());
        for signature in [signature, ""] {
            refused(&edge, &format!("{head}.{payload}.{signature}")).await;
        }
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_brings_no_key() {
    let (ours, theirs) = (SigningKey::p256(), SigningKey::p256());
    let file = File::new("ours.pem", &ours.public_pem);
    let edge = Edge::with(with_keys(KeySource::PublicKeyFile(file.0.clone()))).await;
    let mut head = header(Algorithm::ES256, Some("../../dev/null"));
    head.jwk = serde_json::from_value(theirs.jwk("k", Some(Algorithm::ES256))).unwrap();
    head.jku = Some("http://127.0.0.1:1/keys".to_owned());
    head.x5u = Some("http://127.0.0.1:1/keys".to_owned());
    refused(&edge, &theirs.token(&head, &claims())).await;
    // Signed with our key, what it says beside is nobody's business...
    accepted(&edge, &ours.token(&head, &claims())).await;
    // ... unless it says that one has to understand it.
    head.crit = Some(vec!["b64".to_owned()]);
    refused(&edge, &ours.token(&head, &claims())).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_for_the_algorithms_that_it_is_long_enough_for() {
    let algorithms = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
    for (length, allowed) in [(32, 1), (47, 1), (48, 2), (63, 2), (64, 3), (200, 3)] {
        let secret = "s".repeat(length);
        let edge = Edge::with(with_keys(KeySource::Secret(Secret::new(&secret)))).await;
        for (index, algorithm) in algorithms.into_iter().enumerate() {
            let token = signed_with_secret(algorithm, secret.as_bytes(), &claims());
            let expected = (index < allowed).then_some("u");
            assert_eq!(login(&edge, &token).await.as_deref(), expected, "{length} {algorithm:?}");
        }
        // A private key's signature is none for a secret.
        let key = SigningKey::p256();
        refused(&edge, &key.token(&header(Algorithm::ES256, None), &claims())).await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_rotated_while_the_edge_runs() {
    let (old, new) = ("the old secret, of thirty-two bytes", "the new secret, of thirty-two bytes");
    let signed = |secret: &str| signed_with_secret(Algorithm::HS256, secret.as_bytes(), &claims());
    let file = File::new("secrets", &format!("{old}\n"));
    let edge = Edge::with(with_keys(KeySource::SecretFile(file.0.clone()))).await;
    accepted(&edge, &signed(old)).await;
    refused(&edge, &signed(new)).await;
    file.write(&format!("{new}\r\n\n{old}"));
    refused(&edge, &signed(new)).await;
    edge.handle.reload().unwrap();
    accepted(&edge, &signed(old)).await;
    accepted(&edge, &signed(new)).await;
    assert_eq!(edge.handle.readiness(), Vec::<String>::new());
    // What is no good changes nothing.
    for text in ["", "\n\n", "short\n", &format!("{new}\nshort\n"), &format!("{new}\n").repeat(17)]
    {
        file.write(text);
        let problem = edge.handle.reload().unwrap_err().to_string();
        assert!(problem.starts_with("SIGNAL_JWT_SECRET_FILE names "), "{problem}");
        assert!(!problem.contains("new secret"), "{problem}");
        accepted(&edge, &signed(old)).await;
    }
    fs::remove_file(&file.0).unwrap();
    assert!(edge.handle.reload().is_err());
    accepted(&edge, &signed(old)).await;
    file.write(new);
    edge.handle.reload().unwrap();
    accepted(&edge, &signed(new)).await;
    refused(&edge, &signed(old)).await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_rotated_while_the_edge_runs() {
    let (old, new) = (SigningKey::ed25519(), SigningKey::rsa());
    let old_token = old.token(&header(Algorithm::EdDSA, None), &claims());
    let new_token = new.token(&header(Algorithm::PS256, None), &claims());
    let file = File::new("rotated.pem", &old.public_pem);
    let edge = Edge::with(with_keys(KeySource::PublicKeyFile(file.0.clone()))).await;
    file.write(&format!("{}{}", new.public_pem, old.public_pem));
    edge.handle.reload().unwrap();
    accepted(&edge, &old_token).await;
    accepted(&edge, &new_token).await;
    file.write(&new.private_pem);
    let problem = edge.handle.reload().unwrap_err().to_string();
    assert!(problem.contains("\"PRIVATE KEY\", allowed is \"PUBLIC KEY\""), "{problem}");
    accepted(&edge, &old_token).await;
    file.write(&new.public_pem);
    edge.handle.reload().unwrap();
    refused(&edge, &old_token).await;
    accepted(&edge, &new_token).await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_public_keys_is_told() {
    // 1024 bits.
    let small = "-----BEGIN PUBLIC KEY-----\n\
                 MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugd\n\
                 UWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQs\n\
                 HUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5D\n\
                 o2kQ+X5xK9cipRgEKwIDAQAB\n-----END PUBLIC KEY-----\n";
    let p256 = SigningKey::p256();
    // A point that is not on the curve.
    let mut off = pem::parse(&p256.public_pem).unwrap().into_contents();
    let last = off.len() - 1;
    off[last] ^= 1;
    let off = pem::encode(&pem::Pem::new("PUBLIC KEY", off));
    for (text, problem) in [
        ("", "there is no PEM"),
        ("nonsense", "there is no PEM"),
        (SECRET, "there is no PEM"),
        (&p256.private_pem, "there is a \"PRIVATE KEY\""),
        (&p256.public_pem.replace("PUBLIC KEY", "CERTIFICATE"), "there is a \"CERTIFICATE\""),
        (&p256.public_pem.repeat(17), "more than 16 keys"),
        (&off, "a key is not of RSA"),
        (small, "a key is not of RSA"),
        (&format!("{}{small}", p256.public_pem), "a key is not of RSA"),
        (&"x".repeat(65 * 1024), "it has more than 65536 bytes"),
    ] {
        let file = File::new("no-keys.pem", text);
        let settings = with_keys(KeySource::PublicKeyFile(file.0.clone()));
        let error = Signal::builder().config(settings).bind().await.unwrap_err().to_string();
        assert!(error.starts_with("SIGNAL_JWT_PUBLIC_KEY_FILE names "), "{error}");
        assert!(error.contains(problem), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_within_their_bounds() {
    let mut settings = with_keys(KeySource::Secret(Secret::new(SECRET)));
    settings.auth = Auth::Jwt(JwtSettings {
        keys: KeySource::Secret(Secret::new(SECRET)),
        issuer: Some("shop".to_owned()),
        audience: Some("pos".to_owned()),
    });
    let edge = Edge::with(settings).await;
    let signed = |claims: &Value| {
        let mut all = json!({ "sub": "u", "iss": "shop", "aud": "pos" });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        signed_with_secret(Algorithm::HS256, SECRET.as_bytes(), &all)
    };
    let now = expiry(Duration::ZERO);
    let patterns = |count| vec!["a:*"; count];
    // RFC 7519 allows a fraction of a second.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let fraction = now as f64 + 90.5;
    for claims in [
        json!({}),
        json!({ "exp": fraction }),
        json!({ "exp": u64::MAX }),
        json!({ "nbf": now + 20 }),
        json!({ "aud": ["admin", "pos"] }),
        json!({ "rooms": patterns(256) }),
        json!({ "padding": "x".repeat(10_000) }),
    ] {
        accepted(&edge, &signed(&claims)).await;
    }
    for claims in [
        json!({ "exp": now - 40 }),
        json!({ "exp": -1 }),
        json!({ "exp": -1.5 }),
        json!({ "exp": [now + 60] }),
        json!({ "nbf": now + 40 }),
        json!({ "nbf": "now" }),
        json!({ "iss": "other" }),
        json!({ "aud": "other" }),
        json!({ "aud": ["other"] }),
        json!({ "aud": { "pos": true } }),
        json!({ "rooms": patterns(257) }),
        json!({ "rooms": ["a".repeat(1025)] }),
        json!({ "join": "lobby" }),
        json!({ "padding": "x".repeat(16_000) }),
    ] {
        refused(&edge, &signed(&claims)).await;
    }
    // Claims that are no object.
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    for claims in [json!(null), json!([]), json!("u"), json!(["u", now + 60, [], []])] {
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap();
        refused(&edge, &token).await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_megabyte_is_not_looked_at() {
    let mut settings = with_keys(KeySource::Secret(Secret::new(SECRET)));
    settings.max_message = 4 * 1024 * 1024;
    settings.max_outbox = 8 * 1024 * 1024;
    let edge = Edge::with(settings).await;
    let huge = json!({ "sub": "u", "padding": "x".repeat(1024 * 1024) });
    refused(&edge, &signed_with_secret(Algorithm::HS256, SECRET.as_bytes(), &huge)).await;
    refused(&edge, &".".repeat(1024 * 1024)).await;
    refused(&edge, &"x".repeat(1024 * 1024)).await;
    edge.is_empty().await;
    edge.stop().await;
}

/// Base64 for URLs, without padding.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for index in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
    out
}
