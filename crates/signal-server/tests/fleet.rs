//! Several edges on one Redis, and producers of each kind: who gets what, how often, in which order, and
//! what Redis is asked for.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use serde_json::{Value, json};
use signal_core::envelope::Codec;
use signal_emitter::Emitter;
use signal_server::{Publication, Sent};
use support::{Edge, Redis, Socket, config, emitter_config, until};

/// Messages as they arrive before a fence that every socket gets by broadcast.
async fn events(edge: &Edge, socket: &mut Socket) -> Vec<(String, Value)> {
    edge.handle.broadcast("fence", &socket.id.clone()).await.expect("published");
    let mut events = Vec::new();
    loop {
        let mut message: Value = serde_json::from_str(&socket.text().await).expect("JSON");
        let event = message["event"].as_str().expect("an event").to_owned();
        match event.as_str() {
            "fence" if message["data"] == json!(socket.id) => return events,
            "fence" => {}
            _ => events.push((event, message["data"].take())),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_emitter_reaches_exactly_those_it_should() {
    let redis = Redis::start().await;
    // One worker: everything goes through one link, so a broadcast is a fence for all channels.
    let mut settings = config();
    settings.workers = 1;
    settings.redis = redis.settings();
    let (one, two) = (Edge::with(settings.clone()).await, Edge::with(settings).await);
    one.ready().await;
    two.ready().await;
    let emitter = Emitter::connect(emitter_config(redis.settings())).await.expect("redis is up");
    let mut ann = one.member("ann", &["r"]).await;
    let mut ann_again = two.member("ann", &["r"]).await;
    let mut bob = two.member("bob", &["r", "s"]).await;

    let receipt = emitter.to_room("r").event("room").data(&1).send().await.expect("sent");
    assert_eq!(receipt.receivers(), Some(2));
    assert_eq!(
        emitter.to_room("s").event("s").data(&2).send().await.expect("sent").receivers(),
        Some(1)
    );
    assert_eq!(emitter.to_room("none").event("x").send().await.expect("sent").receivers(), Some(0));
    emitter.to_user("ann").event("user").data(&3).send().await.expect("sent");
    emitter.to_client(bob.id.as_str()).event("client").data(&4).send().await.expect("sent");
    let but = [ann.id.clone(), bob.id.clone()];
    emitter.to_room("r").event("but").data(&5).exclude(but).send().await.expect("sent");
    emitter.broadcast().event("all").data(&6).send().await.expect("sent");
    // A TypeScript server's send(clientId), for a client elsewhere.
    emitter.to_room(ann.id.as_str()).event("own").data(&7).send().await.expect("sent");
    let not_bob = Publication::broadcast("not bob").exclude([&bob.id]);
    one.handle.publish(not_bob).await.expect("published");

    let expected = |names: &[(&str, Value)]| -> Vec<(String, Value)> {
        names.iter().map(|(name, data)| ((*name).to_owned(), data.clone())).collect()
    };
    assert_eq!(
        events(&one, &mut ann).await,
        expected(&[
            ("room", json!(1)),
            ("user", json!(3)),
            ("all", json!(6)),
            ("own", json!(7)),
            ("not bob", Value::Null),
        ])
    );
    assert_eq!(
        events(&two, &mut ann_again).await,
        expected(&[
            ("room", json!(1)),
            ("user", json!(3)),
            ("but", json!(5)),
            ("all", json!(6)),
            ("not bob", Value::Null),
        ])
    );
    assert_eq!(
        events(&two, &mut bob).await,
        expected(&[("room", json!(1)), ("s", json!(2)), ("client", json!(4)), ("all", json!(6))])
    );
    for socket in [ann, ann_again, bob] {
        socket.close().await;
    }
    one.is_empty().await;
    two.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages_arrive_once_and_in_order() {
    let redis = Redis::start().await;
    let (one, two) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut sockets = Vec::new();
    for (edge, user) in [(&one, "a"), (&one, "b"), (&two, "c"), (&two, "d"), (&two, "e")] {
        sockets.push(edge.member(user, &["r"]).await);
    }
    let emitter = Emitter::connect(emitter_config(redis.settings())).await.expect("redis is up");
    let publish = async {
        for number in 0..10_000 {
            let receipt = emitter.to_room("r").event("n").data(&number).send().await.expect("sent");
            assert_eq!(receipt.receivers(), Some(2));
        }
    };
    let receive = sockets.into_iter().map(|mut socket| async move {
        for number in 0..10_000 {
            assert_eq!(socket.text().await, format!("{{\"event\":\"n\",\"data\":{number}}}"));
        }
        socket
    });
    let ((), sockets) = tokio::join!(publish, futures_util::future::join_all(receive));
    for mut socket in sockets {
        assert_eq!(socket.settled(&one.handle).await, []);
        socket.close().await;
    }
    one.is_empty().await;
    two.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_asked_for_what_clients_need_and_nothing_else() {
    let redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let baseline = redis.channels().await;
    assert_eq!(baseline.len(), 4, "broadcast, revocations and a probe per worker: {baseline:?}");
    let first = edge.member("u", &["r"]).await;
    let second = edge.member("u", &["r"]).await;
    let mut expected = baseline.clone();
    for id in [&first.id, &second.id] {
        expected.extend([format!("ws:client:{id}"), format!("ws:room:{id}")]);
    }
    expected.extend(
        ["ws:room:r", "ws:room:ws-default", "ws:room:ws-notification", "ws:user:u"]
            .map(str::to_owned),
    );
    expected.sort();
    assert_eq!(redis.channels().await, expected);
    // Nobody here is in this room, so the edge does not even hear of it.
    let before = edge.counts().await.counters.bus_messages;
    assert_eq!(redis.publish("ws:room:elsewhere", "{}").await, 0);
    assert_eq!(edge.counts().await.counters.bus_messages, before);
    first.close().await;
    second.close().await;
    edge.is_empty().await;
    until("redis is back at the baseline", async || redis.channels().await == baseline).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_envelopes_are_counted_and_disturb_nothing() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.workers = 1;
    settings.redis = redis.settings();
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut socket = edge.member("u", &["r"]).await;
    let huge = format!(
        r#"{{"serverId":"x","type":"room","target":"r","event":"e","data":"{}"}}"#,
        "x".repeat(5_000_000)
    );
    let over = format!(
        r#"{{"serverId":"x","type":"room","target":"r","event":"e","data":"{}"}}"#,
        "x".repeat(512 * 1024)
    );
    for (reason, envelope) in [
        ("not_json", r#"{"serverId":"x","type":"room","target":"r","event":"e","data":1"#),
        ("shape", r#"{"type":"room","target":"r","event":"e","data":1}"#),
        ("unknown_type", r#"{"serverId":"x","type":"planet","target":"r","event":"e","data":1}"#),
        ("missing_target", r#"{"serverId":"x","type":"room","event":"e","data":1}"#),
        (
            "channel_mismatch",
            r#"{"serverId":"x","type":"room","target":"other","event":"e","data":1}"#,
        ),
        ("channel_mismatch", r#"{"serverId":"x","type":"broadcast","event":"e","data":1}"#),
        ("first_byte", "PING"),
        ("too_large", over.as_str()),
        ("too_large", huge.as_str()),
    ] {
        let count = |counts: &signal_server::counts::Counts| {
            counts.counters.bus_decode_errors.get(reason).copied().unwrap_or_default()
        };
        let before = count(&edge.counts().await);
        assert_eq!(redis.publish("ws:room:r", envelope).await, 1);
        let good = r#"{"serverId":"x","type":"room","target":"r","event":"good"}"#;
        redis.publish("ws:room:r", good).await;
        assert_eq!(socket.text().await, r#"{"event":"good"}"#, "after {reason}");
        let counts = edge.counts().await;
        assert_eq!(count(&counts), before + 1, "{reason}: {:?}", counts.counters.bus_decode_errors);
    }
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_keeps_two_fleets_apart_and_codecs_mix() {
    let redis = Redis::start().await;
    let with = async |prefix: &str, codec: Codec| {
        let mut settings = config();
        settings.redis = redis.settings();
        prefix.clone_into(&mut settings.redis.prefix);
        settings.redis.codec = codec;
        let edge = Edge::with(settings).await;
        edge.ready().await;
        edge
    };
    let test = with("test:", Codec::MsgPack).await;
    let test_json = with("test:", Codec::Json).await;
    let live = with("", Codec::Json).await;
    let mut in_test = test.member("u", &["r"]).await;
    let mut in_live = live.member("u", &["r"]).await;
    for edge in [&test, &test_json] {
        let data =
            json!({ "digits": "12345678901234567890", "emoji": "🧾", "separator": "\u{2028}" });
        let sent = edge.handle.send_to_room("r", "e", &data).await.expect("published");
        assert!(matches!(sent, Sent::Published(published) if published.receivers == Some(1)));
        assert_eq!(in_test.event("e").await, data);
    }
    live.handle.send_to_room("r", "live", &1).await.expect("published");
    assert_eq!(in_live.event("live").await, json!(1));
    assert_eq!(in_test.settled(&test.handle).await, []);
    in_test.close().await;
    in_live.close().await;
    test.is_empty().await;
    live.is_empty().await;
}

/// Members of one room on every worker, on both kinds of bus: each gets each message once, in order,
/// while others come and go, and after the home's own members have left.
#[tokio::test(flavor = "multi_thread")]
async fn members_on_all_workers_get_everything_once() {
    let redis = Redis::start().await;
    for (workers, on_redis) in [(1, true), (2, true), (4, true), (2, false), (4, false)] {
        let mut settings = config();
        settings.workers = workers;
        if on_redis {
            settings.redis = redis.settings();
        }
        let edge = Edge::with(settings).await;
        edge.ready().await;
        let mut sockets = Vec::new();
        for number in 0..3 * workers {
            sockets.push(edge.member(&format!("u{number}"), &["r"]).await);
        }
        let homes: std::collections::BTreeSet<u8> = sockets
            .iter()
            .map(|socket| signal_core::id::ClientId::parse(&socket.id).expect("an id").worker())
            .collect();
        assert_eq!(homes.len(), workers, "the acceptor spreads connections");
        // The first member made its worker the home; it goes, and the home stays.
        let excluded = sockets[1].id.clone();
        sockets.remove(0).close().await;
        let churn = async {
            for _ in 0..20 {
                edge.member("guest", &["r"]).await.close().await;
            }
        };
        let publish = async {
            for number in 0..300 {
                let mut publication = Publication::room("r", "n").data(&number).expect("JSON");
                if number % 3 == 0 {
                    publication = publication.exclude([&excluded]);
                }
                edge.handle.publish(publication).await.expect("published");
            }
        };
        let receive = sockets.into_iter().map(|mut socket| {
            let is_excluded = socket.id == excluded;
            async move {
                for number in 0..300 {
                    if !(is_excluded && number % 3 == 0) {
                        assert_eq!(socket.event("n").await, json!(number));
                    }
                }
                socket
            }
        });
        let ((), (), sockets) =
            tokio::join!(churn, publish, futures_util::future::join_all(receive));
        for mut socket in sockets {
            assert_eq!(socket.settled(&edge.handle).await, []);
            socket.close().await;
        }
        edge.is_empty().await;
        edge.stop().await;
    }
}

/// A room far beyond one slice of the fan-out, under load: order at each member, nothing lost, and a
/// message to one client goes through meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_room_is_written_in_slices() {
    const MEMBERS: usize = 1500;
    const MESSAGES: usize = 60;
    let mut settings = config();
    settings.workers = 1;
    let edge = Edge::with(settings).await;
    let mut sockets = Vec::new();
    for _ in 0..MEMBERS {
        sockets.push(edge.login("u").await);
    }
    let mut single = edge.login("single").await;
    let pad = "x".repeat(20_000);
    let ids: Vec<String> = sockets.iter().map(|socket| socket.id.clone()).collect();
    for (number, id) in ids.iter().take(MESSAGES).enumerate() {
        edge.handle.send_to_room("ws-default", "n", &(number, &pad)).await.expect("published");
        edge.handle.send_to_client(id, "own", &number).await.expect("sent");
        edge.handle.send_to_client(&single.id, "single", &number).await.expect("sent");
    }
    for number in 0..MESSAGES {
        while single.next_event().await != ("single".to_owned(), json!(number)) {}
    }
    for (index, socket) in sockets.iter_mut().enumerate() {
        let mut next = 0;
        let mut own = index >= MESSAGES;
        while next < MESSAGES || !own {
            match socket.next_event().await {
                (event, data) if event == "n" => {
                    assert_eq!(data[0], json!(next), "member {index}");
                    next += 1;
                }
                (event, data) if event == "own" => {
                    assert_eq!((data, next), (json!(index), index + 1), "its order is kept");
                    own = true;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for socket in sockets {
        socket.close().await;
    }
    single.close().await;
    edge.is_empty().await;
}
