//! RESP: commands written, replies read.
//!
//! Pure. The reply to a publish is one line with a number, and is read here; everything else goes to
//! `redis-protocol`. It owns nothing; how much may be buffered is for the caller to bound.

use redis_protocol::resp3::{decode::complete::decode, types::OwnedFrame};

/// What Redis says to a command.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// It was done.
    Value(OwnedFrame),
    /// It was not, with Redis' words.
    Refused(String),
}

/// The stream is not RESP3; this is what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("redis sent something that is not RESP3: {0}")]
pub struct NotResp(pub String);

/// Appends a command of these parts, its name first.
pub(super) fn write_command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    begin_command(out, parts.len());
    for part in parts {
        write_part(out, part);
    }
}

/// Begins a command of so many parts, its name included.
pub fn begin_command(out: &mut Vec<u8>, parts: usize) {
    write_length(out, b'*', parts);
}

/// Appends the next part of the command that was begun.
pub fn write_part(out: &mut Vec<u8>, part: &[u8]) {
    write_length(out, b'$', part.len());
    out.extend_from_slice(part);
    out.extend_from_slice(b"\r\n");
}

fn write_length(out: &mut Vec<u8>, marker: u8, length: usize) {
    let mut digits = [0; 20];
    let mut rest = length;
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + u8::try_from(rest % 10).expect("one digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.push(marker);
    out.extend_from_slice(&digits[first..]);
    out.extend_from_slice(b"\r\n");
}

/// Reads the reply at the front; `None` if it is not whole yet. Returns the bytes it took.
pub(super) fn read_reply(buffer: &[u8]) -> Result<Option<(Reply, usize)>, NotResp> {
    if let Some((number, taken)) = read_number(buffer) {
        return Ok(Some((
            Reply::Value(OwnedFrame::Number { data: number, attributes: None }),
            taken,
        )));
    }
    let decoded = decode(buffer).map_err(|error| NotResp(error.to_string()))?;
    decoded
        .map(|(frame, taken)| match frame {
            OwnedFrame::SimpleError { data, .. } => Ok((Reply::Refused(data), taken)),
            OwnedFrame::BlobError { data, .. } => {
                Ok((Reply::Refused(String::from_utf8_lossy(&data).into_owned()), taken))
            }
            // Nothing that pushes is ever asked for.
            OwnedFrame::Push { .. } => Err(NotResp("a push".to_owned())),
            frame => Ok((Reply::Value(frame), taken)),
        })
        .transpose()
}

/// `:12\r\n`, whole and of a usual length.
fn read_number(buffer: &[u8]) -> Option<(i64, usize)> {
    let digits = buffer.strip_prefix(b":")?;
    let length = digits.iter().take(12).position(|byte| !byte.is_ascii_digit())?;
    if length == 0 || !digits[length..].starts_with(b"\r\n") {
        return None;
    }
    let number =
        digits[..length].iter().fold(0, |number, byte| 10 * number + i64::from(byte - b'0'));
    Some((number, length + 3))
}

/// The text of a reply, or of a part of one.
pub fn text(frame: &OwnedFrame) -> Option<&str> {
    match frame {
        OwnedFrame::BlobString { data, .. }
        | OwnedFrame::SimpleString { data, .. }
        | OwnedFrame::VerbatimString { data, .. } => std::str::from_utf8(data).ok(),
        _ => None,
    }
}

/// The number, likewise; some commands answer it as text.
pub(super) fn number(frame: &OwnedFrame) -> Option<u64> {
    match frame {
        OwnedFrame::Number { data, .. } => u64::try_from(*data).ok(),
        other => text(other)?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_their_parts() {
        let mut out = Vec::new();
        write_command(&mut out, &[b"PUBLISH", b"", &[b'x'; 107]]);
        let expected = format!("*3\r\n$7\r\nPUBLISH\r\n$0\r\n\r\n$107\r\n{}\r\n", "x".repeat(107));
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn a_reply_is_read_when_it_is_whole() {
        let value = |data| Reply::Value(OwnedFrame::Number { data, attributes: None });
        for (bytes, expected) in [
            (&b":0\r\n:1\r\n"[..], Some((value(0), 4))),
            (b":123456789012345\r\n", Some((value(123_456_789_012_345), 18))),
            (b":-1\r\n", Some((value(-1), 5))),
            (b"-NOPERM no\r\nx", Some((Reply::Refused("NOPERM no".to_owned()), 12))),
            (b"", None),
            (b":", None),
            (b":1", None),
            (b":1\r", None),
            (b"$5\r\nhe", None),
            (b"*2\r\n:1\r\n", None),
        ] {
            assert_eq!(read_reply(bytes).unwrap(), expected, "{}", bytes.escape_ascii());
        }
        for bytes in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b":x\r\n", b">1\r\n$1\r\na\r\n"] {
            assert!(read_reply(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn texts_and_numbers_are_taken_from_either() {
        let (reply, _) = read_reply(b"*3\r\n$2\r\n17\r\n+a\r\n:5\r\n").unwrap().unwrap();
        let Reply::Value(OwnedFrame::Array { data, .. }) = reply else { panic!("{reply:?}") };
        assert_eq!(data.iter().map(text).collect::<Vec<_>>(), [Some("17"), Some("a"), None]);
        assert_eq!(data.iter().map(number).collect::<Vec<_>>(), [Some(17), None, Some(5)]);
    }
}
