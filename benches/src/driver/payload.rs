//! The message that is measured, built from a template and read back at fixed places.
//!
//! Owns its layout: numbers have a fixed width, so that building one is a copy and reading one is
//! a comparison and two parses. The driver must cost little beside the server. Never allocates per
//! message.

use std::ops::Range;

use signal_core::channel::{ChannelNames, Target};

use super::dialect::Dialect;

/// Bytes of the delivered text, `{"event":…,"data":…}`: the 256 B of the budgets.
pub const TEXT_BYTES: usize = 256;

/// Sequence numbers and times start here, so that they have ten digits and no leading zero.
pub const NUMBER_BASE: u64 = 1_000_000_000;

/// The room that is measured.
pub const ROOM: &str = "bench";

/// What every client of the measured audience gets before the load begins.
pub const MARKER_EVENT: &str = "marker";

const DIGITS: usize = 10;
const HEAD: &str = r#"{"event":"bench","data":{"seq":"#;
const MIDDLE: &str = r#","ts":"#;
const TAIL: &str = r#","pad":""#;
const END: &str = r#""}}"#;
/// What a client of `signal.v1` gets in place of the last brace.
const ADDRESS: &str = r#","to":{"room":"bench"}}"#;
const SEQUENCE_AT: usize = HEAD.len();
const TIME_AT: usize = SEQUENCE_AT + DIGITS + MIDDLE.len();
const PAD_BYTES: usize = TEXT_BYTES - (TIME_AT + DIGITS + TAIL.len() + END.len());
/// Where `data` starts in the delivered text.
const DATA_AT: usize = r#"{"event":"bench","data":"#.len();

/// The user id of a client, all of one width.
pub fn user_id(client: u32) -> String {
    format!("u{client:05}")
}

/// Sequence number and time of sending, in microseconds, of a delivered text; `None` if it is not
/// a measured message, whole and as it was sent.
pub fn parse(text: &[u8]) -> Option<(u64, u64)> {
    let (text, end) = match text.strip_suffix(ADDRESS.as_bytes()) {
        Some(text) => (text, &END[..END.len() - 1]),
        None => (text, END),
    };
    let length = TEXT_BYTES - END.len() + end.len();
    if text.len() != length || !text.starts_with(HEAD.as_bytes()) {
        return None;
    }
    if !text.ends_with(end.as_bytes()) {
        return None;
    }
    let sequence = read_number(&text[SEQUENCE_AT..SEQUENCE_AT + DIGITS])?;
    let time = read_number(&text[TIME_AT..TIME_AT + DIGITS])?;
    Some((sequence, time))
}

/// The same of a text of another server: the numbers may stand anywhere in it, as strings too, and all of
/// it within a string.
pub(super) fn find(text: &[u8]) -> Option<(u64, u64)> {
    let number = |name: &[u8]| {
        let start = text.windows(name.len()).position(|window| window == name)? + name.len();
        let start = start + usize::from(text.get(start) == Some(&b'"'));
        read_number(text.get(start..start + DIGITS)?)
    };
    let sequence = number(b"\"seq\":").or_else(|| number(b"\\\"seq\\\":"))?;
    Some((sequence, number(b"\"ts\":").or_else(|| number(b"\\\"ts\\\":"))?))
}

/// Who a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Every client, as members of [`ROOM`].
    Room,
    /// One client, by its user id.
    User,
    /// The clients of one of many rooms, ten to a room.
    Rooms,
}

/// Members of each of many rooms.
pub const ROOM_MEMBERS: usize = 10;

/// The room of a client, where there are many; as wide as a user id.
pub fn room_of(client: u32) -> String {
    room_number(room_index(client))
}

/// The number of a client's room.
pub(super) fn room_index(client: u32) -> u32 {
    client / u32::try_from(ROOM_MEMBERS).expect("rooms are small")
}

/// One of many rooms.
pub(super) fn room_number(number: u32) -> String {
    format!("r{number:05}")
}

/// The envelope that the TypeScript emitter would send, and the channel that it would send it to.
///
/// `target` is the number of the client or of the room.
pub fn envelope(audience: Audience, target: u32, event: &str, data: &str) -> (String, String) {
    match audience {
        Audience::Room => addressed(Target::Room(ROOM), event, data),
        Audience::User => addressed(Target::User(&user_id(target)), event, data),
        Audience::Rooms => addressed(Target::Room(&room_number(target)), event, data),
    }
}

