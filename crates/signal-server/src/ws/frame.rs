//! Frame headers of RFC 6455 §5.2, server side: never masked, never fragmented.
//!
//! A delivery is written straight into the fan-out's buffer: header first, then the text, so the
//! length has to be known beforehand and no second copy is made.

/// Bytes of the longest header a server writes: two, and eight of length.
pub const HEADER_BYTES_MAX: usize = 10;

/// Bytes a control frame may carry (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// What a frame is (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// A further fragment of the message under way.
    Continuation = 0x0,
    /// UTF-8 text.
    Text = 0x1,
    /// Bytes.
    Binary = 0x2,
    /// The end of the connection, from one side.
    Close = 0x8,
    /// Asks for a pong with the same bytes.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode of these four bits; `None` for the reserved ones.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    /// Close, ping and pong.
    pub const fn is_control(self) -> bool {
        (self as u8) & 0x8 != 0
    }
}

/// A frame's header, by itself.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl AsRef<[u8]> for Header {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The header of an unfragmented frame with a payload of `length` bytes.
pub fn header(opcode: Opcode, length: usize) -> Header {
    let mut bytes = [0; HEADER_BYTES_MAX];
    bytes[0] = 0x80 | opcode as u8;
    let header_length = if length <= CONTROL_PAYLOAD_BYTES_MAX {
        bytes[1] = u8::try_from(length).expect("checked to be at most 125");
        2
    } else if let Ok(length) = u16::try_from(length) {
        bytes[1] = 126;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        4
    } else {
        bytes[1] = 127;
        bytes[2..].copy_from_slice(&(length as u64).to_be_bytes());
        10
    };
    Header { bytes, length: header_length }
}

/// Appends the header of an unfragmented frame whose payload of `length` bytes follows.
pub fn write_header(out: &mut Vec<u8>, opcode: Opcode, length: usize) {
    out.extend_from_slice(header(opcode, length).as_ref());
}

/// Appends a whole frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    write_header(out, opcode, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a Close frame; the reason is cut to what a control frame holds, at a character.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut end = reason.len().min(CONTROL_PAYLOAD_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_header(out, Opcode::Close, 2 + end);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_uses_the_shortest_length() {
        for (length, expected) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xFF, 0xFF]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = Vec::new();
            write_header(&mut out, Opcode::Text, length);
            assert_eq!(out, expected, "length {length}");
            assert!(out.len() <= HEADER_BYTES_MAX);
        }
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let mut out = Vec::new();
        write_close(&mut out, 4003, &"é".repeat(100));
        assert_eq!(out[0], 0x88);
        assert_eq!(usize::from(out[1]), out.len() - 2);
        assert!(out.len() - 2 <= CONTROL_PAYLOAD_BYTES_MAX);
        assert_eq!(std::str::from_utf8(&out[4..]).map(|reason| reason.chars().count()), Ok(61));
    }
}
