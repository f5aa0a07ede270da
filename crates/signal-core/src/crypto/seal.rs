//! How a sealed message is written: sealed where it lies, base64 over it, the message around it.

use std::io::Write as _;

use aws_lc_rs::aead::{Aad, Nonce};

use super::{IV_BYTES, Key, RoomKey, TAG_BYTES, base64};
use crate::v1::Variant;

/// What comes before the IV is shorter than this: the longest has a `kid` of 16 digits.
const HEAD_BYTES_MAX: usize = 128;

/// What ends the `data` of a sealed message.
const DATA_END: &str = "\"}";

/// In what form a message for clients of a variant is sealed: as JSON text in any case.
pub const fn inner_variant(variant: Variant) -> Variant {
    match variant {
        Variant::Plain => Variant::Plain,
        Variant::V1Json | Variant::V1MsgPack => Variant::V1Json,
    }
}

/// The message around a sealed text.
#[derive(Clone, Copy, Debug)]
struct Wrapping {
    /// As on `signal.v1.msgpack`: the `data` is a `bin` that holds the JSON text.
    is_binary: bool,
    kid: Option<u64>,
}

/// What stands before the IV, and the IV.
struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    length: usize,
}

// === impl Wrapping ===

impl Wrapping {
    /// What comes behind the ciphertext.
    fn end(self) -> &'static str {
        if self.is_binary { DATA_END } else { "\"}}" }
    }

    fn head(self, iv: [u8; IV_BYTES], text_bytes: usize) -> Head {
        const FITS: &str = "the longest head is shorter";
        let mut head = Head { bytes: [0; HEAD_BYTES_MAX], length: 0 };
        let mut data = Head { bytes: [0; HEAD_BYTES_MAX], length: 0 };
        data.write_all(b"{").expect(FITS);
        if let Some(kid) = self.kid {
            write!(data, "\"kid\":{kid},").expect(FITS);
        }
        data.write_all(b"\"iv\":\"").expect(FITS);
        data.write_iv(iv);
        data.write_all(b"\",\"ct\":\"").expect(FITS);
        if self.is_binary {
            const FIXMAP_OF_TWO: u8 = 0x82;
            head.write_all(&[FIXMAP_OF_TWO]).expect(FITS);
            rmp::encode::write_str(&mut head, "event").expect(FITS);
            rmp::encode::write_str(&mut head, "encrypted").expect(FITS);
            rmp::encode::write_str(&mut head, "data").expect(FITS);
            let length = data.length + text_bytes + DATA_END.len();
            let length = u32::try_from(length).expect("a message is bounded far below 4 GiB");
            rmp::encode::write_bin_len(&mut head, length).expect(FITS);
        } else {
            head.write_all(b"{\"event\":\"encrypted\",\"data\":").expect(FITS);
        }
        head.write_all(data.as_slice()).expect(FITS);
        head
    }
}

// === impl Head ===

impl Head {
    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn write_iv(&mut self, iv: [u8; IV_BYTES]) {
        let end = self.length + base64::encoded_len(IV_BYTES);
        let area = &mut self.bytes[self.length..end];
        let begin = area.len() - IV_BYTES;
        area[begin..].copy_from_slice(&iv);
        base64::encode_in_place(area, IV_BYTES);
        self.length = end;
    }
}

impl std::io::Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut space = &mut self.bytes[self.length..];
        let written = space.write(bytes)?;
        self.length += written;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === impl Key ===

impl Key {
    /// Seals what `out` holds from `start` on, a message in the form that [`inner_variant`]
    /// says, and turns it into the `encrypted` message for a client of `variant`. `frame` is told how
    /// long that is, and gives what goes in front of it.
    pub fn seal<F: AsRef<[u8]>>(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        variant: Variant,
        frame: impl FnOnce(usize) -> F,
    ) {
        let wrapping = Wrapping { is_binary: variant.is_binary(), kid: None };
        self.seal_wrapped(out, start, wrapping, frame);
    }

    fn seal_wrapped<F: AsRef<[u8]>>(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        wrapping: Wrapping,
        frame: impl FnOnce(usize) -> F,
    ) {
        let plain_bytes = out.len() - start;
        let cipher_bytes = plain_bytes + TAG_BYTES;
        let text_bytes = base64::encoded_len(cipher_bytes);
        let iv = self.take_iv();
        let head = wrapping.head(iv, text_bytes);
        let end = wrapping.end();
        let frame = frame(head.length + text_bytes + end.len());
        let frame = frame.as_ref();

        // The plain text moves to the right end of the area that its base64 will fill.
        let text_start = start + frame.len() + head.length;
        let text_end = text_start + text_bytes;
        let cipher_start = text_end - cipher_bytes;
        out.resize(text_end + end.len(), 0);
        out.copy_within(start..start + plain_bytes, cipher_start);
        let (plain, tag) = out[cipher_start..text_end].split_at_mut(plain_bytes);
        let made = self
            .cipher
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::empty(), plain)
            .expect("a message is bounded far below the 64 GiB of one IV");
        tag.copy_from_slice(made.as_ref());
        base64::encode_in_place(&mut out[text_start..text_end], cipher_bytes);
        out[text_end..].copy_from_slice(end.as_bytes());
        out[start..start + frame.len()].copy_from_slice(frame);
        out[start + frame.len()..text_start].copy_from_slice(head.as_slice());
    }
}

// === impl RoomKey ===

impl RoomKey {
    /// Seals a message for the members of its room that speak `variant`; see [`Key::seal`].
    pub fn seal<F: AsRef<[u8]>>(
        &mut self,
        out: &mut Vec<u8>,
        start: usize,
        variant: Variant,
        frame: impl FnOnce(usize) -> F,
    ) {
        let wrapping = Wrapping { is_binary: variant.is_binary(), kid: Some(self.kid) };
        self.key.seal_wrapped(out, start, wrapping, frame);
    }
}
