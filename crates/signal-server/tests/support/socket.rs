//! A client of the plain protocol that can also send what no client should.
//!
//! It frames by itself and not with a library, and there is nothing it would not send: frames that are
//! cut, unmasked or too long, messages before the login, no answer to a ping. It also does nothing by
//! itself, so that a test sees each frame that an edge sends, byte for byte. What an ordinary client of
//! `signal.v1` does, tests have of `signal-client` (`client.rs`).

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::{Value, json};
use signal_server::SignalHandle;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(u16, String),
    /// The stream ended without a Close frame, or after one.
    End,
}

/// The client.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Frames set aside while waiting for another.
    aside: VecDeque<Frame>,
    /// The id that `connected` gave.
    pub id: String,
    markers: u64,
}

/// A client's frame: masked, with the first byte as given.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | u8::try_from(length).expect("at most 125")),
        length @ 126..=0xFFFF => {
            out.push(0xFE);
            out.extend_from_slice(&u16::try_from(length).expect("at most 65535").to_be_bytes());
        }
        length => {
            out.push(0xFF);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
    out
}

// === impl Socket ===

impl Socket {
    /// Opens a WebSocket; panics if it is refused.
    pub async fn connect(address: SocketAddr, path: &str) -> Self {
        let (mut socket, head) = Self::open(address, &upgrade(path, &[])).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "refused: {head}");
        socket.id = String::new();
        socket
    }

    /// Opens a WebSocket with a subprotocol, which must be accepted.
    pub async fn connect_as(address: SocketAddr, subprotocol: &str) -> Self {
        let request = upgrade("/ws", &[("Sec-WebSocket-Protocol", subprotocol)]);
        let (socket, head) = Self::open(address, &request).await;
        let accepted = format!("sec-websocket-protocol: {subprotocol}\r\n");
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(&accepted), "refused: {head}");
        socket
    }

    /// Sends a message and waits for what answers its id; returns the event and the data.
    pub async fn ask(&mut self, message: Value) -> (String, Value) {
        self.send(&message).await;
        let mut aside = VecDeque::new();
        let answer = loop {
            let frame = self.next().await;
            let Frame::Text(text) = &frame else {
                assert_ne!(frame, Frame::End, "the connection ended");
                continue;
            };
            let mut answer: Value = serde_json::from_str(text).expect("a message is JSON");
            if answer["id"] == message["id"] {
                let event = answer["event"].as_str().expect("an event").to_owned();
                break (event, answer["data"].take());
            }
            aside.push_back(frame);
        };
        aside.append(&mut self.aside);
        self.aside = aside;
        answer
    }

    /// Sends a request's head and reads the answer's.
    pub async fn open(address: SocketAddr, request: impl AsRef<[u8]>) -> (Self, String) {
        let stream = within("a connection", TcpStream::connect(address)).await.expect("it listens");
        let mut socket = Self {
            stream,
            buffer: Vec::new(),
            aside: VecDeque::new(),
            id: String::new(),
            markers: 0,
        };
        socket.send_raw(request.as_ref()).await;
        let head = within("an answer", async {
            loop {
                if let Some(end) = socket.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head: Vec<u8> = socket.buffer.drain(..end + 4).collect();
                    return String::from_utf8(head).expect("a head is text");
                }
                if !socket.fill().await {
                    return String::from_utf8_lossy(&std::mem::take(&mut socket.buffer))
                        .into_owned();
                }
            }
        })
        .await;
        (socket, head)
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        // A server that has closed already makes this fail; what it said before can still be read.
        let _ = within("a write", self.stream.write_all(bytes)).await;
    }

    /// Sends a text frame.
    pub async fn send_text(&mut self, text: &str) {
        self.send_raw(&frame(0x81, text.as_bytes())).await;
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    /// Logs in as a user and waits for `connected`.
    pub async fn login(&mut self, user: &str) -> Value {
        self.send(&json!({ "event": "authenticate", "data": { "userId": user } })).await;
        let connected = self.event("connected").await;
        connected["id"].as_str().expect("connected has an id").clone_into(&mut self.id);
        connected
    }

    /// The next frame of any kind.
    pub async fn next(&mut self) -> Frame {
        if let Some(frame) = self.aside.pop_front() {
            return frame;
        }
        within("a frame", self.read_frame()).await
    }

    /// The next frame, passing over pings and over the markers of sockets that join later.
    pub async fn next_message(&mut self) -> Frame {
        loop {
            match self.next().await {
                Frame::Ping(_) => {}
                Frame::Text(text) if text.starts_with("{\"event\":\"marker-") => {}
                frame => return frame,
            }
        }
    }

    /// The next text message, as it came.
    pub async fn text(&mut self) -> String {
        match self.next_message().await {
            Frame::Text(text) => text,
            frame => panic!("not a text frame: {frame:?}"),
        }
    }

    /// The next message, which must be this event; returns its data.
    pub async fn event(&mut self, event: &str) -> Value {
        let text = self.text().await;
        let mut message: Value = serde_json::from_str(&text).expect("a message is JSON");
        assert_eq!(message["event"], event, "in {text}");
        message["data"].take()
    }

    /// The next message: its event and data.
    pub async fn next_event(&mut self) -> (String, Value) {
        let mut message: Value = serde_json::from_str(&self.text().await).expect("JSON");
        let event = message["event"].as_str().expect("an event").to_owned();
        (event, message["data"].take())
    }

    /// The next message must be an error with these words.
    pub async fn error(&mut self, words: &str) {
        assert_eq!(self.event("error").await, json!({ "message": words }));
    }

    /// The next frame must be a close; then the stream must end.
    pub async fn closed(&mut self) -> (u16, String) {
        let Frame::Close(code, reason) = self.next_message().await else {
            panic!("not a Close frame");
        };
        (code, reason)
    }

    /// Answers the server's Close frame and waits for the end of the stream.
    pub async fn end(&mut self) {
        self.send_raw(&frame(0x88, &1000_u16.to_be_bytes())).await;
        while self.next().await != Frame::End {}
    }

    /// Says goodbye first, and waits for the end.
    pub async fn close(mut self) {
        self.send_raw(&frame(0x88, &1000_u16.to_be_bytes())).await;
        while self.next().await != Frame::End {}
    }

    /// Publishes markers to a room until one arrives here, so that this is known to be a member; later
    /// markers are read away. Anything else that arrives meanwhile is kept.
    pub async fn marker(&mut self, handle: &SignalHandle, room: &str) {
        self.markers += 1;
        let name = format!("marker-{}-{}", self.id, self.markers);
        let mut sent = 0_u64;
        let mut aside = VecDeque::new();
        let mut received = 0_u64;
        within("membership", async {
            while received == 0 {
                handle.send_to_room(room, &name, &sent).await.expect("a marker is published");
                sent += 1;
                let pause = std::time::Duration::from_millis(20);
                while let Ok(frame) = tokio::time::timeout(pause, self.next_cancellable()).await {
                    if is_event(&frame, &name) {
                        received += 1;
                        break;
                    }
                    aside.push_back(frame);
                }
            }
            // The last marker sent is the last to arrive.
            handle.send_to_room(room, &name, &"last").await.expect("a marker is published");
            loop {
                let frame = self.next().await;
                match &frame {
                    Frame::Text(text) if is_event(&frame, &name) && text.contains("\"last\"") => {
                        break;
                    }
                    _ if is_event(&frame, &name) => {}
                    _ => aside.push_back(frame),
                }
            }
        })
        .await;
        aside.retain(|frame| !matches!(frame, Frame::Text(text) if text.contains("\"marker-")));
        aside.append(&mut self.aside);
        self.aside = aside;
    }

    /// A marker of this very socket, sent to its client id: everything before it has arrived.
    pub async fn settled(&mut self, handle: &SignalHandle) -> Vec<Frame> {
        self.markers += 1;
        let name = format!("settled-{}", self.markers);
        handle.send_to_client(&self.id.clone(), &name, &0).await.expect("it is sent");
        let mut before = Vec::new();
        loop {
            match self.next().await {
                frame if is_event(&frame, &name) => return before,
                Frame::End => panic!("the connection ended"),
                Frame::Ping(_) => {}
                Frame::Text(text) if text.contains("\"marker-") => {}
                frame => before.push(frame),
            }
        }
    }

    /// Reads frames only from what is buffered or arrives; may be cancelled at any point.
    async fn next_cancellable(&mut self) -> Frame {
        match self.aside.pop_front() {
            Some(frame) => frame,
            None => self.read_frame().await,
        }
    }

    async fn read_frame(&mut self) -> Frame {
        loop {
            if let Some(frame) = self.take_frame() {
                return frame;
            }
            if !self.fill().await {
                return Frame::End;
            }
        }
    }

    /// Cancel safe: a read either happened whole or not at all.
    async fn fill(&mut self) -> bool {
        self.buffer.reserve(16 * 1024);
        matches!(self.stream.read_buf(&mut self.buffer).await, Ok(count) if count > 0)
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second, rest @ ..] = self.buffer.as_slice() else { return None };
        assert_eq!(second & 0x80, 0, "a server's frame is not masked");
        assert_eq!(first & 0xF0, 0x80, "a server's frame is whole, without reserved bits");
        let (length, head) = match second & 0x7F {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let opcode = first & 0x0F;
        if self.buffer.len() < head + length {
            return None;
        }
        let payload = self.buffer[head..head + length].to_vec();
        self.buffer.drain(..head + length);
        Some(match opcode {
            0x1 => Frame::Text(String::from_utf8(payload).expect("text is UTF-8")),
            0x2 => Frame::Binary(payload),
            0x8 => {
                let (code, reason) =
                    payload.split_first_chunk::<2>().map_or((1005, vec![]), |(code, reason)| {
                        (u16::from_be_bytes(*code), reason.to_vec())
                    });
                Frame::Close(code, String::from_utf8(reason).expect("a reason is UTF-8"))
            }
            0x9 => Frame::Ping(payload),
            0xA => Frame::Pong(payload),
            opcode => panic!("opcode {opcode}"),
        })
    }
}

/// An upgrade request with further headers.
pub fn upgrade(path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    for (name, value) in headers {
        let _ = write!(request, "{name}: {value}\r\n");
    }
    request.push_str("\r\n");
    request
}

fn is_event(frame: &Frame, event: &str) -> bool {
    matches!(frame, Frame::Text(text) if text.starts_with(&format!("{{\"event\":\"{event}\"")))
}
