//! Which room names a client may ask for.
//!
//! Owns the syntax of a requested name. It must never decide who may enter: that is the room policy's.

use crate::{id::ClientId, limits::ROOM_NAME_UTF16_MAX};

/// What a name may not start with: channels of Signal itself begin so.
pub const RESERVED_PREFIX: &str = "ws:";

/// UTF-8 bytes that one UTF-16 code unit stands for, at most (a surrogate pair is four for two).
const UTF8_BYTES_PER_UTF16_MAX: usize = 3;

/// Why a name is refused before any policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RoomNameError {
    /// No characters.
    #[error("the room name is empty")]
    Empty,
    /// Beyond [`ROOM_NAME_UTF16_MAX`] UTF-16 code units.
    #[error("the room name is longer than {ROOM_NAME_UTF16_MAX} characters")]
    TooLong,
    /// Begins with [`RESERVED_PREFIX`].
    #[error("room names that start with \"{RESERVED_PREFIX}\" are reserved")]
    Reserved,
    /// Reads as a client id. Every client is in the room of its own id, so anybody else in it would
    /// hear what is sent to that client; a caller lets a client leave and re-enter its own.
    #[error("the room of a client id belongs to that client")]
    ClientId,
}

/// Checks a name that a client wants to join.
pub fn validate_requested(name: &str) -> Result<(), RoomNameError> {
    if name.is_empty() {
        return Err(RoomNameError::Empty);
    }
    if is_too_long(name) {
        return Err(RoomNameError::TooLong);
    }
    if name.starts_with(RESERVED_PREFIX) {
        return Err(RoomNameError::Reserved);
    }
    if ClientId::parse(name).is_some() {
        return Err(RoomNameError::ClientId);
    }
    Ok(())
}

/// Counts only the names whose byte length does not tell already.
fn is_too_long(name: &str) -> bool {
    if name.len() <= ROOM_NAME_UTF16_MAX {
        return false;
    }
    name.len() > UTF8_BYTES_PER_UTF16_MAX * ROOM_NAME_UTF16_MAX
        || name.encode_utf16().count() > ROOM_NAME_UTF16_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_their_verdicts() {
        let own = ClientId::from_parts(1, 2, 3, 4).to_string();
        let cases: &[(&str, Result<(), RoomNameError>)] = &[
            ("lobby", Ok(())),
            ("branch:12", Ok(())),
            ("ws", Ok(())),
            ("ws-default", Ok(())),
            (" ", Ok(())),
            ("0c5cbf4e-40d1-4c8b-9b9b-000000000000", Ok(())),
            ("", Err(RoomNameError::Empty)),
            ("ws:", Err(RoomNameError::Reserved)),
            ("ws:room:lobby", Err(RoomNameError::Reserved)),
            (&own, Err(RoomNameError::ClientId)),
            (&own.to_uppercase(), Err(RoomNameError::ClientId)),
        ];
        for (name, verdict) in cases {
            assert_eq!(validate_requested(name), *verdict, "{name}");
        }
    }

    #[test]
    fn length_is_counted_in_utf16_units() {
        for character in ["a", "é", "€", "𝄞"] {
            let units = character.encode_utf16().count();
            let longest = character.repeat(ROOM_NAME_UTF16_MAX / units);
            assert_eq!(validate_requested(&longest), Ok(()), "{character}");
            let longer = format!("{longest}a");
            assert_eq!(validate_requested(&longer), Err(RoomNameError::TooLong), "{character}");
        }
    }
}
