//! The keys that tokens are signed with: what each may verify, and which a token is tried with.
//!
//! A key is bound to its algorithms when it is read: a secret to HMAC, an RSA key to RSA, a point to
//! the one of its curve. What a token's header says can only agree with that, so that no public key is
//! ever taken for a secret, and nothing is ever unsigned. A set never changes; it is read whole or not
//! at all, and is bounded in keys, as are those that one token is tried with.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The shortest secret for HS256 that is worth anything (RFC 7518 §3.2 asks for 256 bits).
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// What a secret is for, and from how many bytes on, by the same section: as long as the hash.
const HMAC: [(Algorithm, usize); 3] =
    [(Algorithm::HS256, SECRET_BYTES_MIN), (Algorithm::HS384, 48), (Algorithm::HS512, 64)];

/// Bytes of the smallest modulus of RSA: 2048 bits (RFC 7518 §3.3).
const RSA_BYTES_MIN: usize = 256;

/// Keys of a file: a rotation needs two, and a few issuers are common.
const FILE_KEYS_MAX: usize = 16;

/// Keys of a JSON Web Key Set. Issuers publish two to four.
const SET_KEYS_MAX: usize = 64;

/// Keys that a token is tried with that names none. Each try costs a signature's verification, which
/// anyone may ask for who can connect.
const ATTEMPTS_MAX: usize = 4;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// One key and what it may verify.
#[derive(Clone)]
pub(crate) struct Key {
    /// `kid` of a token that was signed with it.
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    pub(crate) decoding: DecodingKey,
}

/// Keys that tokens may be signed with; see the module.
#[derive(Clone, Default)]
pub struct KeySet(Vec<Key>);

/// Why something holds no keys.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A secret that can be guessed.
    #[error("a secret has fewer than {SECRET_BYTES_MIN} bytes")]
    ShortSecret,
    /// Nothing in it.
    #[error("there is no key")]
    Empty,
    /// More than anyone rotates through.
    #[error("there are more than {0} keys")]
    TooMany(usize),
    /// Not in the form of RFC 7468.
    #[error("there is no PEM")]
    NoPem,
    /// A PEM of something else: a private key above all, which has no business on an edge.
    #[error("there is a \"{0}\", allowed is \"PUBLIC KEY\"")]
    Tag(String),
    /// Of an algorithm or a size that is not supported.
    #[error("a key is not of RSA (2048 to 8192 bits), P-256, P-384 or Ed25519")]
    Unsupported,
    /// No `{"keys": [...]}`.
    #[error("it is no JSON Web Key Set")]
    NoKeySet(#[source] serde_json::Error),
}

/// What is read of a JSON Web Key (RFC 7517); secret ones are passed over, whatever they say.
#[derive(Deserialize)]
struct WebKey {
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    #[serde(flatten)]
    material: Material,
}

#[derive(Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
    #[serde(rename = "EC")]
    Ec { x: String, y: String },
    #[serde(rename = "OKP")]
    Ed { crv: String, x: String },
}

// === impl Key ===

