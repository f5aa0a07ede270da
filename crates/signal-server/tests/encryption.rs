//! Payload encryption that is built in: who gets it, what is sealed under which key, and what is refused.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::cell::Cell;
use std::collections::BTreeSet;

use serde_json::{Value, json};
use signal_core::close::CloseCode;
use signal_core::crypto::{Key, Offer};
use signal_core::id::ClientId;
use signal_core::v1::Variant;
use signal_server::config::Encryption;
use signal_server::{Client, Config, Message, Publication, Signal};
use support::{Edge, Frame, Sealed, config, until};

fn with(encryption: Encryption, change: impl FnOnce(&mut Config)) -> Config {
    let mut config = config();
    config.encryption = encryption;
    change(&mut config);
    config
}

async fn edge(encryption: Encryption) -> Edge {
    Edge::with(with(encryption, |_| {})).await
}

async fn finish(edge: Edge, clients: impl IntoIterator<Item = Sealed>) {
    for client in clients {
        client.close().await;
    }
    edge.is_empty().await;
    edge.stop().await;
}

/// The numbers of the keys under which messages came.
async fn kids(client: &mut Sealed, event: &str, data: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut kids = Vec::new();
    for data in data {
        let opened = client.next().await;
        assert_eq!(
            (&opened.value()["event"], &opened.value()["data"]),
            (&json!(event), &json!(data))
        );
        kids.push(opened.kid.expect("under a room's key"));
    }
    kids.dedup();
    kids
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_agree_on_a_key_is_refused() {
    let off_curve = format!("BA{}", "A".repeat(86));
    let bad = [json!("key"), json!("BAAA"), json!(off_curve), json!(7), json!({})];
    for encryption in [Encryption::Required, Encryption::Optional] {
        let edge = edge(encryption).await;
        for variant in [Variant::Plain, Variant::V1Json] {
            for key in &bad {
                let mut socket = Sealed::open(&edge, variant).await;
                let data = json!({ "publicKey": key });
                socket.send(&json!({ "event": "authenticate", "data": data })).await;
                let error = socket.event("error").await;
                assert_eq!(error["message"], "Authentication error", "{key}");
                assert_eq!(socket.closed().await, (4003, "Authentication failed".to_owned()));
                socket.end().await;
            }
        }
        assert_eq!(edge.counts().await.counters.logins_rejected, 10);
        finish(edge, []).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_no_key_is_refused_or_served_in_clear() {
    let none = [json!({}), json!({ "publicKey": null }), json!({ "publicKey": "" })];
    let required = edge(Encryption::Required).await;
    for variant in [Variant::Plain, Variant::V1Json] {
        for data in &none {
            let mut socket = Sealed::open(&required, variant).await;
            socket.send(&json!({ "event": "authenticate", "data": data })).await;
            let error = socket.event("error").await;
            assert_eq!(error["message"], "Encryption handshake failed");
            let code = error.get("code").map(|code| code == "encryption_failed");
            assert_eq!(code, variant.is_v1().then_some(true));
            assert_eq!(socket.closed().await, (4004, "Encryption required".to_owned()));
            socket.end().await;
        }
    }
    finish(required, []).await;
    let optional = edge(Encryption::Optional).await;
    for data in none {
        let mut socket = optional.connect().await;
        socket.send(&json!({ "event": "authenticate", "data": data })).await;
        assert_eq!(socket.event("connected").await.get("serverPublicKey"), None);
        optional.handle.broadcast("e", &1).await.unwrap();
        assert_eq!(socket.text().await, r#"{"event":"e","data":1}"#);
        // For who does not encrypt this is an event like any other.
        socket.send(&json!({ "event": "encrypted", "data": {} })).await;
        socket.send_text("x").await;
        socket.error("Invalid message format").await;
        assert!(optional.counts().await.counters.messages_unhandled > 0);
        socket.close().await;
    }
    finish(optional, []).await;
    // Where it is off, a key is passed over.
    let off = edge(Encryption::Off).await;
    let mut socket = off.connect().await;
    let data = json!({ "publicKey": Offer::new().public_key() });
    socket.send(&json!({ "event": "authenticate", "data": data })).await;
    let connected = socket.event("connected").await;
    assert_eq!((connected.get("serverPublicKey"), connected.get("salt")), (None, None));
    socket.close().await;
    finish(off, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_behind_connected_is_sealed() {
    let edge = edge(Encryption::Required).await;
    for variant in Variant::ALL {
        let mut client = Sealed::member(&edge, variant, "u", &["r"]).await;
        let is_v1 = variant.is_v1();
        assert_eq!(client.connected.get("limits").is_some(), is_v1);
        let id = client.socket.id.clone();
        for (publication, to) in [
            (Publication::room("r", "e"), json!({ "room": "r" })),
            (Publication::room("ws-default", "e"), json!({ "room": "ws-default" })),
            (Publication::user("u", "e"), json!({ "user": true })),
            (Publication::client(&id, "e"), json!({ "client": true })),
            (Publication::room(&id, "e"), json!({ "client": true })),
            (Publication::broadcast("e"), json!({ "all": true })),
        ] {
            let is_keyed = is_v1 && to.get("room").is_some();
            let data = serde_json::value::RawValue::from_string("1.10".to_owned()).unwrap();
            edge.handle.publish(publication.json(&data)).await.unwrap();
            let opened = client.next().await;
            let expected = match is_v1 {
                true => format!(r#"{{"event":"e","data":1.10,"to":{to}}}"#),
                false => r#"{"event":"e","data":1.10}"#.to_owned(),
            };
            assert_eq!(opened.text, expected);
            assert_eq!(opened.kid.is_some(), is_keyed, "{to}");
        }
        edge.handle.publish(Publication::room("r", "bare")).await.unwrap();
        assert_eq!(client.next().await.value()["event"], "bare");
        // Errors and answers too, to what comes in clear as well.
        let requests = [
            (json!({ "event": "authenticate", "data": {} }), "error"),
            (json!({ "event": "nobody", "data": 1 }), "error"),
        ];
        for (request, event) in requests {
            Sealed::send_clear(&mut client.socket, variant, &request).await;
            client.send(&request).await;
            for _ in 0..2 {
                if is_v1 || request["event"] == "authenticate" {
                    assert_eq!(client.next().await.value()["event"], event);
                }
            }
        }
        client.close().await;
    }
    let counters = edge.counts().await.counters;
    // Two rooms, for each of two clients; of the room messages none was sealed for a session.
    assert_eq!((counters.room_keys, counters.sealed_for_rooms), (4, 6));
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_sealed_is_handled_as_if_in_clear() {
    let on_message = async |client: Client, message: Message| {
        let data = json!([message.event, message.data, message.id]);
        let id = client.id.to_string();
        client.signal.send_to_client(&id, "heard", &data).await?;
        Ok(())
    };
    let settings = with(Encryption::Optional, |_| {});
    let edge = Edge::build(Signal::builder().config(settings).on_message(on_message)).await;
    for variant in Variant::ALL {
        let mut client = Sealed::login(&edge, variant, "u").await;
        client.send_text(r#"{"event":"sale","data":{"total":1.10},"id":"7"}"#).await;
        if variant.is_v1() {
            let mut answers = [client.next().await.value(), client.next().await.value()];
            answers.sort_by_key(|answer| answer["event"].to_string());
            assert_eq!(answers[0]["event"], "ack");
            assert_eq!(answers[1]["data"], json!(["sale", r#"{"total":1.10}"#, "\"7\""]));
        } else {
            assert_eq!(client.event("heard").await, json!(["sale", r#"{"total":1.10}"#, "\"7\""]));
        }
        // Deep, empty, or no JSON at all: the same as in clear, and the connection stays.
        let deep = format!("{{\"event\":\"x\",\"data\":{}1{}}}", "[".repeat(128), "]".repeat(128));
        for text in ["", "[]", "null", "{", deep.as_str()] {
            client.send_text(text).await;
            assert_eq!(client.event("error").await["message"], "Invalid message format");
        }
        client.send_text(r#"{"event":"heartbeat"}"#).await;
        client.send(&json!({ "event": "join", "data": { "rooms": ["ws:x"] } })).await;
        client.fence().await;
        client.close().await;
    }
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_ends_the_connection() {
    let edge = edge(Encryption::Optional).await;
    let seal = |key: &mut Key, text: &[u8]| {
        let mut out = text.to_vec();
        key.seal(&mut out, 0, Variant::Plain, |_| b"");
        serde_json::from_slice::<Value>(&out).unwrap()["data"].take()
    };
    let mut cases = 0;
    for variant in Variant::ALL {
        for case in 0..10 {
            let mut client = Sealed::login(&edge, variant, "u").await;
            let heartbeat = br#"{"event":"heartbeat"}"#;
            let mut sealed = seal(client.keys.session(), heartbeat);
            let data = match case {
                0 => Value::Null,
                1 => json!({ "iv": sealed["iv"] }),
                2 => json!({ "iv": "AAAA", "ct": sealed["ct"] }),
                3 => json!({ "iv": sealed["iv"], "ct": "" }),
                4 => json!({ "iv": sealed["iv"], "ct": "not base64!" }),
                5 => json!({ "iv": "AAAAAAAAAAAAAAAA", "ct": sealed["ct"] }),
                6 => seal(&mut Key::from_bytes(&[0; 32]), heartbeat),
                7 => seal(client.keys.session(), &[0xFF, 0xFE]),
                // Sealed twice.
                8 => {
                    let inner = json!({ "event": "encrypted", "data": sealed });
                    seal(client.keys.session(), inner.to_string().as_bytes())
                }
                _ => json!([sealed.take()]),
            };
            let message = json!({ "event": "encrypted", "data": data });
            Sealed::send_clear(&mut client.socket, variant, &message).await;
            let error = client.event("error").await;
            assert_eq!(error["message"], "Decryption failed", "case {case}");
            let code = error.get("code").map(|code| code == "decryption_failed");
            assert_eq!(code, variant.is_v1().then_some(true));
            let closed = client.socket.closed().await;
            assert_eq!(closed, (4502, "Protocol violation".to_owned()));
            client.socket.end().await;
            cases += 1;
        }
    }
    assert_eq!(edge.counts().await.counters.decryptions_failed, cases);
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_message_may_be_as_long_as_any() {
    let edge = Edge::with(with(Encryption::Optional, |config| config.max_message = 4096)).await;
    let mut client = Sealed::login(&edge, Variant::V1Json, "u").await;
    // Base64 makes it a third longer on the wire, where the limit is.
    client.send(&json!({ "event": "x", "data": "-".repeat(2900) })).await;
    assert_eq!(client.event("error").await["code"], "unsupported");
    client.send(&json!({ "event": "x", "data": "-".repeat(3100) })).await;
    assert_eq!(client.socket.closed().await.0, 1009);
    client.socket.end().await;
    finish(edge, []).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_all_kinds() {
    let settings = with(Encryption::Optional, |config| config.workers = 1);
    let edge = Edge::with(settings).await;
    let mut clear = edge.member("clear", &["r"]).await;
    let mut clear_v1 = support::Socket::connect_as(edge.address, "signal.v1.json").await;
    clear_v1.login("clear-v1").await;
    clear_v1.ask(json!({ "event": "join", "data": { "rooms": ["r"] }, "id": 1 })).await;
    let mut plain = Sealed::member(&edge, Variant::Plain, "plain", &["r"]).await;
    let mut holders = Vec::new();
    for variant in [Variant::V1Json, Variant::V1Json, Variant::V1MsgPack, Variant::V1MsgPack] {
        holders.push(Sealed::member(&edge, variant, "v1", &["r"]).await);
    }
    let before = edge.counts().await.counters;
    for number in 0..20 {
        edge.handle.send_to_room("r", "e", &number).await.unwrap();
    }
    for number in 0..20_u64 {
        assert_eq!(clear.text().await, format!(r#"{{"event":"e","data":{number}}}"#));
        let expected = format!(r#"{{"event":"e","data":{number},"to":{{"room":"r"}}}}"#);
        assert_eq!(clear_v1.text().await, expected);
        let opened = plain.next().await;
        assert_eq!(opened.kid, None, "it knows no room keys");
        assert_eq!(opened.text, format!(r#"{{"event":"e","data":{number}}}"#));
    }
    let mut seen = BTreeSet::new();
    for holder in &mut holders {
        let kids = kids(holder, "e", 0..20).await;
        seen.extend(kids);
        assert_eq!(holder.handed, 1);
    }
    assert_eq!(seen.len(), 1, "one key for the room");
    let after = edge.counts().await.counters;
    assert_eq!(after.room_keys - before.room_keys, 1);
    let for_rooms = after.sealed_for_rooms - before.sealed_for_rooms;
    assert_eq!(for_rooms, 40, "once for each variant, however many members");
    let for_sessions = after.sealed_for_sessions - before.sealed_for_sessions;
    assert_eq!(for_sessions, 20 + 4, "the plain member's messages, and four handovers");
    clear.close().await;
    clear_v1.close().await;
    holders.push(plain);
    finish(edge, holders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_out_changes_the_key() {
    let refuses_again = async |_, credentials: signal_server::Credentials| {
        let mut grant = signal_server::Grant::user(credentials.string("userId").unwrap());
        if credentials.string("again").is_none() {
            grant.rooms = vec!["*".parse().unwrap()];
        }
        Ok(grant)
    };
    let settings = with(Encryption::Required, |config| {
        config.rooms.clear();
        config.workers = 1;
    });
    let edge = Edge::build(Signal::builder().config(settings).authenticator(refuses_again)).await;
    let mut stays = Sealed::member(&edge, Variant::V1Json, "stays", &["r"]).await;
    let mut last = 0;
    for way in ["leave", "taken", "kicked", "refresh", "closes", "cut", "plain"] {
        let variant = if way == "plain" { Variant::Plain } else { Variant::V1Json };
        let mut leaver = Sealed::member(&edge, variant, "leaver", &["r"]).await;
        edge.handle.send_to_room("r", "e", &last).await.unwrap();
        let [before] = kids(&mut stays, "e", [last]).await[..] else { panic!("one key") };
        let opened = leaver.next().await;
        assert_eq!(opened.kid, variant.is_v1().then_some(before), "{way}");
        let id = ClientId::parse(&leaver.socket.id).unwrap();
        let leave = json!({ "event": "leave", "data": { "rooms": ["r"] }, "id": 1 });
        let refresh = json!({ "event": "refresh", "data": { "userId": "leaver", "again": "x" } });
        let leaver = match way {
            "leave" | "plain" => {
                leaver.send(&leave).await;
                leaver.fence().await;
                Some(leaver)
            }
            "taken" => {
                assert!(edge.handle.leave(id, "r").await.unwrap());
                Some(leaver)
            }
            "refresh" => {
                leaver.send(&refresh).await;
                leaver.fence().await;
                Some(leaver)
            }
            "kicked" => {
                assert!(edge.handle.close(id, CloseCode::Kicked).await.unwrap());
                assert_eq!(leaver.socket.closed().await.0, 4501);
                leaver.socket.end().await;
                None
            }
            "closes" => {
                leaver.close().await;
                None
            }
            _ => {
                drop(leaver);
                None
            }
        };
        until("it is out", async || {
            edge.counts().await.connections_total() == 1 + u64::from(leaver.is_some())
        })
        .await;
        edge.handle.send_to_room("r", "e", &(last + 1)).await.unwrap();
        let [after] = kids(&mut stays, "e", [last + 1]).await[..] else { panic!("one key") };
        // Who knows no room keys takes none along.
        assert_eq!(after != before, variant.is_v1(), "{way}");
        last += 2;
        if let Some(mut leaver) = leaver {
            leaver.fence().await;
            assert!(leaver.handed <= 2, "one of the default room at most, and the room's old one");
            leaver.close().await;
            until("it is gone", async || edge.counts().await.connections_total() == 1).await;
        }
    }
    finish(edge, [stays]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_has_the_present_key_before_the_acknowledgement() {
    let edge = edge(Encryption::Required).await;
    let mut clients = Vec::new();
    // With two workers each has a key of its own.
    for _ in 0..4 {
        clients.push(Sealed::member(&edge, Variant::V1Json, "u", &["r"]).await);
    }
    edge.handle.send_to_room("r", "e", &1).await.unwrap();
    let mut used = BTreeSet::new();
    for client in &mut clients {
        used.extend(kids(client, "e", [1]).await);
    }
    assert_eq!(used.len(), 2);
    for variant in [Variant::V1Json, Variant::V1MsgPack] {
        let late = Sealed::member(&edge, variant, "late", &["r"]).await;
        assert!(
            used.contains(&late.keys.kid("r").expect("a key")),
            "it was handed over within the join"
        );
        clients.push(late);
    }
    edge.handle.send_to_room("r", "e", &2).await.unwrap();
    for client in &mut clients {
        used.extend(kids(client, "e", [2]).await);
    }
    assert_eq!(used.len(), 2, "a join changes no key");
    finish(edge, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_default_rooms_come_behind_connected() {
    let redis = support::Redis::start().await;
    let settings = with(Encryption::Required, |config| config.redis = redis.settings());
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut first = Sealed::login(&edge, Variant::V1Json, "a").await;
    edge.handle.send_to_room("ws-default", "e", &1).await.unwrap();
    kids(&mut first, "e", [1]).await;
    // These logins wait for the bus, and what arrives meanwhile for them.
    let mut others = Vec::new();
    for number in 0..6 {
        let user = format!("u{number}");
        let mut other = Sealed::login(&edge, Variant::V1MsgPack, &user).await;
        edge.handle.send_to_room("ws-default", "e", &number).await.unwrap();
        kids(&mut other, "e", [number]).await;
        others.push(other);
    }
    kids(&mut first, "e", 0..6).await;
    others.push(first);
    finish(edge, others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_leaks_while_keys_change() {
    let edge = edge(Encryption::Required).await;
    let mut stays = Vec::new();
    for variant in [Variant::V1Json, Variant::V1MsgPack, Variant::V1Json, Variant::Plain] {
        stays.push(Sealed::member(&edge, variant, "stays", &["r"]).await);
    }
    let (over, published) = (Cell::new(false), Cell::new(0));
    let publish = async {
        while !over.get() {
            edge.handle.send_to_room("r", "e", &published.get()).await.unwrap();
            published.set(published.get() + 1);
            // The workers have come by meanwhile.
            edge.counts().await;
        }
        edge.handle.send_to_room("r", "over", &()).await.unwrap();
    };
    // Meanwhile others come and go, each of which opens all it gets: `next` fails if it does not.
    let churn = async {
        for round in 0..30 {
            let mut guest = Sealed::login(&edge, Variant::V1Json, "guest").await;
            guest.send(&json!({ "event": "join", "data": { "rooms": ["r"] }, "id": 1 })).await;
            while guest.next().await.value()["event"] != "ack" {}
            if round % 3 == 0 {
                drop(guest);
                continue;
            }
            guest.send(&json!({ "event": "leave", "data": { "rooms": ["r"] }, "id": 2 })).await;
            while guest.next().await.value()["id"] != 2 {}
            let handed = guest.handed;
            guest.fence().await;
            assert_eq!(guest.handed, handed, "a key for who has left");
            guest.close().await;
        }
        over.set(true);
    };
    let read = async {
        for client in &mut stays {
            for number in 0_u64.. {
                let message = client.next().await.value();
                if message["event"] == "over" {
                    assert_eq!(number, published.get(), "none is missing");
                    break;
                }
                assert_eq!(message["data"], number, "in order");
            }
        }
    };
    tokio::join!(publish, churn, read);
    let counters = edge.counts().await.counters;
    assert!(counters.room_keys > 2, "keys changed");
    assert!(counters.room_keys <= 2 * (published.get() + 1), "one for each message and worker");
    finish(edge, stays).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_messages_are_written_as_they_are_sealed() {
    let edge = Edge::with(with(Encryption::Required, |config| config.workers = 1)).await;
    let mut clients = Vec::new();
    for number in 0..12 {
        let variant = Variant::ALL[number % 3];
        clients.push(Sealed::member(&edge, variant, "u", &["r"]).await);
    }
    // Sealed for each client they are far beyond the buffer in which a turn collects its frames.
    let data = "x".repeat(300 * 1024);
    edge.handle.broadcast("all", &data).await.unwrap();
    edge.handle.send_to_room("r", "room", &data).await.unwrap();
    for client in &mut clients {
        assert_eq!(client.event("all").await, json!(data));
        assert_eq!(client.event("room").await, json!(data));
    }
    finish(edge, clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_edge_itself_says_is_sealed() {
    let settings = with(Encryption::Required, |config| config.workers = 1);
    let mut edge = Edge::with(settings).await;
    let mut clients = Vec::new();
    for variant in Variant::ALL {
        clients.push(Sealed::login(&edge, variant, "u").await);
    }
    edge.begin_stop();
    for client in &mut clients {
        let code = match client.variant.is_v1() {
            true => {
                assert_eq!(client.event("goodbye").await["reason"], "draining");
                4101
            }
            false => 1001,
        };
        assert!(matches!(client.socket.next_message().await, Frame::Close(c, _) if c == code));
        client.socket.end().await;
    }
    edge.ended().await;
}
