//! What goes over a real Redis between two edges: every kind of producer reaches exactly those it
//! should, payloads are untouched, bad envelopes disturb nothing, and Redis is asked for no more than
//! clients need.
//!
//! That something does *not* arrive is shown by a marker on the same channel, behind it.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use signal_core::channel::{ChannelNames, Target};
use signal_core::envelope::Codec;
use signal_emitter::Emitter;
use signal_server::{Publication, Sent};
use support::{Edge, Frame, Redis, Socket, config, emitter_config, until};

/// A client, where it is and what it is in.
struct Client<'a> {
    edge: &'a Edge,
    user: &'a str,
    rooms: &'a [&'a str],
    socket: Socket,
}

/// Who publishes.
enum Producer<'a> {
    Emitter(Emitter),
    Handle(&'a Edge),
    /// What a TypeScript server or emitter publishes.
    Json(&'a Redis),
    /// The compact form, written here byte by byte.
    Compact(&'a Redis),
}

/// What arrived at a client: by event, in order.
type Arrived = BTreeMap<String, Vec<Value>>;

// === impl Client ===

impl<'a> Client<'a> {
    async fn new(edge: &'a Edge, user: &'a str, rooms: &'a [&'a str]) -> Self {
        Self { edge, user, rooms, socket: edge.member(user, rooms).await }
    }

    /// Every channel that brings it something, save the default rooms.
    fn channels(&self) -> BTreeSet<String> {
        let id = &self.socket.id;
        let own = ["ws:broadcast".to_owned(), format!("ws:user:{}", self.user)];
        let of_id = [format!("ws:client:{id}"), format!("ws:room:{id}")];
        let rooms = self.rooms.iter().map(|room| format!("ws:room:{room}"));
        own.into_iter().chain(of_id).chain(rooms).collect()
    }
}

// === impl Producer ===

impl Producer<'_> {
    async fn publish(&self, target: Target<'_>, event: &str, data: &str, exclude: &[&str]) {
        match self {
            Self::Emitter(emitter) => {
                let publish = match target {
                    Target::Broadcast => emitter.broadcast(),
                    Target::Room(name) => emitter.to_room(name),
                    Target::User(name) => emitter.to_user(name),
                    Target::Client(name) => emitter.to_client(name),
                };
                let publish = publish.event(event).json(data).exclude(exclude.iter().copied());
                publish.send().await.expect("redis takes it");
            }
            Self::Handle(edge) => {
                let data: Box<RawValue> = serde_json::from_str(data).expect("JSON");
                let publication = Publication::to(target, event).json(&data).exclude(exclude);
                let sent = edge.handle.publish(publication).await.expect("redis takes it");
                assert_ne!(sent, Sent::LocalOnly);
            }
            Self::Json(redis) => {
                redis.publish(&channel(target), envelope(target, event, data, exclude)).await;
            }
            Self::Compact(redis) => {
                redis.publish(&channel(target), compact(target, event, data, exclude)).await;
            }
        }
    }
}

fn channel(target: Target<'_>) -> String {
    ChannelNames::new("").name(target)
}

fn split(target: Target<'_>) -> (u8, &'static str, Option<&str>) {
    match target {
        Target::Broadcast => (0, "broadcast", None),
        Target::Room(name) => (1, "room", Some(name)),
        Target::User(name) => (2, "user", Some(name)),
        Target::Client(name) => (3, "client", Some(name)),
    }
}

