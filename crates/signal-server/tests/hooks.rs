//! The library as embedders use it: every hook, as a closure and as a type, and the handle.

#![allow(clippy::large_futures, reason = "a test runs once")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use signal_core::close::CloseCode;
use signal_core::id::ClientId;
use signal_server::config::Encryption;
use signal_server::hooks::{
    Authenticator, ConnectHook, DisconnectHook, Handshake, HandshakeAnswer, MessageHandler,
    OutboundTransformer, RoomPolicy, Transformed,
};
use signal_server::{
    AuthError, Client, Credentials, Grant, HookError, Message, Publication, Reply, SendError, Sent,
    Signal,
};
use support::{Edge, Frame, Redis, Socket, config, until};
use tokio::sync::{Notify, Semaphore};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_late_login_is_not_the_next_clients() {
    let gate = Arc::new(Semaphore::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let (waiting, count) = (gate.clone(), asked.clone());
    let login = move |_, credentials: Credentials| {
        let (waiting, count) = (waiting.clone(), count.clone());
        async move {
            let user = credentials.string("userId").unwrap_or_default();
            if user == "late" {
                count.fetch_add(1, Ordering::SeqCst);
                let _ = waiting.acquire().await;
            }
            Ok(Grant::user(user))
        }
    };
    let edge = Edge::build(Signal::builder().config(config()).authenticator(login)).await;
    let mut gone = Vec::new();
    for _ in 0..10 {
        let mut socket = edge.connect().await;
        let data = json!({ "userId": "late" });
        socket.send(&json!({ "event": "authenticate", "data": data })).await;
        gone.push(socket);
    }
    until("all are asked for", async || asked.load(Ordering::SeqCst) == 10).await;
    for socket in gone {
        socket.close().await;
    }
    edge.is_empty().await;
    let mut heirs = Vec::new();
    for _ in 0..10 {
        heirs.push(edge.connect().await);
    }
    gate.add_permits(10);
    for heir in &mut heirs {
        heir.send_text(r#"{"event":"x"}"#).await;
        heir.error("Not authenticated").await;
        assert_eq!(heir.login("heir").await["userId"], "heir");
    }
    assert_eq!(edge.counts().await.counters.logins, 10);
    for heir in heirs {
        heir.close().await;
    }
    edge.is_empty().await;
}

/// Every hook at once: notes that it was called, and with what.
#[derive(Clone, Default)]
struct Everything(Arc<Mutex<Vec<String>>>);

impl Everything {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().push(what.into());
    }
}

impl Authenticator for Everything {
    async fn authenticate(&self, client: ClientId, data: Credentials) -> Result<Grant, AuthError> {
        assert_eq!(client.to_string().len(), 36);
        self.note(format!("authenticate {}", data.json()));
        let mut grant = Grant::user("u");
        grant.join = vec!["given".to_owned()];
        Ok(grant)
    }
}

impl Handshake for Everything {
    async fn handshake(
        &self,
        client: Client,
        data: Credentials,
    ) -> Result<Option<HandshakeAnswer>, HookError> {
        assert_eq!(client.user_id, None, "it is not logged in yet");
        self.note(format!("handshake {}", data.json()));
        Ok(Some(HandshakeAnswer { server_public_key: "k".to_owned(), salt: "s".to_owned() }))
    }
}

impl RoomPolicy for Everything {
    async fn allow(&self, client: Client, rooms: Vec<String>) -> Result<Vec<String>, HookError> {
        self.note(format!("allow {:?} {rooms:?}", client.user_id));
        Ok(rooms)
    }
}

impl ConnectHook for Everything {
    async fn connected(&self, client: Client) -> Result<(), HookError> {
        self.note(format!("connected {:?}", client.user_id));
        Ok(())
    }
}

impl DisconnectHook for Everything {
    async fn disconnected(&self, _: Client, code: Option<CloseCode>) -> Result<(), HookError> {
        self.note(format!("disconnected {code:?}"));
        Ok(())
    }
}

impl MessageHandler for Everything {
    async fn handle(&self, _: Client, message: Message) -> Result<Reply, HookError> {
        self.note(format!("message {} {:?} {:?}", message.event, message.data, message.id));
        Ok(Reply::default())
    }
}

impl OutboundTransformer for Everything {
    fn transform(&self, _: &Client, event: &str, data: Option<&str>) -> Option<Transformed> {
        // Those that it leaves alone go out as they are.
        (event != "plain")
            .then(|| Transformed { event: format!("<{event}>"), data: data.map(str::to_owned) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_can_be_every_hook() {
    let hooks = Everything::default();
    let mut settings = config();
    settings.encryption = Encryption::Optional;
    let builder = Signal::builder()
        .config(settings)
        .authenticator(hooks.clone())
        .handshake(hooks.clone())
        .room_policy(hooks.clone())
        .on_connect(hooks.clone())
        .on_disconnect(hooks.clone())
        .on_message(hooks.clone())
        .outbound_transformer(hooks.clone());
    let edge = Edge::build(builder).await;
    let mut socket = edge.connect().await;
    socket.send_text(r#"{"event":"authenticate","data":[1.10]}"#).await;
    assert_eq!(socket.event("connected").await["serverPublicKey"], "k");
    socket.send_text(r#"{"event":"join","data":{"rooms":["r","ws:x"]}}"#).await;
    socket.send_text(r#"{"event":"e","data":12345678901234567890,"id":"7"}"#).await;
    socket.send_text(r#"{"id":null,"event":"f","data":null}"#).await;
    until("all is told", async || hooks.0.lock().len() == 6).await;
    for room in ["r", "given"] {
        edge.handle.send_to_room(room, "e", &room).await.unwrap();
        assert_eq!(socket.event("<e>").await, json!(room));
    }
    edge.handle.send_to_user("u", "plain", &1).await.unwrap();
    assert_eq!(socket.event("plain").await, json!(1));
    edge.handle.publish(Publication::broadcast("none")).await.unwrap();
    assert_eq!(socket.text().await, r#"{"event":"<none>"}"#);
    socket.close().await;
    until("its end is told", async || hooks.0.lock().len() == 7).await;
    assert_eq!(
        *hooks.0.lock(),
        [
            "authenticate [1.10]",
            "handshake [1.10]",
            "connected Some(\"u\")",
            "allow Some(\"u\") [\"r\"]",
            "message e Some(\"12345678901234567890\") Some(\"\\\"7\\\"\")",
            "message f Some(\"null\") Some(\"null\")",
            "disconnected Some(Normal)",
        ]
    );
    edge.is_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_fail_or_panic_cost_nobody_else_anything() {
    let policy = async |client: Client, rooms: Vec<String>| {
        match client.user_id.as_deref() {
            Some("fails") => return Err(HookError::from("no policy")),
            Some("panics") => panic!("a bug in the policy"),
            _ => {}
        }
        Ok(rooms)
    };
    let connected = async |client: Client| match client.user_id.as_deref() {
        Some("fails") => Err(HookError::from("nobody to tell")),
        Some("panics") => {
            tokio::task::yield_now().await;
            panic!("a bug in the hook")
        }
        _ => Ok(()),
    };
    let disconnected = async |client: Client, _: Option<CloseCode>| {
        assert_ne!(client.user_id.as_deref(), Some("panics"), "a bug in the hook");
        Ok(())
    };
    let builder = Signal::builder().config(config()).room_policy(policy);
    let edge = Edge::build(builder.on_connect(connected).on_disconnect(disconnected)).await;
    let mut well = edge.member("well", &["r"]).await;
    for user in ["fails", "panics"] {
        let mut socket = edge.login(user).await;
        socket.send(&json!({ "event": "join", "data": { "rooms": ["r"] } })).await;
        // Nothing is joined, nothing is answered, and the connection stays.
        socket.send_text("x").await;
        socket.error("Invalid message format").await;
        edge.handle.send_to_room("r", "e", &user).await.unwrap();
        assert_eq!(well.event("e").await, json!(user));
        assert_eq!(socket.settled(&edge.handle).await, []);
        socket.close().await;
    }
    until("all is counted", async || edge.counts().await.counters.hook_errors == 5).await;
    well.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transformer_that_panics_costs_its_client_alone() {
    let handshake = async |_: Client, credentials: Credentials| {
        let key = credentials.string("publicKey");
        Ok(key.map(|key| HandshakeAnswer { server_public_key: key, salt: String::new() }))
    };
    let transform = |_: &Client, event: &str, _: Option<&str>| -> Option<Transformed> {
        assert_ne!(event, "secret", "a bug in the transformer");
        None
    };
    let mut settings = config();
    settings.encryption = Encryption::Optional;
    let builder = Signal::builder().config(settings).handshake(handshake);
    let edge = Edge::build(builder.outbound_transformer(transform)).await;
    let mut plain = edge.login("plain").await;
    let mut sealed = edge.connect().await;
    sealed.send(&json!({ "event": "authenticate", "data": { "publicKey": "k" } })).await;
    sealed.event("connected").await;
    edge.handle.broadcast("open", &1).await.unwrap();
    edge.handle.broadcast("secret", &2).await.unwrap();
    edge.handle.broadcast("open", &3).await.unwrap();
    for (event, number) in [("open", 1), ("secret", 2), ("open", 3)] {
        assert_eq!(plain.event(event).await, json!(number));
    }
    // Nothing in clear, and nothing after what is missing.
    assert!(matches!(sealed.next().await, Frame::Text(text) if text.contains("open")));
    assert_eq!(sealed.next().await, Frame::End);
    assert_eq!(edge.counts().await.counters.hook_errors, 1);
    plain.close().await;
    edge.is_empty().await;
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_may_use_the_handle() {
    let connected = async |client: Client| {
        client.signal.join(client.id, "from the hook").await?;
        let counts = client.signal.counts().await?;
        let number = counts.users;
        client.signal.send_to_room("from the hook", "users", &number).await?;
        Ok(())
    };
    let on_message = async |client: Client, message: Message| {
        match message.event.as_str() {
            "leave" => drop(client.signal.leave(client.id, "from the hook").await?),
            "kick" => drop(client.signal.close(client.id, CloseCode::Kicked).await?),
            event => drop(client.signal.broadcast(event, &message.parse::<Value>()?).await?),
        }
        Ok(())
    };
    let disconnected = async |client: Client, _: Option<CloseCode>| {
        let gone = client.signal.send_to_client(&client.id.to_string(), "too late", &0).await?;
        assert!(matches!(gone, Sent::Published(_)), "it is on no edge");
        client.signal.send_to_room("from the hook", "gone", &client.user_id.as_deref()).await?;
        Ok(())
    };
    let builder = Signal::builder().config(config()).on_connect(connected);
    let edge = Edge::build(builder.on_message(on_message).on_disconnect(disconnected)).await;
    let mut stays = edge.login("stays").await;
    assert_eq!(stays.event("users").await, json!(1));
    let mut leaves = edge.login("leaves").await;
    assert_eq!(leaves.event("users").await, json!(2));
    assert_eq!(stays.event("users").await, json!(2));
    leaves.send(&json!({ "event": "leave me", "data": 1.5 })).await;
    for socket in [&mut stays, &mut leaves] {
        assert_eq!(socket.event("leave me").await, json!(1.5));
    }
    leaves.send(&json!({ "event": "leave" })).await;
    leaves.send(&json!({ "event": "kick" })).await;
    // What comes behind is not handled any more.
    leaves.send(&json!({ "event": "after" })).await;
    assert_eq!(leaves.closed().await.0, 4501);
    leaves.end().await;
    assert_eq!(stays.event("gone").await, json!("leaves"));
    assert_eq!(stays.settled(&edge.handle).await, []);
    assert_eq!(edge.counts().await.counters.hook_errors, 0);
    stays.close().await;
    edge.is_empty().await;
    edge.stop().await;
}
