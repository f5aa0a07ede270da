//! Payload encryption of the client wire: keys agreed on, messages sealed and opened.
//!
//! Owns the cryptography of one session (ECDH on P-256, HKDF-SHA-256, AES-256-GCM, the same as class
//! `ECDH` of the TypeScript fleet) and of rooms, what a client holds of both, and how a sealed message is written. It must never do
//! IO, decide who gets a key, or let an IV out twice under one key. A sealed message is a third larger
//! than what is in it, and some hundred bytes; it is sealed where it lies in the outgoing frame.
//!
//! **Randomness** comes from aws-lc's own generator, seeded by the operating system: it makes the
//! ephemeral keys in any case, and ends the process rather than give bytes that are not random.
//!
//! **IVs** of a [`Key`] are a counter of 96 bits that begins at a random point, so that they cannot
//! repeat. The other side of a session uses the same key with IVs of its own, random ones in the
//! fleet's clients: that it hits one of the `n` that are used here has a chance of `n / 2^96` for each
//! message, less than 2^-32 after 2^32 messages each way, the bound that NIST SP 800-38D sets for
//! random IVs alone. A client that counts from zero, or from a random point, meets them as rarely,
//! since the point here is random in all 96 bits. Room keys seal in one direction only.

mod base64;
mod keyring;
mod seal;

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

pub use self::keyring::{Keyring, KeyringError, Opened};
pub use self::seal::inner_variant;
use crate::json;

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Bytes of an IV.
const IV_BYTES: usize = 12;

/// Bytes of the tag behind a ciphertext.
const TAG_BYTES: usize = 16;

/// Bytes of a session's salt.
const SALT_BYTES: usize = 32;

/// Bytes of an uncompressed point of the curve, and what it begins with; other forms are refused.
const PUBLIC_KEY_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;

/// What the session's key is derived for: the default of the fleet's class.
const SESSION_INFO: &[u8] = b"ignis-ecdh-p256-aes-256-gcm-v1";

/// IVs are counted within 96 bits.
const IV_MASK: u128 = (1 << (8 * IV_BYTES)) - 1;

/// aws-lc ends the process rather than return without.
const RANDOM: &str = "the generator gives random bytes or ends the process";

/// The peer's half of a key agreement is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// The public key is no uncompressed point in base64, or the salt is no base64.
    #[error("the public key or the salt is malformed")]
    Malformed,
    /// The public key is no point of the curve.
    #[error("the public key is no point of the curve")]
    NoPoint,
}

/// A sealed message could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// `iv` or `ct` is absent, not base64, or too short.
    #[error("the sealed message is malformed")]
    Malformed,
    /// It was sealed under another key, or changed on its way.
    #[error("the sealed message does not verify")]
    Unverified,
    /// What was sealed is not UTF-8.
    #[error("the sealed text is not UTF-8")]
    NotUtf8,
}

/// One side of a key agreement, whose private half is used once and forgotten.
#[derive(Debug)]
pub struct Offer {
    private: EphemeralPrivateKey,
    public_key: String,
}

/// What a server answers to a client's public key, and the key that both have then.
#[derive(Debug)]
pub struct Agreement {
    /// The server's public key, in base64: `serverPublicKey` of `connected`.
    pub server_public_key: String,
    /// The salt, in base64: `salt` of `connected`.
    pub salt: String,
    /// The session's key.
    pub key: Key,
}

/// A key that seals and opens messages; its IVs cannot repeat.
pub struct Key {
    cipher: LessSafeKey,
    /// The IV of the next message.
    next_iv: u128,
    /// Messages sealed.
    sealed: u64,
}

/// A key that seals what a room gets, for all members that it was handed to.
#[derive(Debug)]
pub struct RoomKey {
    kid: u64,
    key: Key,
    /// `data` of the `roomkey` that hands it over.
    handover: Box<str>,
}

// === impl Offer ===

impl Offer {
    /// With a fresh pair of keys.
    pub fn new() -> Self {
        let private =
            EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new()).expect(RANDOM);
        let public = private.compute_public_key().expect("the pair was made for this curve");
        Self { private, public_key: base64::encode(public.as_ref()) }
    }

    /// The public key, in base64.
    pub fn public_key(&self) -> &str {
        &self.public_key
    }

    /// The key that both sides have, from the other one's public key and the salt, both in base64.
    pub fn accept(self, public_key: &str, salt: &str) -> Result<Key, AgreementError> {
        let public_key = base64::decode(public_key)
            .filter(|bytes| bytes.len() == PUBLIC_KEY_BYTES && bytes[0] == UNCOMPRESSED)
            .ok_or(AgreementError::Malformed)?;
        let salt = base64::decode(salt).ok_or(AgreementError::Malformed)?;
        let peer = UnparsedPublicKey::new(&ECDH_P256, public_key);
        agree_ephemeral(self.private, peer, AgreementError::NoPoint, |shared| {
            Ok(Key::from_bytes(&derive(shared, &salt)))
        })
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self::new()
    }
}

