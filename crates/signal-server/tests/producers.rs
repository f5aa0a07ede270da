//! What a producer can rely on, up to the clients of a real edge: `docs/producers.md`.

#![allow(clippy::large_futures, reason = "a test runs once")]

#[path = "../../signal-emitter/tests/support/proxy.rs"]
mod proxy;
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use signal_core::channel::Target;
use signal_core::edges::EdgeRecord;
use signal_core::envelope::{Codec, EMITTER_SERVER_ID, Envelope};
use signal_core::redis::RedisSettings;
use signal_emitter::{Emitter, EmitterConfig, EmitterError, WhenAway};

use proxy::Proxy;
use support::http::request;
use support::{Edge, Redis, Socket, config, emitter_config, until, within};

const LONG: Duration = Duration::from_mins(5);

/// The emitter as producers have it: it wants an edge, and holds messages.
async fn holding(settings: RedisSettings) -> Emitter {
    let mut config = EmitterConfig::new(settings);
    config.timeout = Duration::from_secs(10);
    config.when_away = WhenAway::Hold { bytes_max: 16 << 20 };
    Emitter::connect(config).await.expect("there is an edge")
}

async fn records(redis: &Redis) -> Vec<EdgeRecord> {
    let answer = redis.command(&["ZRANGE", "signal:edges", "0", "-1"]).await;
    answer.lines().filter_map(EdgeRecord::from_json).collect()
}

