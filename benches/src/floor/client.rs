//! One client of the floor: handshake, requests in, frames out.
//!
//! Owns its socket. Knows nothing of channels beyond their numbers. An idle client holds no
//! buffer; a client that does not read is cut at [`BACKLOG_BYTES_MAX`].

use std::borrow::Cow;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::ops::Range;

use mio::net::TcpStream;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::websocket;

/// Bytes that may wait for a client that does not read: as much as Signal lets wait.
pub(super) const BACKLOG_BYTES_MAX: usize = 1024 * 1024;

/// Slices per `writev`; more of them take another call.
const SLICES_MAX: usize = 64;

/// Bytes of an HTTP request, or of a frame, that may be incomplete.
const PARTIAL_BYTES_MAX: usize = 64 * 1024;

/// What a client asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// `authenticate`, with the user id that it claims.
    Authenticate { user: String },
    /// `join`.
    Join { rooms: Vec<String> },
}

#[derive(Debug)]
pub(super) struct Client {
    stream: TcpStream,
    upgraded: bool,
    /// Numbers of the channels it is on.
    pub(super) channels: Vec<u32>,
    /// Frames of this batch that are to be written, as ranges of the batch's bytes.
    pub(super) pending: Vec<Range<u32>>,
    /// What the socket would not take.
    backlog: Vec<u8>,
    /// What came in but is not complete.
    partial: Vec<u8>,
}

#[derive(Deserialize)]
struct Message<'a> {
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Credentials {
    #[serde(rename = "userId")]
    user: String,
}

#[derive(Deserialize)]
struct Rooms {
    rooms: Vec<String>,
}

// === impl Client ===

impl Client {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            upgraded: false,
            channels: Vec::new(),
            pending: Vec::new(),
            backlog: Vec::new(),
            partial: Vec::new(),
        }
    }

    /// Reads until the socket is dry; false if the client is gone.
    pub(super) fn read(&mut self, scratch: &mut [u8], requests: &mut Vec<Request>) -> bool {
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            };
            let open = if self.partial.is_empty() {
                self.take(&mut scratch[..count], requests)
            } else {
                let mut input = std::mem::take(&mut self.partial);
                input.extend_from_slice(&scratch[..count]);
                self.take(&mut input, requests)
            };
            if !open || count < scratch.len() {
                return open;
            }
        }
    }

    /// Makes it an authenticated client and says so to it; returns its id.
    pub(super) fn authenticate(&mut self, number: u32, user: &str) -> String {
        let id = format!("{number:08x}-0000-8000-8000-000000000000");
        let time = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
        let data = serde_json::json!({"id": id, "userId": user, "time": time.to_string()});
        let text = format!(r#"{{"event":"connected","data":{data}}}"#);
        let mut frame = Vec::new();
        websocket::write_text_header(&mut frame, text.len());
        frame.extend_from_slice(text.as_bytes());
        self.write(&frame);
        id
    }

    /// Writes one frame now.
    pub(super) fn write(&mut self, frame: &[u8]) {
        if !self.backlog.is_empty() {
            return self.keep(frame);
        }
        match self.stream.write(frame) {
            Ok(count) if count == frame.len() => {}
            Ok(count) => self.keep(&frame[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.keep(frame),
            // The read side finds out and removes the client.
            Err(_) => {}
        }
    }

    /// Writes all that is pending for it, with one call.
    pub(super) fn flush_pending(&mut self, frames: &[u8]) {
        let mut pending = std::mem::take(&mut self.pending);
        for ranges in pending.chunks(SLICES_MAX) {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut total = 0;
            for (slice, range) in slices.iter_mut().zip(ranges) {
                *slice = IoSlice::new(bytes(frames, range));
                total += range.len();
            }
            let written = if self.backlog.is_empty() {
                match self.stream.write_vectored(&slices[..ranges.len()]) {
                    Ok(count) => count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(_) => break,
                }
            } else {
                0
            };
            if written < total {
                self.keep_after(written, frames, ranges);
            }
        }
        pending.clear();
        self.pending = pending;
    }

    /// Writes what the socket would not take before.
    pub(super) fn flush_backlog(&mut self) {
        while !self.backlog.is_empty() {
            match self.stream.write(&self.backlog) {
                Ok(count) => drop(self.backlog.drain(..count)),
                Err(_) => return,
            }
        }
        self.backlog = Vec::new();
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.backlog.len() + bytes.len() > BACKLOG_BYTES_MAX {
            // The read side finds out and removes the client.
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
            return;
        }
        self.backlog.extend_from_slice(bytes);
    }

    #[cold]
    fn keep_after(&mut self, mut written: usize, frames: &[u8], ranges: &[Range<u32>]) {
        for range in ranges {
            let frame = bytes(frames, range);
            let skipped = written.min(frame.len());
            written -= skipped;
            self.keep(&frame[skipped..]);
        }
    }

    /// Handles what is complete in `input` and keeps the rest; false if the client is to go.
    fn take(&mut self, input: &mut [u8], requests: &mut Vec<Request>) -> bool {
        let mut position = 0;
        if !self.upgraded {
            let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
                return self.keep_partial(input);
            };
            let Some(key) = header(&input[..end], "sec-websocket-key") else { return false };
            let accept = websocket::accept_key(key);
            self.write(
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                )
                .as_bytes(),
            );
            self.upgraded = true;
            position = end + 4;
        }
        while let Some(header) = websocket::parse_header(&input[position..]) {
            let start = position + header.header_bytes;
            let Some(payload) = input.get_mut(start..start + header.payload_bytes) else { break };
            position = start + header.payload_bytes;
            match (header.opcode, header.mask) {
                (websocket::OPCODE_TEXT, Some(mask)) => {
                    websocket::apply_mask(payload, mask);
                    requests.extend(parse_request(payload));
                }
                (websocket::OPCODE_PING, Some(mask)) => {
                    websocket::apply_mask(payload, mask);
                    let mut pong = vec![0x80 | websocket::OPCODE_PONG];
                    // A control frame's length is one byte.
                    pong.push(u8::try_from(payload.len()).unwrap_or(0x7D));
                    pong.extend_from_slice(payload);
                    self.write(&pong);
                }
                (websocket::OPCODE_CLOSE, _) | (_, None) => return false,
                _ => {}
            }
        }
        self.keep_partial(&input[position..])
    }

    fn keep_partial(&mut self, input: &[u8]) -> bool {
        self.partial = input.to_vec();
        input.len() <= PARTIAL_BYTES_MAX
    }
}