/// The same for any target: the channel, and the envelope.
pub fn addressed(target: Target<'_>, event: &str, data: &str) -> (String, String) {
    let (kind, name) = match target {
        Target::Broadcast => ("broadcast", None),
        Target::Room(room) => ("room", Some(room)),
        Target::User(user) => ("user", Some(user)),
        Target::Client(client) => ("client", Some(client)),
    };
    let name = name.map_or(String::new(), |name| format!(r#""target":"{name}","#));
    let text = format!(
        r#"{{"serverId":"emitter","type":"{kind}",{name}"event":"{event}","data":{data}}}"#
    );
    (ChannelNames::default().name(target), text)
}

/// The data of a measured message.
pub fn data(sequence: u64, time_micros: u64) -> String {
    let text = text(NUMBER_BASE + sequence, NUMBER_BASE + time_micros);
    // Without the brace that closes the text.
    text[DATA_AT..TEXT_BYTES - 1].to_owned()
}

/// A delivered text, with its two numbers as they are written.
fn text(sequence: u64, time: u64) -> String {
    format!("{HEAD}{sequence}{MIDDLE}{time}{TAIL}{}{END}", "x".repeat(PAD_BYTES))
}

/// A whole PUBLISH command with three places to fill in.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    sequence: Range<usize>,
    time: Range<usize>,
    /// The user id or the room: in the channel and in the envelope. Empty for the one room.
    targets: Vec<Range<usize>>,
}

// === impl Template ===

impl Template {
    /// Builds the command for an audience.
    pub fn new(dialect: Dialect, audience: Audience) -> Self {
        let bytes = dialect.command(audience, 0, "bench", &data(0, 0));
        let numbers = places(&bytes, NUMBER_BASE.to_string().as_bytes());
        let [sequence, time] = &numbers[..] else { panic!("a message has two numbers") };
        let (sequence, time) = (sequence.clone(), time.clone());
        let targets = match audience {
            Audience::Room => Vec::new(),
            Audience::User => places(&bytes, user_id(0).as_bytes()),
            Audience::Rooms => places(&bytes, room_number(0).as_bytes()),
        };
        Self { bytes, sequence, time, targets }
    }

    /// Appends the command for one message.
    pub fn write(&self, out: &mut Vec<u8>, sequence: u64, time_micros: u64, target: u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let command = &mut out[start..];
        write_number(&mut command[self.sequence.clone()], NUMBER_BASE + sequence);
        write_number(&mut command[self.time.clone()], NUMBER_BASE + time_micros);
        for place in &self.targets {
            write_number(&mut command[place.start + 1..place.end], u64::from(target));
        }
    }
}

fn places(bytes: &[u8], wanted: &[u8]) -> Vec<Range<usize>> {
    let windows = bytes.windows(wanted.len()).enumerate();
    let found = windows.filter(|(_, window)| *window == wanted);
    found.map(|(start, _)| start..start + wanted.len()).collect()
}

fn write_number(place: &mut [u8], mut value: u64) {
    for digit in place.iter_mut().rev() {
        // The remainder is below ten.
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// A number as [`Template::write`] wrote it, without its base.
fn read_number(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    value.checked_sub(NUMBER_BASE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_what_was_filled_in() {
        for (audience, channel) in [
            (Audience::Room, "ws:room:bench"),
            (Audience::User, "ws:user:u00042"),
            (Audience::Rooms, "ws:room:r00042"),
        ] {
            let mut command = Vec::new();
            Template::new(Dialect::Signal, audience).write(&mut command, 7, 123_456, 42);
            let command = String::from_utf8(command).unwrap();
            assert!(command.contains(&format!("\r\n{channel}\r\n")), "{command}");
            let envelope = command.trim_end().rsplit("\r\n").next().unwrap();
            let envelope: serde_json::Value = serde_json::from_str(envelope).unwrap();
            assert_eq!(envelope["data"]["seq"], NUMBER_BASE + 7);
            let target = channel.rsplit(':').next().unwrap();
            assert_eq!(envelope["target"], target);

            let data_at = command.find(r#"{"seq""#).unwrap();
            let data = &command[data_at..command.len() - 3];
            let text = format!(r#"{{"event":"bench","data":{data}}}"#);
            assert_eq!(parse(text.as_bytes()), Some((7, 123_456)));
        }
    }

    #[test]
    fn every_target_has_its_channel() {
        let (channel, envelope) = addressed(Target::Client("c"), "bench", &data(7, 123_456));
        assert_eq!(channel, "ws:client:c");
        let envelope: serde_json::Value = serde_json::from_str(&envelope).unwrap();
        assert_eq!((&envelope["type"], &envelope["target"]), (&"client".into(), &"c".into()));
        let text = format!(r#"{{"event":"bench","data":{}}}"#, data(7, 123_456));
        assert_eq!(parse(text.as_bytes()), Some((7, 123_456)));
        let (channel, envelope) = addressed(Target::Broadcast, "bench", "1");
        assert_eq!(channel, "ws:broadcast");
        assert!(!envelope.contains("target"), "{envelope}");
    }

    #[test]
    fn a_text_that_is_cut_or_changed_is_not_a_message() {
        let whole = text(NUMBER_BASE, NUMBER_BASE);
        assert_eq!(parse(whole.as_bytes()), Some((0, 0)));
        let addressed = format!("{}{ADDRESS}", &whole[..TEXT_BYTES - 1]);
        assert_eq!(parse(addressed.as_bytes()), Some((0, 0)));
        assert_eq!(parse(format!("{whole}{ADDRESS}").as_bytes()), None);
        assert_eq!(parse(&whole.as_bytes()[..TEXT_BYTES - 1]), None);
        assert_eq!(parse(whole.replace("\"seq\":1", "\"seq\":-").as_bytes()), None);
    }
}
