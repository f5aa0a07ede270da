//! The library as embedders use it: every hook, the handle, tokens and room patterns.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_core::redis::Secret;
use signal_server::auth::jwt::{TokenClaims, expiry, mint};
use signal_server::config::Auth;
use signal_server::hooks::{MessageHandler, RoomPolicy};
use signal_server::{
    Client, Credentials, Grant, HookError, Message, Publication, Reply, SendError, Sent, Signal,
};
use support::{Edge, Frame, Redis, Socket, config, until};
use tokio::sync::Notify;

/// Keeps the data of messages in the order in which they were handled.
#[derive(Clone, Default)]
struct Recorder {
    seen: Arc<Mutex<Vec<Value>>>,
    gate: Arc<Notify>,
}

impl MessageHandler for Recorder {
    async fn handle(&self, _client: Client, message: Message) -> Result<Reply, HookError> {
        match message.event.as_str() {
            "wait" => self.gate.notified().await,
            "panic" => panic!("a bug in the handler"),
            "yield" => tokio::task::yield_now().await,
            _ => {}
        }
        self.seen.lock().push(message.parse()?);
        Ok(Reply::default())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_one_connection_keep_their_order_whatever_the_handler_takes() {
    let recorder = Recorder::default();
    let edge = Edge::build(Signal::builder().config(config()).on_message(recorder.clone())).await;
    let mut socket = edge.login("u").await;
    let mut other = edge.login("other").await;
    socket.send(&json!({ "event": "wait", "data": 0 })).await;
    // More than wait in a connection's inbox: the rest stays in the socket, and none is lost.
    for number in 1..400 {
        let event = if number % 7 == 0 { "yield" } else { "quick" };
        socket.send(&json!({ "event": event, "data": number })).await;
    }
    // Nobody else waits.
    other.send(&json!({ "event": "quick", "data": "other" })).await;
    until("the other's is handled", async || recorder.seen.lock().len() == 1).await;
    recorder.gate.notify_one();
    until("all are handled", async || recorder.seen.lock().len() == 401).await;
    let mut expected = vec![json!("other")];
    expected.extend((0..400).map(|number| json!(number)));
    assert_eq!(*recorder.seen.lock(), expected);
    socket.close().await;
    other.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_or_panics_is_counted_and_the_next_message_handled() {
    let recorder = Recorder::default();
    let edge = Edge::build(Signal::builder().config(config()).on_message(recorder.clone())).await;
    let mut socket = edge.login("u").await;
    socket.send(&json!({ "event": "panic", "data": 1 })).await;
    socket.send(&json!({ "event": "quick" })).await;
    socket.send_text(r#"{"event":"quick","data":2}"#).await;
    until("the last is handled", async || !recorder.seen.lock().is_empty()).await;
    // Absent data reads as null.
    assert_eq!(*recorder.seen.lock(), [Value::Null, json!(2)]);
    assert_eq!(edge.counts().await.counters.hook_errors, 1);
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_and_disconnects_are_told_with_what_is_known() {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let (connects, disconnects) = (told.clone(), told.clone());
    let builder = Signal::builder()
        .config(config())
        .authenticator(async |_, credentials: Credentials| {
            let mut grant = Grant::user(credentials.string("userId").unwrap_or_default());
            grant.metadata = Some(json!({ "till": 4 }));
            Ok(grant)
        })
        .on_connect(move |client: Client| {
            let connects = connects.clone();
            async move {
                let metadata = client.metadata.as_deref().cloned().unwrap_or_default();
                let user = client.user_id.clone().unwrap_or_default();
                connects.lock().push(format!("connected {user} {metadata}"));
                // What is sent from here comes after `connected`.
                client.signal.send_to_client(&client.id.to_string(), "hello", &1).await?;
                Ok(())
            }
        })
        .on_disconnect(move |client: Client, code: Option<CloseCode>| {
            let disconnects = disconnects.clone();
            async move {
                tokio::task::yield_now().await;
                disconnects.lock().push(format!("disconnected {:?} {code:?}", client.user_id));
                Ok(())
            }
        });
    let edge = Edge::build(builder).await;
    let mut socket = edge.login("u").await;
    socket.event("hello").await;
    let id = ClientId::parse(&socket.id).unwrap();
    assert!(edge.handle.close(id, CloseCode::Kicked).await.unwrap());
    assert_eq!(socket.closed().await.0, 4501);
    socket.end().await;
    edge.is_empty().await;
    until("both are told", async || told.lock().len() == 2).await;
    // Those that are left are told when the edge ends.
    let left = edge.login("left").await;
    drop(edge.connect().await);
    edge.stop().await;
    drop(left);
    let told = told.lock().clone();
    assert!(told.contains(&"connected u {\"till\":4}".to_owned()), "{told:?}");
    assert!(told.contains(&"disconnected Some(\"u\") Some(Kicked)".to_owned()), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("disconnected Some(\"left\")")), "{told:?}");
}

/// Allows what it was not asked for too, and takes its time.
struct Generous;

impl RoomPolicy for Generous {
    async fn allow(&self, client: Client, rooms: Vec<String>) -> Result<Vec<String>, HookError> {
        tokio::task::yield_now().await;
        let mut allowed: Vec<String> =
            rooms.into_iter().filter(|room| !room.starts_with("no")).collect();
        allowed.push(format!("secret:{}", client.user_id.unwrap_or_default()));
        Ok(allowed)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_policy_decides_among_what_was_asked_for() {
    let edge = Edge::build(Signal::builder().config(config()).room_policy(Generous)).await;
    let mut socket = edge.login("u").await;
    // A leave after a join that the policy still thinks about comes after it.
    socket.send(&json!({ "event": "join", "data": { "rooms": ["a", "no", "b"] } })).await;
    socket.send(&json!({ "event": "leave", "data": { "rooms": ["b"] } })).await;
    edge.join(&mut socket, &["c"]).await;
    for room in ["a", "no", "b", "secret:u", "c"] {
        edge.handle.send_to_room(room, room, &0).await.unwrap();
    }
    socket.event("a").await;
    socket.event("c").await;
    assert_eq!(socket.settled(&edge.handle).await, []);
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handle_sends_joins_leaves_and_closes() {
    let redis = Redis::start().await;
    let (here, there) = (Edge::on(&redis).await, Edge::on(&redis).await);
    let mut local = here.login("a").await;
    let mut remote = there.login("b").await;
    let (local_id, remote_id) = (local.id.clone(), remote.id.clone());
    let handle = &here.handle;
    let published = |sent: Sent| matches!(sent, Sent::Published(_));

    assert_eq!(handle.send(Some(&local_id), "1", &1).await.unwrap(), Sent::Local);
    local.event("1").await;
    assert!(published(handle.send(Some(&remote_id), "2", &2).await.unwrap()));
    remote.event("2").await;
    assert!(published(handle.send_to_client(&remote_id, "3", &3).await.unwrap()));
    remote.event("3").await;
    for destination in [None, Some("")] {
        assert!(published(handle.send(destination, "4", &4).await.unwrap()));
        local.event("4").await;
        remote.event("4").await;
    }
    let client = ClientId::parse(&local_id).unwrap();
    assert!(handle.join(client, "r").await.unwrap());
    local.marker(handle, "r").await;
    handle.send(Some("r"), "5", &5).await.unwrap();
    local.event("5").await;
    assert!(handle.leave(client, "r").await.unwrap());
    handle.send_to_room("r", "6", &6).await.unwrap();
    assert_eq!(local.settled(handle).await, []);

    let stranger = ClientId::parse(&remote_id).unwrap();
    assert!(!handle.join(stranger, "r").await.unwrap(), "it is on another edge");
    assert!(!handle.close(stranger, CloseCode::Kicked).await.unwrap());
    assert!(matches!(handle.send_to_room("", "e", &0).await, Err(SendError::NoTarget)));
    assert!(matches!(handle.send_to_room("r", "", &0).await, Err(SendError::NoEvent)));
    let large = "x".repeat(600_000);
    assert!(matches!(handle.send_to_room("r", "e", &large).await, Err(SendError::Publish(_))));
    let unwritable = std::collections::HashMap::from([((1, 2), 3)]);
    assert!(matches!(Publication::room("r", "e").data(&unwritable), Err(SendError::Data(_))));

    assert!(handle.close(client, CloseCode::Kicked).await.unwrap());
    assert_eq!(local.closed().await.0, 4501);
    local.end().await;
    assert!(!handle.close(client, CloseCode::Kicked).await.unwrap(), "it is gone");
    remote.close().await;
    here.is_empty().await;
    there.is_empty().await;
    let ended = here.handle.clone();
    here.stop().await;
    assert!(matches!(ended.counts().await, Err(SendError::Ended)));
    assert!(matches!(ended.close(client, CloseCode::Kicked).await, Err(SendError::Ended)));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_log_in_and_say_which_rooms() {
    let secret = Secret::new("a secret of some length, for tests only");
    let mut settings = config();
    settings.auth = Auth::Jwt { secret: secret.clone(), issuer: None, audience: None };
    settings.rooms = vec!["lobby".parse().unwrap(), "user:{user}:*".parse().unwrap()];
    let edge = Edge::with(settings).await;
    let claims = TokenClaims {
        sub: "u-7".to_owned(),
        exp: expiry(Duration::from_mins(1)),
        rooms: vec!["branch:*".to_owned()],
        iss: None,
        aud: None,
    };
    let mut socket = edge.connect().await;
    let token = mint(&secret, &claims).unwrap();
    socket.send(&json!({ "event": "authenticate", "data": { "token": token } })).await;
    let connected = socket.event("connected").await;
    assert_eq!(connected["userId"], "u-7");
    connected["id"].as_str().unwrap().clone_into(&mut socket.id);
    let rooms = ["branch:1", "user:u-8:inbox", "other", "user:u-7:inbox", "lobby"];
    socket.send(&json!({ "event": "join", "data": { "rooms": rooms } })).await;
    socket.marker(&edge.handle, "lobby").await;
    for room in rooms {
        edge.handle.send_to_room(room, room, &0).await.unwrap();
    }
    let mut seen: Vec<String> = Vec::new();
    for frame in socket.settled(&edge.handle).await {
        let Frame::Text(text) = frame else { panic!("{frame:?}") };
        seen.push(
            serde_json::from_str::<Value>(&text).unwrap()["event"].as_str().unwrap().to_owned(),
        );
    }
    seen.sort();
    assert_eq!(seen, ["branch:1", "lobby", "user:u-7:inbox"]);

    let expired = TokenClaims { exp: expiry(Duration::ZERO) - 3600, ..claims.clone() };
    let other = mint(&Secret::new("another secret of some length"), &claims).unwrap();
    for data in [
        json!({ "token": mint(&secret, &expired).unwrap() }),
        json!({ "token": other }),
        json!({ "token": "" }),
        json!({ "token": 7 }),
        json!({ "token": "x".repeat(100_000) }),
        json!({}),
        json!(null),
        json!("token"),
    ] {
        let mut refused = edge.connect().await;
        refused.send(&json!({ "event": "authenticate", "data": data })).await;
        refused.error("Authentication failed").await;
        assert_eq!(refused.closed().await.0, 4003);
        refused.end().await;
    }
    socket.close().await;
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_while_its_hooks_run_leaves_nothing() {
    let running = Arc::new(AtomicUsize::new(0));
    let (count, gate) = (running.clone(), Arc::new(Notify::new()));
    let waiting = gate.clone();
    let policy = move |_: Client, rooms: Vec<String>| {
        let (count, gate) = (count.clone(), waiting.clone());
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            gate.notified().await;
            Ok(rooms)
        }
    };
    let edge = Edge::build(Signal::builder().config(config()).room_policy(policy)).await;
    let mut gone: Vec<Socket> = Vec::new();
    for _ in 0..10 {
        let mut socket = edge.login("u").await;
        socket.send(&json!({ "event": "join", "data": { "rooms": ["r"] } })).await;
        gone.push(socket);
    }
    until("all policies think", async || running.load(Ordering::SeqCst) == 10).await;
    for socket in gone {
        socket.close().await;
    }
    edge.is_empty().await;
    // New connections take the places of the old ones; late answers must not be theirs.
    let mut heirs = Vec::new();
    for _ in 0..10 {
        heirs.push(edge.login("heir").await);
    }
    for _ in 0..10 {
        gate.notify_one();
    }
    edge.handle.send_to_room("r", "r", &0).await.unwrap();
    for mut heir in heirs {
        assert_eq!(heir.settled(&edge.handle).await, []);
        heir.close().await;
    }
    edge.is_empty().await;
}
