//! The `signal.v1` subprotocols: acknowledgements, addresses, announcements, and what stays as it was.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use signal_core::v1::parse_msgpack;
use signal_server::hooks::RoomPolicy;
use signal_server::{Client, Credentials, Grant, HookError, Message, Publication, Reply, Signal};
use support::socket::{frame, upgrade};
use support::{Edge, Frame, Redis, Socket, config, within};

const JSON: &str = "signal.v1.json";
const MSGPACK: &str = "signal.v1.msgpack";

async fn login(edge: &Edge, user: &str) -> Socket {
    let mut socket = Socket::connect_as(edge.address, JSON).await;
    socket.login(user).await;
    socket
}

async fn join(socket: &mut Socket, rooms: &[&str]) -> Value {
    let join = json!({ "event": "join", "data": { "rooms": rooms }, "id": "join" });
    let (event, data) = socket.ask(join).await;
    assert_eq!(event, "ack");
    data
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_known_name_is_taken() {
    let mut settings = config();
    settings.subprotocols = vec!["pos-v3".to_owned()];
    let edge = Edge::with(settings).await;
    for (offered, echoed) in [
        ("signal.v1.json", Some("signal.v1.json")),
        ("chat, signal.v1.msgpack, signal.v1.json", Some("signal.v1.msgpack")),
        ("pos-v3, signal.v1.json", Some("pos-v3")),
        ("signal.v2.json, chat", None),
    ] {
        let request = upgrade("/ws", &[("Sec-WebSocket-Protocol", offered)]);
        let (mut socket, head) = Socket::open(edge.address, &request).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{offered}");
        let line = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
        assert_eq!(line, echoed, "{offered}");
        if echoed.is_none_or(|name| name == "pos-v3") {
            let connected = socket.login("u").await;
            assert_eq!(connected.get("server"), None, "the plain protocol was changed");
        }
    }
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connected_says_more() {
    let edge = Edge::start().await;
    let mut socket = Socket::connect_as(edge.address, JSON).await;
    let login = json!({ "event": "authenticate", "data": { "userId": "u" }, "id": 7 });
    let (event, data) = socket.ask(login).await;
    assert_eq!(event, "connected");
    assert_eq!(data["userId"], "u");
    assert_eq!(data["server"]["instance"], edge.handle.instance());
    assert_eq!(data["heartbeat"], 90_000);
    assert_eq!(data["limits"], json!({ "message": 131_072, "rooms": 128 }));
    assert_eq!(data.get("degraded"), None);
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_with_an_id_are_answered_once() {
    let on_message = async |_: Client, message: Message| match message.event.as_str() {
        "sum" => {
            let numbers: Vec<i64> = message.parse()?;
            Ok(Reply::data(&numbers.iter().sum::<i64>())?)
        }
        "quiet" => Ok(Reply::default()),
        _ => Err(HookError::from("no")),
    };
    let edge = Edge::build(Signal::builder().config(config()).on_message(on_message)).await;
    let mut socket = Socket::connect_as(edge.address, JSON).await;
    let early = socket.ask(json!({ "event": "sum", "id": "early" })).await;
    assert_eq!(early, ("error".to_owned(), error("not_authenticated", "Not authenticated")));
    socket.login("u").await;
    for (request, event, data) in [
        (json!({ "event": "heartbeat", "id": 1 }), "ack", Value::Null),
        (json!({ "event": "sum", "data": [1, 2, 3], "id": { "any": ["id"] } }), "ack", json!(6)),
        (json!({ "event": "quiet", "id": 0 }), "ack", Value::Null),
        (json!({ "event": "fail", "id": "f" }), "error", error("failed", "The request failed")),
        (
            json!({ "event": "authenticate", "id": "again" }),
            "error",
            error("already_authenticated", "Already authenticated"),
        ),
        (
            json!({ "event": "leave", "data": { "rooms": ["x"] }, "id": "l" }),
            "ack",
            json!({ "rooms": [] }),
        ),
    ] {
        assert_eq!(socket.ask(request).await, (event.to_owned(), data));
    }
    // Without an id nothing is answered, but for errors.
    socket.send(&json!({ "event": "quiet" })).await;
    socket.send(&json!({ "event": "fail" })).await;
    assert_eq!(socket.event("error").await, error("failed", "The request failed"));
    socket.send_text("[]").await;
    assert_eq!(socket.event("error").await, error("invalid_message", "Invalid message format"));
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_handles_is_unsupported() {
    let edge = Edge::start().await;
    let mut socket = login(&edge, "u").await;
    let answer = socket.ask(json!({ "event": "order.ready", "id": "x" })).await;
    assert_eq!(answer.1["code"], "unsupported");
    socket.send(&json!({ "event": "order.ready" })).await;
    assert_eq!(socket.event("error").await["code"], "unsupported");
    socket.close().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_lists_what_was_denied() {
    let mut settings = config();
    settings.rooms = vec!["branch:*".parse().unwrap()];
    settings.max_rooms = 2;
    let edge = Edge::with(settings).await;
    let mut socket = login(&edge, "u").await;
    let rooms = ["branch:1", "ws:x", "lobby", "branch:2", "branch:3", "ws-default"];
    let answer = join(&mut socket, &rooms).await;
    // The default room is not asked for by its name: no pattern allows it.
    assert_eq!(answer["rooms"], json!(["branch:1", "branch:2"]));
    let denied = answer["denied"].as_array().unwrap();
    assert_eq!(denied.len(), 4, "{denied:?}");
    assert_eq!(edge.counts().await.counters.joins_denied, 4);
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_variant_gets_its_own_frame() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut plain = edge.member("p", &["r"]).await;
    let mut v1 = login(&edge, "j").await;
    assert_eq!(join(&mut v1, &["r"]).await, json!({ "rooms": ["r"], "denied": [] }));
    let mut packed = Socket::connect_as(edge.address, MSGPACK).await;
    packed
        .send_raw(&frame(
            0x82,
            b"\x82\xa5event\xacauthenticate\xa4data\xae{\"userId\":\"m\"}".as_slice(),
        ))
        .await;
    let connected = binary(&mut packed).await;
    assert_eq!(parse_msgpack(&connected).unwrap().event, "connected");
    packed
        .send_raw(&frame(
            0x82,
            b"\x83\xa5event\xa4join\xa4data\xc4\x0f{\"rooms\":[\"r\"]}\xa2id\x09",
        ))
        .await;
    let acknowledged = binary(&mut packed).await;
    let message = parse_msgpack(&acknowledged).unwrap();
    assert_eq!((&*message.event, message.id.as_deref()), ("ack", Some("9")));

    let envelope = r#"{"serverId":"emitter","type":"room","target":"r","event":"e","data":{"n":1.10},"id":"m-1"}"#;
    redis.publish("ws:room:r", envelope).await;
    assert_eq!(plain.text().await, r#"{"event":"e","data":{"n":1.10}}"#);
    assert_eq!(v1.text().await, r#"{"event":"e","data":{"n":1.10},"to":{"room":"r"},"id":"m-1"}"#);
    let expected =
        b"\x84\xa5event\xa1e\xa4data\xc4\x0a{\"n\":1.10}\xa2to\x81\xa4room\xa1r\xa2id\xa3m-1";
    assert_eq!(binary(&mut packed).await, expected);

    for (publication, to) in [
        (Publication::user("j", "e"), json!({ "user": true })),
        (Publication::client(&v1.id.clone(), "e"), json!({ "client": true })),
        (Publication::broadcast("e"), json!({ "all": true })),
        (Publication::room(&v1.id.clone(), "e"), json!({ "client": true })),
    ] {
        edge.handle.publish(publication).await.unwrap();
        let message: Value = serde_json::from_str(&v1.text().await).unwrap();
        assert_eq!(message, json!({ "event": "e", "to": to }));
    }
    plain.close().await;
    v1.close().await;
    packed.close().await;
    edge.is_empty().await;
}

/// A publish right after each acknowledged join: none may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_published_after_the_acknowledgement_is_missed() {
    let redis = Redis::start().await;
    let (edge, other) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut socket = login(&edge, "u").await;
    let mut second = login(&edge, "u").await;
    for round in 0..100 {
        let room = format!("race:{}", round % 7);
        join(&mut socket, &[&room]).await;
        other.handle.send_to_room(&room, "round", &round).await.unwrap();
        assert_eq!(socket.event("round").await, json!(round));
        // The last one leaves while another comes.
        socket.send(&json!({ "event": "leave", "data": { "rooms": [room] } })).await;
        join(&mut second, &[&room]).await;
        other.handle.send_to_room(&room, "second", &round).await.unwrap();
        assert_eq!(second.event("second").await, json!(round));
        second.ask(json!({ "event": "leave", "data": { "rooms": [room] }, "id": round })).await;
    }
    socket.close().await;
    second.close().await;
    edge.is_empty().await;
    other.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_entered_and_left_again_and_again_lingers_once() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    settings.bus_linger = Duration::from_hours(1);
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut socket = login(&edge, "u").await;
    for round in 0..50 {
        join(&mut socket, &["r"]).await;
        socket.ask(json!({ "event": "leave", "data": { "rooms": ["r"] }, "id": round })).await;
    }
    assert_eq!(edge.counts().await.lingering, 1);
    socket.close().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_announced_once_it_is_over() {
    let mut redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let mut socket = login(&edge, "u").await;
    join(&mut socket, &["r"]).await;
    redis.kill();
    support::until("the edge notices", async || !edge.handle.readiness().is_empty()).await;

    let mut late = Socket::connect_as(edge.address, JSON).await;
    let connected = late.login("late").await;
    assert_eq!(connected["degraded"], true);
    let joined = join(&mut late, &["r", "new"]).await;
    assert_eq!(joined, json!({ "rooms": ["r", "new"], "denied": [], "degraded": true }));

    redis.restart().await;
    edge.ready().await;
    assert_eq!(socket.event("resync").await, json!({ "rooms": null, "reason": "bus" }));
    edge.handle.send_to_room("r", "after", &1).await.unwrap();
    assert_eq!(socket.event("after").await, json!(1));

    // The late one is told for its login, its join and the outage, and then hears everything.
    edge.handle.send_to_room("new", "after", &2).await.unwrap();
    let mut told = 0;
    loop {
        let message: Value = serde_json::from_str(&late.text().await).unwrap();
        match message["event"].as_str().unwrap() {
            "resync" => told += 1,
            "after" if message["data"] == json!(2) => break,
            "after" => {}
            event => panic!("{event}"),
        }
    }
    assert!(told >= 1);
    socket.close().await;
    late.close().await;
    edge.is_empty().await;
}

struct Listed;

impl RoomPolicy for Listed {
    async fn allow(&self, client: Client, rooms: Vec<String>) -> Result<Vec<String>, HookError> {
        let allowed = client.metadata.unwrap_or_default();
        Ok(rooms.into_iter().filter(|room| allowed[room.as_str()] == true).collect())
    }
}

/// Credentials say what they grant: the seconds they last, and the rooms.
fn grant(credentials: &Credentials) -> Grant {
    let data: Value = credentials.parse().expect("the test sends JSON");
    let mut grant = Grant::user(data["userId"].as_str().unwrap_or("u"));
    let seconds = data["seconds"].as_u64();
    grant.expires = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
    grant.metadata = Some(data["rooms"].clone());
    grant
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_end_and_are_renewed_in_place() {
    let builder = Signal::builder()
        .config(config())
        .authenticator(async |_, credentials| Ok(grant(&credentials)))
        .room_policy(Listed);
    let edge = Edge::build(builder).await;
    let mut socket = Socket::connect_as(edge.address, JSON).await;
    let login = json!({ "event": "authenticate", "data": { "seconds": 30, "rooms": { "a": true, "b": true } }, "id": 1 });
    let (_, connected) = socket.ask(login).await;
    assert!(connected["expires"].is_u64());
    // They end within the notice, so the notice comes at once.
    let milliseconds = socket.event("expiring").await["in"].as_u64().unwrap();
    assert!(milliseconds <= 31_000, "{milliseconds}");
    assert_eq!(join(&mut socket, &["a", "b"]).await["rooms"], json!(["a", "b"]));

    let refresh = |data: Value, id: u32| json!({ "event": "refresh", "data": data, "id": id });
    let (event, data) = socket.ask(refresh(json!({ "userId": "other" }), 2)).await;
    assert_eq!((event.as_str(), &data["code"]), ("error", &json!("authentication_failed")));
    let (event, data) =
        socket.ask(refresh(json!({ "seconds": 7200, "rooms": { "b": true } }), 3)).await;
    assert_eq!(event, "ack");
    assert!(data["expires"].as_u64() > connected["expires"].as_u64());
    // The new credentials do not allow room a any more.
    edge.handle.send_to_room("a", "e", &1).await.unwrap();
    edge.handle.send_to_room("b", "e", &2).await.unwrap();
    assert_eq!(socket.event("e").await, json!(2));
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_ended_close_every_kind_of_client() {
    let builder = Signal::builder()
        .config(config())
        .authenticator(async |_, credentials| Ok(grant(&credentials)));
    let edge = Edge::build(builder).await;
    let mut plain = edge.connect().await;
    let mut v1 = Socket::connect_as(edge.address, JSON).await;
    for socket in [&mut plain, &mut v1] {
        socket.send(&json!({ "event": "authenticate", "data": { "seconds": 0 } })).await;
        socket.event("connected").await;
    }
    v1.event("expiring").await;
    let (closed_plain, closed_v1) = tokio::join!(plain.closed(), v1.closed());
    assert_eq!(closed_plain, (4500, "Credentials revoked".to_owned()));
    assert_eq!(closed_v1.0, 4500);
    plain.end().await;
    v1.end().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_goodbye_and_when_to_come_back() {
    let mut edge = Edge::start().await;
    let mut v1 = login(&edge, "a").await;
    let mut plain = edge.login("b").await;
    edge.begin_stop();
    let goodbye = v1.event("goodbye").await;
    assert_eq!(goodbye["reason"], "draining");
    assert!(goodbye["retryAfterMs"].is_u64());
    assert_eq!(v1.closed().await, (4101, "Server draining".to_owned()));
    assert_eq!(plain.closed().await, (1001, "Server shutting down".to_owned()));
    v1.end().await;
    plain.end().await;
    edge.stop().await;
}

async fn binary(socket: &mut Socket) -> Vec<u8> {
    within("a binary frame", async {
        loop {
            match socket.next().await {
                Frame::Binary(bytes) if !bytes.windows(7).any(|window| window == b"marker-") => {
                    return bytes;
                }
                Frame::Ping(_) | Frame::Binary(_) => {}
                frame => panic!("not a binary frame: {frame:?}"),
            }
        }
    })
    .await
}

fn error(code: &str, message: &str) -> Value {
    json!({ "code": code, "message": message })
}
