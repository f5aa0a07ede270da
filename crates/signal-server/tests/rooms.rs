//! Rooms from hell: names that no client should get into, however they are written, and lists without
//! end; from clients and from credentials.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::{Value, json};
use signal_server::{Client, Config, Credentials, Grant, HookError, Signal};
use support::{Edge, Socket, config};

fn v1() -> Config {
    let mut config = config();
    config.workers = 1;
    config
}

async fn login(edge: &Edge, user: &str) -> Socket {
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.login(user).await;
    socket
}

/// Asks for rooms, as JSON text; returns those joined and those denied.
async fn join(socket: &mut Socket, rooms: &str) -> (Value, Value) {
    socket
        .send_text(&format!("{{\"event\":\"join\",\"id\":1,\"data\":{{\"rooms\":{rooms}}}}}"))
        .await;
    let mut answer = socket.event("ack").await;
    (answer["rooms"].take(), answer["denied"].take())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_from_hell() {
    let edge = Edge::with(v1()).await;
    let victim = login(&edge, "victim").await;
    let mut socket = login(&edge, "u").await;
    let clef = "\u{1D11E}";
    let client = victim.id.clone();
    let own = socket.id.clone();
    for (name, allowed) in [
        ("\0".to_owned(), true),
        ("a\0b".to_owned(), true),
        ("\r\n".to_owned(), true),
        ("\u{202E}\u{FEFF}\u{200B}".to_owned(), true),
        (clef.repeat(128), true),
        (format!("{}a", clef.repeat(128)), false),
        (clef.repeat(129), false),
        ("a".repeat(256), true),
        ("a".repeat(257), false),
        ("\u{20AC}".repeat(256), true),
        ("\u{20AC}".repeat(257), false),
        ("x".repeat(100_000), false),
        (String::new(), false),
        ("ws:".to_owned(), false),
        ("ws:room:lobby".to_owned(), false),
        (format!("ws:client:{client}"), false),
        // Near misses are names like any other.
        ("WS:".to_owned(), true),
        (" ws:".to_owned(), true),
        ("ws".to_owned(), true),
        (client.clone(), false),
        (client.to_uppercase(), false),
        (format!("{client} "), true),
        // Nothing is sent to these in the client's stead.
        (client.replace('-', ""), true),
        (format!("{{{client}}}"), true),
        (own.clone(), true),
        ("*".to_owned(), true),
        ("{user}".to_owned(), true),
        ("__proto__".to_owned(), true),
    ] {
        let (joined, denied) = join(&mut socket, &json!([name]).to_string()).await;
        let expected =
            if allowed { (json!([name]), json!([])) } else { (json!([]), json!([name])) };
        assert_eq!((joined, denied), expected, "{name:.60?}");
        if allowed && name != own {
            edge.handle.send_to_room(&name, "e", &1).await.unwrap();
            assert_eq!(socket.event("e").await, json!(1), "{name:.60?}");
        }
        socket.send(&json!({ "event": "leave", "id": 2, "data": { "rooms": [name] } })).await;
        socket.event("ack").await;
    }
    // What is sent to the victim is the victim's alone.
    edge.handle.send_to_room(&client, "secret", &1).await.unwrap();
    let mut victim = victim;
    assert_eq!(victim.event("secret").await, json!(1));
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    victim.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_from_hell() {
    let edge = Edge::with(v1()).await;
    let mut socket = login(&edge, "u").await;
    let none = (json!([]), json!([]));
    for rooms in [
        "null",
        "7",
        "\"lobby\"",
        "{\"0\":\"lobby\"}",
        "[]",
        "[null,7,[\"lobby\"],{\"room\":\"lobby\"},true]",
        // Half of a pair is no character, so this is no string that could be a name.
        "[\"\\ud800\"]",
        "[\"a\\udc00b\"]",
        "[\"\\udc00\\ud800\"]",
    ] {
        assert_eq!(join(&mut socket, rooms).await, none, "{rooms}");
    }
    // Escapes are other ways to write the same name.
    for (text, name) in [
        ("\\ud834\\udd1e", "\u{1D11E}"),
        ("\\u0077s\\u003aroom", "ws:room"),
        ("\\u006cobby", "lobby"),
        ("\\u0000", "\0"),
    ] {
        let (joined, denied) = join(&mut socket, &format!("[\"{text}\"]")).await;
        let is_denied = name.starts_with("ws:");
        assert_eq!(if is_denied { denied } else { joined }, json!([name]), "{text}");
    }
    // Of a list without end some are looked at, and the rest is denied: 8 times 128.
    let names: Vec<String> = (0..15_000).map(|number| format!("{number:x}")).collect();
    let asked: Vec<&str> =
        std::iter::repeat_n("ws:x", 2000).chain(names.iter().map(String::as_str)).collect();
    let (joined, denied) = join(&mut socket, &json!(asked).to_string()).await;
    // Three are there already.
    assert_eq!(joined.as_array().unwrap().len(), 125);
    assert_eq!(denied.as_array().unwrap().len(), 17_000 - 125);
    assert_eq!(edge.counts().await.rooms, 2 + 128);
    socket.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_asked_about_so_many_rooms_and_no_more() {
    let policy = async |_: Client, rooms: Vec<String>| {
        assert!(rooms.len() <= 32, "{}", rooms.len());
        // It may say what it wants: only what was asked for counts.
        Ok::<_, HookError>(vec![rooms[rooms.len() - 1].clone(), "ws:x".into(), "other".into()])
    };
    let mut settings = v1();
    settings.max_rooms = 4;
    let edge = Edge::build(Signal::builder().config(settings).room_policy(policy)).await;
    let mut socket = login(&edge, "u").await;
    let rooms: Vec<String> = (0..100).map(|number| format!("r{number}")).collect();
    let (joined, denied) = join(&mut socket, &json!(rooms).to_string()).await;
    assert_eq!(joined, json!(["r31"]));
    assert_eq!(denied.as_array().unwrap().len(), 99);
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_cannot_assign_what_nobody_may_ask_for() {
    let assigned = async |_, credentials: Credentials| {
        let data: Value = credentials.parse().expect("the test sends JSON");
        let mut grant = Grant::user("u");
        grant.join = serde_json::from_value(data["join"].clone()).unwrap_or_default();
        Ok(grant)
    };
    let mut settings = v1();
    settings.rooms = vec![];
    settings.max_rooms = 8;
    let edge = Edge::build(Signal::builder().config(settings).authenticator(assigned)).await;
    let victim = login(&edge, "victim").await;
    let before = edge.counts().await;
    let mut join = vec![
        "ws:room:x".to_owned(),
        "ws:broadcast".to_owned(),
        victim.id.clone(),
        victim.id.to_uppercase(),
        String::new(),
        "a".repeat(257),
        "\u{1D11E}".repeat(128),
        "\0".to_owned(),
    ];
    join.extend((0..5000).map(|number| format!("r{number}")));
    join.push("\0".to_owned());
    let mut socket = Socket::connect_as(edge.address, "signal.v1.json").await;
    socket.send(&json!({ "event": "authenticate", "data": { "join": join } })).await;
    let connected = socket.event("connected").await;
    connected["id"].as_str().unwrap().clone_into(&mut socket.id);
    let after = edge.counts().await;
    assert_eq!(after.rooms - before.rooms, 8);
    assert_eq!(after.counters.joins_denied, 6 + 4994);
    for room in ["\u{1D11E}".repeat(128), "\0".to_owned(), "r5".to_owned()] {
        edge.handle.send_to_room(&room, "e", &1).await.unwrap();
        assert_eq!(socket.event("e").await, json!(1));
    }
    for room in ["r6", &victim.id.clone(), "ws:room:x"] {
        edge.handle.send_to_room(room, "e", &1).await.unwrap();
    }
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    victim.close().await;
    edge.is_empty().await;
    edge.stop().await;
}
