//! TLS on the client port: the protocol and its bounds hold under it, handshakes end, certificates are
//! replaced while the edge runs.

#![allow(clippy::large_futures, reason = "a test runs once")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use signal_server::Config;
use support::http::{get_json, request};
use support::tls::{Files, Identity};
use support::{Edge, Frame, Socket, config, until, within};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::version::{TLS12, TLS13};

async fn edge_with(files: &Files, change: impl FnOnce(&mut Config)) -> Edge {
    let mut settings = config();
    settings.tls = Some(files.files.clone());
    change(&mut settings);
    Edge::with(settings).await
}

/// An address at which clients of the harness, which speak in the clear, reach the edge under TLS.
async fn bridge(edge: &Edge, connector: TlsConnector) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, target) = (listener.local_addr().unwrap(), edge.address);
    tokio::spawn(async move {
        while let Ok((mut plain, _)) = listener.accept().await {
            let connector = connector.clone();
            tokio::spawn(async move {
                let stream = TcpStream::connect(target).await?;
                let name = ServerName::try_from("edge").expect("a name");
                let mut stream = connector.connect(name, stream).await?;
                tokio::io::copy_bidirectional(&mut plain, &mut stream).await
            });
        }
    });
    address
}

async fn login(address: SocketAddr, user: &str) -> Socket {
    let mut socket = Socket::connect(address, "/ws").await;
    socket.login(user).await;
    socket
}

