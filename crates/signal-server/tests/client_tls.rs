//! The Rust client and `signal tail` over `wss:`: whom they trust, and what they say of whom they do not.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::json;
use signal_client::{Config, ConfigError, Event, To};
use support::client::{closed, next, next_message, next_online, online};
use support::process::{Process, failure, run};
use support::tls::{Authority, Files, Identity};
use support::{Edge, config};

/// An edge with this certificate, and its files, which it reads as long as it runs.
async fn edge(identity: &Identity) -> (Edge, Files) {
    let files = Files::of(identity);
    let mut settings = config();
    settings.tls = Some(files.files.clone());
    (Edge::with(settings).await, files)
}

fn url(edge: &Edge, host: &str) -> String {
    format!("wss://{host}:{}/ws", edge.address.port())
}

fn settings(url: &str) -> Config {
    let config = Config::new(url).expect("an address");
    config.credentials(json!({ "userId": "ann" }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_an_own_authority_is_served_and_comes_back() {
    let authority = Authority::new("ours");
    let (edge, files) = edge(&authority.signs("127.0.0.1", |_| {})).await;
    let path = files.add("authority.pem", &authority.certificate_pem);
    let config = settings(&url(&edge, "127.0.0.1")).authorities(path).expect("authorities");
    let (client, mut events) = online(support::client::quick(config)).await;
    client.join(["r"]).await.expect("joined");
    // Beyond one record and beyond what a socket takes at once, both ways.
    let large = "x".repeat(400_000);
    for data in ["small", &large] {
        edge.handle.send_to_room("r", "e", data).await.expect("published");
        let message = next_message(&mut events).await;
        assert_eq!(message.to, To::Room("r".to_owned()));
        assert_eq!(message.parse::<String>().expect("a string"), data);
    }
    let refused = client.request("e", &"y".repeat(100_000)).await.expect_err("nothing handles it");
    assert!(refused.to_string().contains("unsupported"), "{refused}");

    // A connection that is lost is made again, by a handshake that may resume.
    let address = edge.address;
    let mut again = support::config();
    again.tls = Some(files.files.clone());
    again.listen = address;
    edge.stop().await;
    assert!(matches!(next(&mut events).await, Event::Recovering { .. }));
    let edge = Edge::with(again).await;
    next_online(&mut events).await;
    edge.handle.send_to_room("r", "after", &()).await.expect("published");
    loop {
        if let Event::Message(message) = next(&mut events).await {
            assert_eq!(message.event, "after");
            break;
        }
    }
    client.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_verify_is_refused_and_named() {
    let authority = Authority::new("ours");
    let good = authority.signs("localhost", |_| {});
    let expired = authority.signs("127.0.0.1", |params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    });
    let stranger = Authority::new("another").signs("127.0.0.1", |_| {});
    for (identity, said) in [
        (stranger, "is of no authority that is trusted here"),
        (good, "is only valid for DnsName(\"localhost\")"),
        (expired, "certificate expired"),
    ] {
        let (edge, files) = edge(&identity).await;
        let path = files.add("authority.pem", &authority.certificate_pem);
        let config = settings(&url(&edge, "127.0.0.1")).authorities(path).expect("authorities");
        let (_client, mut events) = signal_client::connect(config.once());
        let loss = closed(&mut events).await.to_string();
        let expected = format!("no TLS with {}: its certificate ", url(&edge, "127.0.0.1"));
        assert!(loss.starts_with(&expected) && loss.contains(said), "{loss}");
        edge.is_empty().await;
        edge.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_authorities_are_told_at_once() {
    let files = Files::of(&Identity::new());
    let config = || settings("wss://localhost/ws");
    for (path, said) in [
        (files.add("empty.pem", ""), "there is no certificate in it"),
        (files.files.key.clone(), "there is no certificate in it"),
        (
            files.add("bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "",
        ),
        (files.files.key.join("missing"), ""),
    ] {
        let error = config().authorities(&path).expect_err("it has none");
        assert!(matches!(&error, ConfigError::Authorities { .. }));
        let expected = format!("no authorities can be read from {}: {said}", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_over_tls() {
    let authority = Authority::new("ours");
    let (edge, files) = edge(&authority.signs("localhost", |_| {})).await;
    let path = files.add("authority.pem", &authority.certificate_pem);
    let path = path.to_str().expect("a path in UTF-8");
    let url = url(&edge, "localhost");
    let arguments = ["tail", "--url", &url, "--user", "u", "--ca-file", path];
    let mut tail = Process::start(&arguments, &[]);
    assert!(tail.line().await.expect("a line").contains("  connected            {\"id\":"));
    edge.handle.send_to_user("u", "e", &1).await.expect("published");
    assert!(tail.line().await.expect("a line").ends_with("  e                    1"));

    // Whoever does not know the authority is told so, and so is who finds no TLS.
    let stranger = files.add("stranger.pem", &Authority::new("another").certificate_pem);
    let stranger = stranger.to_str().expect("a path in UTF-8");
    let (code, said) = failure(&["tail", "--url", &url, "--ca-file", stranger], &[]).await;
    let expected = "its certificate is of no authority that is trusted here";
    assert_eq!((code, said), (69, format!("no TLS with {url}: {expected}")));
    let plain = Edge::start().await;
    let there = format!("wss://{}/ws", plain.address);
    let (code, said) = failure(&["tail", "--url", &there, "--ca-file", path], &[]).await;
    assert!(code == 69 && said.starts_with(&format!("no TLS with {there}: ")), "{said}");
    let (code, said) = failure(&["tail", "--url", &url, "--ca-file", "/nothing"], &[]).await;
    assert!(code == 64 && said.starts_with("no authorities can be read from /nothing"), "{said}");
    // Without the option the system's count, of which this is none.
    let output = run(&["tail", "--url", &url], &[]).await;
    assert_eq!(output.status.code(), Some(69));
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(said.contains("authorit"), "{said}");

    edge.stop().await;
    assert_eq!(tail.exit_code().await, Some(69));
    plain.stop().await;
}
