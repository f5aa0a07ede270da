//! One client of the driver: handshake, authentication, frames in.
//!
//! Owns its socket and what of a frame is incomplete. Never interprets a measured message. Requests
//! are a few hundred bytes on a fresh loopback socket, so one that does not fit is an error.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use signal_core::crypto::{Key, Offer};

use super::DriverError;
use super::payload;
use super::privacy::{self, Privacy};
use super::sequence::Sequence;
use crate::websocket;

/// The key of the example in RFC 6455; nothing depends on it being random.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// How far a client has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// TCP is being set up.
    Connecting,
    /// The upgrade request is sent.
    Upgrading,
    /// `authenticate` is sent.
    Authenticating,
    /// `connected` has come.
    Ready,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) phase: Phase,
    /// A marker has come: what is published to it from now on arrives.
    pub(super) marked: bool,
    pub(super) sequence: Sequence,
    partial: Vec<u8>,
    privacy: Privacy,
    /// The client's half of the agreement on a key, until the server's has come.
    offer: Option<Offer>,
    /// The session's key.
    pub(super) key: Option<Box<Key>>,
}

/// A frame that is all there.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    pub(super) opcode: u8,
    pub(super) payload: &'a [u8],
    /// Bytes of header and payload.
    pub(super) length: usize,
}

/// The frame at the start of `input`, if it is all there.
pub(super) fn next_frame(input: &[u8]) -> Option<Frame<'_>> {
    let header = websocket::parse_header(input)?;
    let length = header.header_bytes + header.payload_bytes;
    let payload = input.get(header.header_bytes..length)?;
    Some(Frame { opcode: header.opcode, payload, length })
}

// === impl Connection ===

impl Connection {
    /// Starts to connect.
    pub(super) fn open(address: SocketAddr, privacy: Privacy) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        Ok(Self {
            stream,
            phase: Phase::Connecting,
            marked: false,
            sequence: Sequence::default(),
            partial: Vec::new(),
            privacy,
            offer: privacy.encrypts().then(Offer::new),
            key: None,
        })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Asks for the upgrade once TCP is up.
    pub(super) fn upgrade(&mut self, address: SocketAddr) -> Result<(), DriverError> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error.into());
        }
        self.stream.set_nodelay(true)?;
        let subprotocol = match self.privacy.is_v1() {
            true => "Sec-WebSocket-Protocol: signal.v1.json\r\n",
            false => "",
        };
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{subprotocol}\r\n"
        );
        self.phase = Phase::Upgrading;
        self.send(request.as_bytes())
    }

    /// Sends a text message.
    pub(super) fn send_text(&mut self, text: &str) -> Result<(), DriverError> {
        let mut frame = Vec::new();
        websocket::write_masked(&mut frame, websocket::OPCODE_TEXT, text.as_bytes());
        self.send(&frame)
    }

    /// Answers a ping.
    pub(super) fn send_pong(&mut self, payload: &[u8]) -> Result<(), DriverError> {
        let mut frame = Vec::new();
        websocket::write_masked(&mut frame, websocket::OPCODE_PONG, payload);
        self.send(&frame)
    }

    /// Reads once, after what was incomplete before; returns the bytes of `buffer` that are
    /// filled, and whether there may be more.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), DriverError> {
        let kept = self.partial.len();
        buffer[..kept].copy_from_slice(&self.partial);
        self.partial.clear();
        let free = &mut buffer[kept..];
        match self.stream.read(free) {
            Ok(0) => Err(DriverError::Disconnected),
            Ok(count) => Ok((kept + count, count == free.len())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((kept, false)),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what is incomplete for the next read.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if !rest.is_empty() {
            self.partial.extend_from_slice(rest);
        }
    }

    /// Reads the answer to the upgrade request, and authenticates as `client` when it is all
    /// there. Returns the bytes that it took.
    pub(super) fn finish_upgrade(
        &mut self,
        input: &[u8],
        client: u32,
    ) -> Result<usize, DriverError> {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Ok(0);
        };
        let head = String::from_utf8_lossy(&input[..end]);
        let accepted = head.starts_with("HTTP/1.1 101 ")
            && head.contains(&websocket::accept_key(KEY.as_bytes()));
        if !accepted {
            return Err(DriverError::UpgradeRefused(head.into_owned()));
        }
        self.phase = Phase::Authenticating;
        let user = payload::user_id(client);
        let key = match &self.offer {
            Some(offer) => format!(r#","publicKey":"{}""#, offer.public_key()),
            None => String::new(),
        };
        let data = format!(r#"{{"userId":"{user}"{key}}}"#);
        self.send_text(&format!(r#"{{"event":"authenticate","data":{data}}}"#))?;
        Ok(end + 4)
    }

    /// Takes the first message, which must be `connected`.
    pub(super) fn authenticated(&mut self, text: &[u8]) -> Result<(), DriverError> {
        if !text.starts_with(br#"{"event":"connected""#) {
            return Err(DriverError::Unexpected(String::from_utf8_lossy(text).into_owned()));
        }
        if let Some(offer) = self.offer.take() {
            let key = privacy::session_key(offer, text);
            let unexpected = || DriverError::Unexpected(String::from_utf8_lossy(text).into_owned());
            self.key = Some(Box::new(key.ok_or_else(unexpected)?));
        }
        self.phase = Phase::Ready;
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        Ok(self.stream.write_all(bytes)?)
    }
}
