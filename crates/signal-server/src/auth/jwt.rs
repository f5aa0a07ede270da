//! Login with a JSON Web Token (RFC 7519), signed with a shared secret (HS256).
//!
//! The token comes in `token` of the credentials. `exp` is required and enforced, `nbf` where there is
//! one; `sub` is the user, `rooms` lists room patterns, `join` lists rooms to be in from the start.
//! The algorithm belongs to the key, never to the token: what a token says of it only has to agree.
//! Nothing is kept between logins; a token is at most as long as a client's message.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::Error;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use signal_core::id::ClientId;
use signal_core::redis::Secret;

use super::RoomPattern;
use crate::hooks::{AuthError, Authenticator, Credentials, Grant};

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(30);

/// Checks tokens; see the module.
pub struct JwtAuthenticator {
    key: DecodingKey,
    validation: Validation,
}

#[derive(Debug, Deserialize)]
struct Claims {
    sub: Option<String>,
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

// === impl JwtAuthenticator ===

impl JwtAuthenticator {
    /// Checks HS256 tokens with this secret, and issuer and audience where they are given.
    pub fn hs256(secret: &Secret, issuer: Option<&str>, audience: Option<&str>) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
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
        Self { key: DecodingKey::from_secret(secret.expose().as_bytes()), validation }
    }

    fn check(&self, token: &str) -> Result<Grant, AuthError> {
        let token = decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| AuthError::Rejected(error.to_string()))?;
        let Claims { sub, exp, iat, jti, rooms, join } = token.claims;
        let issued = iat.and_then(|iat| Duration::try_from_secs_f64(iat).ok());
        Ok(Grant {
            user_id: sub,
            rooms,
            join,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(exp)),
            issued: issued.and_then(|issued| UNIX_EPOCH.checked_add(issued)),
            token_id: jti,
            metadata: None,
        })
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
        self.check(&token)
    }
}

impl fmt::Debug for JwtAuthenticator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("JwtAuthenticator").finish_non_exhaustive()
    }
}

/// Signs a token with a shared secret, for development.
pub fn mint(secret: &Secret, claims: &TokenClaims) -> Result<String, Error> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(Algorithm::HS256), claims, &key)
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
