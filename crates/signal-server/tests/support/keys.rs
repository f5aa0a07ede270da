//! Keys of tests, and tokens that are signed with them.

use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, encode};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256,
    PublicKeyData as _, SignatureAlgorithm,
};
use serde_json::{Value, json};
use signal_server::auth::jwt::expiry;

/// A private key and its public one.
pub struct SigningKey {
    pub private_pem: String,
    pub public_pem: String,
    encoding: EncodingKey,
    decoding: DecodingKey,
}

/// A header of this algorithm that may name a key.
pub fn header(algorithm: Algorithm, id: Option<&str>) -> Header {
    let mut header = Header::new(algorithm);
    header.kid = id.map(str::to_owned);
    header
}

/// A token signed with a secret.
pub fn signed_with_secret(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    sign(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret))
}

/// In PEM, as a file has it.
pub fn pem(tag: &str, der: impl Into<Vec<u8>>) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}

/// Signs claims; a minute's `exp` is added where there is none.
fn sign(header: &Header, claims: &Value, key: &EncodingKey) -> String {
    let mut claims = claims.clone();
    if claims.get("exp").is_none() {
        claims["exp"] = json!(expiry(Duration::from_mins(1)));
    }
    encode(header, &claims, key).expect("the key fits the algorithm")
}

// === impl SigningKey ===

impl SigningKey {
    pub fn rsa() -> Self {
        Self::new(&PKCS_RSA_SHA256)
    }

    pub fn p256() -> Self {
        Self::new(&PKCS_ECDSA_P256_SHA256)
    }

    pub fn p384() -> Self {
        Self::new(&PKCS_ECDSA_P384_SHA384)
    }

    pub fn ed25519() -> Self {
        Self::new(&PKCS_ED25519)
    }

    fn new(algorithm: &'static SignatureAlgorithm) -> Self {
        let pair = KeyPair::generate_for(algorithm).expect("a key");
        let private_pem = pem("PRIVATE KEY", pair.serialize_der());
        let public_pem = pem("PUBLIC KEY", pair.subject_public_key_info());
        let (private, public) = (private_pem.as_bytes(), public_pem.as_bytes());
        let (encoding, decoding) = if algorithm == &PKCS_RSA_SHA256 {
            (EncodingKey::from_rsa_pem(private), DecodingKey::from_rsa_pem(public))
        } else if algorithm == &PKCS_ED25519 {
            (EncodingKey::from_ed_pem(private), DecodingKey::from_ed_pem(public))
        } else {
            (EncodingKey::from_ec_pem(private), DecodingKey::from_ec_pem(public))
        };
        let (encoding, decoding) = (encoding.expect("a key"), decoding.expect("a key"));
        Self { private_pem, public_pem, encoding, decoding }
    }

    pub fn token(&self, header: &Header, claims: &Value) -> String {
        sign(header, claims, &self.encoding)
    }

    /// As a JSON Web Key of this name; an algorithm only where one is given.
    pub fn jwk(&self, id: &str, algorithm: Option<Algorithm>) -> Value {
        let key = Jwk::from_decoding_key(&self.decoding, algorithm).expect("a public key");
        let mut key = serde_json::to_value(key).expect("JSON");
        key["kid"] = json!(id);
        key
    }
}

/// A set of keys as JSON.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
