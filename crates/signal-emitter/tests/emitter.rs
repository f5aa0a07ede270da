//! What producers rely on, against a real Redis.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails at a surprise, runs once"
)]

mod support;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    sync::mpsc,
    time::Duration,
};

use serde::Serialize;
use serde_json::value::RawValue;
use signal_core::{
    channel::Target,
    envelope::{Codec, Envelope},
};
use signal_emitter::{
    ClientId, Emitter, EmitterError,
    redis::{RedisSettings, Secret},
};
use tokio::{sync::oneshot, task::JoinSet};

use support::{Redis, Reply, bounded, emitter_config, poll_once};

#[derive(Serialize)]
struct Order {
    id: u64,
    total: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrives_is_exactly_the_envelope() {
    let redis = Redis::start();
    let mut config = emitter_config(redis.settings());
    config.name = Some("sale".to_owned());
    let emitter = Emitter::connect(config).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:branch:12");

    let client = ClientId::from_parts(1, 2, 3, 4);
    let receipt = emitter
        .to_room("branch:12")
        .event("order.created")
        .data(&Order { id: 7, total: 184_500 })
        .exclude([client])
        .trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .send()
        .await
        .unwrap();
    assert_eq!(receipt.receivers(), Some(1));

    let (channel, payload) = subscriber.message();
    assert_eq!(channel, "ws:room:branch:12");
    let envelope = Envelope::decode(&payload).unwrap();
    assert!(envelope.matches(Target::Room("branch:12")));
    let ts = envelope.ts.unwrap();
    let expected = format!(
        "{{\"serverId\":\"emitter\",\"type\":\"room\",\"target\":\"branch:12\",\
         \"event\":\"order.created\",\"data\":{{\"id\":7,\"total\":184500}},\
         \"exclude\":[\"{client}\"],\"v\":1,\"id\":\"{}\",\"ts\":{ts},\"from\":\"sale\",\
         \"trace\":\"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\"}}",
        receipt.id
    );
    assert_eq!(String::from_utf8(payload).unwrap(), expected);
    assert_eq!(receipt.id.as_bytes()[14], b'7', "the id is a UUIDv7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_target_has_its_channel() {
    let redis = Redis::start();
    let mut settings = redis.settings();
    settings.prefix = "test:".to_owned();
    settings.codec = Codec::MsgPack;
    let emitter = Emitter::connect(emitter_config(settings)).await.unwrap();
    let messages = [
        ("test:ws:broadcast", Target::Broadcast, emitter.broadcast()),
        ("test:ws:room:r", Target::Room("r"), emitter.to_room("r")),
        ("test:ws:user:u-7", Target::User("u-7"), emitter.to_user("u-7")),
        ("test:ws:client:any", Target::Client("any"), emitter.to_client("any".to_owned())),
    ];
    for (channel, target, message) in messages {
        let mut subscriber = redis.subscriber(channel);
        message.event("e").json(" {\"n\": 1.50}\n").send().await.unwrap();
        let (arrived_on, payload) = subscriber.message();
        assert_eq!(arrived_on, channel);
        let envelope = Envelope::decode(&payload).unwrap();
        assert!(envelope.matches(target), "{envelope:?}");
        assert_eq!(envelope.data, Some("{\"n\": 1.50}"));
        assert_eq!(payload[0], 0x9b, "an array of eleven");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_data_there_is_no_data() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let mut subscriber = redis.subscriber("ws:user:u");
    emitter.to_user("u").event("e").send().await.unwrap();
    emitter.to_user("u").event("e").data(&()).send().await.unwrap();
    let (_, without) = subscriber.message();
    assert_eq!(Envelope::decode(&without).unwrap().data, None);
    let (_, null) = subscriber.message();
    assert_eq!(Envelope::decode(&null).unwrap().data, Some("null"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_are_what_redis_counts() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let mut subscribers = Vec::new();
    for expected in 0..4 {
        let receipt = emitter.to_room("r").event("e").send().await.unwrap();
        assert_eq!(receipt.receivers(), Some(expected));
        subscribers.push(redis.subscriber("ws:room:r"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_arrive_in_order() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let mut subscriber = redis.subscriber("ws:room:r");
    for index in 0..500 {
        emitter.to_room("r").event("e").data(&index).send().await.unwrap();
    }
    // Under way together: started in this order, answered whenever.
    let mut started = Vec::new();
    for index in 500..1000 {
        let mut message = Box::pin(emitter.to_room("r").event("e").data(&index).send());
        // On a busy machine the answer may be there by the end of the first poll.
        match poll_once(message.as_mut()).await {
            Some(answer) => drop(answer.unwrap()),
            None => started.push(message),
        }
    }
    for message in started {
        message.await.unwrap();
    }
    for index in 0..1000 {
        let (_, payload) = subscriber.message();
        let envelope = Envelope::decode(&payload).unwrap();
        assert_eq!(envelope.data, Some(index.to_string().as_str()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listens_on_the_port() {
    let settings = RedisSettings::single("127.0.0.1", support::free_port());
    let error = bounded(Emitter::connect(emitter_config(settings))).await.unwrap_err();
    assert!(matches!(error, EmitterError::Connect { .. }), "{error:?}");
    assert!(error.to_string().starts_with("cannot connect to redis at 127.0.0.1:"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_listens_and_says_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = RedisSettings::single("127.0.0.1", port);
    let mut config = emitter_config(settings);
    config.timeout = Duration::from_millis(100);
    let error = bounded(Emitter::connect(config)).await.unwrap_err();
    assert!(matches!(error, EmitterError::Connect { .. }), "{error:?}");
}

/// Reads so many publishes, answers them with one write and closes; says when, and waits in between.
fn one_answer_for_all(calls: usize) -> (u16, oneshot::Receiver<mpsc::Receiver<()>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (has_read, reading) = oneshot::channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut input = Vec::new();
        let mut read_until = |stream: &mut std::net::TcpStream, word: &str, times: usize| {
            while String::from_utf8_lossy(&input).matches(word).count() < times {
                let mut chunk = [0; 4096];
                let count = stream.read(&mut chunk).unwrap();
                input.extend_from_slice(&chunk[..count]);
            }
        };
        read_until(&mut stream, "SETNAME", 1);
        stream.write_all(b"%0\r\n").unwrap();
        read_until(&mut stream, "PUBLISH", calls);
        let (has_closed, closing) = mpsc::channel();
        has_read.send(closing).unwrap();
        stream.write_all(":1\r\n".repeat(calls).as_bytes()).unwrap();
        drop(stream);
        has_closed.send(()).unwrap();
    });
    (port, reading)
}

#[tokio::test]
async fn an_answer_that_came_before_the_end_counts() {
    let (port, reading) = one_answer_for_all(100);
    let config = emitter_config(RedisSettings::single("127.0.0.1", port));
    let emitter = Emitter::connect(config).await.unwrap();
    let mut calls = JoinSet::new();
    for _ in 0..100 {
        let emitter = emitter.clone();
        calls.spawn(async move {
            let first = emitter.to_room("r").event("e").send().await;
            // Written into a connection that is closed, before the others have their answers.
            let second = emitter.to_room("r").event("e").send().await;
            (first.map(|receipt| receipt.receivers()), second.is_err())
        });
    }
    // Nothing is read before the other end has closed: this thread is the only one.
    bounded(reading).await.unwrap().recv().unwrap();
    for outcome in bounded(calls.join_all()).await {
        assert!(matches!(outcome, (Ok(Some(1)), true)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_goes_and_comes_back() {
    let redis = Redis::start();
    let port = redis.port;
    let emitter = redis.emitter().await;
    emitter.broadcast().event("e").send().await.unwrap();
    assert!(emitter.is_connected());
    drop(redis);

    // The first may have been under way; soon every call fails at once.
    bounded(async {
        while emitter.is_connected() {
            let error = emitter.broadcast().event("e").send().await.unwrap_err();
            assert!(
                matches!(
                    error,
                    EmitterError::Disconnected | EmitterError::Lost { .. } | EmitterError::Timeout
                ),
                "{error:?}"
            );
        }
    })
    .await;
    let error = bounded(emitter.broadcast().event("lost").send()).await.unwrap_err();
    assert!(matches!(error, EmitterError::Disconnected), "{error:?}");

    let redis = Redis::start_on(port).expect("the port is still free");
    let mut subscriber = redis.subscriber("ws:broadcast");
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    bounded(async {
        while emitter.broadcast().event("back").send().await.is_err() {
            tick.tick().await;
        }
    })
    .await;
    let (_, payload) = subscriber.message();
    assert_eq!(Envelope::decode(&payload).unwrap().event(), "back", "nothing is sent late");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stalls_is_a_timeout() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let mut control = redis.socket();
    assert_eq!(control.call(&["CLIENT", "PAUSE", "600000", "WRITE"]), Reply::Text("OK".into()));
    let error = bounded(emitter.broadcast().event("e").send()).await.unwrap_err();
    assert!(matches!(error, EmitterError::Timeout), "{error:?}");
    assert_eq!(control.call(&["CLIENT", "UNPAUSE"]), Reply::Text("OK".into()));
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    bounded(async {
        while emitter.broadcast().event("e").send().await.is_err() {
            tick.tick().await;
        }
    })
    .await;
}

/// Enough for a producer's ACL user, beside its channels.
const PRODUCER_ACL: &[&str] = &["-@all", "+publish"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_the_acl_forbids_is_refused() {
    let redis = Redis::start();
    let rules = ["ACL", "SETUSER", "producer", "on", ">hush", "resetchannels", "&ws:room:sale:*"];
    let rules = [&rules[..], PRODUCER_ACL].concat();
    assert_eq!(redis.socket().call(&rules), Reply::Text("OK".into()));
    let mut settings = redis.settings();
    settings.username = Some("producer".to_owned());
    settings.password = Some(Secret::new("hush"));
    let emitter = Emitter::connect(emitter_config(settings.clone())).await.unwrap();
    emitter.to_room("sale:1").event("e").send().await.unwrap();
    let error = emitter.to_room("other").event("e").send().await.unwrap_err();
    let EmitterError::Redis(answer) = &error else { panic!("{error:?}") };
    assert!(answer.starts_with("NOPERM"), "{answer}");
    emitter.to_room("sale:1").event("e").send().await.unwrap();

    settings.password = Some(Secret::new("wrong"));
    let error = bounded(Emitter::connect(emitter_config(settings))).await.unwrap_err();
    assert!(matches!(error, EmitterError::Connect { .. }), "{error:?}");
    assert!(!format!("{error:?}").contains("hush"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_password_may_come_from_a_file() {
    let redis = Redis::start();
    let set = redis.socket().call(&["CONFIG", "SET", "requirepass", "hush"]);
    assert_eq!(set, Reply::Text("OK".into()));
    let path = std::env::temp_dir().join(format!("signal-emitter-{}", std::process::id()));
    std::fs::write(&path, "hush\n").unwrap();
    let mut settings = redis.settings();
    settings.password_file = Some(path.clone());
    let connected = Emitter::connect(emitter_config(settings.clone())).await;
    std::fs::remove_file(&path).unwrap();
    connected.unwrap().broadcast().event("e").send().await.unwrap();
    let error = Emitter::connect(emitter_config(settings)).await.unwrap_err();
    assert!(matches!(error, EmitterError::PasswordFile { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_shutdown_nothing_is_sent() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let clone = emitter.clone();
    let mut subscriber = redis.subscriber("ws:broadcast");
    emitter.broadcast().event("last").send().await.unwrap();
    emitter.shutdown().await.unwrap();
    for emitter in [&emitter, &clone] {
        let error = emitter.broadcast().event("late").send().await.unwrap_err();
        assert!(matches!(error, EmitterError::ShutDown), "{error:?}");
        assert!(!emitter.is_connected());
    }
    clone.shutdown().await.unwrap();
    redis.emitter().await.broadcast().event("other").send().await.unwrap();
    for expected in ["last", "other"] {
        let (_, payload) = subscriber.message();
        assert_eq!(Envelope::decode(&payload).unwrap().event(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_without_redis_ends() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    drop(redis);
    // Whether the loss has been noticed yet or not.
    let _ = bounded(emitter.shutdown()).await;
    let error = bounded(emitter.broadcast().event("e").send()).await.unwrap_err();
    assert!(matches!(error, EmitterError::ShutDown), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_clone_closes_the_connection() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let clone = emitter.clone();
    drop(emitter);
    clone.broadcast().event("e").send().await.unwrap();
    drop(clone);
    let mut control = redis.socket();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    bounded(async {
        loop {
            let Reply::Bytes(clients) = control.call(&["CLIENT", "LIST"]) else { panic!() };
            if String::from_utf8(clients).unwrap().lines().count() == 1 {
                return;
            }
            tick.tick().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_message_is_known_before_it_is_sent() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;

    let error = emitter.to_room("").event("e").send().await.unwrap_err();
    assert!(matches!(error, EmitterError::InvalidTarget("room")), "{error:?}");
    let error = emitter.to_user("").event("e").send().await.unwrap_err();
    assert!(matches!(error, EmitterError::InvalidTarget("user")), "{error:?}");
    let error = emitter.to_client("").event("e").send().await.unwrap_err();
    assert!(matches!(error, EmitterError::InvalidTarget("client")), "{error:?}");

    let error = emitter.broadcast().send().await.unwrap_err();
    assert!(matches!(error, EmitterError::NoEvent), "{error:?}");

    for text in ["", "{", "{} {}", "undefined", &format!("{}{}", "[".repeat(128), "]".repeat(128))]
    {
        let error = emitter.broadcast().event("e").json(text).send().await.unwrap_err();
        assert!(matches!(error, EmitterError::InvalidJson(_)), "{error:?}");
    }

    let keys_that_are_no_strings = HashMap::from([((1, 2), 3)]);
    let error =
        emitter.broadcast().event("e").data(&keys_that_are_no_strings).send().await.unwrap_err();
    assert!(matches!(error, EmitterError::Serialize(_)), "{error:?}");

    let raw = RawValue::from_string("{\"n\":1.50}".to_owned()).unwrap();
    emitter.broadcast().event("e").data(&raw).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_edges_would_drop_is_too_large() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let max = signal_core::limits::BUS_MESSAGE_BYTES_MAX;
    let error = emitter.broadcast().event("e").data(&"x".repeat(max)).send().await.unwrap_err();
    match error {
        EmitterError::TooLarge { bytes, max: allowed } => {
            assert!(bytes > max);
            assert_eq!(allowed, max);
        }
        other => panic!("{other:?}"),
    }
    emitter.broadcast().event("e").data(&"x".repeat(max - 1024)).send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_supported_is_said() {
    let settings = RedisSettings::default();
    let error = Emitter::connect(emitter_config(settings)).await.unwrap_err();
    assert!(error.to_string().starts_with("redis mode none is not supported"), "{error}");
}

#[test]
fn futures_can_be_spawned() {
    fn assert_send<T: Send>(_: impl FnOnce(&'static Emitter) -> T) {}
    assert_send(|emitter| emitter.to_room("r").event("e").data(&1).send());
    assert_send(Emitter::shutdown);
}
