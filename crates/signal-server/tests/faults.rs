//! Outages under traffic: what was promised before, during and after a Redis that dies, hangs, refuses
//! or is not Redis at all. Nothing arrives twice, order is kept, no socket closes, and what is published
//! once the edge is ready again arrives.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use signal_core::id::ClientId;
use signal_core::redis::Secret;
use signal_emitter::Emitter;
use signal_server::{SendError, Sent};
use support::{Edge, Redis, Socket, config, emitter_config, until, within};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;

/// Messages of each stream after an outage, all of which have to arrive.
const TAIL: u64 = 50;

async fn not_ready(edge: &Edge, reason: &str) {
    until(reason, async || edge.handle.readiness().iter().any(|found| found.contains(reason)))
        .await;
}

/// Both links and the publisher have noticed.
async fn all_down(edge: &Edge) {
    for reason in ["bus link 0 is down", "bus link 1 is down", "publisher is not connected"] {
        not_ready(edge, reason).await;
    }
}

async fn edge_on(redis: &Redis, user: Option<&str>, password: &str) -> Edge {
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.username = user.map(str::to_owned);
    settings.redis.password = Some(Secret::new(password));
    Edge::with(settings).await
}

/// Closes the clients, and shows that nothing of them is left, here or on Redis.
async fn finish(redis: &Redis, edges: &[&Edge], sockets: impl IntoIterator<Item = Socket>) {
    for socket in sockets {
        socket.close().await;
    }
    for edge in edges {
        edge.is_empty().await;
    }
    // The broadcasts, the revocations, and a probe for each of the two workers of each edge.
    until("redis is at its baseline", async || redis.channels().await.len() == 2 + 2 * edges.len())
        .await;
}

/// Publishes numbers to every stream, whether Redis is there or not, until told to stop; returns the
/// next number.
fn produce(emitter: Arc<Emitter>, clients: Vec<String>, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            if !publish(&emitter, &clients, &number.to_string()).await {
                // Not to spin while there is nobody to take it.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            number += 1;
        }
        number
    })
}

/// One message to each stream; returns whether Redis took all.
async fn publish(emitter: &Emitter, clients: &[String], data: &str) -> bool {
    let mut taken = emitter.broadcast().event("broadcast").json(data).send().await.is_ok();
    taken &= emitter.to_room("shared").event("shared").json(data).send().await.is_ok();
    for (index, client) in clients.iter().enumerate() {
        let (room, user) = (format!("room-{index}"), format!("user-{index}"));
        taken &= emitter.to_room(&room).event("room").json(data).send().await.is_ok();
        taken &= emitter.to_user(&user).event("user").json(data).send().await.is_ok();
        taken &= emitter.to_client(client.as_str()).event("client").json(data).send().await.is_ok();
    }
    taken
}

