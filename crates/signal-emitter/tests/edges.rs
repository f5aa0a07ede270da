//! Whether there is an edge that would hear an emitter: what connecting says.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails at a surprise, runs once"
)]

mod support;

use std::time::Duration;

use signal_core::edges::EdgeRecord;
use signal_emitter::{
    EdgeCheck, Emitter, EmitterConfig, EmitterError,
    redis::{RedisSettings, Secret},
};

use support::{Redis, Reply, bounded};

const SOON: Duration = Duration::from_millis(300);

/// Records an edge with this prefix, until so many milliseconds from now.
fn record(redis: &Redis, prefix: &str, lease_ms: i64) {
    let settings = RedisSettings { prefix: prefix.to_owned(), ..redis.settings() };
    let record = EdgeRecord::new("signal-1", "0.1.0", &settings).to_json();
    let mut socket = redis.socket();
    let Reply::Array(time) = socket.call(&["TIME"]) else { panic!() };
    let number = |part: &Reply| {
        let Reply::Bytes(bytes) = part else { panic!() };
        String::from_utf8(bytes.clone()).unwrap().parse::<i64>().unwrap()
    };
    let end = number(&time[0]) * 1000 + number(&time[1]) / 1000 + lease_ms;
    let added = socket.call(&["ZADD", "signal:edges", &end.to_string(), &record]);
    assert!(matches!(added, Reply::Number(_)), "{added:?}");
}

fn config(redis: &Redis, prefix: &str) -> EmitterConfig {
    let mut config =
        EmitterConfig::new(RedisSettings { prefix: prefix.to_owned(), ..redis.settings() });
    assert_eq!(config.edge_check, EdgeCheck::Require, "it is the default");
    config.timeout = Duration::from_secs(2);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_without_edges_is_the_wrong_one() {
    let redis = Redis::start();
    let error = bounded(Emitter::connect(config(&redis, ""))).await.unwrap_err();
    assert!(matches!(error, EmitterError::NoEdges), "{error:?}");
    // One whose lease is over is none.
    record(&redis, "", -1);
    let error = bounded(Emitter::connect(config(&redis, ""))).await.unwrap_err();
    assert!(matches!(error, EmitterError::NoEdges), "{error:?}");

    for check in [EdgeCheck::Warn, EdgeCheck::Off] {
        let mut config = config(&redis, "");
        config.edge_check = check;
        let emitter = bounded(Emitter::connect(config)).await.unwrap();
        emitter.broadcast().event("e").send().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn edges_that_hear_something_else_are_named() {
    let redis = Redis::start();
    record(&redis, "live:", 600_000);
    let error = bounded(Emitter::connect(config(&redis, "test:"))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "no edge would hear this emitter: edges on this redis use the prefix \"live:\" and classic \
         pub/sub, the emitter the prefix \"test:\" and classic pub/sub"
    );
    bounded(Emitter::connect(config(&redis, "live:"))).await.unwrap();
    record(&redis, "test:", 600_000);
    bounded(Emitter::connect(config(&redis, "test:"))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_comes_a_moment_later_is_waited_for() {
    let redis = Redis::start();
    let mut config = config(&redis, "");
    config.timeout = Duration::from_mins(1);
    let connecting = tokio::spawn(Emitter::connect(config));
    tokio::time::sleep(SOON).await;
    assert!(!connecting.is_finished());
    record(&redis, "", 600_000);
    bounded(connecting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_may_not_look_connects() {
    let redis = Redis::start();
    let acl = |user: &str, more: &[&str]| {
        let rules = ["ACL", "SETUSER", user, "on", ">hush", "resetchannels", "&ws:*"];
        let rules = [&rules[..], &["-@all", "+publish"], more];
        assert_eq!(redis.socket().call(&rules.concat()), Reply::Text("OK".into()));
    };
    acl("old", &[]);
    acl("new", &["%R~signal:edges", "+zrangebyscore", "+time"]);
    let connect = async |user: &str| {
        let mut config = config(&redis, "");
        config.redis.username = Some(user.to_owned());
        config.redis.password = Some(Secret::new("hush"));
        bounded(Emitter::connect(config)).await
    };
    let emitter = connect("old").await.unwrap();
    emitter.broadcast().event("e").send().await.unwrap();
    assert!(matches!(connect("new").await.unwrap_err(), EmitterError::NoEdges));
    record(&redis, "", 600_000);
    connect("new").await.unwrap();
}
