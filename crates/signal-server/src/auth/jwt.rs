//! Login with a JSON Web Token (RFC 7519).
//!
//! The token comes in `token` of the credentials. `exp` is required and enforced, `nbf` where there is
//! one, `iss` and `aud` where the settings say so; `sub` is the user, `rooms` lists room patterns,
//! `join` lists rooms to be in from the start. The algorithm belongs to the key, never to the token:
//! what a token says of it only has to agree. Nothing is kept between logins. Only a token whose key is
//! not known waits, for a set that is fetched; all else is decided at once.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::Error;
use jsonwebtoken::{
    Algorithm, EncodingKey, Header, TokenData, Validation, decode, decode_header, encode,
};
use serde::{Deserialize, Deserializer, Serialize};
use signal_core::id::ClientId;
use signal_core::redis::Secret;
use tokio::task::AbortHandle;

use super::RoomPattern;
use super::jwks::Keys;
use super::keys::KeySet;
use crate::hooks::{AuthError, Authenticator, Credentials, Grant};

/// How far clocks may be apart.
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);

/// Bytes of a token. As much as fits into a request's head, where a token may come too, and far more
/// than one has; a longer one is not looked at.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Checks tokens; see the module.
pub struct JwtAuthenticator {
    keys: Arc<Keys>,
    /// The task that fetches the keys, where that is where they come from.
    fetching: Option<AbortHandle>,
    validation: Validation,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: Option<String>,
    #[serde(deserialize_with = "seconds")]
    exp: u64,
    iat: Option<f64>,
    jti: Option<String>,
    #[serde(default)]
    rooms: Vec<RoomPattern>,
    #[serde(default)]
    join: Vec<String>,
}

/// What a development token says.
#[derive(Clone, Debug, Serialize)]
pub struct TokenClaims {
    /// The user.
    pub sub: String,
    /// When it ends, in seconds since the Unix epoch.
    pub exp: u64,
    /// Room patterns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<String>,
    /// The issuer, if the edge checks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// The audience, if the edge checks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
}

/// Why a token does not do.
enum Refusal {
    Rejected(String),
    /// It names a key that is not there.
    UnknownKey(Option<String>),
}

// === impl JwtAuthenticator ===

impl JwtAuthenticator {
    /// Checks tokens that are signed with this secret, and issuer and audience where they are given. A
    /// secret is for HS256; from 48 bytes for HS384 too, from 64 for HS512. With a shorter one than 32
    /// bytes no token is any good.
    pub fn hs256(secret: &Secret, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let keys = KeySet::from_secret(secret.expose()).unwrap_or_default();
        Self::with_keys(keys, issuer, audience)
    }

    /// Checks tokens that are signed with one of these keys.
    pub fn with_keys(keys: KeySet, issuer: Option<&str>, audience: Option<&str>) -> Self {
        Self::new(Keys::new(keys), None, issuer, audience)
    }

    /// With keys that may change, and the task that fetches them.
    pub(crate) fn new(
        keys: Arc<Keys>,
        fetching: Option<AbortHandle>,
        issuer: Option<&str>,
        audience: Option<&str>,
    ) -> Self {
        let mut validation =
            Validation { leeway: LEEWAY.as_secs(), validate_nbf: true, ..Validation::default() };
        let mut required = vec!["exp"];
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        validation.set_required_spec_claims(&required);
        Self { keys, fetching, validation }
    }

    /// What a token grants, by the keys that are there.
    pub fn check(&self, token: &str) -> Result<Grant, AuthError> {
        self.check_with(&self.keys.set(), token).map_err(AuthError::from)
    }

    fn check_with(&self, keys: &KeySet, token: &str) -> Result<Grant, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Rejected("the token is too long".to_owned()));
        }
        let header = decode_header(token)?;
        if header.crit.is_some() {
            // RFC 7515 §4.1.11: what must be understood, and is not, makes a token invalid.
            return Err(Refusal::Rejected("the token has a critical header".to_owned()));
        }
        let mut validation = self.validation.clone();
        validation.algorithms = vec![header.alg];
        let mut refusal = None;
        for key in keys.candidates(&header) {
            match decode::<Claims>(token, &key.decoding, &validation) {
                Ok(TokenData { claims, .. }) => return claims.grant(),
                Err(error) => refusal = Some(error),
            }
        }
        if self.fetching.is_some()
            && (keys.is_empty() || header.kid.as_ref().is_some_and(|id| !keys.has(id)))
        {
            return Err(Refusal::UnknownKey(header.kid));
        }
        let refusal = refusal.map(|error| error.to_string());
        Err(Refusal::Rejected(refusal.unwrap_or_else(|| "no key is for this token".to_owned())))
    }
}

impl Authenticator for JwtAuthenticator {
    async fn authenticate(
        &self,
        _client: ClientId,
        credentials: Credentials,
    ) -> Result<Grant, AuthError> {
        let token = credentials
            .string("token")
            .ok_or_else(|| AuthError::Rejected("no token in the credentials".to_owned()))?;
        match self.check_with(&self.keys.set(), &token) {
            Err(Refusal::UnknownKey(id)) => {
                let keys = self.keys.fetched(id.as_deref()).await;
                let keys = keys.map_err(|error| AuthError::Failed(Box::new(error)))?;
                self.check_with(&keys, &token).map_err(AuthError::from)
            }
            decided => decided.map_err(AuthError::from),
        }
    }
}

