//! The Rust client against edges: joins, requests, recovery, credentials, and how it ends.

#![allow(clippy::large_futures, reason = "a test runs once")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use serde_json::{Value, json};
use signal_client::{Client, Config, Event, LoginReason, Loss, RequestError, To};
use signal_core::close::CloseCode;
use signal_server::config::Encryption;
use signal_server::{AuthError, Credentials, Grant, HookError, Reply, Signal};
use support::client::{closed, next, next_message, next_online, online, settings};
use support::{Edge, Redis, config, until, within};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

#[tokio::test(flavor = "multi_thread")]
async fn joins_messages_and_requests() {
    for msgpack in [false, true] {
        exchange(msgpack).await;
    }
}

async fn exchange(msgpack: bool) {
    let on_message = async |_, message: signal_server::Message| match message.event.as_str() {
        "sum" => Ok(Reply::data(&message.parse::<Vec<i64>>()?.iter().sum::<i64>())?),
        _ => Err(HookError::from("no")),
    };
    let edge = Edge::build(Signal::builder().config(config()).on_message(on_message)).await;
    let config = settings(&edge).room("first");
    let config = if msgpack { config.msgpack() } else { config };
    let (client, mut events) = online(config).await;
    client.join(["a", "b"]).await.unwrap();
    for (room, number) in [("first", 1), ("a", 2), ("b", 3)] {
        edge.handle.send_to_room(room, "e", &number).await.unwrap();
        let message = next_message(&mut events).await;
        assert_eq!((message.event.as_str(), &message.to), ("e", &To::Room(room.to_owned())));
        assert_eq!(message.parse::<i32>().unwrap(), number);
    }
    edge.handle.send_to_user("ann", "mine", &json!({ "n": 1.5 })).await.unwrap();
    assert_eq!(next_message(&mut events).await.to, To::User);

    assert_eq!(client.request("sum", &[1, 2, 3]).await.unwrap().get(), "6");
    let refused = client.request("other", &()).await.unwrap_err();
    assert!(matches!(refused, RequestError::Refused { code, .. } if code == "failed"));

    client.leave(["a"]).await.unwrap();
    client.request("sum", &[0]).await.unwrap();
    edge.handle.send_to_room("a", "e", &0).await.unwrap();
    edge.handle.broadcast("last", &()).await.unwrap();
    assert_eq!(next_message(&mut events).await.event, "last");

    client.close().await;
    assert_eq!(closed(&mut events).await, Loss::Application);
    assert_eq!(client.join(["a"]).await, Err(RequestError::Closed));
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edge_ends_and_another_one_takes_over() {
    let edge = Edge::start().await;
    let address = edge.address;
    let (client, mut events) = online(settings(&edge)).await;
    client.join(["a"]).await.unwrap();
    edge.stop().await;
    let Event::Recovering { loss, .. } = next(&mut events).await else { panic!("it is not lost") };
    assert_eq!(loss.code(), Some(CloseCode::Draining));
    assert_eq!(client.request("e", &()).await.unwrap_err(), RequestError::Offline);
    let join = tokio::spawn({
        let client = client.clone();
        async move { client.join(["b"]).await }
    });

    let mut again = config();
    again.listen = address;
    let edge = Edge::with(again).await;
    next_online(&mut events).await;
    let Event::Resync { rooms: None, reason } = next(&mut events).await else {
        panic!("no resync")
    };
    assert_eq!(reason, "recovered");
    within("a join from before", join).await.unwrap().unwrap();
    for room in ["a", "b"] {
        edge.handle.send_to_room(room, "after", &()).await.unwrap();
        assert_eq!(next_message(&mut events).await.to, To::Room(room.to_owned()));
    }
    // Whoever does not listen any more is gone.
    drop(events);
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_refused_and_forgotten() {
    let mut limited = config();
    limited.rooms = vec!["branch:*".parse().unwrap()];
    let edge = Edge::with(limited).await;
    let (client, mut events) = online(settings(&edge)).await;
    let denied = client.join(["branch:1", "office"]).await.unwrap_err();
    assert_eq!(denied, RequestError::Denied(vec!["office".to_owned()]));
    let Event::Denied(rooms) = next(&mut events).await else { panic!("nothing is said") };
    assert_eq!(rooms, ["office"]);
    client.join(["branch:1"]).await.unwrap();
    client.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_waits_for_the_bus() {
    let mut redis = Redis::start().await;
    let edge = Edge::on(&redis).await;
    let (client, mut events) = online(settings(&edge)).await;
    redis.kill();
    until("the edge notices", async || !edge.handle.readiness().is_empty()).await;
    let mut join = tokio::spawn({
        let client = client.clone();
        async move { client.join(["a"]).await }
    });
    // It was acknowledged as degraded before this one is answered.
    let error = client.request("e", &()).await.unwrap_err();
    assert!(matches!(error, RequestError::Refused { code, .. } if code == "unsupported"));
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut join).await.is_err());
    redis.restart().await;
    within("the join", join).await.unwrap().unwrap();
    assert!(matches!(next(&mut events).await, Event::Resync { .. }));
    client.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sealed_is_opened_on_either_protocol() {
    for (encryption, msgpack) in
        [(Encryption::Required, false), (Encryption::Required, true), (Encryption::Off, true)]
    {
        let mut sealed = config();
        (sealed.encryption, sealed.workers) = (encryption, 1);
        let edge = Edge::with(sealed).await;
        let config = settings(&edge).encrypted();
        let config = if msgpack { config.msgpack() } else { config };
        let (client, mut events) = online(config).await;
        client.join(["r"]).await.unwrap();
        for number in 0..3 {
            edge.handle.send_to_room("r", "room", &number).await.unwrap();
            assert_eq!(next_message(&mut events).await.parse::<u32>().unwrap(), number);
            edge.handle.send_to_user("ann", "user", &number).await.unwrap();
            let message = next_message(&mut events).await;
            assert_eq!((message.parse::<u32>().unwrap(), message.to), (number, To::User));
        }
        // Out and in again, while another keeps the room's key alive.
        let other = online(support::client::named(&edge, "bob").room("r").encrypted()).await;
        client.leave(["r"]).await.unwrap();
        client.join(["r"]).await.unwrap();
        edge.handle.send_to_room("r", "again", &()).await.unwrap();
        support::client::message(&mut events, "again").await;
        let counters = edge.counts().await.counters;
        assert_eq!(counters.sealed_for_rooms > 0, encryption == Encryption::Required);
        for client in [other, (client, events)] {
            support::client::close(client).await;
        }
        edge.is_empty().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_for_a_connection_if_they_may() {
    let numbers = Arc::new(AtomicUsize::new(0));
    let on_message = {
        let numbers = numbers.clone();
        move |_, message: signal_server::Message| {
            let number = numbers.fetch_add(1, Ordering::Relaxed);
            async move { Ok(Reply::data(&(number, message.parse::<usize>()?))?) }
        }
    };
    let edge = Edge::start().await;
    let mut again = config();
    again.listen = edge.address;
    let (client, mut events) = online(settings(&edge).queue(3)).await;
    edge.stop().await;
    assert!(matches!(next(&mut events).await, Event::Recovering { .. }));
    let mut requests = Vec::new();
    for number in 0..3 {
        requests.push(waiting(&client, number).await);
    }
    assert_eq!(client.request("e", &3).await.unwrap_err(), RequestError::Offline);
    let edge = Edge::build(Signal::builder().config(again).on_message(on_message)).await;
    for (number, request) in requests.into_iter().enumerate() {
        let answer = within("an answer", request).await.unwrap().unwrap();
        assert_eq!(answer.get(), format!("[{number},{number}]"), "in order");
    }
    // What still waits when the client is closed is told so.
    next_online(&mut events).await;
    edge.stop().await;
    support::client::lost(&mut events).await;
    let request = waiting(&client, 4).await;
    client.close().await;
    assert_eq!(within("an end", request).await.unwrap().unwrap_err(), RequestError::Closed);
}

/// A request that was handed over, and waits for its answer.
async fn waiting(
    client: &Client,
    number: usize,
) -> JoinHandle<Result<Box<RawValue>, RequestError>> {
    let client = client.clone();
    let (handed, is_handed) = oneshot::channel();
    let request = tokio::spawn(async move {
        let mut request = Box::pin(client.request("e", &number));
        assert!(futures_util::future::poll_immediate(&mut request).await.is_none());
        handed.send(()).expect("the test waits");
        request.await
    });
    is_handed.await.unwrap();
    request
}

/// Credentials that say for how many seconds they are good.
async fn grant(_: signal_core::id::ClientId, credentials: Credentials) -> Result<Grant, AuthError> {
    let data: Value = credentials.parse().expect("the test sends JSON");
    let Some(seconds) = data["seconds"].as_u64() else {
        return Err(AuthError::Rejected("no seconds".into()));
    };
    let mut grant = Grant::user("ann");
    grant.expires = Some(SystemTime::now() + Duration::from_secs(seconds));
    Ok(grant)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_renewed_in_place_and_replaced_once() {
    let edge = Edge::build(Signal::builder().config(config()).authenticator(grant)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let login = {
        let asked = asked.clone();
        move |reason| {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            async move {
                Ok(match (number, reason) {
                    (0, LoginReason::Login) => json!({ "bad": true }),
                    (1, LoginReason::Refused) => json!({ "seconds": 30 }),
                    (2, LoginReason::Refresh) => json!({ "seconds": 7200 }),
                    other => panic!("not asked for: {other:?}"),
                })
            }
        }
    };
    let (client, _events) = online(settings(&edge).login(login)).await;
    until("a renewal", async || asked.load(Ordering::Relaxed) == 3).await;
    client.join(["a"]).await.unwrap();
    client.close().await;
    edge.is_empty().await;

    // The same ones again are no others.
    let (_client, mut events) = signal_client::connect(settings(&edge));
    let loss = closed(&mut events).await;
    assert!(loss.to_string().contains("there are no others"), "{loss}");
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_if_asked_for() {
    let mut edge = Edge::start().await;
    let (_client, mut events) = online(settings(&edge).once()).await;
    edge.begin_stop();
    let loss = closed(&mut events).await;
    assert_eq!(loss.to_string(), "the edge closed the connection: 4101 Server draining");
    edge.ended().await;
    for url in ["http://x/", "wss:///ws", "nonsense"] {
        assert!(Config::new(url).is_err(), "{url}");
    }
}
