//! One client of the driver: handshake, authentication, frames in.
//!
//! Owns its socket and what of a frame is incomplete. Never interprets a measured message. Requests
//! are a few hundred bytes on a fresh loopback socket, so one that does not fit is an error.
//!
//! Why it is not a `signal-client`: that has a task, queues and a parsed message for each delivery, which
//! would cost more than the server that is measured beside it; and other servers are spoken to as well.
//! What both have in common, the encryption, is in `signal-core`.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use rustix::io::Errno;
use signal_core::crypto::{Keyring, Offer};
use socket2::{Domain, Socket, Type};

use super::DriverError;
use super::dialect::{Dialect, Login};
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
    dialect: Dialect,
    /// The client's half of the agreement on keys, until the server's has come.
    offer: Option<Offer>,
    pub(super) keys: Option<Box<Keyring>>,
    /// The client id that Signal gave it.
    pub(super) id: Box<str>,
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

/// Begins to connect from one of this machine's addresses.
fn connect(source: Ipv4Addr, address: SocketAddr) -> io::Result<TcpStream> {
    if source == Ipv4Addr::LOCALHOST {
        return TcpStream::connect(address);
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&address.into()) {
        // Done, or under way.
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The `id` of `connected`; empty if there is none.
fn client_id(text: &[u8]) -> Box<str> {
    const NAME: &[u8] = br#""id":""#;
    let start = text.windows(NAME.len()).position(|window| window == NAME);
    let rest = start.map_or(&b""[..], |start| &text[start + NAME.len()..]);
    let end = rest.iter().position(|byte| *byte == b'"').unwrap_or_default();
    String::from_utf8_lossy(&rest[..end]).into()
}

// === impl Connection ===

impl Connection {
    /// Starts to connect.
    pub(super) fn open(
        source: Ipv4Addr,
        address: SocketAddr,
        privacy: Privacy,
        dialect: Dialect,
    ) -> io::Result<Self> {
        let stream = connect(source, address)?;
        Ok(Self {
            stream,
            phase: Phase::Connecting,
            marked: false,
            sequence: Sequence::default(),
            partial: Vec::new(),
            privacy,
            dialect,
            offer: privacy.encrypts().then(Offer::new),
            keys: None,
            id: Box::default(),
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
        let path = self.dialect.path();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
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

    /// Sends frames that are built already.
    pub(super) fn send_frames(&mut self, frames: &[u8]) -> Result<(), DriverError> {
        self.send(frames)
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
        if self.dialect != Dialect::Signal {
            if let Some(greeting) = self.dialect.greeting(&user) {
                self.send_text(&greeting)?;
            }
            return Ok(end + 4);
        }
        let key = match &self.offer {
            Some(offer) => format!(r#","publicKey":"{}""#, offer.public_key()),
            None => String::new(),
        };
        let data = format!(r#"{{"userId":"{user}"{key}}}"#);
        self.send_text(&format!(r#"{{"event":"authenticate","data":{data}}}"#))?;
        Ok(end + 4)
    }

    /// Takes a message of the login, of which Signal has one, `connected`; returns whether it was the
    /// last.
    pub(super) fn log_in(&mut self, text: &[u8], client: u32) -> Result<bool, DriverError> {
        if self.dialect == Dialect::Signal {
            return self.authenticated(text).map(|()| true);
        }
        if let Some(answer) = self.dialect.answer(text) {
            return self.send_text(answer).map(|()| false);
        }
        match self.dialect.login(text, &payload::user_id(client)) {
            Login::Say(answer) if answer.is_empty() => Ok(false),
            Login::Say(answer) => self.send_text(&answer).map(|()| false),
            Login::Done => {
                self.phase = Phase::Ready;
                Ok(true)
            }
            Login::Unexpected => {
                Err(DriverError::Unexpected(String::from_utf8_lossy(text).into_owned()))
            }
        }
    }

    fn authenticated(&mut self, text: &[u8]) -> Result<(), DriverError> {
        if !text.starts_with(br#"{"event":"connected""#) {
            return Err(DriverError::Unexpected(String::from_utf8_lossy(text).into_owned()));
        }
        if let Some(offer) = self.offer.take() {
            let keys = privacy::agree(offer, text);
            let unexpected = || DriverError::Unexpected(String::from_utf8_lossy(text).into_owned());
            self.keys = Some(Box::new(keys.ok_or_else(unexpected)?));
        }
        self.id = client_id(text);
        self.phase = Phase::Ready;
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), DriverError> {
        Ok(self.stream.write_all(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_knows_its_id() {
        assert_eq!(
            &*client_id(br#"{"event":"connected","data":{"id":"a-1","userId":"u"}}"#),
            "a-1"
        );
        assert_eq!(&*client_id(br#"{"event":"connected","data":{}}"#), "");
    }
}