impl Key {
    fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        let algorithms: Vec<Algorithm> = HMAC
            .iter()
            .filter(|(_, bytes_min)| secret.len() >= *bytes_min)
            .map(|(algorithm, _)| *algorithm)
            .collect();
        match algorithms.is_empty() {
            true => Err(KeyError::ShortSecret),
            false => Ok(Self::new(&algorithms, DecodingKey::from_secret(secret))),
        }
    }

    fn new(algorithms: &[Algorithm], decoding: DecodingKey) -> Self {
        Self { id: None, algorithms: algorithms.to_vec(), decoding }
    }

    /// A public key as it stands in a PEM file.
    fn from_pem(pem: &pem::Pem) -> Result<Self, KeyError> {
        if !["PUBLIC KEY", "RSA PUBLIC KEY"].contains(&pem.tag()) {
            return Err(KeyError::Tag(pem.tag().to_owned()));
        }
        let text = pem::encode(pem);
        let text = text.as_bytes();
        if let Ok(key) = DecodingKey::from_rsa_pem(text) {
            let der = key.try_get_as_bytes().map_err(|_| KeyError::Unsupported)?;
            let is_usable = der.len() > RSA_BYTES_MIN && is_key(&RSA_PKCS1_2048_8192_SHA256, der);
            return is_usable.then(|| Self::new(RSA, key)).ok_or(KeyError::Unsupported);
        }
        let key = DecodingKey::from_ec_pem(text).map(Self::from_point);
        let key = key.or_else(|_| DecodingKey::from_ed_pem(text).map(Self::from_edwards));
        key.ok().flatten().ok_or(KeyError::Unsupported)
    }

    /// A point of one of the two curves, which says the algorithm.
    fn from_point(key: DecodingKey) -> Option<Self> {
        let point = key.try_get_as_bytes().ok()?;
        let algorithm = match point.len() {
            65 if is_key(&ECDSA_P256_SHA256_FIXED, point) => Algorithm::ES256,
            97 if is_key(&ECDSA_P384_SHA384_FIXED, point) => Algorithm::ES384,
            _ => return None,
        };
        Some(Self::new(&[algorithm], key))
    }

    fn from_edwards(key: DecodingKey) -> Option<Self> {
        let is_usable = is_key(&ED25519, key.try_get_as_bytes().ok()?);
        is_usable.then(|| Self::new(&[Algorithm::EdDSA], key))
    }

    /// A key of a set; `None` if it is for something else, or of a kind that is not known.
    fn from_web_key(json: &str) -> Option<Self> {
        let key: WebKey = serde_json::from_str(json).ok()?;
        let is_for_signatures = key.purpose.is_none_or(|purpose| purpose == "sig")
            && key.key_ops.is_none_or(|uses| uses.iter().any(|operation| operation == "verify"));
        if !is_for_signatures {
            return None;
        }
        let mut read = match key.material {
            Material::Rsa { n, e } => {
                let decoding = DecodingKey::from_rsa_components(&n, &e).ok()?;
                // Base64: four characters for three bytes.
                (n.len() * 3 / 4 >= RSA_BYTES_MIN).then(|| Self::new(RSA, decoding))?
            }
            Material::Ec { x, y } => {
                Self::from_point(DecodingKey::from_ec_components(&x, &y).ok()?)?
            }
            Material::Ed { crv, x } if crv == "Ed25519" => {
                Self::from_edwards(DecodingKey::from_ed_components(&x).ok()?)?
            }
            Material::Ed { .. } => return None,
        };
        if let Some(name) = key.alg {
            // The name that RFC 9864 gives what was EdDSA.
            let name = if name == "Ed25519" { "EdDSA" } else { &name };
            let algorithm: Algorithm = name.parse().ok()?;
            read.algorithms.retain(|possible| *possible == algorithm);
        }
        read.id = key.kid;
        (!read.algorithms.is_empty()).then_some(read)
    }
}