fn bytes<'a>(frames: &'a [u8], range: &Range<u32>) -> &'a [u8] {
    &frames[range.start as usize..range.end as usize]
}

fn parse_request(payload: &[u8]) -> Option<Request> {
    let message: Message<'_> = serde_json::from_slice(payload).ok()?;
    let data = message.data?.get();
    match message.event.as_ref() {
        "authenticate" => {
            let credentials: Credentials = serde_json::from_str(data).ok()?;
            Some(Request::Authenticate { user: credentials.user })
        }
        "join" => {
            let rooms: Rooms = serde_json::from_str(data).ok()?;
            Some(Request::Join { rooms: rooms.rooms })
        }
        _ => None,
    }
}

/// The value of a header, by its lower-case name.
fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (found, value) = line.split_at(colon);
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value[1..].trim_ascii())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client and its peer, which reads only when told to.
    fn pair() -> (Client, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Client::new(TcpStream::from_std(stream)), peer)
    }

    /// Fills the socket with what `send` sends until something has to wait, then reads all of it.
    fn check_backlog(frames: &[u8], send: impl Fn(&mut Client)) {
        let (mut client, mut peer) = pair();
        let mut expected = Vec::new();
        while client.backlog.is_empty() {
            send(&mut client);
            expected.extend_from_slice(frames);
        }
        send(&mut client);
        expected.extend_from_slice(frames);

        let mut received = vec![0; expected.len()];
        for part in received.chunks_mut(16 * 1024) {
            peer.read_exact(part).unwrap();
            client.flush_backlog();
        }
        assert!(received == expected, "bytes were lost, repeated or mixed up");
        assert!(client.backlog.is_empty());
    }

    fn numbered_frames() -> Vec<u8> {
        (0_u16..3_000).flat_map(u16::to_be_bytes).collect()
    }

    #[test]
    fn what_a_socket_does_not_take_is_written_later() {
        let frames = numbered_frames();
        check_backlog(&frames, |client| client.write(&frames));
    }

    #[test]
    fn what_a_socket_does_not_take_of_many_slices_is_written_later() {
        let frames = numbered_frames();
        check_backlog(&frames, |client| {
            client.pending.extend((0..100).map(|part| part * 60..(part + 1) * 60));
            client.flush_pending(&frames);
        });
    }

    #[test]
    fn requests_are_read_however_they_are_cut() {
        let mut input =
            b"GET /ws HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec();
        let join = br#"{"event":"join","data":{"rooms":["a","b"]}}"#;
        websocket::write_masked(&mut input, websocket::OPCODE_TEXT, join);
        for cut in 1..input.len() {
            let (mut client, _peer) = pair();
            let mut requests = Vec::new();
            let (first, second) = input.split_at(cut);
            assert!(client.take(&mut first.to_vec(), &mut requests));
            let mut rest = std::mem::take(&mut client.partial);
            rest.extend_from_slice(second);
            assert!(client.take(&mut rest, &mut requests));
            let [Request::Join { rooms }] = &requests[..] else { panic!("cut at {cut}") };
            assert_eq!(rooms, &["a", "b"]);
            assert!(client.partial.is_empty());
        }
    }
}