/// The bytes of a session's key.
fn derive(shared: &[u8], salt: &[u8]) -> [u8; KEY_BYTES] {
    let secret = Salt::new(HKDF_SHA256, salt).extract(shared);
    let mut key = [0; KEY_BYTES];
    let derived = secret.expand(&[SESSION_INFO], KeyLength);
    derived.and_then(|derived| derived.fill(&mut key)).expect("HKDF gives 32 bytes");
    key
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

// === impl Agreement ===

impl Agreement {
    /// Agrees with a client, whose public key is in base64. Key pair and salt are fresh each time, so
    /// that no session's key tells anything of another's.
    pub fn with(client_public_key: &str) -> Result<Self, AgreementError> {
        let offer = Offer::new();
        let server_public_key = offer.public_key.clone();
        let salt = base64::encode(&random::<SALT_BYTES>());
        let key = offer.accept(client_public_key, &salt)?;
        Ok(Self { server_public_key, salt, key })
    }
}

// === impl Key ===

impl Key {
    /// From its bytes. Two that are made of the same bytes begin at different IVs, but only chance keeps
    /// them apart: a key has one of these on each side.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let cipher = UnboundKey::new(&AES_256_GCM, bytes).expect("a key has 32 bytes");
        let mut begin = [0; size_of::<u128>()];
        begin[..IV_BYTES].copy_from_slice(&random::<IV_BYTES>());
        Self { cipher: LessSafeKey::new(cipher), next_iv: u128::from_le_bytes(begin), sealed: 0 }
    }

    /// From its bytes in base64, as `roomkey` hands it over.
    pub fn from_base64(text: &str) -> Option<Self> {
        base64::decode(text)?.as_slice().try_into().ok().map(Self::from_bytes)
    }

    /// Messages sealed.
    pub fn sealed(&self) -> u64 {
        self.sealed
    }

    /// Opens a sealed message: `data` is the JSON text of its data. Returns what was sealed.
    pub fn open(&self, data: &str) -> Result<String, OpenError> {
        let [iv, text] = json::members(data, &["iv", "ct"]).map_err(|_| OpenError::Malformed)?;
        self.open_members(iv, text)
    }

    /// From the JSON texts of the members.
    fn open_members(&self, iv: Option<&str>, text: Option<&str>) -> Result<String, OpenError> {
        let [iv, text] = [iv, text].map(|member| base64::decode(&json::unescape(member?)?));
        let (Some(iv), Some(mut text)) = (iv, text) else { return Err(OpenError::Malformed) };
        let iv = <[u8; IV_BYTES]>::try_from(iv).map_err(|_| OpenError::Malformed)?;
        if text.len() < TAG_BYTES {
            return Err(OpenError::Malformed);
        }
        let nonce = Nonce::assume_unique_for_key(iv);
        let length = self
            .cipher
            .open_in_place(nonce, Aad::empty(), &mut text)
            .map_err(|_| OpenError::Unverified)?
            .len();
        text.truncate(length);
        String::from_utf8(text).map_err(|_| OpenError::NotUtf8)
    }

    /// The IV of the next message, which no other message gets.
    fn take_iv(&mut self) -> [u8; IV_BYTES] {
        let iv = self.next_iv;
        self.next_iv = (iv + 1) & IV_MASK;
        self.sealed += 1;
        let [bytes @ .., _, _, _, _] = iv.to_le_bytes();
        bytes
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("sealed", &self.sealed).finish_non_exhaustive()
    }
}

// === impl RoomKey ===

impl RoomKey {
    /// A fresh key for a room; `kid` is a number below 2^53 that no other key of the edge has.
    pub fn new(room: &str, kid: u64) -> Self {
        debug_assert!(kid < 1 << 53, "JavaScript reads it as a number");
        let bytes = random::<KEY_BYTES>();
        let (name, key) = (json::string(room), base64::encode(&bytes));
        let handover = format!("{{\"room\":{name},\"kid\":{kid},\"key\":\"{key}\"}}").into();
        Self { kid, key: Key::from_bytes(&bytes), handover }
    }

    /// Its number.
    pub fn kid(&self) -> u64 {
        self.kid
    }

    /// Messages sealed.
    pub fn sealed(&self) -> u64 {
        self.key.sealed
    }

    /// `data` of the `roomkey` that hands it over, as JSON text: to be sealed under a session's key.
    pub fn handover(&self) -> &str {
        &self.handover
    }
}

fn random<const BYTES: usize>() -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).expect(RANDOM);
    bytes
}

#[cfg(test)]
#[path = "crypto/tests.rs"]
mod tests;
