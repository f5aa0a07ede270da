//! What becomes of messages while Redis is away, under both policies.

#![allow(
    clippy::unwrap_used,
    clippy::large_futures,
    reason = "a test fails at a surprise, runs once"
)]

#[path = "support/proxy.rs"]
mod proxy;
mod support;

use std::{pin::Pin, time::Duration};

use signal_core::envelope::Envelope;
use signal_emitter::{
    Emitter, EmitterConfig, EmitterError, Receipt, WhenAway, redis::RedisSettings,
};

use tokio::time::Instant;

use proxy::Proxy;
use support::{Redis, Socket, bounded, emitter_config, poll_once};

const LONG: Duration = Duration::from_mins(5);

type Sending<'a> = Pin<Box<dyn Future<Output = Result<Receipt, EmitterError>> + Send + 'a>>;

fn holding(port: u16, bytes_max: usize) -> EmitterConfig {
    let mut config = emitter_config(RedisSettings::single("127.0.0.1", port));
    config.when_away = WhenAway::Hold { bytes_max };
    config
}

async fn away(proxy: &Proxy, emitter: &Emitter) {
    proxy.go_away();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    bounded(async {
        while emitter.is_connected() {
            tick.tick().await;
        }
    })
    .await;
}

/// Begins to send numbers to a room, in order; none may be answered yet.
async fn begin<'a>(emitter: &'a Emitter, numbers: std::ops::Range<u32>) -> Vec<Sending<'a>> {
    let mut sending = Vec::new();
    for number in numbers {
        let message = emitter.to_room("r").event("n").data(&number).deadline(LONG);
        let mut message: Sending<'a> = Box::pin(message.send());
        assert!(poll_once(message.as_mut()).await.is_none(), "it is held");
        sending.push(message);
    }
    sending
}

