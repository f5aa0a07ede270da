//! What strangers can take from an edge: places, time, attention. Each limit is reached here, counted,
//! and leaves nothing behind.

#![allow(clippy::large_futures, reason = "a test runs once")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use signal_server::Config;
use signal_server::config::Origins;
use support::http::{get_json, request};
use support::socket::upgrade;
use support::{Edge, Frame, Socket, config, until, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// As many as there are places by default.
const FLOOD: usize = 5000;

/// Connections beyond the places that still get an answer.
const SPARE: usize = 128;

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

/// So many connections that say nothing, but for those that have been refused already.
async fn silent(edge: &Edge, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.extend(within("a connection", TcpStream::connect(edge.address)).await.ok());
    }
    streams
}

/// All that comes until the end, which may be a hard one.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = within("an end", stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).to_ascii_lowercase()
}

/// The answer to an upgrade, sent from an address of this machine.
async fn upgrade_from(edge: &Edge, address: &str, headers: &[(&str, &str)]) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
    let mut stream = within("a connection", socket.connect(edge.address)).await.unwrap();
    let _ = stream.write_all(upgrade("/ws", headers).as_bytes()).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match within("an answer", stream.read_u8()).await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

async fn status_from(edge: &Edge, address: &str, headers: &[(&str, &str)]) -> (TcpStream, u16) {
    let (stream, head) = upgrade_from(edge, address, headers).await;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (stream, status.unwrap_or_else(|| panic!("{head:?}")))
}

