//! One Redis and everything that happens to it while messages flow: nothing is doubled or reordered,
//! nothing is lost silently, and delivery comes back by itself for every stream.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;
use signal_client::Config;
use signal_core::redis::RedisSettings;
use signal_emitter::Emitter;
use support::client::{close, closed, message, named, online};
use support::{Edge, Proxy, Redis, Traffic, config, emitter_config, until, within};

/// What stays subscribed when every client has gone, beside a probe for each link.
const BASELINE: [&str; 2] = ["ws:broadcast", "ws:revoke"];

async fn emitter(redis: &Redis) -> Emitter {
    let mut config = emitter_config(redis.settings());
    config.timeout = Duration::from_millis(500);
    Emitter::connect(config).await.expect("redis is up")
}

async fn edge(redis: RedisSettings) -> Edge {
    let mut settings = config();
    settings.redis = redis;
    let edge = Edge::with(settings).await;
    edge.ready().await;
    edge
}

async fn not_ready(edges: &[&Edge]) {
    for edge in edges {
        until("the edge is not ready", async || {
            edge.handle.readiness().iter().any(|reason| reason.contains("bus link"))
        })
        .await;
    }
}

async fn finish(redis: &Redis, edges: &[&Edge]) {
    for edge in edges {
        edge.is_empty().await;
    }
    until("redis is at its baseline", async || {
        let channels = redis.channels().await;
        channels.iter().filter(|name| !name.starts_with("ws:probe:")).eq(BASELINE.iter())
    })
    .await;
}

/// Two edges that reach Redis through a proxy, with six clients and their traffic, through a fault and
/// what follows from it. The producer reaches Redis directly.
async fn through(fault: impl AsyncFnOnce(&mut Redis, &Proxy, &Traffic, &[&Edge])) {
    let mut redis = Redis::start().await;
    let proxy = Proxy::to(&redis).await;
    let edges = [edge(proxy.settings()).await, edge(proxy.settings()).await];
    let edges = [&edges[0], &edges[1]];
    let traffic = Traffic::start(&edges, emitter(&redis).await, 6).await;
    fault(&mut redis, &proxy, &traffic, &edges).await;
    for edge in edges {
        edge.ready().await;
    }
    traffic.finish().await;
    assert!(edges[0].counts().await.counters.resyncs >= 3, "each of its clients was told");
    finish(&redis, &edges).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_killed_and_started_again() {
    through(async |redis, _, traffic, edges| {
        for _ in 0..2 {
            redis.kill();
            not_ready(edges).await;
            redis.restart().await;
            for edge in edges {
                edge.ready().await;
            }
            traffic.flows().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_kills_all_subscribers() {
    through(async |redis, _, traffic, edges| {
        for _ in 0..3 {
            let gaps = edges[0].counts().await.counters.bus_gaps;
            redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            until("the edge notices", async || edges[0].counts().await.counters.bus_gaps > gaps)
                .await;
            for edge in edges {
                edge.ready().await;
            }
            traffic.flows().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_stands_still_for_eight_seconds() {
    through(async |redis, _, _, edges| {
        let pid = redis.pid().to_string();
        let signal = |name: &str| {
            let status = Command::new("kill").args([name, &pid]).status().expect("kill is there");
            assert!(status.success());
        };
        signal("-STOP");
        not_ready(edges).await;
        // The time is what is tested: longer than any timeout of the edge.
        tokio::time::sleep(Duration::from_secs(8)).await;
        signal("-CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_redis_is_a_black_hole_for_a_while() {
    through(async |_, proxy, traffic, edges| {
        for _ in 0..2 {
            proxy.swallow();
            not_ready(edges).await;
            traffic.flows().await;
            proxy.heal();
            for edge in edges {
                edge.ready().await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_cuts_a_subscriber_that_falls_behind() {
    through(async |redis, proxy, _, edges| {
        let limit = ["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"];
        redis.ok(&limit).await;
        let subscribers = async || {
            let list = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
            list.matches("name=signal-edge").count()
        };
        assert_eq!(subscribers().await, 4, "two edges of two workers");
        proxy.swallow();
        let pad = format!("\"{}\"", "x".repeat(100_000));
        let envelope =
            format!(r#"{{"serverId":"emitter","type":"broadcast","event":"pad","data":{pad}}}"#);
        until("redis cuts those that hear the broadcasts", async || {
            redis.publish("ws:broadcast", &envelope).await;
            subscribers().await <= 2
        })
        .await;
        proxy.heal();
        for edge in edges {
            until("the edge notices", async || edge.counts().await.counters.bus_gaps > 0).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_is_killed_takes_its_clients_along_and_nothing_else() {
    let redis = Redis::start().await;
    let other = edge(redis.settings()).await;
    let traffic = Traffic::start(&[&other], emitter(&redis).await, 2).await;
    let mut process = Command::new(env!("CARGO_BIN_EXE_signal"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--workers", "2"])
        .env("SIGNAL_AUTH", "insecure-dev")
        .env("SIGNAL_ROOMS", "*")
        .env("SIGNAL_LOG_FORMAT", "json")
        .env("APP_ENV_WEBSOCKET_REDIS_MODE", "single")
        .env("APP_ENV_WEBSOCKET_REDIS_PORT", redis.port.to_string())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    let stderr = process.stderr.take().expect("piped");
    let address = tokio::task::spawn_blocking(move || {
        use std::io::BufRead as _;
        let mut lines = std::io::BufReader::new(stderr).lines().map_while(Result::ok);
        let address: Option<SocketAddr> = lines.find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            line["address"].as_str().or_else(|| line["fields"]["address"].as_str())?.parse().ok()
        });
        // Its output goes on and must be read, lest it blocks.
        std::thread::spawn(move || lines.for_each(drop));
        address
    });
    let address = within("the edge says where it is", address).await.expect("read");
    let config = Config::new(&format!("ws://{}/ws", address.expect("an address")));
    let config = config.expect("an address").credentials(json!({ "userId": "gone" })).once();
    let (client, mut events) = online(config).await;
    client.join(["gone"]).await.expect("joined");
    assert_eq!(redis.channels().await.iter().filter(|name| name.contains("gone")).count(), 2);

    process.kill().expect("it is ours");
    process.wait().expect("it is ours");
    assert_eq!(closed(&mut events).await.code(), None, "it had no time to say why");
    until("its channels are gone", async || {
        !redis.channels().await.iter().any(|name| name.contains("gone"))
    })
    .await;
    traffic.flows().await;
    traffic.finish().await;
    assert_eq!(other.counts().await.counters.bus_gaps, 0, "the other edge did not notice");
    finish(&redis, &[&other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_joins_and_what_is_published_right_after_each() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    // The last one to leave is a race with the next one to come.
    settings.bus_linger = Duration::ZERO;
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let emitter = emitter(&redis).await;
    let mut clients = Vec::new();
    for index in 0..3 {
        clients.push(online(named(&edge, &format!("u-{index}"))).await);
    }
    for round in 0..500 {
        let (client, events) = &mut clients[round % 3];
        within("a join", client.join(["r"])).await.expect("joined and confirmed");
        emitter.to_room("r").event("n").data(&round).send().await.expect("sent");
        // A link that connected as the edge began may have its `resync` told first.
        while message(events, "n").await.parse::<usize>().expect("a number") != round {}
        // Not awaited: the next one joins while this one leaves.
        client.leave(["r"]).await.expect("it is online");
    }
    assert_eq!(edge.counts().await.counters.bus_gaps, 0);
    for client in clients {
        close(client).await;
    }
    finish(&redis, &[&edge]).await;
}
