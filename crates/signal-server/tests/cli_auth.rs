//! The binary and its keys: which settings go together, SIGHUP, HTTPS, development tokens, and what it
//! never says.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use jsonwebtoken::Algorithm;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use support::http::request;
use support::keys::{SigningKey, header, jwks, pem, signed_with_secret};
use support::process::{Process, failure, printed};
use support::socket::{Socket, upgrade};
use support::web::{Reply, Web};
use support::{until, within};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

const SECRET: &str = "a secret of some length, for tests only";

/// An edge on ports of its own; who may log in is still to be said.
const EDGE: [(&str, &str); 6] = [
    ("SIGNAL_LISTEN", "127.0.0.1:0"),
    ("SIGNAL_ADMIN_LISTEN", "127.0.0.1:0"),
    ("SIGNAL_WORKERS", "1"),
    ("SIGNAL_DRAIN_DELAY", "0s"),
    ("SIGNAL_DRAIN_WINDOW", "0s"),
    ("SIGNAL_LOG_FORMAT", "json"),
];

/// Files of a test, which go with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("signal-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("it can be made");
        Self(path)
    }

    /// Writes a file; returns its path.
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("it can be written");
        path.to_str().expect("a path is text").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn edge(variables: &[(&str, &str)]) -> Process {
    Process::start(&["serve"], &[&EDGE[..], variables].concat())
}

/// What a login with this token is answered, and by whom or why.
async fn login(address: std::net::SocketAddr, token: &str) -> (String, Value) {
    let mut socket = Socket::connect(address, "/ws").await;
    socket.send(&json!({ "event": "authenticate", "data": { "token": token } })).await;
    let (event, mut data) = socket.next_event().await;
    let about = if event == "connected" { "userId" } else { "message" };
    (event, data[about].take())
}

fn accepted() -> (String, Value) {
    ("connected".to_owned(), json!("u"))
}

