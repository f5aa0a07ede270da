//! The Rust client against edges: joins, requests, recovery, credentials, and how it ends.

#![allow(clippy::large_futures, reason = "a test runs once")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use signal_client::{Config, Event, LoginReason, Loss, RequestError, To};
use signal_core::close::CloseCode;
use signal_server::{AuthError, Credentials, Grant, HookError, Reply, Signal};
use support::client::{closed, next, next_message, next_online, online, settings};
use support::{Edge, Redis, config, until, within};

#[tokio::test(flavor = "multi_thread")]
async fn joins_messages_and_requests() {
    let on_message = async |_, message: signal_server::Message| match message.event.as_str() {
        "sum" => Ok(Reply::data(&message.parse::<Vec<i64>>()?.iter().sum::<i64>())?),
        _ => Err(HookError::from("no")),
    };
    let edge = Edge::build(Signal::builder().config(config()).on_message(on_message)).await;
    let (client, mut events) = online(settings(&edge).room("first")).await;
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
