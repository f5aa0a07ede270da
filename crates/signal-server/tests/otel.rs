//! Spans of a traced publish reach a collector, joined over the bus.
#![cfg(feature = "otel")]
#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::process::{Command, Stdio};

use support::{Redis, within};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The body of the next request, which is answered with 200.
async fn request_body(collector: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = collector.accept().await.expect("it listens");
    let mut received = Vec::new();
    loop {
        let end = received.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8_lossy(&received[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
            if received.len() >= end + 4 + length {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .await
                    .expect("sent");
                return received.split_off(end + 4);
            }
        }
        assert!(stream.read_buf(&mut received).await.expect("read") > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_and_its_fan_out_are_one_trace() {
    let redis = Redis::start().await;
    let collector = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", collector.local_addr().expect("bound"));
    let mut edge = tokio::process::Command::from(Command::new(env!("CARGO_BIN_EXE_signal")))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--auth", "insecure-dev", "--api-key", "key", "--drain-delay", "0s"])
        .args(["--redis-mode", "single", "--redis-port", &redis.port.to_string()])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("SIGNAL_LOG_FORMAT", "json")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(edge.stderr.take().expect("piped")).lines();
    let listening: serde_json::Value = within("the addresses", async {
        loop {
            let line = lines.next_line().await.expect("read").expect("the edge runs");
            if line.contains("\"listening\"") {
                return serde_json::from_str(&line).expect("JSON");
            }
        }
    })
    .await;
    let admin = listening["fields"]["admin"].as_str().expect("an address").to_owned();
    // The edge hears broadcasts as soon as its link is up; until then the fan-out has no span.
    let body = r#"{"all":true,"event":"e"}"#;
    let spans = within("both spans", async {
        let mut spans = Vec::new();
        loop {
            let mut stream = TcpStream::connect(&admin).await.expect("it listens");
            let request = format!(
                "POST /v1/publish HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer key\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.expect("sent");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.expect("answered");
            spans.extend(request_body(&collector).await);
            if contains(&spans, b"fan-out") {
                return spans;
            }
        }
    })
    .await;
    assert!(contains(&spans, b"publish"));
    // Protobuf keeps ids as bytes: the parent of each fan-out is a publish that is there too.
    let name = spans.windows(7).position(|window| window == b"fan-out").expect("checked above");
    let parent = spans[..name]
        .windows(2)
        .rposition(|field| field == [0x22, 8])
        .map(|start| &spans[start + 2..start + 10])
        .expect("a fan-out has a parent");
    let own: Vec<u8> = [&[0x12, 8], parent].concat();
    assert!(contains(&spans, &own), "the parent is not among the spans");
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
