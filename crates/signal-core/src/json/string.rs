//! String tokens: where they end, what they mean, how they are written.

use std::borrow::Cow;

const ESCAPE_BYTES: usize = 2;
const UNICODE_ESCAPE_BYTES: usize = 6;

/// The JSON text of a string, quotes included, as `JSON.stringify` writes it.
///
/// U+2028, U+2029 and everything else beyond the ASCII control characters stay as they are.
#[expect(clippy::missing_panics_doc, reason = "what is written is always UTF-8")]
pub fn string(value: &str) -> String {
    let mut out = Vec::with_capacity(value.len() + 2);
    write_string(&mut out, value);
    String::from_utf8(out).expect("slices at ASCII bytes of valid UTF-8 stay valid")
}

/// Appends the JSON text of a string to `out`.
pub fn write_string(out: &mut Vec<u8>, value: &str) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = value.as_bytes();
    loop {
        let plain = plain_bytes(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(&byte) = rest.get(plain) else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.push(DIGITS[usize::from(byte >> 4)]);
                out.push(DIGITS[usize::from(byte & 0xf)]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// What a string token means; `None` if `token` is not one.
///
/// A surrogate without its other half, which JavaScript allows and UTF-8 does not, becomes U+FFFD.
pub fn unescape(token: &str) -> Option<Cow<'_, str>> {
    let inner = token.strip_prefix('"')?.strip_suffix('"')?;
    let plain = plain_bytes(inner.as_bytes());
    if plain == inner.len() {
        return Some(Cow::Borrowed(inner));
    }
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    loop {
        let plain = plain_bytes(rest.as_bytes());
        out.push_str(&rest[..plain]);
        rest = &rest[plain..];
        if rest.is_empty() {
            return Some(Cow::Owned(out));
        }
        let (character, length) = unescape_one(rest)?;
        out.push(character);
        rest = &rest[length..];
    }
}

/// Bytes up to the first quote, backslash or control character, eight at a time.
pub(super) fn plain_bytes(bytes: &[u8]) -> usize {
    const LANES: usize = size_of::<u64>();
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let (words, _) = bytes.as_chunks::<LANES>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // A lane's high bit tells that it is below 0x20, or zero after the exclusive or; a borrow
        // can only mark lanes above the first true one, so the lowest mark is exact.
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = word ^ (ONES * u64::from(b'"'));
        let quote = quote.wrapping_sub(ONES) & !quote;
        let backslash = word ^ (ONES * u64::from(b'\\'));
        let backslash = backslash.wrapping_sub(ONES) & !backslash;
        let marks = (control | quote | backslash) & HIGHS;
        if marks != 0 {
            return index * LANES + (marks.trailing_zeros() / u8::BITS) as usize;
        }
    }
    let done = words.len() * LANES;
    let tail = bytes[done..].iter().position(|&byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
    tail.map_or(bytes.len(), |at| done + at)
}

/// Bytes of the escape that `bytes` begins with, if it is one. Surrogates are not paired: the text
/// is passed on as it is.
pub(super) fn escape_bytes(bytes: &[u8]) -> Option<usize> {
    match *bytes.get(1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(ESCAPE_BYTES),
        b'u' => bytes
            .get(ESCAPE_BYTES..UNICODE_ESCAPE_BYTES)?
            .iter()
            .all(u8::is_ascii_hexdigit)
            .then_some(UNICODE_ESCAPE_BYTES),
        _ => None,
    }
}

/// The character of the escape that `text` begins with, and the bytes it takes.
fn unescape_one(text: &str) -> Option<(char, usize)> {
    if !text.starts_with('\\') {
        return None;
    }
    let character = match *text.as_bytes().get(1)? {
        byte @ (b'"' | b'\\' | b'/') => char::from(byte),
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unescape_unicode(text),
        _ => return None,
    };
    Some((character, ESCAPE_BYTES))
}

fn unescape_unicode(text: &str) -> Option<(char, usize)> {
    let first = unicode_unit(text)?;
    let second = || unicode_unit(text.get(UNICODE_ESCAPE_BYTES..)?);
    if let Some(character) = char::from_u32(u32::from(first)) {
        return Some((character, UNICODE_ESCAPE_BYTES));
    }
    let pair = second().and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match pair {
        Some(character) => Some((character, 2 * UNICODE_ESCAPE_BYTES)),
        None => Some((char::REPLACEMENT_CHARACTER, UNICODE_ESCAPE_BYTES)),
    }
}

fn unicode_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.as_bytes().get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| {
        let value = u16::try_from(char::from(digit).to_digit(16)?).ok()?;
        Some((unit << 4) | value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_javascript_does() {
        let cases = [
            ("", r#""""#),
            ("a\"b\\c/", r#""a\"b\\c/""#),
            ("\u{8}\u{c}\n\r\t", r#""\b\f\n\r\t""#),
            ("\0\u{b}\u{1f}\u{7f}", "\"\\u0000\\u000b\\u001f\u{7f}\""),
            ("é\u{2028}𝄞", "\"é\u{2028}𝄞\""),
        ];
        for (value, text) in cases {
            assert_eq!(string(value), text);
            assert_eq!(unescape(text).unwrap(), value);
        }
    }

    #[test]
    fn surrogates_pair_or_become_the_replacement() {
        let cases = [
            (r#""\ud834\udd1e""#, "𝄞"),
            (r#""\uD834\uDD1E!""#, "𝄞!"),
            (r#""\ud834""#, "\u{fffd}"),
            (r#""\udd1e\ud834""#, "\u{fffd}\u{fffd}"),
            (r#""\ud834\ud834\udd1e""#, "\u{fffd}𝄞"),
            (r#""\ud834\n""#, "\u{fffd}\n"),
            (r#""\ud834é""#, "\u{fffd}é"),
            (r#""\/""#, "/"),
        ];
        for (text, value) in cases {
            assert_eq!(unescape(text).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn what_is_no_string_token() {
        for other in
            ["", "\"", "a", "1", "null", "\"a", r#""\"#, r#""\x""#, r#""\u12""#, r#""\u12g4""#]
        {
            assert_eq!(unescape(other), None, "{other}");
        }
        assert_eq!(unescape("\"a\"b\""), None);
        assert_eq!(unescape("\"a\nb\""), None);
        assert_eq!(unescape("\"\\u12é\""), None);
    }

    #[test]
    fn plain_bytes_agrees_with_the_plain_loop() {
        for special in 0..=u8::MAX {
            for length in 0..20 {
                for at in 0..length {
                    let mut bytes = vec![b'#'; length];
                    bytes[at] = special;
                    let slow = bytes
                        .iter()
                        .position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
                        .unwrap_or(length);
                    assert_eq!(plain_bytes(&bytes), slow, "{special:#x} at {at} of {length}");
                }
            }
        }
    }
}
