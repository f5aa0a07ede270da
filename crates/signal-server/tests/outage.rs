//! What a Redis does that is away, stalls or refuses: sockets stay, delivery comes back by itself, and
//! `/readyz` tells the truth.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::process::Command;

use serde_json::json;
use signal_server::{Sent, SignalHandle};
use support::{Edge, Redis, Socket, config, until};

async fn not_ready(edge: &Edge, reason: &str) {
    until(reason, async || edge.handle.readiness().iter().any(|found| found.contains(reason)))
        .await;
}

/// What `/livez` and `/readyz` answer.
async fn health(edge: &Edge) -> (bool, bool) {
    let mut answers = Vec::new();
    for path in ["/livez", "/readyz"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
        let (_, head) = Socket::open(edge.address, &request).await;
        answers.push(head.starts_with("HTTP/1.1 200 "));
    }
    (answers[0], answers[1])
}

/// A room, a user and a client message, each from the given edge, arrive once and in this order.
async fn assert_delivers(handle: &SignalHandle, socket: &mut Socket, user: &str, room: &str) {
    let id = socket.id.clone();
    // A room's home may be another worker than the client's, so each is awaited before the next.
    handle.send_to_room(room, "room", &1).await.expect("published");
    assert_eq!(socket.event("room").await, json!(1));
    handle.send_to_user(user, "user", &2).await.expect("published");
    assert_eq!(socket.event("user").await, json!(2));
    handle.send_to_client(&id, "client", &3).await.expect("published");
    assert_eq!(socket.event("client").await, json!(3));
    assert_eq!(socket.settled(handle).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_finds_everything_as_it_was() {
    let mut redis = Redis::start().await;
    let (here, there) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut one = here.member("a", &["r", "of-a"]).await;
    let mut two = there.member("b", &["r", "of-b"]).await;
    assert_eq!(health(&here).await, (true, true));

    redis.kill();
    not_ready(&here, "bus link 0 is down").await;
    not_ready(&there, "bus link 1 is down").await;
    not_ready(&here, "publisher is not connected").await;
    assert_eq!(health(&here).await, (true, false));

    // Clients of one edge still reach each other, and may log in and join.
    let mut late = here.login("late").await;
    late.send(&json!({ "event": "join", "data": { "rooms": ["r", "new"] } })).await;
    until("a local delivery", async || {
        let sent = here.handle.send_to_room("new", "local", &0).await.expect("delivered here");
        assert_eq!(sent, Sent::LocalOnly);
        here.counts().await.rooms >= 2 && !late.settled(&here.handle).await.is_empty()
    })
    .await;
    assert_eq!(here.handle.send_to_room("r", "local", &1).await.expect("sent"), Sent::LocalOnly);
    assert_eq!(one.event("local").await, json!(1));

    redis.restart().await;
    here.ready().await;
    there.ready().await;
    assert_eq!(health(&here).await, (true, true));
    assert_delivers(&there.handle, &mut one, "a", "of-a").await;
    assert_delivers(&here.handle, &mut two, "b", "of-b").await;
    there.handle.send_to_room("new", "new", &4).await.expect("published");
    until("the late one hears of it", async || {
        late.settled(&here.handle).await.iter().any(|frame| format!("{frame:?}").contains("new"))
    })
    .await;
    for socket in [one, two, late] {
        socket.close().await;
    }
    here.is_empty().await;
    there.is_empty().await;
    assert!(here.counts().await.counters.bus_gaps > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_down_at_the_start_is_the_same_as_later() {
    let mut redis = Redis::stopped(&[]);
    let mut settings = config();
    settings.redis = redis.settings();
    let edge = Edge::with(settings).await;
    not_ready(&edge, "bus link 0 is down").await;
    let mut socket = edge.login("u").await;
    socket.send(&json!({ "event": "join", "data": { "rooms": ["r"] } })).await;
    redis.restart().await;
    edge.ready().await;
    assert_delivers(&edge.handle, &mut socket, "u", "r").await;
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_subscriber_connections_are_made_again() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut socket = edge.member("u", &["r"]).await;
    for _ in 0..5 {
        let gaps = edge.counts().await.counters.bus_gaps;
        let killed = redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, ":2\r\n", "one link per worker");
        until("both links notice", async || edge.counts().await.counters.bus_gaps == gaps + 2)
            .await;
        edge.ready().await;
        assert_delivers(&edge.handle, &mut socket, "u", "r").await;
    }
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_stalls_is_noticed_by_its_silence() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut socket = edge.member("u", &["r"]).await;
    let pid = redis.pid().to_string();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &pid]).status().expect("kill is there");
        assert!(status.success());
    };
    signal("-STOP");
    // The connection stands, and says nothing.
    not_ready(&edge, "bus link 0").await;
    until("the probe is missed", async || edge.counts().await.counters.bus_gaps > 0).await;
    signal("-CONT");
    edge.ready().await;
    assert_delivers(&edge.handle, &mut socket, "u", "r").await;
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_channel_disturbs_no_other_and_heals() {
    let redis = Redis::start().await;
    let rules =
        ["on", ">secret", "-@all", "+hello", "+auth", "+ping", "+subscribe", "+unsubscribe"];
    let more = [
        "+publish",
        "+client",
        "+info",
        "resetchannels",
        "&ws:broadcast",
        "&ws:revoke",
        "&ws:probe:*",
    ];
    let channels =
        ["&ws:client:*", "&ws:user:*", "&ws:room:ws-*", "&ws:room:????????-*", "&ws:room:ok*"];
    let user: Vec<&str> =
        ["ACL", "SETUSER", "edge"].into_iter().chain(rules).chain(more).chain(channels).collect();
    assert_eq!(redis.command(&user).await, "+OK\r\n");
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.username = Some("edge".to_owned());
    settings.redis.password = Some(signal_core::redis::Secret::new("secret"));
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut socket = edge.member("u", &["ok"]).await;
    // These come in one command with one that is allowed.
    socket.send(&json!({ "event": "join", "data": { "rooms": ["no", "ok2", "no2"] } })).await;
    not_ready(&edge, "unconfirmed").await;
    redis.publish("ws:room:ok2", &envelope("ok2", 1)).await;
    assert_eq!(socket.event("e").await, json!(1));
    assert_delivers(&edge.handle, &mut socket, "u", "ok").await;

    assert_eq!(redis.command(&["ACL", "SETUSER", "edge", "&ws:room:no*"]).await, "+OK\r\n");
    edge.ready().await;
    redis.publish("ws:room:no", &envelope("no", 2)).await;
    assert_eq!(socket.event("e").await, json!(2));
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_reason_not_to_be_ready() {
    let redis = Redis::with(&["--requirepass", "right"]).await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.password = Some(signal_core::redis::Secret::new("wrong"));
    let edge = Edge::with(settings).await;
    not_ready(&edge, "bus link 0 is down").await;
    edge.login("u").await.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_through_an_outage_leaves_nothing_behind() {
    let mut redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let churn = |edge: std::net::SocketAddr, name: usize| async move {
        for round in 0..8 {
            let mut socket = Socket::connect(edge, "/ws").await;
            socket.login(&format!("user-{name}")).await;
            let rooms = [format!("room-{}", name % 7), format!("room-{round}")];
            socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
            socket.close().await;
        }
    };
    let clients: Vec<_> = (0..40).map(|name| tokio::spawn(churn(edge.address, name))).collect();
    until("the churn has begun", async || edge.counts().await.counters.logins > 40).await;
    redis.kill();
    not_ready(&edge, "bus link 0 is down").await;
    redis.restart().await;
    for client in clients {
        client.await.expect("a client does not panic");
    }
    edge.ready().await;
    edge.is_empty().await;
    until("redis knows of no other channel", async || redis.channels().await.len() == 4).await;
}

fn envelope(room: &str, data: u32) -> String {
    format!(r#"{{"serverId":"emitter","type":"room","target":"{room}","event":"e","data":{data}}}"#)
}
