//! The part of RFC 6455 that a benchmark needs: keys, frame headers, masking.
//!
//! Owns no socket and keeps no state. Never fragments, never compresses, and trusts that lengths
//! fit in memory: both ends are ours, on loopback.

use base64::Engine as _;
use sha1::{Digest as _, Sha1};

/// The GUID of RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The mask of every client frame. Masking is compulsory; that it be unpredictable matters to
/// proxies, not to a benchmark.
const MASK: [u8; 4] = [0x5A, 0xC3, 0x3C, 0xA5];

/// The length byte that announces 16 bits of length.
const LENGTH_16_BITS: u8 = 0x7E;
/// The length byte that announces 64 bits of length.
const LENGTH_64_BITS: u8 = 0x7F;

/// The text opcode.
pub const OPCODE_TEXT: u8 = 0x1;
/// The close opcode.
pub const OPCODE_CLOSE: u8 = 0x8;
/// The ping opcode.
pub const OPCODE_PING: u8 = 0x9;
/// The pong opcode.
pub const OPCODE_PONG: u8 = 0xA;

/// The value of `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(ACCEPT_GUID);
    base64::engine::general_purpose::STANDARD.encode(hash.finalize())
}

/// A parsed frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The opcode, without the FIN bit.
    pub opcode: u8,
    /// The mask, in frames from a client.
    pub mask: Option<[u8; 4]>,
    /// Bytes of the header itself, the mask included.
    pub header_bytes: usize,
    /// Bytes of payload that follow it.
    pub payload_bytes: usize,
}

/// Reads the header at the start of `input`; `None` if it is not all there yet.
pub fn parse_header(input: &[u8]) -> Option<FrameHeader> {
    let [first, second, rest @ ..] = input else { return None };
    let (length_bytes, payload_bytes) = match second & 0x7F {
        LENGTH_16_BITS => (2, usize::from(u16::from_be_bytes(*rest.first_chunk()?))),
        LENGTH_64_BITS => (8, usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?),
        short => (0, usize::from(short)),
    };
    let masked = second & 0x80 != 0;
    let mask = if masked { Some(*rest.get(length_bytes..)?.first_chunk()?) } else { None };
    let header_bytes = 2 + length_bytes + if masked { 4 } else { 0 };
    Some(FrameHeader { opcode: first & 0x0F, mask, header_bytes, payload_bytes })
}

/// Appends the header of an unmasked, unfragmented text frame.
pub fn write_text_header(out: &mut Vec<u8>, payload_bytes: usize) {
    out.push(0x80 | OPCODE_TEXT);
    write_length(out, payload_bytes, 0);
}

/// Appends a whole masked frame, as a client must send it.
pub fn write_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    write_length(out, payload.len(), 0x80);
    out.extend_from_slice(&MASK);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], MASK);
}

/// Masks or unmasks a payload in place.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn write_length(out: &mut Vec<u8>, payload_bytes: usize, mask_bit: u8) {
    if let Some(short) = u8::try_from(payload_bytes).ok().filter(|length| *length < LENGTH_16_BITS)
    {
        out.push(mask_bit | short);
    } else if let Ok(medium) = u16::try_from(payload_bytes) {
        out.push(mask_bit | LENGTH_16_BITS);
        out.extend_from_slice(&medium.to_be_bytes());
    } else {
        out.push(mask_bit | LENGTH_64_BITS);
        out.extend_from_slice(&(payload_bytes as u64).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_key_is_the_one_of_the_rfc() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn headers_of_every_length_come_back() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload = vec![b'x'; length];
            let mut plain = Vec::new();
            write_text_header(&mut plain, length);
            let header = parse_header(&plain).unwrap();
            assert_eq!(header.header_bytes, plain.len());
            assert_eq!((header.opcode, header.payload_bytes), (OPCODE_TEXT, length));

            let mut masked = Vec::new();
            write_masked(&mut masked, OPCODE_PONG, &payload);
            let header = parse_header(&masked).unwrap();
            assert_eq!(header.header_bytes + header.payload_bytes, masked.len());
            let mut body = masked.split_off(header.header_bytes);
            apply_mask(&mut body, header.mask.unwrap());
            assert_eq!(body, payload);
        }
    }

    #[test]
    fn a_header_that_is_not_all_there_is_none() {
        let mut frame = Vec::new();
        write_masked(&mut frame, OPCODE_TEXT, &vec![0; 70_000]);
        let header_bytes = parse_header(&frame).unwrap().header_bytes;
        for end in 0..header_bytes {
            assert_eq!(parse_header(&frame[..end]), None, "{end} bytes");
        }
    }
}
