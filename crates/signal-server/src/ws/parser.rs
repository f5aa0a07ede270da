//! The reading half of RFC 6455, server side, as a pure state machine.
//!
//! It owns what of a message has arrived but is not whole yet, and nothing while there is no such
//! thing: an idle connection costs one pointer. Whole frames are unmasked and handed out where they
//! lie in the caller's buffer. It never reserves from a claimed length: what it keeps is bounded by
//! the bytes that came in and by the message limit, which is checked on the header already, over all
//! fragments together. After an error the connection is over; the parser must not be asked again.

use std::ops::ControlFlow;

use signal_core::close::CloseCode;

use super::frame::{CONTROL_PAYLOAD_BYTES_MAX, Opcode};

/// What a client sent, whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A text message, valid UTF-8.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
    /// To be answered with a pong of the same bytes.
    Ping(&'a [u8]),
    /// Counts as activity only.
    Pong,
    /// The peer is done; the code is absent where the frame was empty.
    Close(Option<u16>),
}

/// Why a connection has to be failed (RFC 6455 §7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A reserved bit without an extension that gives it a meaning.
    #[error("reserved bits are set")]
    ReservedBits,
    /// An opcode that RFC 6455 reserves.
    #[error("reserved opcode")]
    ReservedOpcode,
    /// A frame of a client must be masked (§5.1).
    #[error("frame is not masked")]
    Unmasked,
    /// A length not in its shortest form, or with the top bit set (§5.2).
    #[error("length is not in its shortest form")]
    Length,
    /// A control frame in fragments or over 125 bytes (§5.5).
    #[error("control frame is fragmented or too long")]
    Control,
    /// A continuation without a start, or a start amid a message (§5.4).
    #[error("fragments are out of order")]
    Fragment,
    /// A Close with half a code, or a code that must not be sent (§7.4).
    #[error("close code is not allowed")]
    CloseCode,
    /// Text, or a close reason, that is not UTF-8.
    #[error("text is not valid UTF-8")]
    InvalidUtf8,
    /// Over the limit the caller gave.
    #[error("message is over the size limit")]
    TooBig,
}

impl Violation {
    /// The code of the Close frame that tells the peer.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::InvalidPayload,
            Self::TooBig => CloseCode::MessageTooBig,
            _ => CloseCode::ProtocolError,
        }
    }
}

/// The state between two reads; see the module.
#[derive(Debug, Default)]
pub struct Parser {
    /// Absent while nothing is under way.
    partial: Option<Box<Partial>>,
}

#[derive(Debug, Default)]
struct Partial {
    /// The raw bytes of a frame whose end has not arrived.
    frame: Vec<u8>,
    /// The unmasked payloads of the fragments so far.
    message: Vec<u8>,
    /// What the fragmented message is; `None` outside of one.
    opcode: Option<Opcode>,
    /// How much of `message` is known to be UTF-8.
    checked: usize,
}

struct Header {
    fin: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Bytes of the header itself, and of the payload behind it.
    length: usize,
    payload_bytes: usize,
}

// === impl Parser ===

#[expect(clippy::mut_mut, reason = "a cursor into the caller's buffer, moved forward")]
impl Parser {
    /// Takes all of `input`, unmasking in place, and calls `on_event` for each event in it, until it
    /// breaks. `message_bytes_max` bounds a message over all its fragments.
    pub fn advance(
        &mut self,
        mut input: &mut [u8],
        message_bytes_max: usize,
        mut on_event: impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<(), Violation> {
        while !input.is_empty() {
            let flow = if self.partial.as_ref().is_some_and(|partial| !partial.frame.is_empty()) {
                self.continue_frame(&mut input, message_bytes_max, &mut on_event)?
            } else {
                self.take_frame(&mut input, message_bytes_max, &mut on_event)?
            };
            if flow.is_break() {
                break;
            }
        }
        if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
            self.partial = None;
        }
        Ok(())
    }

