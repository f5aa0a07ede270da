//! What a subscriber connection receives, decoded in place.
//!
//! Nearly all of it is one shape, the RESP3 push of three elements (`message`, channel, payload, or a
//! (un)subscribe's answer), which is read here without building values; everything else (replies,
//! errors, other pushes) goes to `redis-protocol`. Pure: it owns nothing, and bounds nothing but what
//! it says of a payload that is over the limit, whose bytes need not be buffered to be passed over.

use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use signal_emitter::connection::resp::NotResp;

/// One thing from the front of the buffer.
#[derive(Debug, PartialEq)]
pub(super) enum Received<'a> {
    /// A message on a channel.
    Message { channel: &'a [u8], payload: &'a [u8] },
    /// A message whose payload is over the limit; its bytes, from the front of the buffer on, are
    /// still to be passed over, however many have arrived.
    Oversized { channel: &'a [u8], bytes: usize },
    /// A channel's subscription (or its end) is confirmed.
    Answered { subscribe: bool, channel: &'a [u8] },
    /// The reply to a command that is no subscription.
    Reply(OwnedFrame),
    /// A command was refused, with Redis' words.
    Refused(String),
    /// A push that is of no concern.
    Other,
}

/// Bytes that the parts of a push before its payload may take; a channel name has at most 1 KiB or so.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Decodes what is at the front; `None` if it is not whole yet. Returns the bytes it took.
pub(super) fn decode_front(
    buffer: &[u8],
    payload_bytes_max: usize,
) -> Result<Option<(Received<'_>, usize)>, NotResp> {
    if let Some(outcome) = decode_push(buffer, payload_bytes_max) {
        return outcome;
    }
    let decoded = decode(buffer).map_err(|error| NotResp(error.to_string()))?;
    Ok(decoded.map(|(frame, taken)| {
        let received = match frame {
            OwnedFrame::SimpleError { data, .. } => Received::Refused(data),
            OwnedFrame::BlobError { data, .. } => {
                Received::Refused(String::from_utf8_lossy(&data).into_owned())
            }
            OwnedFrame::Push { .. } => Received::Other,
            frame => Received::Reply(frame),
        };
        (received, taken)
    }))
}

type Decoded<'a> = Result<Option<(Received<'a>, usize)>, NotResp>;

/// The common shape; `None` if the buffer does not begin with it.
fn decode_push(buffer: &[u8], payload_bytes_max: usize) -> Option<Decoded<'_>> {
    let mut rest = Reader { buffer, position: 0 };
    match buffer {
        [b'>', b'3', b'\r', b'\n', ..] => rest.position = 4,
        _ => return None,
    }
    let decoded = (|| {
        let kind = rest.bulk(HEAD_BYTES_MAX)?;
        let channel = rest.bulk(HEAD_BYTES_MAX)?;
        let subscribe = match kind {
            b"message" | b"smessage" => {
                let length = rest.length(b'$')?;
                let end = rest.position + length + 2;
                if length > payload_bytes_max {
                    return Ok((Received::Oversized { channel, bytes: end }, 0));
                }
                let payload = buffer.get(rest.position..end - 2).ok_or(Incomplete::More)?;
                buffer.get(end - 1).ok_or(Incomplete::More)?;
                return Ok((Received::Message { channel, payload }, end));
            }
            b"subscribe" | b"ssubscribe" => true,
            b"unsubscribe" | b"sunsubscribe" => false,
            _ => return Err(Incomplete::Unusual),
        };
        rest.length(b':')?;
        Ok((Received::Answered { subscribe, channel }, rest.position))
    })();
    match decoded {
        Ok(found) => Some(Ok(Some(found))),
        Err(Incomplete::More) if buffer.len() < HEAD_BYTES_MAX + payload_bytes_max => {
            Some(Ok(None))
        }
        Err(_) => None,
    }
}

enum Incomplete {
    /// More bytes are needed.
    More,
    /// Not the common shape.
    Unusual,
}