fn undecided() -> (String, Value) {
    ("error".to_owned(), json!("Authentication error"))
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_go_together_are_told_in_one_sentence() {
    let folder = Folder::new("together");
    let key = folder.write("key.pem", &SigningKey::ed25519().public_pem);
    let secret = ("SIGNAL_JWT_SECRET", SECRET);
    let key_file = ("SIGNAL_JWT_PUBLIC_KEY_FILE", &*key);
    let set = ("SIGNAL_JWT_JWKS_URL", "http://127.0.0.1:1/keys");
    let webhook = ("SIGNAL_AUTH", "webhook");
    let url = ("SIGNAL_AUTH_WEBHOOK_URL", "http://127.0.0.1:1/login");
    for (variables, sentence) in [
        (
            &[secret, key_file][..],
            "SIGNAL_JWT_SECRET and SIGNAL_JWT_PUBLIC_KEY_FILE are both set, allowed is one",
        ),
        (
            &[key_file, set],
            "SIGNAL_JWT_PUBLIC_KEY_FILE and SIGNAL_JWT_JWKS_URL are both set, allowed is one",
        ),
        (
            &[secret, url],
            "SIGNAL_AUTH_WEBHOOK_URL is set, but SIGNAL_AUTH is \"jwt\", which does not obey it",
        ),
        (&[webhook], "SIGNAL_AUTH is \"webhook\" and needs SIGNAL_AUTH_WEBHOOK_URL"),
        (
            &[webhook, url, set],
            "SIGNAL_JWT_JWKS_URL is set, but SIGNAL_AUTH is \"webhook\", which does not obey it",
        ),
        (
            &[webhook, url, ("SIGNAL_JWT_AUDIENCE", "pos")],
            "SIGNAL_JWT_AUDIENCE is set, but SIGNAL_AUTH is \"webhook\", which does not obey it",
        ),
        (
            &[webhook, ("SIGNAL_AUTH_WEBHOOK_URL", "ftp://x/")],
            "SIGNAL_AUTH_WEBHOOK_URL is \"ftp://x/\", allowed is an http:// or https:// URL without a user in it",
        ),
        (
            &[("SIGNAL_JWT_JWKS_URL", "https:///keys")],
            "SIGNAL_JWT_JWKS_URL is \"https:///keys\", allowed is an http:// or https:// URL without a user in it",
        ),
        (
            &[("SIGNAL_JWT_JWKS_URL", "http://user:password@host/")],
            "SIGNAL_JWT_JWKS_URL is \"***\", allowed is an http:// or https:// URL without a user in it",
        ),
        (
            &[webhook, url, ("SIGNAL_AUTH_WEBHOOK_TIMEOUT", "0s")],
            "SIGNAL_AUTH_WEBHOOK_TIMEOUT is \"0s\", allowed is a positive duration up to 1m",
        ),
        (
            &[webhook, url, ("SIGNAL_AUTH_WEBHOOK_TIMEOUT", "2m")],
            "SIGNAL_AUTH_WEBHOOK_TIMEOUT is \"2m\", allowed is a positive duration up to 1m",
        ),
    ] {
        for command in ["serve", "check"] {
            assert_eq!(failure(&[command], variables).await, (64, sentence.to_owned()));
        }
    }
    // Each by itself is allowed, and a try needs nothing else.
    for variables in [
        &[secret][..],
        &[key_file],
        &[set],
        &[webhook, url],
        &[("SIGNAL_AUTH", "insecure-dev"), secret],
    ] {
        let said = printed(&["check"], variables).await;
        assert!(said.ends_with("\nok: in-process bus, one edge\n"), "{said}");
        for (name, value) in variables.iter().filter(|(name, _)| *name != secret.0) {
            assert!(said.contains(&format!("{name:<40} {value}\n")), "{said}");
        }
        assert!(!said.contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_keys_anew() {
    let folder = Folder::new("sighup");
    let new = "another secret of some length, for tests";
    let signed = |secret: &str| {
        signed_with_secret(Algorithm::HS256, secret.as_bytes(), &json!({ "sub": "u" }))
    };
    let path = folder.write("secrets", SECRET);
    let mut edge = edge(&[("SIGNAL_JWT_SECRET_FILE", &path)]);
    let address = edge.listening().await;
    assert_eq!(login(address, &signed(SECRET)).await, accepted());
    folder.write("secrets", "short");
    edge.kill("-HUP").await;
    let fields = edge.logged("files are no good; what was read before is kept").await;
    assert!(fields["error"].as_str().unwrap().contains("fewer than 32 bytes"), "{fields}");
    assert_eq!(login(address, &signed(SECRET)).await, accepted());
    folder.write("secrets", &format!("{new}\n{SECRET}\n"));
    edge.kill("-HUP").await;
    edge.logged("files are read anew").await;
    assert_eq!(login(address, &signed(SECRET)).await, accepted());
    assert_eq!(login(address, &signed(new)).await, accepted());
    edge.kill("-TERM").await;
    assert_eq!(edge.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn development_tokens_of_private_keys() {
    let folder = Folder::new("token");
    for (name, key) in [
        ("rsa", SigningKey::rsa()),
        ("p256", SigningKey::p256()),
        ("p384", SigningKey::p384()),
        ("ed25519", SigningKey::ed25519()),
    ] {
        let public = folder.write("public.pem", &key.public_pem);
        let private = folder.write("private.pem", &key.private_pem);
        let variables = [("SIGNAL_JWT_PUBLIC_KEY_FILE", &*public), ("SIGNAL_JWT_AUDIENCE", "pos")];
        let token = printed(&["token", "--user", "u", "--key", &private], &variables).await;
        let mut edge = edge(&variables);
        assert_eq!(login(edge.listening().await, token.trim_end()).await, accepted(), "{name}");
        let (code, said) = failure(&["token", "--user", "u"], &variables).await;
        let expected = "the keys are public ones, so --key has to name a private one";
        assert_eq!((code, &*said), (64, expected));
        let (code, said) = failure(&["token", "--user", "u", "--key", &public], &variables).await;
        assert!(code == 64 && said.contains("which is no private key"), "{said}");
    }
    // Of several secrets the first one signs.
    let path =
        folder.write("secrets", &format!("{SECRET}\nanother secret of some length, for tests\n"));
    let token = printed(&["token", "--user", "u"], &[("SIGNAL_JWT_SECRET_FILE", &path)]).await;
    let mut edge = edge(&[("SIGNAL_JWT_SECRET", SECRET)]);
    assert_eq!(login(edge.listening().await, token.trim_end()).await, accepted());
}

/// An authority, and a server's certificate that it has signed for localhost.
fn certificates() -> (String, TlsAcceptor) {
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::new(vec![]).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&authority_key).expect("a certificate");
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let server = server.signed_by(&key, &issuer).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the versions are known")
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .expect("the key is the certificate's");
    (pem("CERTIFICATE", certificate.der().to_vec()), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_logins_over_https() {
    let folder = Folder::new("https");
    let (authority, acceptor) = certificates();
    let (other_authority, _) = certificates();
    let trusted = ("SSL_CERT_FILE", &*folder.write("authority.pem", &authority));
    let untrusted = ("SSL_CERT_FILE", &*folder.write("other.pem", &other_authority));
    let key = SigningKey::p256();
    let token = key.token(&header(Algorithm::ES256, Some("k")), &json!({ "sub": "u" }));
    let web = Web::start_tls(Reply::Answer(200, jwks(&[key.jwk("k", None)])), acceptor).await;
    let port = web.address.port();
    let url = format!("https://localhost:{port}/");

    let mut good = edge(&[("SIGNAL_JWT_JWKS_URL", &url), trusted]);
    assert_eq!(login(good.listening().await, &token).await, accepted());
    assert!(web.asked()[0].head.contains(&format!("host: localhost:{port}\r\n")));
    good.kill("-TERM").await;
    assert_eq!(good.exit_code().await, Some(0));
    let asked = web.asked().len();
    // Not the authority, or not the name.
    let by_address = format!("https://127.0.0.1:{port}/");
    for variables in [
        [("SIGNAL_JWT_JWKS_URL", &*url), untrusted],
        [("SIGNAL_JWT_JWKS_URL", &*by_address), trusted],
    ] {
        let mut edge = edge(&variables);
        assert_eq!(login(edge.listening().await, &token).await, undecided(), "{variables:?}");
    }
    assert_eq!(web.asked().len(), asked, "no request without a certificate that is good");

    web.answers(Reply::Answer(200, "{\"userId\":\"u\"}".to_owned()));
    let webhook = ("SIGNAL_AUTH", "webhook");
    let mut good = edge(&[webhook, ("SIGNAL_AUTH_WEBHOOK_URL", &url), trusted]);
    let address = good.listening().await;
    for _ in 0..3 {
        assert_eq!(login(address, "t").await, accepted());
    }
    let mut bad = edge(&[webhook, ("SIGNAL_AUTH_WEBHOOK_URL", &url), untrusted]);
    assert_eq!(login(bad.listening().await, "t").await, undecided());
    assert_eq!(web.asked().len(), asked + 3);

    // Nobody to trust is told at the start, not at the first login.
    let empty = ("SSL_CERT_FILE", &*folder.write("empty.pem", ""));
    let variables = [&EDGE[..], &[("SIGNAL_JWT_JWKS_URL", &*url), empty]].concat();
    let (code, said) = failure(&["serve"], &variables).await;
    assert!(code == 64 && said.contains("no certificate authorities to trust"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_in_no_log_and_no_metric() {
    let web = Web::start(Reply::Answer(500, String::new())).await;
    let url = web.url("/");
    let settings = [
        vec![("SIGNAL_JWT_SECRET", SECRET)],
        vec![("SIGNAL_AUTH", "webhook"), ("SIGNAL_AUTH_WEBHOOK_URL", &url)],
    ];
    for mut variables in settings {
        variables.push(("SIGNAL_LOG", "trace"));
        let mut edge = edge(&variables);
        let listening = edge.logged("listening").await;
        let address = listening["address"].as_str().unwrap().parse().unwrap();
        let admin = listening["admin"].as_str().unwrap().parse().unwrap();
        let good = signed_with_secret(Algorithm::HS256, SECRET.as_bytes(), &json!({ "sub": "u" }));
        let signature = good.rsplit('.').next().unwrap().to_owned();
        for token in [&good, &format!("{good}x"), &format!("x{signature}")] {
            login(address, token).await;
            let entry = format!("signal.v1.json, signal.v1.token.{token}");
            let bearer = format!("Bearer {token}");
            for headers in [
                &[("Sec-WebSocket-Protocol", &*entry)][..],
                &[("Sec-WebSocket-Protocol", "signal.v1.json"), ("Authorization", &*bearer)],
            ] {
                let (mut socket, _) = Socket::open(address, &upgrade("/ws", headers)).await;
                socket.next_event().await;
            }
        }
        let (_, metrics) = request(admin, "GET", "/metrics", "", "").await;
        assert!(!metrics.contains(&signature));
        edge.kill("-TERM").await;
        let mut lines = 0;
        while let Some(line) = within("a line", edge.logs.next_line()).await.unwrap() {
            assert!(!line.contains(&signature), "{line}");
            assert!(!line.contains(SECRET), "{line}");
            lines += 1;
        }
        assert!(lines > 10, "{lines} lines at this level");
    }
    until("the service was asked", async || web.asked().len() >= 9).await;
}
