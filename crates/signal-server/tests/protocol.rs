//! The plain client wire, row by row: what a client sends, in which state, and what the edge does.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use signal_server::config::Encryption;
use signal_server::hooks::{HandshakeAnswer, Transformed};
use signal_server::{
    AuthError, Client, Config, Credentials, Grant, HookError, Publication, Signal,
};
use support::socket::frame;
use support::{Edge, Frame, Redis, Socket, config, until};

const SHORT: Duration = Duration::from_millis(300);

fn with(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    change(&mut config);
    config
}

async fn finish(edge: Edge, sockets: impl IntoIterator<Item = Socket>) {
    for socket in sockets {
        socket.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_answered_or_dropped() {
    let edge = Edge::start().await;
    let mut socket = edge.connect().await;
    let deep = format!("{{\"event\":\"x\",\"data\":{}1{}}}", "[".repeat(128), "]".repeat(128));
    for invalid in ["", "nonsense", "[]", "1", "null", "\"x\"", "{\"event\":\"x\"", deep.as_str()] {
        socket.send_text(invalid).await;
        socket.error("Invalid message format").await;
    }
    let events =
        ["{}", r#"{"event":""}"#, r#"{"event":null}"#, r#"{"event":false}"#, r#"{"event":0}"#];
    for dropped in events.into_iter().chain([r#"{"event":7}"#, r#"{"event":["x"]}"#]) {
        socket.send_text(dropped).await;
    }
    socket.send_text(r#"{"event":"heartbeat"}"#).await;
    socket.send_text(r#"{"event":"x"}"#).await;
    socket.error("Not authenticated").await;
    let counters = edge.counts().await.counters;
    assert_eq!((counters.messages_invalid, counters.messages_dropped), (8, 7));
    // The connection stayed.
    socket.login("u").await;
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_has_its_shape() {
    let edge = Edge::start().await;
    let mut named = edge.connect().await;
    named.send_text(r#"{"event":"authenticate","data":{"userId":"u\n1"}}"#).await;
    let text = named.text().await;
    let message: Value = serde_json::from_str(&text).expect("JSON");
    let (id, time) =
        (message["data"]["id"].as_str().unwrap(), message["data"]["time"].as_str().unwrap());
    let expected = format!(
        r#"{{"event":"connected","data":{{"id":"{id}","userId":"u\n1","time":"{time}"}}}}"#
    );
    assert_eq!(text, expected, "the keys, in their order");
    assert_eq!((id.len(), &id[14..15]), (36, "8"));
    assert_eq!((time.len(), &time[10..11], &time[19..20], &time[23..]), (24, "T", ".", "Z"));
    for data in
        ["", r#","data":null"#, r#","data":{}"#, r#","data":[1]"#, r#","data":{"userId":7}"#]
    {
        let mut anonymous = edge.connect().await;
        anonymous.send_text(&format!(r#"{{"event":"authenticate"{data}}}"#)).await;
        assert_eq!(anonymous.event("connected").await.get("userId"), None, "with {data}");
        anonymous.close().await;
    }
    // An empty user is shown, and is nobody to send to.
    let mut empty = edge.connect().await;
    assert_eq!(empty.login("").await["userId"], "");
    assert_eq!(edge.counts().await.users, 1);
    finish(edge, [named, empty]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_login_join_and_message_works() {
    let on_message = async |client: Client, _| {
        client.signal.send_to_client(&client.id.to_string(), "echo", &1).await?;
        Ok(())
    };
    for redis in [None, Some(Redis::start().await)] {
        let mut settings = config();
        if let Some(redis) = &redis {
            settings.redis = redis.settings();
        }
        let edge = Edge::build(Signal::builder().config(settings).on_message(on_message)).await;
        edge.ready().await;
        let mut socket = edge.connect().await;
        let burst: Vec<u8> = [
            r#"{"event":"early"}"#,
            r#"{"event":"authenticate","data":{"userId":"u"}}"#,
            r#"{"event":"authenticate"}"#,
            r#"{"event":"join","data":{"rooms":["r"]}}"#,
            r#"{"event":"x"}"#,
        ]
        .iter()
        .flat_map(|text| frame(0x81, text.as_bytes()))
        .collect();
        socket.send_raw(&burst).await;
        socket.error("Not authenticated").await;
        socket.event("connected").await;
        socket.error("Already authenticated").await;
        assert_eq!(socket.event("echo").await, json!(1));
        assert_eq!(edge.counts().await.rooms, 3);
        finish(edge, [socket]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_has_a_deadline_that_other_frames_do_not_extend() {
    let edge = Edge::with(with(|config| config.auth_timeout = SHORT)).await;
    let mut socket = edge.connect().await;
    let talking = async {
        loop {
            socket.send_text(r#"{"event":"heartbeat"}"#).await;
            socket.send_raw(&frame(0x89, b"x")).await;
            match socket.next().await {
                Frame::Pong(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                frame => break frame,
            }
        }
    };
    let closed = support::within("the close", talking).await;
    assert_eq!(closed, Frame::Close(4001, "Authentication timeout".to_owned()));
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_authenticator_has_three_times_as_long_and_leaves_nothing() {
    let never = async |_, _: Credentials| std::future::pending::<Result<Grant, AuthError>>().await;
    let settings = with(|config| config.auth_timeout = SHORT);
    let edge = Edge::build(Signal::builder().config(settings).authenticator(never)).await;
    let mut socket = edge.connect().await;
    let began = std::time::SystemTime::now();
    socket.send_text(r#"{"event":"authenticate"}"#).await;
    socket.send_text(r#"{"event":"join","data":{"rooms":["r"]}}"#).await;
    socket.error("Not authenticated").await;
    socket.send_text(r#"{"event":"authenticate"}"#).await;
    socket.error("Already authenticated").await;
    assert_eq!(socket.closed().await, (4001, "Authentication timeout".to_owned()));
    assert!(began.elapsed().unwrap() >= 3 * SHORT, "it had its time");
    // One that goes away meanwhile.
    let mut gone = edge.connect().await;
    gone.send_text(r#"{"event":"authenticate"}"#).await;
    drop(gone);
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_logins_are_told_and_closed() {
    let login = async |_, credentials: Credentials| match credentials.json() {
        "1" => Err(AuthError::Rejected("no".to_owned())),
        "2" => Err(AuthError::Failed("the database is away".into())),
        "3" => panic!("a bug in the authenticator"),
        _ => {
            tokio::task::yield_now().await;
            panic!("a bug, later")
        }
    };
    let edge = Edge::build(Signal::builder().config(config()).authenticator(login)).await;
    for (data, error) in [
        (1, "Authentication failed"),
        (2, "Authentication error"),
        (3, "Authentication error"),
        (4, "Authentication error"),
    ] {
        let mut socket = edge.connect().await;
        socket.send(&json!({ "event": "authenticate", "data": data })).await;
        socket.error(error).await;
        assert_eq!(socket.closed().await, (4003, "Authentication failed".to_owned()));
        socket.end().await;
    }
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encryption_that_is_required_but_not_set_up_closes() {
    // An embedder that transforms, but agrees on no keys.
    let settings = with(|config| config.encryption = Encryption::Required);
    let transform = |_: &Client, _: &str, _: Option<&str>| -> Option<Transformed> { None };
    let builder = Signal::builder().config(settings).outbound_transformer(transform);
    let edge = Edge::build(builder).await;
    let mut socket = edge.connect().await;
    socket.send_text(r#"{"event":"authenticate"}"#).await;
    assert_eq!(socket.closed().await, (4004, "Encryption required".to_owned()));
    socket.end().await;
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_decides_and_deliveries_are_transformed() {
    let handshake = async |_: Client, credentials: Credentials| match credentials
        .string("publicKey")
    {
        None => Ok(None),
        Some(key) if key == "bad" => Err(HookError::from("no point of the curve")),
        Some(key) => Ok(Some(HandshakeAnswer { server_public_key: key, salt: "salt".to_owned() })),
    };
    let transform = |_: &Client, event: &str, data: Option<&str>| {
        let sealed = format!("{event}/{}", data.unwrap_or_default());
        Some(Transformed { event: "encrypted".to_owned(), data: Some(json!(sealed).to_string()) })
    };
    let settings = with(|config| config.encryption = Encryption::Required);
    let builder = Signal::builder().config(settings);
    let edge = Edge::build(builder.handshake(handshake).outbound_transformer(transform)).await;
    for (data, error, code) in [
        (json!({}), "Encryption handshake failed", 4004),
        (json!({ "publicKey": "bad" }), "Authentication error", 4003),
    ] {
        let mut socket = edge.connect().await;
        socket.send(&json!({ "event": "authenticate", "data": data })).await;
        socket.error(error).await;
        assert_eq!(socket.closed().await.0, code);
        socket.end().await;
    }
    let mut socket = edge.connect().await;
    socket.send(&json!({ "event": "authenticate", "data": { "publicKey": "key" } })).await;
    let connected = socket.event("connected").await;
    assert_eq!(
        (&connected["serverPublicKey"], &connected["salt"]),
        (&json!("key"), &json!("salt"))
    );
    edge.handle.send_to_room("ws-default", "e", &7).await.unwrap();
    assert_eq!(socket.event("encrypted").await, json!("e/7"));
    // Errors are sealed too.
    socket.send_text("nonsense").await;
    assert_eq!(
        socket.event("encrypted").await,
        json!(r#"error/{"message":"Invalid message format"}"#)
    );
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rooms_that_may_be_asked_for_are_joined() {
    let edge = Edge::with(with(|config| {
        config.max_rooms = 3;
        config.workers = 1;
    }))
    .await;
    let mut socket = edge.login("u").await;
    let other = edge.login("other").await;
    let longest = "x".repeat(256);
    // 128 characters of two units each.
    let pairs = "𝄞".repeat(128);
    let rooms = json!([
        "",
        "x".repeat(257),
        "𝄞".repeat(129),
        "ws:",
        "ws:room:x",
        other.id,
        7,
        null,
        ["x"],
        {},
        true,
        longest,
        pairs,
        "third",
        "fourth",
        "ws-default",
        socket.id,
    ]);
    socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
    for room in [longest.as_str(), pairs.as_str(), "third"] {
        socket.marker(&edge.handle, room).await;
    }
    for other_data in
        [json!(null), json!({}), json!({ "rooms": "r" }), json!({ "rooms": null }), json!([])]
    {
        socket.send(&json!({ "event": "join", "data": other_data })).await;
    }
    assert_eq!(edge.counts().await.rooms, 5, "two default rooms and three others");
    // What is sent to the other's own room reaches the other alone.
    let mut other = other;
    edge.handle.send_to_room(&other.id.clone(), "own", &1).await.unwrap();
    assert_eq!(other.event("own").await, json!(1));
    assert_eq!(socket.settled(&edge.handle).await, []);
    finish(edge, [socket, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_leave_any_room_its_own_included() {
    let edge = Edge::start().await;
    let mut socket = edge.member("u", &["r"]).await;
    let id = socket.id.clone();
    edge.handle.send_to_room(&id, "own", &1).await.unwrap();
    assert_eq!(socket.event("own").await, json!(1));
    let rooms = json!(["r", "ws-default", "never joined", 7, id]);
    socket.send(&json!({ "event": "leave", "data": { "rooms": rooms } })).await;
    until("it left", async || edge.counts().await.rooms == 1).await;
    for room in ["r", "ws-default", &id] {
        edge.handle.send_to_room(room, "gone", &2).await.unwrap();
    }
    edge.handle.send_to_user("u", "user", &3).await.unwrap();
    assert_eq!(socket.event("user").await, json!(3));
    edge.handle.send_to_client(&id, "client", &4).await.unwrap();
    assert_eq!(socket.event("client").await, json!(4));
    edge.handle.broadcast("all", &5).await.unwrap();
    assert_eq!(socket.event("all").await, json!(5));
    // It may come back into its own.
    edge.join(&mut socket, &[&id]).await;
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unauthenticated_client_gets_nothing_but_errors() {
    let edge = Edge::start().await;
    let mut inside = edge.login("u").await;
    let mut outside = edge.connect().await;
    edge.handle.broadcast("all", &1).await.unwrap();
    edge.handle.send_to_room("ws-default", "room", &2).await.unwrap();
    inside.event("all").await;
    inside.event("room").await;
    outside.send_text("x").await;
    outside.error("Invalid message format").await;
    finish(edge, [inside, outside]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_answered_by_pings_and_ends_by_a_close() {
    let edge = Edge::with(with(|config| {
        config.ping_interval = Duration::from_millis(300);
        config.heartbeat_timeout = Duration::from_secs(2);
    }))
    .await;
    let mut silent = edge.login("silent").await;
    let mut alive = edge.login("alive").await;
    // A pong is enough to stay: it does for as long as the other takes to be closed, and longer.
    let answering = async {
        for _ in 0..8 {
            while !matches!(alive.next().await, Frame::Ping(_)) {}
            alive.send_raw(&frame(0x8A, b"")).await;
        }
        alive
    };
    let closing = async {
        assert_eq!(silent.next().await, Frame::Ping(Vec::new()));
        assert_eq!(silent.closed().await, (4002, "Heartbeat timeout".to_owned()));
        silent
    };
    let (alive, mut silent) = tokio::join!(answering, closing);
    silent.end().await;
    until("it is counted", async || edge.counts().await.counters.closes.get(&4002) == Some(&1))
        .await;
    finish(edge, [alive]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_cut_and_nobody_else_notices() {
    let edge = Edge::start().await;
    let mut reader = edge.login("u").await;
    let slow = edge.login("u").await;
    let pad = "x".repeat(100_000);
    let mut number = 0;
    while edge.counts().await.counters.sent.overflows == 0 {
        edge.handle.send_to_room("ws-default", "n", &(number, &pad)).await.unwrap();
        assert_eq!(reader.event("n").await[0], json!(number));
        number += 1;
        assert!(number < 1000, "the outbox has no bound");
    }
    until("it is cut", async || edge.counts().await.counters.closes.get(&4100) == Some(&1)).await;
    drop(slow);
    edge.handle.send_to_room("ws-default", "after", &1).await.unwrap();
    reader.event("after").await;
    finish(edge, [reader]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_too_much_is_closed_and_the_allowance_refills() {
    let edge = Edge::with(with(|config| {
        config.message_rate = 20;
        config.message_burst = 10;
    }))
    .await;
    let mut steady = edge.login("steady").await;
    // Twice the burst, at a pace below the rate.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(70)).await;
        steady.send_raw(&frame(0x89, b"")).await;
        while !matches!(steady.next().await, Frame::Pong(_)) {}
    }
    let mut flood = edge.login("flood").await;
    flood.send_raw(&frame(0x81, br#"{"event":"heartbeat"}"#).repeat(20)).await;
    assert_eq!(flood.closed().await, (4503, "Limit exceeded".to_owned()));
    finish(edge, [steady, flood]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_at_their_age() {
    let edge = Edge::with(with(|config| config.max_connection_age = Some(SHORT))).await;
    let mut plain = edge.login("u").await;
    let mut v1 = Socket::connect_as(edge.address, "signal.v1.json").await;
    v1.login("v").await;
    assert_eq!(plain.closed().await, (4102, "Connection too old".to_owned()));
    assert_eq!(v1.event("goodbye").await["reason"], "too old");
    assert_eq!(v1.closed().await.0, 4102);
    finish(edge, [plain, v1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_delivers_what_is_queued_and_says_why() {
    let mut edge = Edge::start().await;
    let mut sockets = Vec::new();
    for _ in 0..20 {
        sockets.push(edge.login("u").await);
    }
    for number in 0..50 {
        edge.handle.broadcast("n", &number).await.unwrap();
    }
    edge.begin_stop();
    for socket in &mut sockets {
        for number in 0..50 {
            assert_eq!(socket.event("n").await, json!(number));
        }
        assert_eq!(socket.closed().await, (1001, "Server shutting down".to_owned()));
        socket.end().await;
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn optional_encryption_is_for_those_that_ask() {
    let optional = || with(|config| config.encryption = Encryption::Optional);
    let transform = |_: &Client, _: &str, _: Option<&str>| -> Option<Transformed> { None };
    let builder = Signal::builder().config(optional()).outbound_transformer(transform);
    let edge = Edge::build(builder).await;
    let mut socket = edge.connect().await;
    socket.send(&json!({ "event": "authenticate", "data": { "publicKey": "key" } })).await;
    assert_eq!(socket.event("connected").await.get("serverPublicKey"), None, "nobody to shake");
    finish(edge, [socket]).await;

    let handshake = async |_: Client, credentials: Credentials| {
        let key = credentials.string("publicKey");
        assert_ne!(key.as_deref(), Some("panic"), "a bug in the handshake");
        Ok(key.map(|key| HandshakeAnswer { server_public_key: key, salt: "salt".to_owned() }))
    };
    let transform = |_: &Client, event: &str, _: Option<&str>| {
        Some(Transformed { event: format!("sealed {event}"), data: None })
    };
    let builder = Signal::builder().config(optional()).handshake(handshake);
    let edge = Edge::build(builder.outbound_transformer(transform)).await;
    let mut clear = edge.login("clear").await;
    let mut sealed = edge.connect().await;
    sealed.send(&json!({ "event": "authenticate", "data": { "publicKey": "key" } })).await;
    sealed.event("connected").await;
    edge.handle.broadcast("e", &1).await.unwrap();
    assert_eq!(clear.event("e").await, json!(1));
    assert_eq!(sealed.text().await, r#"{"event":"sealed e"}"#);
    let mut broken = edge.connect().await;
    broken.send(&json!({ "event": "authenticate", "data": { "publicKey": "panic" } })).await;
    broken.error("Authentication error").await;
    assert_eq!(broken.closed().await, (4003, "Authentication failed".to_owned()));
    broken.end().await;
    assert_eq!(edge.counts().await.counters.logins_failed, 1);
    finish(edge, [clear, sealed]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn default_rooms_are_those_of_the_settings() {
    for (rooms, count) in [(&[][..], 0), (&["news"], 1), (&["news", "news", "other"], 2)] {
        let edge = Edge::with(with(|config| {
            config.default_rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
            config.workers = 1;
        }))
        .await;
        let mut socket = edge.login("u").await;
        assert_eq!(edge.counts().await.rooms, count);
        for room in rooms {
            edge.handle.send_to_room(room, "e", room).await.unwrap();
            assert_eq!(socket.event("e").await, json!(room));
        }
        edge.handle.send_to_room("ws-default", "e", &0).await.unwrap();
        assert_eq!(socket.settled(&edge.handle).await, []);
        finish(edge, [socket]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_asked_about_is_not_answered() {
    let edge = Edge::start().await;
    let mut socket = edge.login("u").await;
    let deepest = format!("{{\"event\":\"x\",\"data\":{}1{}}}", "[".repeat(127), "]".repeat(127));
    for text in [
        deepest.as_str(),
        r#"{"event":"order.ready","data":1,"id":"1"}"#,
        r#"{"event":"join","data":{"rooms":["r"]},"id":"2"}"#,
        r#"{"event":"leave","data":{"rooms":["r"]},"id":"3"}"#,
        r#"{"event":"leave","data":{"rooms":7},"id":"4"}"#,
        r#"{"event":"heartbeat","data":"any","id":"5"}"#,
        r#"{"event":"refresh","data":{},"id":"6"}"#,
        r#"{"event":"Authenticate","id":"7"}"#,
    ] {
        socket.send_text(text).await;
    }
    socket.send_text("x").await;
    socket.error("Invalid message format").await;
    // The deepest, order.ready, refresh and Authenticate are for a handler that is not there.
    assert_eq!(edge.counts().await.counters.messages_unhandled, 4);
    finish(edge, [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_keeps_a_client_alive() {
    let edge = Edge::with(with(|config| config.heartbeat_timeout = Duration::from_secs(2))).await;
    let mut silent = edge.login("silent").await;
    let mut alive = edge.login("alive").await;
    let beating = async {
        loop {
            alive.send_text(r#"{"event":"heartbeat"}"#).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = tokio::select! {
        closed = async { (silent.closed().await, silent.next().await) } => closed,
        () = beating => unreachable!("it beats for ever"),
    };
    assert_eq!(closed.0, (4002, "Heartbeat timeout".to_owned()));
    assert_eq!(closed.1, Frame::End, "it did not answer, and is cut");
    // That took longer than the timeout, and the other is still there.
    edge.handle.send_to_user("alive", "e", &1).await.unwrap();
    assert_eq!(alive.event("e").await, json!(1));
    finish(edge, [alive]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_has_two_keys_or_one() {
    let edge = Edge::start().await;
    let mut socket = edge.member("u", &["r"]).await;
    let other = edge.member("other", &["r"]).await;
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).unwrap();
    for data in
        ["null", "1.10", "12345678901234567890", r#"{"b":1,"a":{}}"#, r#""\u2028☕""#, "[ ]"]
    {
        let data = raw(data);
        let publication = Publication::room("r", "e\"x").json(&data).exclude([&other.id]);
        edge.handle.publish(publication).await.unwrap();
        assert_eq!(socket.text().await, format!(r#"{{"event":"e\"x","data":{data}}}"#));
    }
    for publication in [Publication::user("u", "e"), Publication::client(&socket.id.clone(), "e")] {
        edge.handle.publish(publication).await.unwrap();
        assert_eq!(socket.text().await, r#"{"event":"e"}"#);
    }
    let mut other = other;
    assert_eq!(other.settled(&edge.handle).await, [], "it was excluded");
    finish(edge, [socket, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_of_thousands_takes_what_is_allowed() {
    let edge = Edge::with(with(|config| config.workers = 1)).await;
    let mut socket = edge.login("u").await;
    let mut other = edge.login("other").await;
    let rooms: Vec<String> = (0..15_000).map(|number| format!("{number:x}")).collect();
    for _ in 0..5 {
        socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
    }
    socket.send(&json!({ "event": "leave", "data": { "rooms": rooms } })).await;
    socket.send(&json!({ "event": "join", "data": { "rooms": ["r", "r", "r", "s"] } })).await;
    // Others are served meanwhile.
    edge.handle.send_to_user("other", "e", &1).await.unwrap();
    other.event("e").await;
    socket.send_text("x").await;
    socket.error("Invalid message format").await;
    let counts = edge.counts().await;
    assert_eq!(counts.rooms, 4, "two default rooms, r and s");
    assert_eq!(counts.counters.joins_denied, 5 * (15_000 - 128));
    finish(edge, [socket, other]).await;
}