fn is_key(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> bool {
    ParsedPublicKey::new(algorithm, bytes).is_ok()
}

// === impl KeySet ===

impl KeySet {
    /// One secret.
    pub fn from_secret(secret: &str) -> Result<Self, KeyError> {
        Key::secret(secret.as_bytes()).map(|key| Self(vec![key]))
    }

    /// Secrets, one on each line; two while one takes the other's place.
    pub fn from_secret_lines(text: &str) -> Result<Self, KeyError> {
        let lines = secret_lines(text).map(|line| Key::secret(line.as_bytes()));
        Self::bounded(lines.collect::<Result<_, _>>()?, FILE_KEYS_MAX)
    }

    /// Public keys in PEM, one after another.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let pems = pem::parse_many(text).map_err(|_| KeyError::NoPem)?;
        if pems.is_empty() {
            return Err(KeyError::NoPem);
        }
        Self::bounded(pems.iter().map(Key::from_pem).collect::<Result<_, _>>()?, FILE_KEYS_MAX)
    }

    /// A JSON Web Key Set. Keys that are not for signatures, or of a kind that is not supported, are
    /// passed over; one without any that is left is none.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeyError> {
        #[derive(Deserialize)]
        struct Set<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let set: Set<'_> = serde_json::from_slice(json).map_err(KeyError::NoKeySet)?;
        if set.keys.len() > SET_KEYS_MAX {
            return Err(KeyError::TooMany(SET_KEYS_MAX));
        }
        let keys = set.keys.into_iter().filter_map(|key| Key::from_web_key(key.get()));
        Self::bounded(keys.collect(), SET_KEYS_MAX)
    }

    fn bounded(keys: Vec<Key>, keys_max: usize) -> Result<Self, KeyError> {
        match keys.len() {
            0 => Err(KeyError::Empty),
            count if count > keys_max => Err(KeyError::TooMany(keys_max)),
            _ => Ok(Self(keys)),
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, so that no token is any good.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key has this name.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The keys that a token with this header may be signed with. A token's name for its key counts
    /// where the key has one too.
    pub(crate) fn candidates(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let named = header.kid.clone();
        let algorithm = header.alg;
        self.0
            .iter()
            .filter(move |key| key.algorithms.contains(&algorithm))
            .filter(move |key| match (&key.id, &named) {
                (Some(id), Some(named)) => id == named,
                _ => true,
            })
            .take(ATTEMPTS_MAX)
    }
}

/// The secrets of a file; empty lines are none.
pub(crate) fn secret_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(|line| line.trim_end_matches('\r')).filter(|line| !line.is_empty())
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("KeySet").field("keys", &self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key of RFC 8037, under this name.
    fn key(id: usize) -> String {
        format!(
            r#"{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}}"#
        )
    }

    fn set(keys: &[String]) -> String {
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    #[test]
    fn what_is_passed_over_in_a_set() {
        for other in [
            r#"{"kty":"oct","k":"c2VjcmV0"}"#,
            r#"{"kty":"oct","k":"c2VjcmV0","alg":"EdDSA","crv":"Ed25519","x":"11qY"}"#,
            r#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qY"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":7}"#,
            "{}",
            "7",
            "null",
            "[[[]]]",
        ] {
            let read = KeySet::from_jwks(set(&[other.to_owned(), key(1)]).as_bytes()).unwrap();
            assert_eq!(read.len(), 1, "{other}");
            let alone = KeySet::from_jwks(set(&[other.to_owned()]).as_bytes());
            assert!(matches!(alone, Err(KeyError::Empty)), "{other}");
        }
        for other in ["\"alg\":\"HS256\"", "\"alg\":\"none\"", "\"use\":\"enc\"", "\"key_ops\":[]"]
        {
            let key = key(1).replace("{\"kty\"", &format!("{{{other},\"kty\""));
            assert!(KeySet::from_jwks(set(&[key]).as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn what_is_no_set() {
        for text in ["", "garbage", "{}", "[]", r#"{"keys":{}}"#, &"[".repeat(100_000)] {
            let read = KeySet::from_jwks(text.as_bytes());
            assert!(matches!(read, Err(KeyError::NoKeySet(_))), "{text:.20}");
        }
        let keys = |count| set(&(0..count).map(key).collect::<Vec<_>>());
        assert_eq!(KeySet::from_jwks(keys(64).as_bytes()).unwrap().len(), 64);
        assert!(matches!(KeySet::from_jwks(keys(65).as_bytes()), Err(KeyError::TooMany(64))));
    }

    #[test]
    fn a_token_is_tried_with_few_keys() {
        let keys: Vec<String> = (0..64).map(key).collect();
        let set = KeySet::from_jwks(set(&keys).as_bytes()).unwrap();
        let mut header = Header::new(Algorithm::EdDSA);
        assert_eq!(set.candidates(&header).count(), ATTEMPTS_MAX);
        header.kid = Some("40".to_owned());
        assert_eq!(set.candidates(&header).count(), 1);
        header.kid = Some("64".to_owned());
        assert_eq!(set.candidates(&header).count(), 0);
        header.alg = Algorithm::HS256;
        assert_eq!(set.candidates(&header).count(), 0);
    }
}