    /// Whether nothing is kept: no fragment, no piece of a frame.
    pub fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes kept of what is not whole yet.
    pub fn kept_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.frame.len() + partial.message.len())
    }

    /// A frame starts at the front of `input`: handled where it lies if whole, kept if not.
    fn take_frame(
        &mut self,
        input: &mut &mut [u8],
        message_bytes_max: usize,
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let Some(header) = self.read_header(input, message_bytes_max)? else {
            self.partial().frame.extend_from_slice(input);
            *input = &mut [];
            return Ok(ControlFlow::Continue(()));
        };
        let end = header.length + header.payload_bytes;
        if input.len() < end {
            self.partial().frame.extend_from_slice(input);
            *input = &mut [];
            return Ok(ControlFlow::Continue(()));
        }
        let (frame, rest) = std::mem::take(input).split_at_mut(end);
        *input = rest;
        let payload = &mut frame[header.length..];
        fastwebsockets::unmask(payload, header.mask);
        self.handle(&header, payload, on_event)
    }

    /// A piece of a frame is kept: appends to it just what it lacks.
    fn continue_frame(
        &mut self,
        input: &mut &mut [u8],
        message_bytes_max: usize,
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let mut frame = std::mem::take(&mut self.partial().frame);
        let header = loop {
            if let Some(header) = self.read_header(&frame, message_bytes_max)? {
                break header;
            }
            let Some((first, rest)) = std::mem::take(input).split_first_mut() else {
                self.partial().frame = frame;
                return Ok(ControlFlow::Continue(()));
            };
            frame.push(*first);
            *input = rest;
        };
        let end = header.length + header.payload_bytes;
        let lacking = (end - frame.len()).min(input.len());
        let (piece, rest) = std::mem::take(input).split_at_mut(lacking);
        frame.extend_from_slice(piece);
        *input = rest;
        if frame.len() < end {
            self.partial().frame = frame;
            return Ok(ControlFlow::Continue(()));
        }
        let payload = &mut frame[header.length..];
        fastwebsockets::unmask(payload, header.mask);
        self.handle(&header, payload, on_event)
    }

    /// A whole frame, unmasked.
    fn handle(
        &mut self,
        header: &Header,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        Ok(match header.opcode {
            Opcode::Ping => on_event(Event::Ping(payload)),
            Opcode::Pong => on_event(Event::Pong),
            Opcode::Close => on_event(Event::Close(close_code(payload)?)),
            opcode if header.fin && opcode != Opcode::Continuation => {
                on_event(message_event(opcode, payload)?)
            }
            opcode => return self.handle_fragment(header.fin, opcode, payload, on_event),
        })
    }

    fn handle_fragment(
        &mut self,
        fin: bool,
        opcode: Opcode,
        payload: &[u8],
        on_event: &mut impl FnMut(Event<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Violation> {
        let partial = self.partial();
        if opcode != Opcode::Continuation {
            partial.opcode = Some(opcode);
        }
        partial.message.extend_from_slice(payload);
        if partial.opcode == Some(Opcode::Text) {
            partial.check_utf8()?;
        }
        if !fin {
            return Ok(ControlFlow::Continue(()));
        }
        let opcode = partial.opcode.take().expect("a fragment without a start was refused");
        let message = std::mem::take(&mut partial.message);
        partial.checked = 0;
        Ok(on_event(message_event(opcode, &message)?))
    }

    /// Reads and checks a header; `None` if there are too few bytes.
    fn read_header(
        &self,
        bytes: &[u8],
        message_bytes_max: usize,
    ) -> Result<Option<Header>, Violation> {
        let [first, second, extended @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode = Opcode::from_bits(first & 0x0F).ok_or(Violation::ReservedOpcode)?;
        if second & 0x80 == 0 {
            return Err(Violation::Unmasked);
        }
        let short = second & 0x7F;
        if opcode.is_control() {
            if !fin || usize::from(short) > CONTROL_PAYLOAD_BYTES_MAX {
                return Err(Violation::Control);
            }
        } else if (opcode == Opcode::Continuation) != self.in_message() {
            return Err(Violation::Fragment);
        }
        let (payload_bytes, length_bytes) = match (short, extended) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 2),
            (127, [_, _, _, _, _, _, _, _, ..]) => {
                let length = extended.first_chunk().expect("the pattern has eight bytes");
                (u64::from_be_bytes(*length), 8)
            }
            (126 | 127, _) => return Ok(None),
            (short, _) => (u64::from(short), 0),
        };
        let shortest = match length_bytes {
            0 => true,
            2 => payload_bytes > 125,
            _ => payload_bytes > 0xFFFF && payload_bytes >> 63 == 0,
        };
        if !shortest {
            return Err(Violation::Length);
        }
        let room = message_bytes_max.saturating_sub(self.message_bytes());
        let payload_bytes = usize::try_from(payload_bytes).map_err(|_| Violation::TooBig)?;
        if !opcode.is_control() && payload_bytes > room {
            return Err(Violation::TooBig);
        }
        let Some(&mask) = extended.get(length_bytes..).and_then(|rest| rest.first_chunk()) else {
            return Ok(None);
        };
        let length = 2 + length_bytes + 4;
        Ok(Some(Header { fin, opcode, mask, length, payload_bytes }))
    }

    fn in_message(&self) -> bool {
        self.partial.as_ref().is_some_and(|partial| partial.opcode.is_some())
    }

    fn message_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.message.len())
    }

    fn partial(&mut self) -> &mut Partial {
        self.partial.get_or_insert_default()
    }
}

// === impl Partial ===

impl Partial {
    fn is_idle(&self) -> bool {
        self.frame.is_empty() && self.opcode.is_none()
    }

    /// Fails as soon as a fragment cannot become UTF-8 whatever follows.
    fn check_utf8(&mut self) -> Result<(), Violation> {
        match std::str::from_utf8(&self.message[self.checked..]) {
            Ok(_) => self.checked = self.message.len(),
            Err(error) if error.error_len().is_some() => return Err(Violation::InvalidUtf8),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }
}

fn message_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, Violation> {
    if opcode == Opcode::Binary {
        return Ok(Event::Binary(payload));
    }
    std::str::from_utf8(payload).map(Event::Text).map_err(|_| Violation::InvalidUtf8)
}

/// The code of a Close frame, checked as RFC 6455 §7.4 asks; the reason only has to be UTF-8.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseCode),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::CloseCode);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::InvalidUtf8)?;
            Ok(Some(code))
        }
    }
}

#[cfg(test)]
#[path = "parser_tests.rs"]
mod tests;