fn next(subscriber: &mut Socket) -> (String, String) {
    let (_, payload) = subscriber.message();
    let envelope = Envelope::decode(&payload).unwrap();
    (envelope.id.unwrap().into_owned(), envelope.data.unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_held_arrives_in_order_when_redis_is_back() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let emitter = Emitter::connect(holding(proxy.port, 1 << 20)).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:r");
    let receipt = emitter.to_room("r").event("n").data(&0).send().await.unwrap();
    assert_eq!(receipt.receivers(), Some(1));
    away(&proxy, &emitter).await;

    let mut sending = begin(&emitter, 1..200).await;
    // One whose caller gives up is not sent.
    drop(sending.remove(49));
    proxy.come_back();
    for message in sending {
        assert_eq!(bounded(message).await.unwrap().receivers(), Some(1));
    }
    emitter.to_room("r").event("n").data(&200).send().await.unwrap();
    for number in (0..=200).filter(|number| *number != 50) {
        assert_eq!(next(&mut subscriber).1, number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_under_way_goes_out_again_with_its_id() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let emitter = Emitter::connect(holding(proxy.port, 1 << 20)).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:r");

    proxy.mute();
    let sending = begin(&emitter, 0..3).await;
    // Redis has them, and the emitter cannot know.
    let first: Vec<_> = (0..3).map(|_| next(&mut subscriber)).collect();
    away(&proxy, &emitter).await;
    proxy.come_back();
    let mut ids = Vec::new();
    for message in sending {
        ids.push(bounded(message).await.unwrap().id);
    }
    // A slow machine may need a third time; each begins with the first and keeps the order.
    let mut second: Vec<(String, String)> = Vec::new();
    while second.last() != first.last() {
        let message = next(&mut subscriber);
        if message == first[0] {
            second.clear();
        }
        second.push(message);
    }
    assert_eq!(first, second);
    assert_eq!(ids, second.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_handed_over_as_a_connection_breaks_keeps_its_order() {
    const ROUNDS: u32 = 30;
    const EACH: u32 = 20;
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let emitter = Emitter::connect(holding(proxy.port, 1 << 20)).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:r");
    let mut number = 0;
    for _ in 0..ROUNDS {
        let mut sending = Vec::new();
        for step in 0..3 {
            for _ in 0..EACH {
                let message = emitter.to_room("r").event("n").data(&number).deadline(LONG).send();
                let mut message: Sending<'_> = Box::pin(message);
                number += 1;
                if let Some(answer) = poll_once(message.as_mut()).await {
                    answer.unwrap();
                } else {
                    sending.push(message);
                }
            }
            // Nobody has noticed yet when the next messages are handed over.
            match step {
                0 => proxy.go_away(),
                1 => proxy.come_back(),
                _ => {}
            }
        }
        for message in sending {
            bounded(message).await.unwrap();
        }
    }
    emitter.to_room("r").event("end").data(&number).send().await.unwrap();
    // One that may have gone out goes out again, with those behind it; never one before its elders.
    let mut expected = 0;
    loop {
        let (_, payload) = subscriber.message();
        let envelope = Envelope::decode(&payload).unwrap();
        let number: u32 = envelope.data.unwrap().parse().unwrap();
        assert!(number <= expected, "{number} before {expected}");
        if envelope.event() == "end" {
            break;
        }
        expected = expected.max(number + 1);
    }
    assert_eq!(expected, ROUNDS * 3 * EACH);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_holding_nothing_is_sent_twice_or_later() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let config = emitter_config(RedisSettings::single("127.0.0.1", proxy.port));
    let emitter = Emitter::connect(config).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:r");

    proxy.mute();
    let sending = begin(&emitter, 0..1).await;
    assert_eq!(next(&mut subscriber).1, "0");
    away(&proxy, &emitter).await;
    for message in sending {
        let error = bounded(message).await.unwrap_err();
        assert!(matches!(error, EmitterError::Lost { .. }), "{error:?}");
    }
    let error = bounded(emitter.to_room("r").event("n").data(&1).send()).await.unwrap_err();
    assert!(matches!(error, EmitterError::Disconnected), "{error:?}");
    proxy.come_back();
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    bounded(async {
        while emitter.to_room("r").event("n").data(&2).send().await.is_err() {
            tick.tick().await;
        }
    })
    .await;
    assert_eq!(next(&mut subscriber).1, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_has_its_deadline() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let emitter = Emitter::connect(holding(proxy.port, 1 << 20)).await.unwrap();
    let mut subscriber = redis.subscriber("ws:room:r");
    away(&proxy, &emitter).await;

    let held = begin(&emitter, 1..2).await;
    let began = Instant::now();
    let short = Duration::from_millis(30);
    let message = emitter.to_room("r").event("n").data(&2).deadline(short).send();
    let error = bounded(message).await.unwrap_err();
    assert!(matches!(error, EmitterError::Expired), "{error:?}");
    assert!(began.elapsed() >= short);
    let mut endless: Sending<'_> =
        Box::pin(emitter.to_room("r").event("n").deadline(Duration::MAX).send());
    assert!(poll_once(endless.as_mut()).await.is_none());
    drop(endless);
    let message = emitter.to_room("r").event("n").data(&3).deadline(Duration::ZERO).send();
    assert!(matches!(bounded(message).await.unwrap_err(), EmitterError::Expired));

    proxy.come_back();
    for message in held {
        bounded(message).await.unwrap();
    }
    assert_eq!(next(&mut subscriber).1, "1");

    // One that Redis has, but did not answer in time, is uncertain.
    proxy.mute();
    let message = emitter.to_room("r").event("n").data(&4).deadline(short).send();
    assert!(matches!(bounded(message).await.unwrap_err(), EmitterError::Timeout));
    assert_eq!(next(&mut subscriber).1, "4");
    away(&proxy, &emitter).await;
    proxy.come_back();
    bounded(emitter.to_room("r").event("n").data(&5).deadline(LONG).send()).await.unwrap();
    assert_eq!(next(&mut subscriber).1, "5", "what has failed is not sent later");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_buffer_is_overloaded_and_empties() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let emitter = Emitter::connect(holding(proxy.port, 16 * 1024)).await.unwrap();
    away(&proxy, &emitter).await;

    let large = "x".repeat(10_000);
    let mut held: Sending<'_> =
        Box::pin(emitter.to_room("r").event("n").data(&large).deadline(LONG).send());
    assert!(poll_once(held.as_mut()).await.is_none());
    let message = emitter.to_room("r").event("n").data(&large).deadline(LONG).send();
    let error = bounded(message).await.unwrap_err();
    assert!(matches!(error, EmitterError::Overloaded), "{error:?}");
    // Small ones are bounded as well, and what is given up gives its bytes back at once.
    let mut small = 0;
    let mut sending = Vec::new();
    let error = loop {
        let mut message: Sending<'_> =
            Box::pin(emitter.to_room("r").event("n").deadline(LONG).send());
        match poll_once(message.as_mut()).await {
            Some(outcome) => break outcome.unwrap_err(),
            None => sending.push(message),
        }
        small += 1;
        assert!(small < 100, "it is bounded");
    };
    assert!(matches!(error, EmitterError::Overloaded), "{error:?}");
    drop(held);
    let mut held: Sending<'_> =
        Box::pin(emitter.to_room("r").event("n").data(&large).deadline(LONG).send());
    assert!(poll_once(held.as_mut()).await.is_none());
    proxy.come_back();
    sending.push(held);
    for message in sending {
        bounded(message).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_refuses_is_not_held() {
    let redis = Redis::start();
    let rules = ["ACL", "SETUSER", "default", "resetchannels", "&ws:room:mine"];
    redis.socket().call(&rules);
    let emitter = Emitter::connect(holding(redis.port, 1 << 20)).await.unwrap();
    let error = bounded(emitter.to_room("other").event("n").send()).await.unwrap_err();
    assert!(matches!(&error, EmitterError::Redis(answer) if answer.starts_with("NOPERM")));
    bounded(emitter.to_room("mine").event("n").send()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_may_restart_while_messages_are_held() {
    let redis = Redis::start();
    let port = redis.port;
    let emitter = Emitter::connect(holding(port, 1 << 20)).await.unwrap();
    drop(redis);
    let sending = begin(&emitter, 0..10).await;
    let redis = Redis::start_on(port).expect("the port is still free");
    for message in sending {
        assert_eq!(bounded(message).await.unwrap().receivers(), Some(0));
    }
    drop(redis);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_sends_what_is_held_or_ends_it() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port).await;
    let mut subscriber = redis.subscriber("ws:room:r");
    let mut config = holding(proxy.port, 1 << 20);
    config.timeout = Duration::from_secs(2);
    let emitter = Emitter::connect(config).await.unwrap();
    away(&proxy, &emitter).await;
    let sending = begin(&emitter, 0..2).await;
    bounded(emitter.shutdown()).await.unwrap();
    for message in sending {
        assert!(matches!(bounded(message).await.unwrap_err(), EmitterError::ShutDown));
    }

    proxy.come_back();
    let mut config = holding(proxy.port, 1 << 20);
    config.timeout = Duration::from_secs(30);
    let emitter = Emitter::connect(config).await.unwrap();
    away(&proxy, &emitter).await;
    let sending = begin(&emitter, 5..6).await;
    proxy.come_back();
    bounded(emitter.shutdown()).await.unwrap();
    for message in sending {
        bounded(message).await.unwrap();
    }
    assert_eq!(next(&mut subscriber).1, "5");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_an_error_if_asked_for() {
    let redis = Redis::start();
    let emitter = redis.emitter().await;
    let message = emitter.to_room("r").event("n").require_receivers();
    let error = message.send().await.unwrap_err();
    let EmitterError::NoReceivers { id } = &error else { panic!("{error:?}") };
    assert_eq!(error.to_string(), format!("nobody is subscribed, message {id} reached no edge"));
    let _subscriber = redis.subscriber("ws:room:r");
    let message = emitter.to_room("r").event("n").require_receivers();
    assert_eq!(message.send().await.unwrap().receivers(), Some(1));
}
