//! RESP2, as far as publishing, subscribing and asking a server about itself need it.
//!
//! Owns no socket. Of pushes reads flat arrays of at most three elements, which is all that a
//! subscribed connection receives, of answers one line or one bulk string; anything else is an error,
//! never a guess.

use std::io::{self, BufRead, Write as _};

/// What was read is not a reply that a subscriber can get.
#[derive(Debug, thiserror::Error)]
pub enum RespError {
    /// Redis refused a command.
    #[error("redis answered {0}")]
    Refused(String),
    /// Not a flat array of up to three bulk strings or integers.
    #[error("unexpected reply from redis")]
    Unexpected,
}

/// A reply on a subscribed connection: three elements, `[kind, channel, payload or count]`.
#[derive(Debug, PartialEq, Eq)]
pub struct Push<'a> {
    /// `message`, `subscribe`, …
    pub kind: &'a [u8],
    /// The channel.
    pub channel: &'a [u8],
    /// The payload, or the digits of a count.
    pub payload: &'a [u8],
}

/// Appends a command as an array of bulk strings.
pub fn write_command<'a>(out: &mut Vec<u8>, parts: impl ExactSizeIterator<Item = &'a [u8]>) {
    // Writing to a `Vec` cannot fail.
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads an answer that is one line or one bulk string, without its type and its ends.
pub fn read_answer(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let line = line.trim_end();
    let unexpected = || io::Error::other(format!("unexpected answer from redis: {line:?}"));
    match line.split_at_checked(1) {
        Some(("+" | ":", text)) => Ok(text.to_owned()),
        Some(("-", text)) => Err(io::Error::other(format!("redis answered {text}"))),
        Some(("$", length)) => {
            let length = decimal(length.as_bytes()).ok_or_else(unexpected)?;
            let mut body = vec![0; length + 2];
            input.read_exact(&mut body)?;
            body.truncate(length);
            String::from_utf8(body).map_err(|_| unexpected())
        }
        _ => Err(unexpected()),
    }
}

/// Reads the push at the start of `input` and the bytes it took; `None` if it is not all there yet.
pub fn parse_push(input: &[u8]) -> Result<Option<(Push<'_>, usize)>, RespError> {
    let mut position = 0;
    let Some(head) = line(input, &mut position) else { return Ok(None) };
    match head.split_first() {
        Some((b'*', b"3")) => {}
        Some((b'-', message)) => {
            return Err(RespError::Refused(String::from_utf8_lossy(message).into_owned()));
        }
        _ => return Err(RespError::Unexpected),
    }
    let mut elements: [&[u8]; 3] = [b"", b"", b""];
    for element in &mut elements {
        let Some(bytes) = parse_element(input, &mut position)? else { return Ok(None) };
        *element = bytes;
    }
    let [kind, channel, payload] = elements;
    Ok(Some((Push { kind, channel, payload }, position)))
}

fn parse_element<'a>(input: &'a [u8], position: &mut usize) -> Result<Option<&'a [u8]>, RespError> {
    let Some(head) = line(input, position) else { return Ok(None) };
    match head.split_first() {
        Some((b':', digits)) => Ok(Some(digits)),
        Some((b'$', digits)) => {
            let length = decimal(digits).ok_or(RespError::Unexpected)?;
            let end = *position + length;
            let body = input.get(*position..end);
            *position = end + 2;
            Ok(body.filter(|_| input.len() >= *position))
        }
        _ => Err(RespError::Unexpected),
    }
}

/// The line at `position` without its end; moves past it.
fn line<'a>(input: &'a [u8], position: &mut usize) -> Option<&'a [u8]> {
    let rest = input.get(*position..)?;
    let length = rest.iter().position(|byte| *byte == b'\r')?;
    if rest.len() < length + 2 {
        return None;
    }
    *position += length + 2;
    Some(&rest[..length])
}

/// An unsigned decimal of at most nine digits.
fn decimal(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |value, digit| value * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$7\r\nws:room\r\n$4\r\n{\r\n}\r\n";

    #[test]
    fn a_message_is_read_only_when_it_is_all_there() {
        for end in 0..MESSAGE.len() {
            assert!(parse_push(&MESSAGE[..end]).unwrap().is_none(), "{end} bytes");
        }
        let (push, used) = parse_push(MESSAGE).unwrap().unwrap();
        assert_eq!(used, MESSAGE.len());
        assert_eq!(push, Push { kind: b"message", channel: b"ws:room", payload: b"{\r\n}" });
    }

    #[test]
    fn a_confirmation_carries_its_count() {
        let input = b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:12\r\nrest";
        let (push, used) = parse_push(input).unwrap().unwrap();
        assert_eq!(used, input.len() - 4);
        assert_eq!(push, Push { kind: b"subscribe", channel: b"a", payload: b"12" });
    }

    #[test]
    fn what_is_not_a_push_is_an_error() {
        for input in [&b"+OK\r\n"[..], b"*2\r\n", b"*3\r\n$-1\r\n", b"*3\r\n$x\r\n", b"-NOPERM\r\n"]
        {
            assert!(parse_push(input).is_err());
        }
    }

    #[test]
    fn an_answer_is_a_line_or_a_bulk_string() {
        let mut input = &b"+OK\r\n$4\r\na\r\nb\r\n:12\r\n-ERR no\r\n*1\r\n$-1\r\n"[..];
        for expected in ["OK", "a\r\nb", "12"] {
            assert_eq!(read_answer(&mut input).unwrap(), expected);
        }
        for part in ["ERR no", "*1", "$-1", "\"\""] {
            let error = read_answer(&mut input).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        write_command(&mut out, [&b"SUBSCRIBE"[..], b"a"].into_iter());
        assert_eq!(out, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n");
    }
}