async fn metric(edge: &Edge, name: &str) -> u64 {
    let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_protocol_holds_under_both_versions() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let edge = edge_with(&files, |_| {}).await;
    for version in [&TLS13, &TLS12] {
        let address = bridge(&edge, identity.client(version)).await;
        let mut members = Vec::new();
        for _ in 0..20 {
            let mut socket = login(address, "u").await;
            edge.join(&mut socket, &["r"]).await;
            members.push(socket);
        }
        // Small ones that follow each other closely, and some beyond what waits as ciphertext.
        let large = "x".repeat(400_000);
        for number in 0..200 {
            edge.handle.send_to_room("r", "n", &number).await.unwrap();
            if number % 50 == 0 {
                edge.handle.send_to_room("r", "large", &large).await.unwrap();
            }
        }
        for socket in &mut members {
            for number in 0..200 {
                assert_eq!(socket.event("n").await, json!(number));
                if number % 50 == 0 {
                    assert_eq!(socket.event("large").await, json!(large));
                }
            }
        }
        // And the other way: in pieces, and many at once.
        let socket = &mut members[0];
        let long = format!("{{\"event\":\"heartbeat\",\"data\":\"{}\"}}", "y".repeat(100_000));
        for _ in 0..5 {
            socket.send_text(&long).await;
        }
        let pings: Vec<u8> =
            (0..100_u8).flat_map(|number| support::socket::frame(0x89, &[number])).collect();
        socket.send_raw(&pings).await;
        for number in 0..100 {
            assert_eq!(socket.next().await, Frame::Pong(vec![number]));
        }
        for socket in members {
            socket.close().await;
        }
        edge.is_empty().await;
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_cut_under_tls_too() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let edge = edge_with(&files, |config| config.workers = 1).await;
    let address = bridge(&edge, identity.client(&TLS13)).await;
    let mut slow = login(address, "slow").await;
    edge.join(&mut slow, &["r"]).await;
    let mut quick = login(address, "quick").await;
    edge.join(&mut quick, &["r"]).await;
    let data = "x".repeat(100_000);
    let mut largest = 0;
    within("it is cut", async {
        for number in 0_u64.. {
            edge.handle.send_to_room("r", "n", &json!([number, data])).await.unwrap();
            // Nobody waits for the slow one.
            assert_eq!(quick.event("n").await[0], json!(number));
            let counts = edge.counts().await;
            largest = largest.max(counts.outbox_bytes);
            if counts.counters.sent.overflows == 1 {
                break;
            }
        }
    })
    .await;
    assert!(largest > 0 && largest <= 1024 * 1024, "{largest} bytes were queued");
    until("it has gone", async || edge.counts().await.connections_total() == 1).await;
    assert_eq!(metric(&edge, "signal_closes_total{code=\"4100\"}").await, 1);
    drop(slow);
    quick.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

/// What waits as ciphertext goes out when the socket takes it, though nothing more is sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_behind_when_a_client_reads_again() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let edge = edge_with(&files, |config| config.workers = 1).await;
    let connector = identity.client(&TLS13);
    let data = "x".repeat(16_000);
    let connect = async || {
        let stream = TcpStream::connect(edge.address).await.unwrap();
        let mut stream = connector.connect("edge".try_into().unwrap(), stream).await.unwrap();
        let login = br#"{"event":"authenticate","data":{"userId":"u"}}"#;
        stream.write_all(support::socket::upgrade("/ws", &[]).as_bytes()).await.unwrap();
        stream.write_all(&support::socket::frame(0x81, login)).await.unwrap();
        stream.flush().await.unwrap();
        until("it is logged in", async || edge.counts().await.users == 1).await;
        stream
    };
    let send = async |number: u64| {
        edge.handle.send_to_user("u", "n", &json!([number, data])).await.unwrap();
        edge.counts().await.outbox_bytes
    };
    // As many as one takes that does not read, before they wait in its outbox.
    let unread = connect().await;
    let mut count = 0;
    while send(count).await == 0 {
        count += 1;
    }
    drop(unread);
    until("it has gone", async || edge.counts().await.users == 0).await;
    // A little less than that: the last of it is in nobody's hands but the session's.
    for less in [1, 2, 3] {
        let mut stream = connect().await;
        for number in 0..count - less {
            send(number).await;
        }
        let end = format!("[{},", count - less - 1);
        let mut seen = Vec::new();
        within("the last one", async {
            while !String::from_utf8_lossy(&seen).contains(&end) || !seen.ends_with(b"x\"]}") {
                seen.drain(..seen.len().saturating_sub(20_000));
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0);
            }
        })
        .await;
        drop(stream);
        until("it has gone", async || edge.counts().await.users == 0).await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

/// What a stranger holds without a handshake is bounded as without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_have_an_end() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let edge = edge_with(&files, |config| config.max_unauthenticated = 30).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(edge.address).await.unwrap());
    }
    until("they are there", async || edge.counts().await.unauthenticated == 20).await;
    // One byte of a handshake now and then is none.
    let mut dripping = TcpStream::connect(edge.address).await.unwrap();
    let drip = tokio::spawn(async move {
        for byte in [0x16, 0x03, 0x01, 0x02, 0x00, 0x01].iter().cycle() {
            if dripping.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    for garbage in
        ["GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n", "\u{0}\u{1}\u{2}", "nonsense\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(edge.address).await.unwrap();
        stream.write_all(garbage.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = within("an end", stream.read_to_end(&mut answer)).await;
        assert!(!answer.starts_with(b"HTTP"), "nothing is said in the clear");
    }
    let mut answer = Vec::new();
    let _ = within("an end", silent[0].read_to_end(&mut answer)).await;
    within("the last byte", drip).await.unwrap();
    edge.is_empty().await;
    let failed = metric(&edge, "signal_refused_total{reason=\"tls\"}").await;
    let slow = metric(&edge, "signal_refused_total{reason=\"too_slow\"}").await;
    assert_eq!(failed + slow, 24, "{failed} failed, {slow} were slow");
    assert!(slow >= 20);
    let address = bridge(&edge, identity.client(&TLS13)).await;
    login(address, "u").await.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_while_the_edge_runs() {
    let (old, new) = (Identity::new(), Identity::new());
    let files = Files::of(&old);
    let edge = edge_with(&files, |_| {}).await;
    let by_old = bridge(&edge, old.client(&TLS13)).await;
    let by_new = bridge(&edge, new.client(&TLS13)).await;
    let mut standing = login(by_old, "u").await;
    // Files that do not go together, or are none, change nothing.
    for (certificate, key) in [(&*new.certificate_pem, &*old.key_pem), ("", ""), ("x", "y")] {
        files.write(certificate, key);
        assert!(edge.handle.reload().is_err());
        login(by_old, "v").await.close().await;
    }
    files.write(&new.certificate_pem, &new.key_pem);
    edge.handle.reload().unwrap();
    login(by_new, "v").await.close().await;
    // Who believes only the old one gets nothing any more; who is there, stays.
    let (_, head) = Socket::open(by_old, &support::socket::upgrade("/ws", &[])).await;
    assert_eq!(head, "");
    edge.handle.send_to_user("u", "e", &1).await.unwrap();
    assert_eq!(standing.event("e").await, json!(1));
    assert_eq!(metric(&edge, "signal_tls_reloads_total{result=\"done\"}").await, 1);
    assert_eq!(metric(&edge, "signal_tls_reloads_total{result=\"failed\"}").await, 3);
    standing.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_else_the_port_serves_is_under_tls_too() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let edge = edge_with(&files, |_| {}).await;
    let address = bridge(&edge, identity.client(&TLS13)).await;
    assert_eq!(get_json(address, "/livez").await, (200, json!({ "live": true })));
    for path in ["/livez", "/nothing", "/ws"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
        let head = Socket::open(address, &request).await.1.to_ascii_lowercase();
        assert!(head.contains("strict-transport-security: max-age=31536000\r\n"), "{head}");
    }
    // Clients that end without a word leave nothing.
    for _ in 0..10 {
        drop(login(address, "u").await);
    }
    edge.is_empty().await;
    edge.stop().await;
}

/// The binary reads its files anew when it is told so, and does not end.
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_has_the_binary_read_its_files_anew() {
    let (old, new) = (Identity::new(), Identity::new());
    let files = Files::of(&old);
    let mut process = Command::new(env!("CARGO_BIN_EXE_signal"))
        .arg("serve")
        .env_clear()
        .env("SIGNAL_AUTH", "insecure-dev")
        .env("SIGNAL_LISTEN", "127.0.0.1:0")
        .env("SIGNAL_ADMIN_LISTEN", "off")
        .env("SIGNAL_TLS_CERT_FILE", &files.files.certificate)
        .env("SIGNAL_TLS_KEY_FILE", &files.files.key)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut logs = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut logged = async |message: &'static str| loop {
        let line = within(message, logs.next_line()).await.unwrap().expect("it runs");
        let mut line: Value = serde_json::from_str(&line).unwrap();
        if line["fields"]["message"] == message {
            return line["fields"].take();
        }
    };
    let address: SocketAddr =
        logged("listening").await["address"].as_str().unwrap().parse().unwrap();
    let hang_up = async || {
        let id = process.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
    };
    let reached = async |identity: &Identity| {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("edge").unwrap();
        within("a handshake", identity.client(&TLS13).connect(name, stream)).await.is_ok()
    };
    assert!(reached(&old).await && !reached(&new).await);
    files.write(&new.certificate_pem, "no key");
    hang_up().await;
    logged("files are no good; what was read before is kept").await;
    assert!(reached(&old).await && !reached(&new).await);
    files.write(&new.certificate_pem, &new.key_pem);
    hang_up().await;
    logged("files are read anew").await;
    assert!(!reached(&old).await && reached(&new).await);
}

/// A drain says goodbye under TLS too, and is over when the clients are.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_closes_what_is_under_tls() {
    let identity = Identity::new();
    let files = Files::of(&identity);
    let mut edge = edge_with(&files, |_| {}).await;
    let address = bridge(&edge, identity.client(&TLS13)).await;
    let mut socket = login(address, "u").await;
    edge.begin_stop();
    assert_eq!(socket.closed().await, (1001, "Server shutting down".to_owned()));
    socket.end().await;
    edge.ended().await;
}
