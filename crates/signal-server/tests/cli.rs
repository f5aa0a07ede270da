//! The binary: what it says of settings, how it ends, and its tools against an edge.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::json;
use signal_core::redis::Secret;
use signal_server::config::{Auth, Encryption, JwtSettings, KeySource};
use support::http::get_json;
use support::process::{Process, failure, printed, run};
use support::{Edge, Frame, Redis, Socket, config};
use tokio::net::TcpListener;

const SECRET: &str = "a secret of some length, for tests only";

/// An edge for development, on ports of its own.
const DEV: [(&str, &str); 5] = [
    ("SIGNAL_AUTH", "insecure-dev"),
    ("SIGNAL_LISTEN", "127.0.0.1:0"),
    ("SIGNAL_ADMIN_LISTEN", "127.0.0.1:0"),
    ("SIGNAL_WORKERS", "1"),
    ("SIGNAL_DRAIN_DELAY", "0s"),
];

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_are_told_in_one_sentence() {
    let needs = "SIGNAL_AUTH is \"jwt\" and needs one of SIGNAL_JWT_SECRET, SIGNAL_JWT_SECRET_FILE, \
                 SIGNAL_JWT_PUBLIC_KEY_FILE, SIGNAL_JWT_JWKS_URL (for a try without: \
                 SIGNAL_AUTH=insecure-dev)";
    let short = "SIGNAL_JWT_SECRET is no good: a secret has fewer than 32 bytes";
    let file = "SIGNAL_JWT_SECRET_FILE names \"/nowhere/secret\", which cannot be read: No such file or \
                directory (os error 2)";
    let workers = "SIGNAL_WORKERS is \"many\", allowed is a whole number from 1 to 64";
    let misspelt = "SIGNAL_WORKER is not a setting of Signal, did you mean SIGNAL_WORKERS?";
    for (name, value, expected) in [
        ("HOME", "/", needs),
        ("SIGNAL_JWT_SECRET", "short", short),
        ("SIGNAL_JWT_SECRET_FILE", "/nowhere/secret", file),
        ("SIGNAL_WORKERS", "many", workers),
        ("SIGNAL_WORKER", "1", misspelt),
        ("SIGNAL_XYZZY_PLUGH", "1", "SIGNAL_XYZZY_PLUGH is not a setting of Signal"),
        (
            "SIGNAL_LOG",
            "signal=loudest",
            "SIGNAL_LOG is \"signal=loudest\", allowed is a filter, like info or signal_server=debug",
        ),
        ("SIGNAL_LOG_FORMAT", "xml", "SIGNAL_LOG_FORMAT is \"xml\", allowed is text or json"),
    ] {
        for command in [&[][..], &["serve"], &["check"]] {
            let (code, said) = failure(command, &[(name, value)]).await;
            assert_eq!((code, said.as_str()), (64, expected), "{name}={value}");
        }
    }
    // A flag goes over the environment, and its variable is named.
    let (code, said) = failure(&["serve", "--workers", "many"], &[("SIGNAL_WORKERS", "1")]).await;
    assert_eq!((code, said.as_str()), (64, workers));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_arguments_are_too_and_help_is_no_failure() {
    for (arguments, word) in [
        (&["--workrs", "1"][..], "'--workrs'"),
        (&["serve", "--listen"], "'--listen <VALUE>'"),
        (&["dance"], "'dance'"),
        (&["emit", "--event", "e"], "--room <ROOM>"),
        (&["emit", "--all", "--user", "u", "--event", "e"], "'--user <USER>'"),
        (&["emit", "--all"], "--event <EVENT>"),
        (&["token"], "--user <USER>"),
        (&["completions", "cmd"], "'cmd'"),
    ] {
        let (code, said) = failure(arguments, &[]).await;
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(word), "{said}");
    }
    for (arguments, word) in [
        (&["--help"][..], "demo"),
        (&["help", "emit"], "--exclude"),
        (&["serve", "--help"], "SIGNAL_MAX_OUTBOX"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "complete"),
        (&["man"], ".TH signal"),
    ] {
        let said = printed(arguments, &[]).await;
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_what_is_in_effect_but_no_secret() {
    let secrets = [
        ("SIGNAL_JWT_SECRET", SECRET),
        ("SIGNAL_API_KEY", "a key that nobody sees"),
        ("APP_ENV_WEBSOCKET_REDIS_PASSWORD", "a password that nobody sees"),
        ("SIGNAL_ROOMS", "lobby"),
    ];
    let said = printed(&["check", "--max-rooms", "7"], &secrets).await;
    let value = |name: &str| {
        let line = said.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    for (name, expected) in [
        ("SIGNAL_JWT_SECRET", Some("***")),
        ("SIGNAL_API_KEY", Some("***")),
        ("APP_ENV_WEBSOCKET_REDIS_PASSWORD", Some("***")),
        ("SIGNAL_ROOMS", Some("lobby")),
        ("SIGNAL_MAX_ROOMS", Some("7")),
        ("SIGNAL_PING_INTERVAL", Some("30s  (default)")),
        ("SIGNAL_JWT_ISSUER", None),
    ] {
        assert_eq!(value(name).as_deref(), expected, "{name}");
    }
    assert!(said.ends_with("\nok: in-process bus, one edge\n"), "{said}");
    for (name, secret) in &secrets[..3] {
        assert!(!said.contains(secret), "{name} is shown");
    }

    let mut redis = Redis::start().await;
    let port = redis.port.to_string();
    let variables = [
        ("SIGNAL_AUTH", "insecure-dev"),
        ("APP_ENV_WEBSOCKET_REDIS_MODE", "single"),
        ("APP_ENV_WEBSOCKET_REDIS_PORT", &port),
    ];
    assert!(printed(&["check"], &variables).await.ends_with("\nok: redis answers\n"));
    redis.kill();
    let output = run(&["check"], &variables).await;
    assert_eq!(output.status.code(), Some(64));
    assert!(!output.stderr.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_minted_token_logs_in() {
    let variables = [("SIGNAL_JWT_SECRET", SECRET), ("SIGNAL_JWT_ISSUER", "shop")];
    let arguments = ["token", "--user", "u-7", "--room", "branch:*", "--expires", "5m"];
    let token = printed(&arguments, &variables).await;
    let mut settings = config();
    let issuer = Some("shop".to_owned());
    let keys = KeySource::Secret(Secret::new(SECRET));
    settings.auth = Auth::Jwt(JwtSettings { keys, issuer, audience: None });
    settings.rooms = Vec::new();
    let edge = Edge::with(settings).await;
    let mut socket = edge.connect().await;
    let data = json!({ "token": token.trim_end() });
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
    let connected = socket.event("connected").await;
    assert_eq!(connected["userId"], "u-7");
    connected["id"].as_str().unwrap().clone_into(&mut socket.id);
    edge.join(&mut socket, &["branch:1"]).await;

    // The same token lets `tail` in.
    let url = format!("ws://{}/ws", edge.address);
    let mut tail = Process::start(
        &["tail", "--url", &url, "--token", token.trim_end(), "--room", "branch:2"],
        &[],
    );
    assert!(tail.line().await.unwrap().contains("  connected            {\"id\":"));
    support::until("it has joined", async || edge.counts().await.memberships == 6).await;
    edge.handle.send_to_room("branch:2", "order.created", &json!({ "n": 1 })).await.unwrap();
    let line = tail.line().await.unwrap();
    let (time, rest) = line.split_at(24);
    assert_eq!(rest, "  order.created        {\"n\":1}");
    assert!(time.ends_with('Z'), "{time}");
    edge.stop().await;
    assert_eq!(tail.exit_code().await, Some(69));
    drop(socket);

    for (arguments, word) in [
        (&["token", "--user", "u", "--expires", "soon"][..], "--expires"),
        (&["token", "--user", "u", "--room", "a*"], "pattern"),
    ] {
        let (code, said) = failure(arguments, &variables).await;
        assert_eq!(code, 64);
        assert!(said.contains(word), "{said}");
    }
    let (code, said) = failure(&["token", "--user", "u"], &DEV).await;
    assert_eq!((code, said.as_str()), (64, "SIGNAL_AUTH is not jwt, so no token is needed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_why_it_ended() {
    let mut settings = config();
    settings.auth = Auth::jwt(KeySource::Secret(Secret::new(SECRET)));
    let edge = Edge::with(settings).await;
    let url = format!("ws://{}/ws", edge.address);
    let refused = run(&["tail", "--url", &url, "--token", "nonsense"], &[]).await;
    assert_eq!(refused.status.code(), Some(69));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(said, "signal: the edge closed the connection: 4003 Authentication failed\n");
    assert!(String::from_utf8(refused.stdout).unwrap().contains("Authentication failed"));
    let missing = format!("ws://{}/nothing", edge.address);
    let nobody = {
        let unused = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("ws://{}/ws", unused.local_addr().unwrap())
    };
    for (url, code) in [(missing.as_str(), 69), (&nobody, 69), ("http://x/", 64), ("x", 64)] {
        assert_eq!(failure(&["tail", "--url", url], &[]).await.0, code, "{url}");
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_reaches_the_clients_of_a_demo() {
    let mut variables = DEV;
    // It is a demo on IPv6 as well.
    variables[2] = ("SIGNAL_ADMIN_LISTEN", "[::1]:0");
    let mut demo = Process::start(&["demo"], &variables);
    let fields = demo.logged("listening").await;
    let address = fields["address"].as_str().unwrap().parse().unwrap();
    let via = format!("http://{}", fields["admin"].as_str().unwrap());
    let mut introduction = String::new();
    while !introduction.contains("Ctrl-C") {
        introduction.push_str(&demo.line().await.expect("more"));
    }
    for word in
        [&format!("http://{address}"), "signal tail --url ws://", "signal emit --via http://"]
    {
        assert!(introduction.contains(word), "{introduction}");
    }
    let mut socket = Socket::connect(address, "/ws").await;
    socket.login("somebody").await;
    let emit = ["emit", "--via", &via, "--key", "demo", "--user", "somebody", "--event", "hello"];
    let said = printed(&[&emit[..], &["--data", "{\"n\":1.10}"]].concat(), &[]).await;
    assert_eq!(said, "published, 1 receivers\n");
    let text = loop {
        // The demo's own traffic comes in between.
        let text = socket.text().await;
        if text.contains("\"hello\"") {
            break text;
        }
    };
    assert_eq!(text, r#"{"event":"hello","data":{"n":1.10}}"#);
    let wrong = ["emit", "--via", &via, "--key", "wrong", "--all", "--event", "e"];
    assert_eq!(failure(&wrong, &[]).await.0, 64);
    demo.kill("-INT").await;
    while !matches!(socket.next().await, Frame::Close(1001, _)) {}
    socket.end().await;
    assert_eq!(demo.exit_code().await, Some(0));

    let (code, said) = failure(&["demo", "--admin-listen", "off", "--log", "off"], &DEV).await;
    assert_eq!(code, 64);
    assert!(said.starts_with("SIGNAL_ADMIN_LISTEN is off"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_drains_and_a_second_one_does_not_wait() {
    let mut edge = Process::start(&[], &DEV);
    let address = edge.listening().await;
    // At once: it listened for signals before it said that it was there.
    edge.kill("-TERM").await;
    edge.logged("draining").await;
    edge.logged("stopped").await;
    assert_eq!(edge.exit_code().await, Some(0));
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");

    let window = ("SIGNAL_DRAIN_WINDOW", "1h");
    let mut edge = Process::start(&["serve"], &[&DEV[..], &[window]].concat());
    let address = edge.listening().await;
    let mut socket = Socket::connect(address, "/ws").await;
    socket.login("u").await;
    edge.kill("-INT").await;
    edge.logged("draining").await;
    assert_eq!(get_json(address, "/readyz").await.0, 503);
    edge.kill("-TERM").await;
    assert_eq!(socket.closed().await, (1001, "Server shutting down".to_owned()));
    edge.logged("stopping at once").await;
    assert_eq!(edge.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = (taken.local_addr().unwrap().to_string(), taken);
    let expected = format!("cannot listen on {}: Address already in use (os error 98)", taken.0);
    for flag in ["--listen", "--admin-listen"] {
        let (code, said) = failure(&["serve", flag, &taken.0], &DEV).await;
        assert_eq!((code, said), (1, expected.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_opens_what_is_sealed() {
    for (encryption, sealed) in [(Encryption::Required, 2), (Encryption::Off, 0)] {
        let mut settings = config();
        settings.encryption = encryption;
        let edge = Edge::with(settings).await;
        let url = format!("ws://{}/ws", edge.address);
        let mut tail = Process::start(&["tail", "--url", &url, "--user", "u"], &[]);
        assert!(tail.line().await.unwrap().contains("  connected            {\"id\":"));
        for number in 0..2 {
            edge.handle.send_to_user("u", "order.created", &number).await.unwrap();
            let line = tail.line().await.unwrap();
            assert!(line.ends_with(&format!("  order.created        {number}")), "{line}");
        }
        assert_eq!(edge.counts().await.counters.sealed_for_sessions, sealed);
        edge.stop().await;
        assert_eq!(tail.exit_code().await, Some(69));
    }
}