impl Drop for JwtAuthenticator {
    fn drop(&mut self) {
        if let Some(fetching) = &self.fetching {
            fetching.abort();
        }
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JwtAuthenticator").finish_non_exhaustive()
    }
}

// === impl Claims ===

impl Claims {
    fn grant(self) -> Result<Grant, Refusal> {
        let Self { sub, exp, iat, jti, rooms, join } = self;
        let grant = Grant {
            user_id: sub,
            rooms,
            join,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(exp)),
            issued: iat
                .and_then(|iat| Duration::try_from_secs_f64(iat).ok())
                .and_then(|issued| UNIX_EPOCH.checked_add(issued)),
            token_id: jti,
            metadata: None,
        };
        super::bounded(grant).map_err(|problem| Refusal::Rejected(problem.to_owned()))
    }
}

/// A time of RFC 7519, which may have a fraction.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(u64),
        Fraction(f64),
    }
    Ok(match Number::deserialize(deserializer)? {
        Number::Whole(seconds) => seconds,
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        Number::Fraction(seconds) => seconds as u64,
    })
}

// === impl Refusal ===

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Rejected(error.to_string())
    }
}

impl From<Refusal> for AuthError {
    fn from(refusal: Refusal) -> Self {
        Self::Rejected(match refusal {
            Refusal::Rejected(reason) => reason,
            Refusal::UnknownKey(_) => "the token's key is not known".to_owned(),
        })
    }
}

/// Signs a token with a shared secret, for development.
pub fn mint(secret: &Secret, claims: &TokenClaims) -> Result<String, Error> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key)
}

/// Signs a token with a private key in PEM (PKCS #8), for development: RSA with RS256, P-256 with
/// ES256, P-384 with ES384, Ed25519 with EdDSA.
pub fn mint_with_key(pem: &str, claims: &TokenClaims) -> Result<String, Error> {
    let pem = pem.as_bytes();
    if let Ok(key) = EncodingKey::from_ed_pem(pem) {
        return encode(&Header::new(Algorithm::EdDSA), claims, &key);
    }
    if let Ok(key) = EncodingKey::from_ec_pem(pem) {
        // The key's curve fits one of the two.
        return encode(&Header::new(Algorithm::ES256), claims, &key)
            .or_else(|_| encode(&Header::new(Algorithm::ES384), claims, &key));
    }
    encode(&Header::new(Algorithm::RS256), claims, &EncodingKey::from_rsa_pem(pem)?)
}

/// Seconds since the Unix epoch, `lifetime` from now.
pub fn expiry(lifetime: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(lifetime).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> Secret {
        Secret::new("a secret of some length, for tests only")
    }

    fn claims() -> TokenClaims {
        TokenClaims {
            sub: "u-7".to_owned(),
            exp: expiry(Duration::from_mins(1)),
            rooms: vec!["branch:*".to_owned()],
            iss: Some("issuer".to_owned()),
            aud: Some("audience".to_owned()),
        }
    }

    fn check(token: &str) -> Result<Grant, String> {
        JwtAuthenticator::hs256(&secret(), Some("issuer"), Some("audience"))
            .check(token)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_token_grants_its_claims() {
        let grant = check(&mint(&secret(), &claims()).unwrap()).unwrap();
        assert_eq!(grant.user_id.as_deref(), Some("u-7"));
        assert!(grant.rooms[0].matches("branch:12", None));
        assert_eq!(grant.expires, Some(UNIX_EPOCH + Duration::from_secs(claims().exp)));
    }

    #[test]
    fn bad_tokens_are_rejected() {
        let mint = |change: fn(&mut TokenClaims)| {
            let mut claims = claims();
            change(&mut claims);
            super::mint(&secret(), &claims).unwrap()
        };
        let good = mint(|_| {});
        assert!(
            check(&mint(|claims| claims.exp = expiry(Duration::ZERO) - 120)).is_err(),
            "expired"
        );
        assert!(check(&mint(|claims| claims.iss = Some("other".to_owned()))).is_err(), "issuer");
        assert!(check(&mint(|claims| claims.iss = None)).is_err(), "no issuer");
        assert!(check(&mint(|claims| claims.aud = Some("other".to_owned()))).is_err(), "audience");
        assert!(check(&mint(|claims| claims.aud = None)).is_err(), "no audience");
        assert!(check(&mint(|claims| claims.rooms = vec!["a*".to_owned()])).is_err(), "pattern");
        assert!(check(&good[..good.len() - 2]).is_err(), "cut");
        assert!(check("").is_err(), "empty");
        let other = Secret::new("another secret");
        assert!(check(&super::mint(&other, &claims()).unwrap()).is_err(), "another key");
    }

    #[test]
    fn the_algorithm_is_not_the_tokens_choice() {
        let key = EncodingKey::from_secret(secret().expose().as_bytes());
        let hs512 = encode(&Header::new(Algorithm::HS512), &claims(), &key).unwrap();
        assert!(check(&hs512).is_err());
        // {"alg":"none"} with an empty signature.
        let payload = mint(&secret(), &claims()).unwrap();
        let payload = payload.split('.').nth(1).unwrap();
        assert!(check(&format!("eyJhbGciOiJub25lIn0.{payload}.")).is_err());
    }
}
