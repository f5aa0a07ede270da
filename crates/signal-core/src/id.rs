//! Client ids: UUIDs of version 8 that say which instance, worker and slot own a client.
//!
//! Owns the layout, the text form and the parser. It must never draw random numbers or look at the
//! clock: the caller brings every bit. An id is 16 bytes and its text always 36.
//!
//! ```text
//! bits  0..48   instance tag
//! bits 48..52   version, 8
//! bits 52..64   random, upper 12 of 38 bits
//! bits 64..66   variant, binary 10 (RFC 9562)
//! bits 66..74   worker
//! bits 74..102  slot of the worker's table
//! bits 102..128 random, lower 26 of 38 bits
//! ```

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes in the text form.
pub const CLIENT_ID_TEXT_BYTES: usize = 36;

const VERSION: u128 = 8 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 0b10 << 62;
const VARIANT_MASK: u128 = 0b11 << 62;

const INSTANCE_BITS: u32 = 48;
const WORKER_SHIFT: u32 = 54;
const SLOT_BITS: u32 = 28;
const SLOT_SHIFT: u32 = 26;
const RANDOM_LOW_BITS: u32 = 26;
const RANDOM_BITS: u32 = 38;
const RANDOM_HIGH_SHIFT: u32 = 64;

const _: () = assert!(RANDOM_LOW_BITS + SLOT_BITS + u8::BITS + 2 == 64);

/// The id of one connection, given at upgrade and never used again.
///
/// The random bits make it unguessable enough to tell two lives of one slot apart; they are no
/// secret, and nothing may be allowed for knowing an id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId([u8; 16]);

// === impl ClientId ===

impl ClientId {
    /// Puts an id together. Bits beyond a field's width are dropped.
    ///
    /// `instance`: lower 48 bits; `slot`: lower 28; `random`: lower 38.
    pub const fn from_parts(instance: u64, worker: u8, slot: u32, random: u64) -> Self {
        let instance = low_bits(instance, INSTANCE_BITS) << (128 - INSTANCE_BITS);
        let random_high = low_bits(random >> RANDOM_LOW_BITS, RANDOM_BITS - RANDOM_LOW_BITS);
        let worker = (worker as u128) << WORKER_SHIFT;
        let slot = low_bits(slot as u64, SLOT_BITS) << SLOT_SHIFT;
        let random_low = low_bits(random, RANDOM_LOW_BITS);
        let id = instance
            | VERSION
            | (random_high << RANDOM_HIGH_SHIFT)
            | VARIANT
            | worker
            | slot
            | random_low;
        Self(id.to_be_bytes())
    }

    /// The instance tag, 48 bits.
    pub const fn instance(self) -> u64 {
        (self.bits() >> (128 - INSTANCE_BITS)) as u64
    }

    /// The worker that owns the connection.
    #[expect(clippy::cast_possible_truncation, reason = "the field is the lowest 8 bits here")]
    pub const fn worker(self) -> u8 {
        (self.bits() >> WORKER_SHIFT) as u8
    }

    /// The slot in the worker's table, 28 bits.
    pub const fn slot(self) -> u32 {
        ((self.bits() >> SLOT_SHIFT) & ((1 << SLOT_BITS) - 1)) as u32
    }

    /// The 16 bytes, most significant first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the 36-character hyphenated form, in any case.
    ///
    /// Anything but a version-8 UUID of the RFC 9562 variant is `None`, so that ids can be told
    /// from UUIDs that serve as room names.
    pub fn parse(text: &str) -> Option<Self> {
        let text: &[u8; CLIENT_ID_TEXT_BYTES] = text.as_bytes().try_into().ok()?;
        let mut bits = 0_u128;
        for (index, &byte) in text.iter().enumerate() {
            if is_hyphen(index) {
                if byte != b'-' {
                    return None;
                }
            } else {
                bits = (bits << 4) | u128::from(char::from(byte).to_digit(16)?);
            }
        }
        let valid = bits & VERSION_MASK == VERSION && bits & VARIANT_MASK == VARIANT;
        valid.then_some(Self(bits.to_be_bytes()))
    }

    /// The text form, lower case.
    pub fn encode(self) -> [u8; CLIENT_ID_TEXT_BYTES] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b'-'; CLIENT_ID_TEXT_BYTES];
        let mut at = 0;
        for byte in self.0 {
            if is_hyphen(at) {
                at += 1;
            }
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0xf)];
            at += 2;
        }
        text
    }

    const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.encode();
        formatter.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<ClientId> for Cow<'_, str> {
    fn from(id: ClientId) -> Self {
        Self::Owned(id.to_string())
    }
}

impl Serialize for ClientId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClientId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(ClientIdVisitor)
    }
}

struct ClientIdVisitor;

impl de::Visitor<'_> for ClientIdVisitor {
    type Value = ClientId;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a client id (a UUID of version 8)")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ClientId, E> {
        ClientId::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

const fn low_bits(value: u64, bits: u32) -> u128 {
    (value & ((1 << bits) - 1)) as u128
}

const fn is_hyphen(index: usize) -> bool {
    matches!(index, 8 | 13 | 18 | 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_as_documented() {
        let id = ClientId::from_parts(0x0123_4567_89ab, 0xcd, 0x0fed_cba9, 0x2a_f3ff_ffff);
        assert_eq!(id.to_string(), "01234567-89ab-8abc-b37f-b72ea7ffffff");
        assert_eq!(id.instance(), 0x0123_4567_89ab);
        assert_eq!(id.worker(), 0xcd);
        assert_eq!(id.slot(), 0x0fed_cba9);
    }

    #[test]
    fn bits_beyond_a_field_are_dropped() {
        let id = ClientId::from_parts(u64::MAX, 0, 0, 0);
        assert_eq!(id.to_string(), "ffffffff-ffff-8000-8000-000000000000");
        let id = ClientId::from_parts(0, 0, u32::MAX, 0);
        assert_eq!((id.worker(), id.slot()), (0, (1 << 28) - 1));
        let id = ClientId::from_parts(0, 0, 0, u64::MAX);
        assert_eq!(id.to_string(), "00000000-0000-8fff-8000-000003ffffff");
    }

    #[test]
    fn parse_takes_version_8_of_the_rfc_variant_only() {
        let id = ClientId::from_parts(7, 1, 2, 3);
        assert_eq!(ClientId::parse(&id.to_string()), Some(id));
        assert_eq!(ClientId::parse(&id.to_string().to_uppercase()), Some(id));
        for other in [
            "",
            "00000000-0007-4000-8040-00000800000",
            "00000000-0007-4000-8040-000008000003",
            "00000000-0007-8000-c040-000008000003",
            "00000000-0007-8000-0040-000008000003",
            "0000000000007-8000-8040-000008000003",
            "0000000-00007-8000-8040-000008000003",
            "00000000-0007-8000-8040-00000800000g",
            "00000000-0007-8000-8040-+00008000003",
            "{00000000-0007-8000-8040-00000800000}",
            "00000000000780008040000008000003",
            "00000000-0007-8000-8040-00000800000é",
        ] {
            assert_eq!(ClientId::parse(other), None, "{other}");
        }
    }

    #[test]
    fn serde_uses_the_text() {
        let id = ClientId::from_parts(7, 1, 2, 3);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<ClientId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<ClientId>("\"lobby\"").is_err());
    }
}
