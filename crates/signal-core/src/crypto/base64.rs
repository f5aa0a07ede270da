//! Base64 with the standard alphabet and padding (RFC 4648 §4): in place on the way out, strict on the
//! way in.
//!
//! A ciphertext lies at the right end of the area that its text is to fill, and the text is written from
//! the left: it never catches up with what is still to be read, so no second buffer is needed.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// No digit of the alphabet.
const NONE: u8 = 0xFF;

const DIGITS: [u8; 256] = {
    let mut digits = [NONE; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        #[expect(clippy::cast_possible_truncation, reason = "there are 64 digits")]
        let digit = value as u8;
        digits[ALPHABET[value] as usize] = digit;
        value += 1;
    }
    digits
};

/// Bytes of the text of `length` bytes.
pub(super) const fn encoded_len(length: usize) -> usize {
    4 * length.div_ceil(3)
}

/// Turns the last `length` bytes of `area` into the text that fills all of it.
pub(super) fn encode_in_place(area: &mut [u8], length: usize) {
    debug_assert_eq!(area.len(), encoded_len(length));
    let mut read = area.len() - length;
    let mut write = 0;
    while let Some(&[first, second, third]) = area[read..].first_chunk() {
        area[write..write + 4].copy_from_slice(&quad(first, second, third));
        read += 3;
        write += 4;
    }
    match area[read..] {
        [first] => {
            let [one, two, ..] = quad(first, 0, 0);
            area[write..].copy_from_slice(&[one, two, b'=', b'=']);
        }
        [first, second] => {
            let [one, two, three, _] = quad(first, second, 0);
            area[write..].copy_from_slice(&[one, two, three, b'=']);
        }
        _ => {}
    }
}

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut area = vec![0; encoded_len(bytes.len())];
    let begin = area.len() - bytes.len();
    area[begin..].copy_from_slice(bytes);
    encode_in_place(&mut area, bytes.len());
    String::from_utf8(area).expect("the alphabet is ASCII")
}

/// The bytes of a text; `None` if it is not what [`encode`] makes of any.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let (quads, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let Some((last, quads)) = quads.split_last() else { return Some(Vec::new()) };
    let mut out = Vec::with_capacity(3 * (quads.len() + 1));
    for quad in quads {
        out.extend_from_slice(&bytes(*quad)?);
    }
    match *last {
        [first, second, b'=', b'='] => match bytes([first, second, b'A', b'A'])? {
            [byte, 0, 0] => out.push(byte),
            _ => return None,
        },
        [first, second, third, b'='] => match bytes([first, second, third, b'A'])? {
            [one, two, 0] => out.extend_from_slice(&[one, two]),
            _ => return None,
        },
        quad => out.extend_from_slice(&bytes(quad)?),
    }
    Some(out)
}

#[inline]
fn quad(first: u8, second: u8, third: u8) -> [u8; 4] {
    let bits = u32::from_be_bytes([0, first, second, third]);
    [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 0x3F) as usize])
}

#[inline]
fn bytes(quad: [u8; 4]) -> Option<[u8; 3]> {
    let digits = quad.map(|byte| DIGITS[usize::from(byte)]);
    if digits.contains(&NONE) {
        return None;
    }
    let bits = digits.iter().fold(0, |bits, digit| (bits << 6) | u32::from(*digit));
    let [_, bytes @ ..] = bits.to_be_bytes();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_the_standard() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), plain.as_bytes());
        }
        assert_eq!(encode(&[0xFB, 0xFF, 0xFE]), "+//+");
    }

    #[test]
    fn what_is_none() {
        for text in [
            "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Z===", "====", "=Zg=", "Zg==Zg==", "Zm 9", "Zm9v\n",
            "-__-", "Zm9é",
        ] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let text = encode(&bytes);
            prop_assert_eq!(text.len(), encoded_len(bytes.len()));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(text in "[A-Za-f+/=]{0,12}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
