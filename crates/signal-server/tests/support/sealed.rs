//! A client that encrypts, and is stricter than any: it asserts that all it gets is sealed, that no IV
//! repeats, and that every key was handed over before. It can also seal what no client should, so it has
//! a raw socket; what it holds and what that opens is `signal-core`'s, as in `signal-client`.

use std::collections::HashSet;

use serde_json::{Value, json};
use signal_core::crypto::{Keyring, Offer};
use signal_core::v1::Variant;

use super::socket::frame;
use super::{Edge, Frame, Socket};

/// The client.
#[derive(Debug)]
pub struct Sealed {
    pub socket: Socket,
    pub keys: Keyring,
    pub variant: Variant,
    /// `data` of `connected`.
    pub connected: Value,
    /// Room keys that it was handed.
    pub handed: u64,
    /// IVs seen, by key: `None` for the session's.
    ivs: HashSet<(Option<u64>, String)>,
}

/// What was sealed, and under which key.
#[derive(Clone, Debug, PartialEq)]
pub struct Opened {
    /// `None` for the session's key.
    pub kid: Option<u64>,
    pub text: String,
}

// === impl Opened ===

impl Opened {
    pub fn value(&self) -> Value {
        serde_json::from_str(&self.text).expect("a message is JSON")
    }
}

// === impl Sealed ===

impl Sealed {
    /// Logs in as a user.
    pub async fn login(edge: &Edge, variant: Variant, user: &str) -> Self {
        let mut socket = Self::open(edge, variant).await;
        let offer = Offer::new();
        let data = json!({ "userId": user, "publicKey": offer.public_key() });
        let login = json!({ "event": "authenticate", "data": data });
        Self::send_clear(&mut socket, variant, &login).await;
        let text = text(variant, &socket.next_message().await);
        let (event, data) = text.expect("connected is in clear");
        assert_eq!(event, "connected");
        let keys = offer.connected(&data).expect("keys").expect("the edge encrypts");
        let connected: Value = serde_json::from_str(&data).expect("JSON");
        connected["id"].as_str().expect("an id").clone_into(&mut socket.id);
        Self { socket, keys, variant, connected, handed: 0, ivs: HashSet::new() }
    }

    /// Logs in and joins rooms, which is acknowledged.
    pub async fn member(edge: &Edge, variant: Variant, user: &str, rooms: &[&str]) -> Self {
        let mut client = Self::login(edge, variant, user).await;
        client.join(rooms).await;
        client
    }

    pub async fn open(edge: &Edge, variant: Variant) -> Socket {
        match variant.subprotocol() {
            None => edge.connect().await,
            Some(name) => Socket::connect_as(edge.address, name).await,
        }
    }

    pub async fn send_clear(socket: &mut Socket, variant: Variant, message: &Value) {
        if !variant.is_binary() {
            return socket.send(message).await;
        }
        let event = message["event"].as_str().expect("an event");
        let request = variant.request(event, Some(&message["data"].to_string()), None);
        socket.send_raw(&frame(0x82, &request)).await;
    }

    /// Sends a message sealed.
    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Sends any text sealed.
    pub async fn send_text(&mut self, text: &str) {
        let mut out = text.as_bytes().to_vec();
        self.keys.session().seal(&mut out, 0, self.variant, |_| b"");
        let first = if self.variant.is_binary() { 0x82 } else { 0x81 };
        self.socket.send_raw(&frame(first, &out)).await;
    }

    /// Joins rooms, and waits until that is done. The plain protocol answers no join, but what comes
    /// behind it.
    pub async fn join(&mut self, rooms: &[&str]) {
        self.send(&json!({ "event": "join", "data": { "rooms": rooms }, "id": "join" })).await;
        if self.variant.is_v1() {
            let ack = self.until(|message| message["id"] == "join").await;
            assert_eq!(ack["data"]["rooms"], json!(rooms));
        } else {
            self.fence().await;
        }
    }

    /// Has everything answered that was sent before.
    pub async fn fence(&mut self) {
        self.send_text("no message").await;
        let error = self.until(|message| message["event"] == "error").await;
        assert_eq!(error["data"]["message"], "Invalid message format");
    }

    /// Reads up to a message; fails if a delivery comes first.
    async fn until(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await.value();
            if is_it(&message) {
                return message;
            }
            assert_eq!(message.get("to"), None, "a delivery: {message}");
        }
    }

    /// The next message but for room keys, which are noted.
    pub async fn next(&mut self) -> Opened {
        loop {
            let opened = self.next_of_any_kind().await;
            let message = opened.value();
            if message["event"] != "roomkey" {
                return opened;
            }
        }
    }

    /// The next message. Whatever comes must be sealed, under the session's key or one handed over.
    pub async fn next_of_any_kind(&mut self) -> Opened {
        let frame = self.socket.next_message().await;
        let text = text(self.variant, &frame);
        let (event, data) = text.unwrap_or_else(|| panic!("not a message: {frame:?}"));
        assert_eq!(event, "encrypted", "in clear: {data}");
        let sealed: Value = serde_json::from_str(&data).expect("JSON");
        let kid = sealed.get("kid").map(|kid| kid.as_u64().expect("a number"));
        let iv = sealed["iv"].as_str().expect("a string").to_owned();
        assert!(self.ivs.insert((kid, iv)), "an IV repeats");
        let opened = self.keys.open(&data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert_eq!(opened.kid, kid);
        let opened = Opened { kid, text: opened.text };
        let message = opened.value();
        if message["event"] == "roomkey" {
            assert_eq!(kid, None, "a room key goes under the session's");
            self.keys.learn(&message["data"].to_string()).expect("a room's key");
            self.handed += 1;
        }
        opened
    }

    /// The next message must be this event; returns its data.
    pub async fn event(&mut self, event: &str) -> Value {
        let mut message = self.next().await.value();
        assert_eq!(message["event"], event, "in {message}");
        message["data"].take()
    }

    /// Says goodbye, and waits for the end.
    pub async fn close(self) {
        self.socket.close().await;
    }
}

/// Event and data of a frame in clear; `None` if it is of the wrong kind.
fn text(variant: Variant, frame: &Frame) -> Option<(String, String)> {
    let payload = match (frame, variant.is_binary()) {
        (Frame::Text(text), false) => text.as_bytes(),
        (Frame::Binary(bytes), true) => bytes,
        _ => return None,
    };
    let message = variant.read(payload).expect("a message");
    assert_eq!(message.to, None, "nothing in clear says to whom it is");
    Some((message.event.into_owned(), message.data.expect("data").to_owned()))
}