struct Reader<'a> {
    buffer: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    /// A line of a marker and a decimal number.
    fn length(&mut self, marker: u8) -> Result<usize, Incomplete> {
        let line = &self.buffer[self.position..];
        let (first, digits) = line.split_first().ok_or(Incomplete::More)?;
        if *first != marker {
            return Err(Incomplete::Unusual);
        }
        let mut value = 0_usize;
        for (index, byte) in digits.iter().enumerate() {
            match byte {
                b'0'..=b'9' if index < 18 => value = value * 10 + usize::from(byte - b'0'),
                b'\r' if index > 0 => {
                    // The marker, the digits, and the two bytes that end a line.
                    self.position += 1 + index + 2;
                    return if self.position <= self.buffer.len() {
                        Ok(value)
                    } else {
                        Err(Incomplete::More)
                    };
                }
                _ => return Err(Incomplete::Unusual),
            }
        }
        Err(Incomplete::More)
    }

    /// A bulk string of at most `bytes_max` bytes.
    fn bulk(&mut self, bytes_max: usize) -> Result<&'a [u8], Incomplete> {
        let length = self.length(b'$')?;
        if length > bytes_max {
            return Err(Incomplete::Unusual);
        }
        let end = self.position + length;
        let bytes = self.buffer.get(self.position..end).ok_or(Incomplete::More)?;
        self.buffer.get(end + 1).ok_or(Incomplete::More)?;
        self.position = end + 2;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(kind: &str, channel: &str, last: &str) -> Vec<u8> {
        format!(">3\r\n${}\r\n{kind}\r\n${}\r\n{channel}\r\n{last}\r\n", kind.len(), channel.len())
            .into_bytes()
    }

    fn check(input: &[u8], expected: &Received<'_>, taken: usize) {
        for end in 0..input.len() {
            let outcome = decode_front(&input[..end], 1024).unwrap();
            if !matches!(outcome, Some((Received::Oversized { .. }, _))) {
                assert_eq!(outcome, None, "cut at {end}");
            }
        }
        let mut more = input.to_vec();
        more.extend_from_slice(b">3\r\n$7\r\n");
        for input in [input, &more] {
            assert_eq!(
                decode_front(input, 1024).unwrap().as_ref(),
                Some(&(match_of(expected), taken))
            );
        }
    }

    fn match_of<'a>(received: &Received<'a>) -> Received<'a> {
        match received {
            Received::Message { channel, payload } => Received::Message { channel, payload },
            Received::Oversized { channel, bytes } => {
                Received::Oversized { channel, bytes: *bytes }
            }
            Received::Answered { subscribe, channel } => {
                Received::Answered { subscribe: *subscribe, channel }
            }
            Received::Reply(frame) => Received::Reply(frame.clone()),
            Received::Refused(words) => Received::Refused(words.clone()),
            Received::Other => Received::Other,
        }
    }

    #[test]
    fn each_kind_however_it_is_cut() {
        let input = push("message", "ws:room:a", "$5\r\nhe\r\no");
        let message = Received::Message { channel: b"ws:room:a", payload: b"he\r\no" };
        check(&input, &message, input.len());
        let input = push("subscribe", "ws:room:a", ":12");
        check(&input, &Received::Answered { subscribe: true, channel: b"ws:room:a" }, input.len());
        let input = push("unsubscribe", "x", ":0");
        check(&input, &Received::Answered { subscribe: false, channel: b"x" }, input.len());
        let input = push("ssubscribe", "{a}x", ":1");
        check(&input, &Received::Answered { subscribe: true, channel: b"{a}x" }, input.len());
        let input = push("smessage", "{a}x", "$1\r\n1");
        check(&input, &Received::Message { channel: b"{a}x", payload: b"1" }, input.len());
        let input = push("invalidate", "x", ":0");
        check(&input, &Received::Other, input.len());
        let input = b"-NOPERM no\r\n";
        check(input, &Received::Refused("NOPERM no".to_owned()), input.len());
    }

    #[test]
    fn a_payload_over_the_limit_is_known_before_it_has_come() {
        let head = push("message", "c", "$1025");
        let expected = Received::Oversized { channel: b"c", bytes: head.len() + 1025 + 2 };
        assert_eq!(decode_front(&head, 1024).unwrap(), Some((expected, 0)));
    }

    #[test]
    fn other_bytes_are_an_error() {
        assert!(decode_front(b"HTTP/1.1 200 OK\r\n\r\n", 1024).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_front(&input, 1024);
        }

        #[test]
        fn messages_come_back(channel in "[a-z:]{1,20}", payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = push("message", &channel, &format!("${}", payload.len()));
            input.extend_from_slice(&payload);
            input.extend_from_slice(b"\r\n");
            let expected = Received::Message { channel: channel.as_bytes(), payload: &payload };
            prop_assert_eq!(decode_front(&input, 1024).unwrap(), Some((expected, input.len())));
        }
    }
}