/// Reads every stream to its end: numbers only grow, and the last ones are all there.
async fn check(mut socket: Socket, edge: String) -> Socket {
    let mut streams: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut open = 5;
    while open > 0 {
        let (event, data) = socket.next_event().await;
        if data == json!("end") {
            open -= 1;
            continue;
        }
        let number = data.as_u64().expect("a number");
        let stream = streams.entry(event.clone()).or_default();
        let last = stream.last().copied();
        assert!(
            last.is_none_or(|last| last < number),
            "{event} on {edge}: {number} after {last:?}"
        );
        stream.push(number);
    }
    assert_eq!(streams.len(), 5);
    for (event, numbers) in streams {
        let tail = &numbers[numbers.len() - usize::try_from(TAIL).expect("small")..];
        assert!(tail.windows(2).all(|two| two[0] + 1 == two[1]), "{event} on {edge}: {tail:?}");
    }
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_through_outages_is_neither_doubled_nor_reordered_and_comes_back() {
    let mut redis = Redis::start().await;
    let edges = [Edge::on(&redis).await, Edge::on(&redis).await];
    let mut sockets = Vec::new();
    for index in 0..8 {
        let room = format!("room-{index}");
        sockets.push(edges[index % 2].member(&format!("user-{index}"), &["shared", &room]).await);
    }
    let clients: Vec<String> = sockets.iter().map(|socket| socket.id.clone()).collect();
    let mut settings = emitter_config(redis.settings());
    settings.timeout = Duration::from_millis(500);
    let emitter = Arc::new(Emitter::connect(settings).await.expect("redis is up"));
    let stop = Arc::new(AtomicBool::new(false));
    let producing = produce(emitter.clone(), clients.clone(), stop.clone());
    let checking: Vec<_> = sockets
        .into_iter()
        .enumerate()
        .map(|(index, socket)| tokio::spawn(check(socket, format!("edge {}", index % 2))))
        .collect();

    for _ in 0..2 {
        let before = edges[0].counts().await.counters.bus_messages;
        until("there is traffic", async || {
            edges[0].counts().await.counters.bus_messages > before + 200
        })
        .await;
        redis.kill();
        all_down(&edges[0]).await;
        all_down(&edges[1]).await;
        redis.restart().await;
        edges[0].ready().await;
        edges[1].ready().await;
    }
    stop.store(true, Ordering::Relaxed);
    let next = within("the producer stops", producing).await.expect("it does not panic");
    until("the emitter is back", async || emitter.to_room("none").event("e").send().await.is_ok())
        .await;
    for number in next..next + TAIL {
        assert!(publish(&emitter, &clients, &number.to_string()).await);
    }
    assert!(publish(&emitter, &clients, "\"end\"").await);
    let mut sockets = Vec::new();
    for checked in checking {
        sockets.push(within("all streams end", checked).await.expect("the checks hold"));
    }
    finish(&redis, &[&edges[0], &edges[1]], sockets).await;
}

/// A `signal.v1` client of a given worker.
async fn login_on(edge: &Edge, worker: u8, user: &str) -> Socket {
    loop {
        let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
        let id = socket.login(user).await["id"].as_str().map(ClientId::parse);
        if id.flatten().expect("an id").worker() == worker {
            return socket;
        }
        // It holds its place until the right worker has had its turn.
        tokio::spawn(socket.close());
    }
}

/// The bus is away, and with it what was confirmed: also on a worker that has members of a room but is
/// not its home, an acknowledgement must not promise what nobody keeps.
#[tokio::test(flavor = "multi_thread")]
async fn joins_during_an_outage_are_degraded_on_every_worker() {
    let mut redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let join = json!({ "event": "join", "data": { "rooms": ["r"] }, "id": "join" });
    let mut members = [login_on(&edge, 0, "a").await, login_on(&edge, 1, "b").await];
    for member in &mut members {
        assert_eq!(member.ask(join.clone()).await.1, json!({ "rooms": ["r"], "denied": [] }));
    }
    redis.kill();
    all_down(&edge).await;
    let mut late = [login_on(&edge, 0, "c").await, login_on(&edge, 1, "d").await];
    let degraded = json!({ "rooms": ["r"], "denied": [], "degraded": true });
    for socket in &mut late {
        assert_eq!(socket.ask(join.clone()).await.1, degraded);
    }
    redis.restart().await;
    edge.ready().await;
    for socket in &mut late {
        // Also for its login and for the outage; one of them names the room.
        loop {
            let (event, data) = socket.next_event().await;
            assert_eq!(event, "resync");
            if data["rooms"] == json!(["r"]) {
                break;
            }
        }
    }
    for socket in &mut late {
        assert_eq!(socket.ask(join.clone()).await.1, json!({ "rooms": ["r"], "denied": [] }));
    }
    edge.handle.send_to_room("r", "after", &1).await.expect("published");
    for socket in members.iter_mut().chain(&mut late) {
        loop {
            match socket.next_event().await {
                (event, _) if event == "resync" => {}
                (event, data) => break assert_eq!((event.as_str(), data), ("after", json!(1))),
            }
        }
    }
    finish(&redis, &[&edge], members.into_iter().chain(late)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_redis_is_survived_until_there_is_one() {
    let mut redis = Redis::stopped(&[]);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", redis.port)).await.expect("free");
    let impostor = tokio::spawn(async move {
        let mut silent = Vec::new();
        for count in 0_usize.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            match count % 4 {
                0 => drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await),
                1 => drop(stream.write_all(b"*-7\r\n\xff\xff$999999999999999999999\r\n").await),
                2 => drop(stream),
                _ => silent.push(stream),
            }
        }
    });
    let mut settings = config();
    settings.redis = redis.settings();
    let edge = Edge::with(settings).await;
    all_down(&edge).await;
    let mut socket = edge.login("u").await;
    let sent = edge.handle.send_to_user("u", "local", &1).await.expect("delivered here");
    assert_eq!(sent, Sent::LocalOnly);
    assert_eq!(socket.event("local").await, json!(1));
    impostor.abort();
    let _ = impostor.await;
    redis.restart().await;
    edge.ready().await;
    edge.join(&mut socket, &["r"]).await;
    finish(&redis, &[&edge], [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_redis_bounds_calls_and_doubles_nothing() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut socket = edge.member("u", &["r"]).await;
    let pid = redis.pid().to_string();
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &pid]).status().expect("kill is there");
        assert!(status.success());
    };
    signal("-STOP");
    // Taken by the kernel, answered by nobody: an error in time, and it may arrive later or not.
    let handle = &edge.handle;
    let stalled = (0..3).map(|number| async move { handle.send_to_room("r", "n", &number).await });
    let outcomes = within("calls end", futures_util::future::join_all(stalled)).await;
    for outcome in outcomes {
        assert!(matches!(outcome, Err(SendError::Publish(_)) | Ok(Sent::LocalOnly)), "{outcome:?}");
    }
    not_ready(&edge, "bus link 0").await;
    not_ready(&edge, "bus link 1").await;
    let mut late = edge.login("late").await;
    late.send(&json!({ "event": "join", "data": { "rooms": ["r"] } })).await;
    signal("-CONT");
    edge.ready().await;
    for number in 10..20 {
        let sent = edge.handle.send_to_room("r", "n", &number).await.expect("published");
        assert!(matches!(sent, Sent::Published(published) if published.receivers == Some(1)));
    }
    for (name, socket) in [("member", &mut socket), ("late", &mut late)] {
        let mut numbers: Vec<Value> = Vec::new();
        while numbers.last() != Some(&json!(19)) {
            numbers.push(socket.event("n").await);
        }
        let after = numbers.split_off(numbers.len() - 10);
        assert_eq!(json!(after), json!((10..20).collect::<Vec<_>>()), "{name}");
        let mut before: Vec<u64> = numbers.iter().filter_map(Value::as_u64).collect();
        before.dedup();
        assert!(before.len() == numbers.len() && before.is_sorted(), "{name}: {numbers:?}");
    }
    finish(&redis, &[&edge], [socket, late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_publisher_is_made_again() {
    let redis = Redis::start().await;
    let (one, two) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut socket = two.member("u", &["r"]).await;
    for round in 0..5 {
        let killed = redis.command(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        assert_eq!(killed, ":2\r\n", "a publisher per edge");
        until("a publish is taken", async || {
            let sent = one.handle.send_to_room("r", "n", &round).await;
            matches!(sent, Ok(Sent::Published(_)))
        })
        .await;
        // While its publisher is away, an edge delivers to its own clients: these may have come again.
        let (mut event, mut data) = socket.next_event().await;
        while event == "last" {
            assert_eq!(data, json!(round - 1));
            (event, data) = socket.next_event().await;
        }
        assert_eq!((event.as_str(), data), ("n", json!(round)));
        until("the other's is taken", async || {
            let sent = two.handle.send_to_room("r", "last", &round).await;
            matches!(sent, Ok(Sent::Published(_)))
        })
        .await;
        while socket.next_event().await != ("last".to_owned(), json!(round)) {}
    }
    assert_eq!(two.counts().await.counters.bus_gaps, 0, "no subscription was touched");
    finish(&redis, &[&one, &two], [socket]).await;
}

/// What a user of an ACL needs beside channels.
const RULES: [&str; 13] = [
    "on",
    ">secret",
    "-@all",
    "+hello",
    "+auth",
    "+ping",
    "+subscribe",
    "+unsubscribe",
    "+publish",
    "+client",
    "+info",
    "resetchannels",
    "&ws:probe:*",
];

#[tokio::test(flavor = "multi_thread")]
async fn channels_refused_or_taken_away_later_disturb_no_others() {
    let redis = Redis::start().await;
    let set_user = async |rules: &[&str]| {
        let command: Vec<&str> = [&["ACL", "SETUSER", "edge"], rules].concat();
        assert_eq!(redis.command(&command).await, "+OK\r\n");
    };
    let most = ["&ws:revoke", "&ws:client:*", "&ws:user:*", "&ws:room:*"];
    set_user(&[&RULES[..], &most[..]].concat()).await;
    let edge = edge_on(&redis, Some("edge"), "secret").await;
    // Not even the broadcasts, which every edge holds from the start.
    not_ready(&edge, "unconfirmed").await;
    let mut socket = edge.member("u", &["r", "s"]).await;
    let emitter = Emitter::connect(emitter_config(redis.settings())).await.expect("up");
    assert_eq!(emitter.broadcast().event("lost").send().await.expect("sent").receivers(), Some(0));
    set_user(&["&ws:broadcast"]).await;
    edge.ready().await;
    assert_eq!(emitter.broadcast().event("all").send().await.expect("sent").receivers(), Some(1));
    socket.event("all").await;

    // Redis drops connections that hold a channel which is forbidden now.
    let gaps = edge.counts().await.counters.bus_gaps;
    let fewer = ["&ws:broadcast", "&ws:revoke", "&ws:client:*", "&ws:user:*", "&ws:room:ws-*"];
    let own = format!("&ws:room:{}", socket.id);
    set_user(&[&RULES[..], &fewer[..], &["&ws:room:r", &own]].concat()).await;
    until("the link notices", async || edge.counts().await.counters.bus_gaps > gaps).await;
    not_ready(&edge, "unconfirmed").await;
    until("the room that is left is confirmed", async || {
        redis.channels().await.contains(&"ws:room:r".to_owned())
    })
    .await;
    assert_eq!(emitter.to_room("s").event("lost").send().await.expect("sent").receivers(), Some(0));
    assert_eq!(emitter.to_room("r").event("r").send().await.expect("sent").receivers(), Some(1));
    socket.event("r").await;
    set_user(&["&ws:room:s"]).await;
    edge.ready().await;
    emitter.to_room("s").event("s").send().await.expect("sent");
    socket.event("s").await;
    finish(&redis, &[&edge], [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_becomes_right_is_enough() {
    let redis = Redis::start().await;
    let set = async |password: &str| {
        let command = ["ACL", "SETUSER", "edge", "on", "resetpass", "+@all", "&*"];
        let password = format!(">{password}");
        let command: Vec<&str> = command.into_iter().chain([password.as_str()]).collect();
        assert_eq!(redis.command(&command).await, "+OK\r\n");
    };
    set("other").await;
    let edge = edge_on(&redis, Some("edge"), "right").await;
    all_down(&edge).await;
    let mut socket = edge.login("u").await;
    set("right").await;
    edge.ready().await;
    edge.join(&mut socket, &["r"]).await;
    finish(&redis, &[&edge], [socket]).await;
}

/// A client that comes and goes, whatever Redis does.
async fn churn(address: std::net::SocketAddr, name: usize) {
    for round in 0..3 {
        let mut socket = Socket::connect(address, "/ws").await;
        socket.login(&format!("user-{}", name % 50)).await;
        let rooms = [format!("room-{}", name % 20), format!("room-{name}-{round}")];
        socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
        if name.is_multiple_of(3) {
            socket.send(&json!({ "event": "leave", "data": { "rooms": rooms } })).await;
        }
        if name.is_multiple_of(5) {
            drop(socket);
        } else {
            socket.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_clients_come_and_go_through_outages() {
    let mut redis = Redis::start().await;
    let (one, two) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let clients: Vec<_> =
        (0..500).map(|name| tokio::spawn(churn([&one, &two][name % 2].address, name))).collect();
    let logins = async || one.counts().await.counters.logins + two.counts().await.counters.logins;
    for outage in [1, 2] {
        until("clients log in", async || logins().await > outage * 500).await;
        redis.kill();
        until("clients log in without it", async || logins().await > outage * 500 + 250).await;
        redis.restart().await;
    }
    for client in clients {
        within("a client is done", client).await.expect("it does not panic");
    }
    one.ready().await;
    two.ready().await;
    assert_eq!(logins().await, 3 * 500);
    finish(&redis, &[&one, &two], []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_on_the_bus_is_cut_and_nobody_else_notices() {
    let redis = Redis::start().await;
    let (one, two) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut readers = [one.member("a", &["r"]).await, two.member("b", &["r"]).await];
    let slow = [one.member("c", &["r"]).await, one.member("d", &["r"]).await];
    let emitter = Emitter::connect(emitter_config(redis.settings())).await.expect("up");
    let pad = "x".repeat(100_000);
    let mut number = 0;
    while one.counts().await.counters.closes.get(&4100) != Some(&2) {
        emitter.to_room("r").event("n").data(&(number, &pad)).send().await.expect("sent");
        for reader in &mut readers {
            assert_eq!(reader.event("n").await[0], json!(number));
        }
        number += 1;
        assert!(number < 5000, "the outbox has no bound");
    }
    drop(slow);
    emitter.to_room("r").event("after").send().await.expect("sent");
    for reader in &mut readers {
        reader.event("after").await;
    }
    assert_eq!(one.counts().await.counters.sent.overflows, 2);
    assert_eq!(one.counts().await.counters.bus_gaps + two.counts().await.counters.bus_gaps, 0);
    finish(&redis, &[&one, &two], readers).await;
}