/// The numbers that arrive before the message `end`, which is told apart by its event.
async fn numbers(socket: &mut Socket) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let (event, data) = socket.next_event().await;
        match event.as_str() {
            "n" => numbers.push(data.as_u64().expect("a number")),
            "end" => return numbers,
            // Its joins are waited for with messages of their own.
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_while_redis_restarts_arrives_once_and_in_order() {
    let mut redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut sockets = vec![edge.member("ann", &["r"]).await, edge.member("bob", &["r"]).await];
    let emitter = holding(redis.settings()).await;
    for round in 0..3 {
        let first = round * 100;
        let heard = edge.counts().await.counters.bus_messages;
        let before = emitter.to_room("r").event("n").data(&first).send().await;
        assert_eq!(before.expect("redis is up").receivers(), Some(1));
        // Redis says so before it has written the message to the edge.
        until("the edge has it", async || edge.counts().await.counters.bus_messages > heard).await;
        redis.kill();
        until("the emitter notices", async || !emitter.is_connected()).await;
        let held = (first + 1..first + 100)
            .map(|number| emitter.to_room("r").event("n").data(&number).deadline(LONG).send());
        let back = async {
            redis.restart().await;
        };
        let (outcomes, ()) =
            within("all are sent", async { tokio::join!(join_all(held), back) }).await;
        for outcome in outcomes {
            assert_eq!(outcome.expect("it was held").receivers(), Some(1));
        }
    }
    emitter.to_room("r").event("end").send().await.expect("redis is up");
    for socket in &mut sockets {
        assert_eq!(numbers(socket).await, (0..300).collect::<Vec<_>>());
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_goes_out_twice_reaches_clients_once() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut ann = edge.member("ann", &["r"]).await;
    let proxy = Proxy::start(redis.port).await;
    let emitter = holding(RedisSettings::single("127.0.0.1", proxy.port)).await;
    let repeats = async || edge.counts().await.counters.bus_repeats;
    assert_eq!(repeats().await, 0);

    // Taken before anything is sent: what it counts must not depend on who is faster.
    let heard = edge.counts().await.counters.bus_messages + 20;
    // Redis takes it, the emitter never learns, the connection breaks: it goes out again.
    proxy.mute();
    let to_ann = |number: u64| {
        let message = emitter.to_room("r").event("n").data(&number);
        message.deadline(LONG).send()
    };
    let messages = async {
        for outcome in join_all((0..20).map(to_ann)).await {
            outcome.expect("it went out again");
        }
    };
    let heal = async {
        until("the edge has them", async || edge.counts().await.counters.bus_messages >= heard)
            .await;
        proxy.go_away();
        until("the emitter notices", async || !emitter.is_connected()).await;
        proxy.come_back();
    };
    within("all are sent", async { tokio::join!(messages, heal) }).await;
    emitter.to_room("r").event("end").send().await.expect("redis is up");
    assert_eq!(numbers(&mut ann).await, (0..20).collect::<Vec<_>>());
    assert_eq!(repeats().await, 20);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_same_id_to_the_same_target_is_a_repeat() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    // One worker, one link, one order.
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let mut ann = edge.member("ann", &["r", "s"]).await;
    let publish = async |target: Target<'_>, channel: &str, id: Option<&str>, number: u64| {
        let data = number.to_string();
        let mut envelope = Envelope::new(EMITTER_SERVER_ID, target, "n", Some(&data));
        envelope.id = id.map(Into::into);
        let mut bytes = Vec::new();
        envelope.encode(Codec::Json, &mut bytes);
        assert_eq!(redis.publish(channel, bytes).await, 1);
    };
    let (room, other) = (Target::Room("r"), Target::Room("s"));
    for (target, channel, id, number) in [
        (room, "ws:room:r", Some("1"), 0),
        (room, "ws:room:r", Some("1"), 99),
        (room, "ws:room:r", Some("2"), 1),
        (other, "ws:room:s", Some("1"), 2),
        (Target::User("ann"), "ws:user:ann", Some("1"), 3),
        (Target::Broadcast, "ws:broadcast", Some("1"), 4),
        (Target::Broadcast, "ws:broadcast", Some("1"), 99),
        // Those of the TypeScript fleet have none.
        (room, "ws:room:r", None, 5),
        (room, "ws:room:r", None, 6),
        (room, "ws:room:r", Some("1"), 99),
    ] {
        publish(target, channel, id, number).await;
    }
    let end = json!({ "serverId": "emitter", "type": "room", "target": "r", "event": "end" });
    redis.publish("ws:room:r", end.to_string()).await;
    assert_eq!(numbers(&mut ann).await, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(edge.counts().await.counters.bus_repeats, 3);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_records_itself_while_it_is_there() {
    let mut redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.prefix = "live:".to_owned();
    let edge = Edge::with(settings).await;
    until("the edge is recorded", async || records(&redis).await.len() == 1).await;
    let record = &records(&redis).await[0];
    assert_eq!(record.instance, edge.handle.instance());
    assert_eq!(record.version, env!("CARGO_PKG_VERSION"));
    assert_eq!((record.prefix.as_str(), record.pubsub.as_str()), ("live:", "classic"));
    let kept: u64 = {
        let answer = redis.command(&["TTL", "signal:edges"]).await;
        answer.trim().trim_start_matches(':').parse().expect("it ends by itself")
    };
    assert!((1..=16).contains(&kept), "{kept}");

    // Redis forgets, and is told again.
    redis.kill();
    redis.restart().await;
    until("the edge is recorded again", async || records(&redis).await.len() == 1).await;
    let other = Edge::on(&redis).await;
    until("both are recorded", async || records(&redis).await.len() == 2).await;
    edge.stop().await;
    let left = records(&redis).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].instance, other.handle.instance());
    // One whose lease is over goes with the next renewal of another's.
    let gone = EdgeRecord { instance: "gone".to_owned(), ..left[0].clone() };
    redis.command(&["ZADD", "signal:edges", "1", &gone.to_json()]).await;
    until("the dead are forgotten", async || records(&redis).await.len() == 1).await;
    other.stop().await;
    assert_eq!(records(&redis).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_may_not_record_itself_works() {
    let redis = Redis::start().await;
    let rules = "ACL SETUSER edge on >hush resetchannels &ws:* -@all +subscribe +unsubscribe \
                 +publish +ping +client|id +info";
    redis.command(&rules.split_whitespace().collect::<Vec<_>>()).await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.username = Some("edge".to_owned());
    settings.redis.password = Some(signal_core::redis::Secret::new("hush"));
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let failures = async || {
        let (_, page) = request(edge.admin, "GET", "/metrics", "", "").await;
        let line = page.lines().find(|line| line.starts_with("signal_edge_record_failures"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    until("it is counted", async || failures().await.is_some_and(|count| count > 0)).await;
    let mut ann = edge.member("ann", &["r"]).await;
    let emitter = Emitter::connect(emitter_config(redis.settings())).await.expect("redis is up");
    emitter.to_room("r").event("n").data(&7).send().await.expect("redis is up");
    assert_eq!(ann.event("n").await, Value::from(7));
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emitter_finds_the_edge_that_hears_it() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.prefix = "live:".to_owned();
    let connect = async |prefix: &str| {
        let redis = RedisSettings { prefix: prefix.to_owned(), ..redis.settings() };
        let mut config = EmitterConfig::new(redis);
        config.timeout = Duration::from_secs(2);
        Emitter::connect(config).await
    };
    assert!(matches!(connect("live:").await.unwrap_err(), EmitterError::NoEdges));
    let edge = Edge::with(settings).await;
    until("the edge is recorded", async || records(&redis).await.len() == 1).await;
    connect("live:").await.expect("there is an edge");
    let error = connect("").await.unwrap_err();
    assert!(matches!(error, EmitterError::Mismatch { .. }), "{error:?}");
    edge.stop().await;
    assert!(matches!(connect("live:").await.unwrap_err(), EmitterError::NoEdges));
}