/// An envelope as `JSON.stringify` prints it in a TypeScript producer.
fn envelope(target: Target<'_>, event: &str, data: &str, exclude: &[&str]) -> String {
    let (_, kind, name) = split(target);
    let name = name.map(|name| format!(r#","target":{}"#, json!(name))).unwrap_or_default();
    let exclude = match exclude {
        [] => String::new(),
        exclude => format!(r#","exclude":{}"#, json!(exclude)),
    };
    let event = json!(event);
    format!(
        r#"{{"serverId":"emitter","type":"{kind}"{name},"event":{event},"data":{data}{exclude}}}"#
    )
}

/// The compact form without its optional end.
fn compact(target: Target<'_>, event: &str, data: &str, exclude: &[&str]) -> Vec<u8> {
    let (kind, _, name) = split(target);
    let text = |out: &mut Vec<u8>, text: &str| {
        out.extend([0xd9, u8::try_from(text.len()).expect("short")]);
        out.extend_from_slice(text.as_bytes());
    };
    let mut out = vec![0x97, 1];
    text(&mut out, "emitter");
    out.push(kind);
    match name {
        Some(name) => text(&mut out, name),
        None => out.push(0xc0),
    }
    text(&mut out, event);
    out.push(0xc6);
    out.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
    out.extend_from_slice(data.as_bytes());
    out.push(0x90 | u8::try_from(exclude.len()).expect("few"));
    for client in exclude {
        text(&mut out, client);
    }
    out
}

/// What has arrived at each client, once every channel of all of them has carried a marker, and each
/// worker has passed on what came before it.
async fn arrived(redis: &Redis, clients: &mut [Client<'_>]) -> Vec<Arrived> {
    let channels: BTreeSet<String> = clients.iter().flat_map(Client::channels).collect();
    let names = ChannelNames::new("");
    for channel in &channels {
        let Some(signal_core::channel::Channel::Target(target)) = names.parse(channel) else {
            panic!("{channel} is none");
        };
        let fence = envelope(target, "fence", &json!(channel).to_string(), &[]);
        assert!(redis.publish(channel, fence).await > 0, "nobody listens to {channel}");
    }
    let mut all = Vec::new();
    for client in clients.iter_mut() {
        let (mut missing, mut arrived) = (client.channels(), Arrived::new());
        while !missing.is_empty() {
            match client.socket.next_event().await {
                (event, data) if event == "fence" => {
                    let channel = data.as_str().expect("its channel");
                    assert!(missing.remove(channel), "a stray or second marker of {channel}");
                }
                (event, data) => arrived.entry(event).or_default().push(data),
            }
        }
        all.push(arrived);
    }
    for (client, arrived) in clients.iter_mut().zip(&mut all) {
        for frame in client.socket.settled(&client.edge.handle).await {
            let Frame::Text(text) = frame else { panic!("{frame:?}") };
            let mut message: Value = serde_json::from_str(&text).expect("JSON");
            let event = message["event"].as_str().expect("an event").to_owned();
            arrived.entry(event).or_default().push(message["data"].take());
        }
    }
    all
}

async fn emitter(redis: &Redis, codec: Codec) -> Emitter {
    let mut settings = redis.settings();
    settings.codec = codec;
    Emitter::connect(emitter_config(settings)).await.expect("redis is up")
}

async fn edge(redis: &Redis, codec: Codec) -> Edge {
    let mut settings = config();
    settings.redis = redis.settings();
    settings.redis.codec = codec;
    let edge = Edge::with(settings).await;
    edge.ready().await;
    edge
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

#[tokio::test(flavor = "multi_thread")]
async fn every_producer_reaches_exactly_those_it_should() {
    let redis = Redis::start().await;
    let (one, two) = (edge(&redis, Codec::Json).await, edge(&redis, Codec::MsgPack).await);
    let mut clients = [
        Client::new(&one, "ann", &["r", "s"]).await,
        Client::new(&two, "ann", &["r"]).await,
        Client::new(&two, "bob", &["r"]).await,
        Client::new(&one, "carl", &[]).await,
    ];
    let ids = clients.each_ref().map(|client| client.socket.id.clone());
    let [ann, _, bob, carl] = ids.each_ref().map(String::as_str);
    // Target, those that must not get it, and those of the clients that must.
    let cases: [(&str, Target<'_>, &[&str], &[usize]); 11] = [
        ("room", Target::Room("r"), &[], &[0, 1, 2]),
        ("room but", Target::Room("r"), &[ann, "not-an-id"], &[1, 2]),
        ("room but all", Target::Room("r"), &[&ids[0], &ids[1], &ids[2]], &[]),
        ("other room", Target::Room("s"), &[bob], &[0]),
        ("empty room", Target::Room("t"), &[], &[]),
        ("user", Target::User("ann"), &[], &[0, 1]),
        ("nobody", Target::User("dora"), &[], &[]),
        ("client", Target::Client(bob), &[], &[2]),
        ("own room", Target::Room(carl), &[], &[3]),
        ("broadcast", Target::Broadcast, &[], &[0, 1, 2, 3]),
        ("broadcast but", Target::Broadcast, &[bob, carl], &[0, 1]),
    ];
    let producers = [
        ("emitter", Producer::Emitter(emitter(&redis, Codec::Json).await)),
        ("compact emitter", Producer::Emitter(emitter(&redis, Codec::MsgPack).await)),
        ("one's handle", Producer::Handle(&one)),
        ("two's handle", Producer::Handle(&two)),
        ("raw JSON", Producer::Json(&redis)),
        ("raw compact", Producer::Compact(&redis)),
    ];
    for (name, producer) in &producers {
        let mut expected: [Arrived; 4] = Default::default();
        for (event, target, exclude, receivers) in cases {
            for number in 0..3 {
                producer.publish(target, event, &number.to_string(), exclude).await;
                for receiver in receivers {
                    let arrived = expected[*receiver].entry(event.to_owned()).or_default();
                    arrived.push(json!(number));
                }
            }
        }
        assert_eq!(arrived(&redis, &mut clients).await, expected, "from {name}");
    }
    finish(&redis, &[&one, &two], clients.map(|client| client.socket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_arrive_byte_for_byte() {
    let redis = Redis::start().await;
    let (one, two) = (edge(&redis, Codec::Json).await, edge(&redis, Codec::MsgPack).await);
    let mut sockets = [one.member("a", &["r"]).await, two.member("b", &["r"]).await];
    let members = (0..4000).map(|number| format!(r#""key {number}":[{number}.10,"é"]"#));
    let large = format!("{{{}}}", members.collect::<Vec<_>>().join(","));
    assert!(large.len() > 100_000);
    let payloads = [
        "12345678901234567890",
        "1.10",
        "-0.0e+10",
        "null",
        "\"\"",
        "\"🧾 é \u{2028}\u{2029} \u{7f}\"",
        r#""\u0041\/\ud83e\uddfe\ud83e""#,
        r#"{ "b" : 1, "a":[ 1 , {} ] ,"b":2 }"#,
        &large,
    ];
    let producers = [
        ("emitter", Producer::Emitter(emitter(&redis, Codec::Json).await)),
        ("compact emitter", Producer::Emitter(emitter(&redis, Codec::MsgPack).await)),
        ("one's handle", Producer::Handle(&one)),
        ("two's handle", Producer::Handle(&two)),
        ("raw JSON", Producer::Json(&redis)),
        ("raw compact", Producer::Compact(&redis)),
    ];
    let event = "it's \"né\\w\"\n\t\u{1}\u{2028}🧾";
    for (name, producer) in &producers {
        for payload in payloads {
            producer.publish(Target::Room("r"), event, payload, &[]).await;
            for socket in &mut sockets {
                let text = socket.text().await;
                assert!(text.ends_with(&format!(",\"data\":{payload}}}")), "{name}: {payload}");
                let message: Value = serde_json::from_str(&text.replace(payload, "0")).unwrap();
                assert_eq!(message, json!({ "event": event, "data": 0 }), "{name}");
            }
        }
    }
    // Escapes of an event's name stay as the producer wrote them; a missing payload stays missing.
    let odd = r#"{"serverId":"x","type":"room","target":"r","event":"\u0061\/b","exclude":null}"#;
    redis.publish("ws:room:r", odd).await;
    for socket in &mut sockets {
        assert_eq!(socket.text().await, r#"{"event":"\u0061\/b"}"#);
    }
    finish(&redis, &[&one, &two], sockets).await;
}

/// Bad envelopes of every kind: the reason, the channel, the bytes.
fn bad_envelopes(id: &str) -> Vec<(&'static str, Target<'_>, Vec<u8>)> {
    let (room, user, all) = (Target::Room("r"), Target::User("u"), Target::Broadcast);
    let (client, own) = (Target::Client(id), Target::Room(id));
    let json = |target, data: &str| envelope(target, "e", data, &[]).into_bytes();
    let sound = |target| json(target, "1");
    // An envelope with one part of its text exchanged.
    let exchanged = |target, part: &str, other: &str| {
        let text = envelope(target, "e", "1", &[]);
        assert!(text.contains(part), "{text}");
        text.replace(part, other).into_bytes()
    };
    let changed = |target, change: fn(&mut Vec<u8>)| {
        let mut bytes = compact(target, "e", "1", &[]);
        change(&mut bytes);
        bytes
    };
    let not_utf8 = |target| {
        let mut bytes = json(target, "\"xy\"");
        let position = bytes.iter().position(|byte| *byte == b'x').expect("the data");
        bytes[position] = 0xff;
        bytes
    };
    let deep = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    let long = format!("\"{}\"", "x".repeat(512 * 1024));
    vec![
        ("not_utf8", room, not_utf8(room)),
        ("not_utf8", all, b"{\"\xc3\x28\":1}".to_vec()),
        ("not_json", user, json(user, "01")),
        ("not_json", client, json(client, "")),
        ("not_json", all, json(all, &deep)),
        ("not_json", room, [&sound(room)[..], b"x"].concat()),
        ("not_json", room, compact(room, "e", "{", &[])),
        ("shape", own, exchanged(own, "\"emitter\"", "1")),
        ("shape", all, exchanged(all, "\"e\"", "null")),
        ("shape", room, exchanged(room, "\"data\":1", "\"exclude\":{}")),
        ("shape", room, changed(room, |bytes| bytes[1] = 2)),
        ("shape", room, changed(room, |bytes| bytes[0] = 0x93)),
        ("missing_target", user, exchanged(user, "\"u\"", "\"\"")),
        ("missing_target", room, exchanged(room, "\"r\"", "null")),
        ("unknown_type", client, exchanged(client, "\"client\"", "\"Client\"")),
        ("unknown_type", room, changed(room, |bytes| bytes[11] = 9)),
        ("first_byte", all, Vec::new()),
        ("first_byte", all, b"[]".to_vec()),
        ("first_byte", room, vec![0x81, 0xa1]),
        ("msgpack", room, changed(room, |bytes| bytes.truncate(9))),
        ("msgpack", user, changed(user, |bytes| *bytes.last_mut().expect("bytes") = 0xdd)),
        ("channel_mismatch", room, compact(Target::Room("s"), "e", "1", &[])),
        ("channel_mismatch", room, sound(user)),
        ("channel_mismatch", user, sound(Target::User("v"))),
        ("channel_mismatch", user, sound(Target::Room("u"))),
        ("channel_mismatch", client, sound(own)),
        ("channel_mismatch", own, sound(client)),
        ("channel_mismatch", all, sound(room)),
        ("too_large", user, json(user, &long)),
        ("too_large", all, vec![b'{'; 5_000_000]),
        ("too_large", own, vec![0; 5_000_000]),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_envelopes_on_any_channel_are_counted_and_dropped() {
    let redis = Redis::start().await;
    let edge = edge(&redis, Codec::Json).await;
    let mut socket = edge.member("u", &["r"]).await;
    let id = socket.id.clone();
    for (index, (reason, target, bytes)) in bad_envelopes(&id).iter().enumerate() {
        let (channel, data) = (channel(*target), index.to_string());
        let before = edge.counts().await.counters;
        assert_eq!(redis.publish(&channel, bytes).await, 1);
        assert_eq!(redis.publish(&channel, envelope(*target, "good", &data, &[])).await, 1);
        assert_eq!(socket.event("good").await, json!(index), "after {reason} {index}");
        let after = edge.counts().await.counters;
        let mut expected = before.bus_decode_errors;
        *expected.entry(*reason).or_default() += 1;
        assert_eq!(after.bus_decode_errors, expected, "case {index}");
        assert_eq!(after.bus_messages, before.bus_messages + 2, "case {index}");
        assert_eq!(after.bus_gaps, 0);
    }
    // A broadcast's target means nothing, whatever it is.
    let odd = r#"{"serverId":"x","type":"broadcast","target":7,"event":"b"}"#;
    redis.publish("ws:broadcast", odd).await;
    assert_eq!(socket.text().await, r#"{"event":"b"}"#);
    finish(&redis, &[&edge], [socket]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fleets_with_prefixes_do_not_hear_each_other() {
    let redis = Redis::start().await;
    let mut fleets = Vec::new();
    for prefix in ["", "test:", "ws:"] {
        let mut settings = config();
        // One link: a broadcast is a marker behind everything.
        settings.workers = 1;
        settings.redis = redis.settings();
        prefix.clone_into(&mut settings.redis.prefix);
        let emitter = Emitter::connect(emitter_config(settings.redis.clone())).await.unwrap();
        let edge = Edge::with(settings).await;
        edge.ready().await;
        let socket = edge.member("u", &["r"]).await;
        fleets.push((prefix, edge, emitter, socket));
    }
    for (prefix, _, emitter, _) in &fleets {
        emitter.to_room("r").event("room").data(prefix).send().await.unwrap();
        emitter.to_user("u").event("user").data(prefix).send().await.unwrap();
        emitter.broadcast().event("all").data(prefix).send().await.unwrap();
    }
    for (_, _, emitter, _) in &fleets {
        emitter.broadcast().event("fence").send().await.unwrap();
    }
    for (prefix, _, _, socket) in &mut fleets {
        for event in ["room", "user", "all"] {
            assert_eq!(socket.event(event).await, json!(prefix));
        }
        socket.event("fence").await;
    }
    for (_, edge, _, socket) in fleets {
        socket.close().await;
        edge.is_empty().await;
        assert!(edge.counts().await.counters.bus_decode_errors.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_hears_nothing_of_rooms_without_members_there() {
    let redis = Redis::start().await;
    let (one, two) = (edge(&redis, Codec::Json).await, edge(&redis, Codec::Json).await);
    let mut here = one.member("a", &["here"]).await;
    let mut there = two.member("b", &["there"]).await;
    let before =
        [one.counts().await, two.counts().await].map(|counts| counts.counters.bus_messages);
    for number in 0..100 {
        let sent = two.handle.send_to_room("here", "n", &number).await.expect("published");
        assert!(matches!(sent, Sent::Published(published) if published.receivers == Some(1)));
    }
    for number in 0..100 {
        assert_eq!(here.event("n").await, json!(number));
    }
    one.handle.broadcast("fence", &0).await.expect("published");
    here.event("fence").await;
    there.event("fence").await;
    let after = [one.counts().await, two.counts().await].map(|counts| counts.counters.bus_messages);
    assert_eq!([after[0] - before[0], after[1] - before[1]], [101, 1]);
    finish(&redis, &[&one, &two], [here, there]).await;
}

/// Who leaves and comes back while the room lingers finds the subscription standing.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_lingers_before_redis_is_told() {
    let redis = Redis::start().await;
    let mut settings = config();
    settings.redis = redis.settings();
    // Longer than the test: what is shown does not depend on the machine.
    settings.bus_linger = Duration::from_hours(1);
    let edge = Edge::with(settings).await;
    edge.ready().await;
    let mut socket = edge.member("u", &["r"]).await;
    let calls = async || {
        let stats = redis.command(&["INFO", "commandstats"]).await;
        let calls = |line: &&str| line.contains("subscribe");
        let mut lines: Vec<String> = stats.lines().filter(calls).map(str::to_owned).collect();
        for line in &mut lines {
            line.truncate(line.find(',').expect("its calls come first"));
        }
        lines
    };
    let before = calls().await;
    for _ in 0..20 {
        socket.send(&json!({ "event": "leave", "data": { "rooms": ["r"] } })).await;
        edge.join(&mut socket, &["r"]).await;
    }
    assert_eq!(calls().await, before);
    assert!(redis.channels().await.contains(&"ws:room:r".to_owned()));
    socket.close().await;
    // A client's own channels end with it; groups stay for a while.
    until("the client's own channels are gone", async || {
        let channels = redis.channels().await;
        channels.contains(&"ws:room:r".to_owned())
            && !channels.iter().any(|channel| channel.starts_with("ws:client:"))
    })
    .await;
    edge.stop().await;
    until("redis is asked for nothing", async || redis.channels().await.is_empty()).await;
}

/// The last member leaves one edge or worker while another comes: what is published once the newcomer
/// is a member arrives there, and does not at the one that left.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_leaves_while_another_comes() {
    let redis = Redis::start().await;
    let (one, two) = (edge(&redis, Codec::Json).await, edge(&redis, Codec::Json).await);
    let edges = [&one, &one, &two, &two];
    let mut sockets = Vec::new();
    for edge in edges {
        sockets.push(edge.login("u").await);
    }
    one.join(&mut sockets[0], &["r"]).await;
    let mut last = [None; 4];
    for round in 1..80_usize {
        // Among two workers of one edge, and between edges.
        let (leaver, joiner) = ((round - 1) * 3 % 4, round * 3 % 4);
        let [leaving, joining] = sockets.get_disjoint_mut([leaver, joiner]).expect("two of them");
        let leave = async {
            leaving.send(&json!({ "event": "leave", "data": { "rooms": ["r"] } })).await;
            // Answered behind it, so it has left.
            leaving.send(&json!({ "event": "authenticate" })).await;
            leaving.error("Already authenticated").await;
        };
        tokio::join!(leave, edges[joiner].join(joining, &["r"]));
        for number in 0..5 {
            let from = [&one, &two][round % 2];
            from.handle.send_to_room("r", "n", &(round, number)).await.expect("published");
        }
        // An edge that still lingers may bring what was published just before the join, but nothing
        // that this client has had before.
        let mut numbers = Vec::new();
        while numbers.last() != Some(&(round, 4)) {
            let data = joining.event("n").await;
            let next: (usize, u64) = serde_json::from_value(data).expect("round and number");
            assert!(Some(&next) > last[joiner].as_ref(), "{next:?} after {:?}", last[joiner]);
            last[joiner] = Some(next);
            numbers.push(next);
        }
        numbers.retain(|(of, _)| *of == round);
        assert_eq!(numbers, [0, 1, 2, 3, 4].map(|number| (round, number)));
    }
    finish(&redis, &[&one, &two], sockets).await;
}
