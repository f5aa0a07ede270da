//! An edge that reaches its Redis by TLS: one Redis and a cluster, an authority that it trusts and one
//! that it does not.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::path::PathBuf;

use serde_json::json;
use signal_core::redis::{PubSub, RedisMode, RedisSettings, TlsSettings};
use signal_emitter::Emitter;
use signal_server::{Signal, SignalError};
use support::{Cluster, Edge, Redis, Socket, config, emitter_config, until};

/// A folder with a certificate of 127.0.0.1 that signs itself; it goes with this value.
struct Identity(PathBuf);

// === impl Identity ===

impl Identity {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("signal-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&folder).expect("a temporary directory");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
        std::fs::write(folder.join("cert.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).expect("written");
        Self(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Arguments of a Redis that speaks TLS with it, on this port.
    fn arguments(&self, tls_port: &str) -> Vec<String> {
        let (cert, key) = (self.file("cert.pem"), self.file("key.pem"));
        let arguments = [
            ["--tls-port", tls_port],
            ["--tls-cert-file", &cert],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &cert],
            ["--tls-auth-clients", "no"],
        ];
        arguments.concat().into_iter().map(str::to_owned).collect()
    }

    fn trusted(&self, settings: RedisSettings) -> RedisSettings {
        let ca_file = Some(self.0.join("cert.pem"));
        RedisSettings { tls: Some(TlsSettings { ca_file }), ..settings }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn edge(redis: &RedisSettings) -> Edge {
    let mut settings = config();
    settings.redis = redis.clone();
    Edge::with(settings).await
}

/// Everything goes through: a login, a join, a message from an emitter and one from the edge.
async fn assert_delivers(edge: &Edge, redis: &RedisSettings) {
    edge.ready().await;
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.login("u").await;
    let join = json!({ "event": "join", "data": { "rooms": ["r"] }, "id": 1 });
    assert_eq!(socket.ask(join).await.1, json!({ "rooms": ["r"], "denied": [] }));
    let emitter = Emitter::connect(emitter_config(redis.clone())).await.expect("it connects");
    emitter.to_room("r").event("one").data(&1).send().await.expect("sent");
    while socket.next_event().await.0 != "one" {}
    edge.handle.send_to_user("u", "two", &2).await.expect("sent");
    while socket.next_event().await.0 != "two" {}
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_reaches_a_redis_that_it_trusts_and_no_other() {
    let identity = Identity::new();
    let tls_port = Redis::stopped(&[]).port;
    let arguments = identity.arguments(&tls_port.to_string());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut redis = Redis::with(&arguments).await;
    let settings = identity.trusted(RedisSettings::single("127.0.0.1", tls_port));
    let trusting = edge(&settings).await;
    assert_delivers(&trusting, &settings).await;
    redis.kill();
    until("the edge is not ready", async || !trusting.handle.readiness().is_empty()).await;
    redis.restart().await;
    assert_delivers(&trusting, &settings).await;

    let other = Identity::new();
    let settings = other.trusted(RedisSettings::single("127.0.0.1", tls_port));
    let wary = edge(&settings).await;
    until("the link stays down", async || {
        let reasons = wary.handle.readiness();
        reasons.iter().any(|reason| reason.starts_with("bus link 0 is down for 1 s"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_follows_a_cluster_by_tls() {
    let identity = Identity::new();
    // All that a node says of others are their ports for TLS, and nodes speak TLS with each other.
    let arguments = identity.arguments("0");
    let mut arguments: Vec<&str> = arguments.iter().skip(2).map(String::as_str).collect();
    arguments.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
    let cluster = Cluster::with_tls(&arguments).await;
    let nodes = cluster.tls_ports.iter().map(|port| ("127.0.0.1".to_owned(), *port)).collect();
    let mut settings = identity.trusted(cluster.settings(PubSub::Sharded));
    settings.mode = RedisMode::Cluster { nodes };
    let edge = edge(&settings).await;
    assert_delivers(&edge, &settings).await;
    let victim = cluster.owner("ws:room:r").await;
    cluster.fail_over(victim, victim + support::MASTERS).await;
    cluster.whole().await;
    until("the new master is asked", async || cluster.is_heard("ws:broadcast", 1).await).await;
    assert_delivers(&edge, &settings).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_cannot_be_read_is_told_at_the_start() {
    let mut settings = config();
    settings.redis = RedisSettings::single("127.0.0.1", 6379);
    settings.redis.tls = Some(TlsSettings { ca_file: Some("/nowhere/ca.pem".into()) });
    let refused = Signal::builder().config(settings).bind().await.expect_err("no such file");
    assert!(matches!(refused, SignalError::Redis(_) | SignalError::Config(_)), "{refused:?}");
}