/// A metric's value.
async fn metric(edge: &Edge, name: &str) -> u64 {
    let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

async fn refused(edge: &Edge, reason: &str) -> u64 {
    metric(edge, &format!("signal_refused_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_silent_connections_keep_nobody_out_for_long() {
    let edge = Edge::start().await;
    let mut flood = silent(&edge, FLOOD).await;
    until("all are there", async || edge.counts().await.unauthenticated == FLOOD).await;
    assert_eq!(metric(&edge, "signal_unauthenticated").await, FLOOD as u64);
    // Who comes now is told so, and health checks are answered.
    let refusal = Socket::open(edge.address, &upgrade("/ws", &[])).await.1.to_ascii_lowercase();
    assert!(
        refusal.starts_with("http/1.1 503 ") && refusal.contains("retry-after: 5"),
        "{refusal}"
    );
    assert!(refusal.contains("connection: close"), "{refusal}");
    assert_eq!(get_json(edge.address, "/livez").await.0, 200);
    assert_eq!(refused(&edge, "unauthenticated").await, 1);
    // Each is given up after its time, with a word.
    assert!(rest(&mut flood[0]).await.starts_with("http/1.1 408 "));
    assert!(rest(&mut flood[FLOOD - 1]).await.starts_with("http/1.1 408 "));
    edge.login("u").await.close().await;
    edge.is_empty().await;
    assert_eq!(refused(&edge, "too_slow").await, FLOOD as u64);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_place_pins_nothing() {
    let edge = Edge::with(with(|config| config.max_unauthenticated = 20)).await;
    let mut flood = silent(&edge, 1000).await;
    let places = 20 + SPARE;
    until("the others are refused", async || {
        refused(&edge, "unauthenticated").await == (1000 - places) as u64
    })
    .await;
    let counts = edge.counts().await;
    assert!(counts.unauthenticated <= places);
    // Each of the others has been ended from there, and hard: nothing is left to shake hands with.
    let has_ended = |stream: &TcpStream| {
        let mut bytes = [0; 256];
        match stream.try_read(&mut bytes) {
            Ok(count) => count == 0 || bytes[..count].starts_with(b"HTTP/1.1 503 "),
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    until("the others have ended", async || {
        flood.retain(|stream| !has_ended(stream));
        flood.len() <= places
    })
    .await;
    drop(flood);
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_gives_its_place_back() {
    let edge = Edge::with(with(|config| config.max_unauthenticated = 1)).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        clients.push(edge.login(&format!("u{number}")).await);
    }
    assert_eq!(edge.counts().await.unauthenticated, 0);
    // One that does not log in holds it until it is closed.
    let mut idle = edge.connect().await;
    assert_eq!(status_from(&edge, "127.0.0.1", &[]).await.1, 503);
    idle.send_text("{\"event\":\"x\"}").await;
    idle.error("Not authenticated").await;
    idle.close().await;
    until("there is a place", async || edge.counts().await.unauthenticated == 0).await;
    for client in clients {
        client.close().await;
    }
    edge.login("last").await.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

/// One byte at a time never makes a request.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_loris_is_given_up() {
    let settings = with(|config| config.auth_timeout = Duration::from_millis(700));
    let edge = Edge::with(settings).await;
    let mut streams = silent(&edge, 50).await;
    let head = upgrade("/ws", &[("X-Padding", &"x".repeat(8000))]);
    let mut sent = 0;
    within("all are given up", async {
        while edge.counts().await.unauthenticated > 0 || sent == 0 {
            for stream in &mut streams {
                let _ = stream.write_all(&head.as_bytes()[sent..=sent]).await;
            }
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(sent < head.len(), "none was a whole request");
    assert!(rest(&mut streams[0]).await.starts_with("http/1.1 408 "));
    assert_eq!(refused(&edge, "too_slow").await, 50);
    // Nor does a WebSocket that drips log in.
    let mut socket = edge.connect().await;
    let frame = support::socket::frame(0x81, &[b' '; 4000]);
    let mut dripped = 0;
    let closed = loop {
        socket.send_raw(&frame[dripped..=dripped]).await;
        dripped += 1;
        let next = tokio::time::timeout(Duration::from_millis(20), socket.next_message()).await;
        if let Ok(frame) = next {
            break frame;
        }
    };
    assert_eq!(closed, Frame::Close(4001, "Authentication timeout".to_owned()));
    drop(socket);
    edge.is_empty().await;
    edge.stop().await;
}

/// Who asks and asks, and never reads, is cut.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_connection_have_an_end() {
    let edge = Edge::with(with(|config| config.max_unauthenticated = 1)).await;
    let mut idle = edge.connect().await;
    let mut greedy = TcpStream::connect(edge.address).await.unwrap();
    until("both are there", async || edge.counts().await.unauthenticated == 2).await;
    let requests = "GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n".repeat(1000);
    within("it is cut", async { while greedy.write_all(requests.as_bytes()).await.is_ok() {} })
        .await;
    until("it is gone", async || edge.counts().await.unauthenticated == 1).await;
    assert_eq!(refused(&edge, "too_slow").await, 1);
    idle.end().await;
    edge.is_empty().await;
    edge.stop().await;
}

/// A proxy keeps connections for later requests; that none comes is nobody's fault.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_ends_without_a_word() {
    let edge = Edge::start().await;
    let mut stream = silent(&edge, 1).await.remove(0);
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(
        answer.starts_with("http/1.1 200 ") && answer.ends_with("{\"live\":true}\n"),
        "{answer}"
    );
    edge.is_empty().await;
    assert_eq!(refused(&edge, "too_slow").await, 0);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_places() {
    let edge = Edge::with(with(|config| config.max_unauthenticated_per_address = 2)).await;
    // What a stranger says of others is not believed.
    let one = status_from(&edge, "127.0.0.1", &[("X-Forwarded-For", "192.0.2.1")]).await;
    let two = status_from(&edge, "127.0.0.1", &[("X-Forwarded-For", "192.0.2.2")]).await;
    assert_eq!((one.1, two.1), (101, 101));
    for mut third in silent(&edge, 5).await {
        let answer = rest(&mut third).await;
        assert!(answer.is_empty() || answer.starts_with("http/1.1 503 "), "{answer}");
    }
    assert_eq!(refused(&edge, "per_address").await, 5);
    let other = status_from(&edge, "127.0.0.2", &[]).await;
    assert_eq!(other.1, 101);
    drop(one);
    until("there is a place", async || edge.counts().await.unauthenticated == 2).await;
    // It goes with the login too.
    for _ in 0..5 {
        edge.login("u").await.close().await;
    }
    drop((two, other));
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_the_address_is_the_clients() {
    let edge = Edge::with(with(|config| {
        config.max_unauthenticated_per_address = 1;
        config.trusted_proxies = vec!["127.0.0.1".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    }))
    .await;
    let through = async |forwarded: &'static str| {
        status_from(&edge, "127.0.0.1", &[("X-Forwarded-For", forwarded)]).await
    };
    let mut open = vec![through("192.0.2.1").await, through("192.0.2.2, 10.0.0.9").await];
    open.push(through("2001:db8::1").await);
    assert!(open.iter().all(|(_, status)| *status == 101));
    for again in [
        "192.0.2.1",
        "198.51.100.7, 192.0.2.1",
        "192.0.2.1, 10.9.9.9",
        "192.0.2.2:4711",
        "[2001:db8::2]:1",
        "::ffff:192.0.2.1",
    ] {
        assert_eq!(through(again).await.1, 503, "{again}");
    }
    assert_eq!(refused(&edge, "per_address").await, 6);
    // The proxy's own connections are not counted, and another address speaks for itself.
    let kept_alive = silent(&edge, 3).await;
    let direct = status_from(&edge, "127.0.0.2", &[("X-Forwarded-For", "192.0.2.1")]).await;
    assert_eq!(direct.1, 101);
    assert_eq!(get_json(edge.address, "/livez").await.0, 200);
    drop((open, kept_alive, direct));
    edge.is_empty().await;
    assert_eq!(through("192.0.2.1").await.1, 101);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_have_a_rate() {
    let edge = Edge::with(with(|config| config.accept_rate = 3)).await;
    let mut open = Vec::new();
    let mut refusal = String::new();
    for _ in 0..100 {
        let (stream, head) = upgrade_from(&edge, "127.0.0.1", &[]).await;
        if head.starts_with("http/1.1 503 ") {
            refusal = head;
            break;
        }
        open.push(stream);
    }
    assert!(open.len() >= 3 && refusal.contains("retry-after: 1\r\n"), "{refusal}");
    // What is refused anyway does not count.
    for _ in 0..20 {
        let head = upgrade_from(&edge, "127.0.0.1", &[("Origin", "https://evil")]).await.1;
        assert!(head.starts_with("http/1.1 403 "), "{head}");
    }
    until("it refills", async || status_from(&edge, "127.0.0.1", &[]).await.1 == 101).await;
    assert!(refused(&edge, "accept_rate").await > 0);
    drop(open);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_another_site_gets_in() {
    let listed = ["https://pos.example", "https://admin.example:8443"].map(str::to_owned);
    let listed = Edge::with(with(|config| config.origins = Origins::Listed(listed.into()))).await;
    let same_host = Edge::start().await;
    for origin in ["https://pos.example", "https://POS.example", "https://admin.example:8443"] {
        let (_stream, status) = status_from(&listed, "127.0.0.1", &[("Origin", origin)]).await;
        assert_eq!(status, 101, "{origin}");
    }
    let foreign = [
        "null",
        "",
        "https://evil",
        "https://pos.example.evil",
        "https://evil-pos.example",
        "https://evil/https://pos.example",
        "https://pos.example@evil",
        "https://evil@pos.example",
        "https://user:pos.example@evil",
        "https://pos.example:443",
        "https://pos.example:8443",
        "https://admin.example",
        "https://admin.example:84430",
        "https://pos.example/",
        "https://pos.example ",
        "https://pos.example,https://evil",
        "https://pos.example\t.evil",
        "http://pos.example",
        "wss://pos.example",
        "pos.example",
        "//pos.example",
        "file://",
        "https://p\u{f6}s.example",
        "https://edge.evil",
        "https://evil@edge",
        "https://edge:1",
        "edge",
    ];
    let mut counted = 0;
    for origin in foreign {
        for edge in [&listed, &same_host] {
            let (mut stream, status) = status_from(edge, "127.0.0.1", &[("Origin", origin)]).await;
            // A header's value has no white space around it.
            let expected =
                if origin == "https://pos.example " && std::ptr::eq(edge, &raw const listed) {
                    101
                } else {
                    403
                };
            assert_eq!(status, expected, "{origin:?}");
            if expected == 403 {
                counted += u64::from(std::ptr::eq(edge, &raw const listed));
                // It is not kept for another try.
                rest(&mut stream).await;
            }
        }
    }
    let twice = [("Origin", "https://pos.example"), ("Origin", "https://evil")];
    assert_eq!(status_from(&listed, "127.0.0.1", &twice).await.1, 403);
    assert_eq!(refused(&listed, "origin").await, counted + 1);
    listed.is_empty().await;
    same_host.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_too_large_or_nonsense_are_counted() {
    let edge = Edge::start().await;
    let large = upgrade("/ws", &[("X-Padding", &"x".repeat(20_000))]);
    let many = upgrade("/ws", &[("X-Header", "x"); 70]);
    for (head, expected) in [(large, "431"), (many, "431"), ("nonsense\r\n\r\n".to_owned(), "400")]
    {
        let answer = Socket::open(edge.address, &head).await.1;
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{answer}");
    }
    until("they are counted", async || {
        refused(&edge, "head_too_large").await == 2 && refused(&edge, "malformed").await == 1
    })
    .await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_served_says_how_it_is_to_be_treated() {
    let edge = Edge::with(with(|config| config.demo_page = true)).await;
    let get = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
        Socket::open(edge.address, &request).await.1.to_ascii_lowercase()
    };
    for path in ["/", "/signal.js", "/livez", "/nothing", "/ws"] {
        let head = get(path).await;
        assert!(head.contains("x-content-type-options: nosniff\r\n"), "{path}: {head}");
        assert!(head.contains("referrer-policy: no-referrer\r\n"), "{path}: {head}");
        let policy = head.lines().find(|line| line.starts_with("content-security-policy: "));
        let policy = policy.unwrap_or_else(|| panic!("{path}: {head}"));
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(policy.contains("script-src 'self'"), path == "/", "{path}: {policy}");
        assert!(!head.contains("strict-transport-security"), "without TLS: {head}");
    }
    // The page says the same itself, but for what only a header can say.
    let page = include_str!("../assets/demo.html");
    let head = get("/").await;
    let policy = head.lines().find_map(|line| line.strip_prefix("content-security-policy: "));
    let policy = policy.unwrap().strip_suffix("; frame-ancestors 'none'").unwrap();
    assert!(page.contains(&format!("content=\"{policy}\"")), "{policy}");
    edge.stop().await;
}
