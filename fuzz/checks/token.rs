//! What must hold for any token, claims, keys and answer of a webhook.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use serde_json::Value;
use serde_json::value::RawValue;
use signal_server::Grant;
use signal_server::auth::jwt::JwtAuthenticator;
use signal_server::auth::keys::KeySet;
use signal_server::auth::webhook::read_answer;
use signal_server::core::redis::Secret;

const SECRET: &str = "a secret of some length, for tests only";

/// Keys that nobody has signed anything with: of RFC 8037 and of RFC 7517.
const KEYS: &[u8] = br#"{"keys":[
    {"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty":"EC","crv":"P-256","kid":"ec","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
     "y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;

static BY_SECRET: LazyLock<JwtAuthenticator> =
    LazyLock::new(|| JwtAuthenticator::hs256(&Secret::new(SECRET), None, None));

static BY_SET: LazyLock<JwtAuthenticator> = LazyLock::new(|| {
    let keys = KeySet::from_jwks(KEYS).expect("two keys");
    assert_eq!(keys.len(), 2);
    JwtAuthenticator::with_keys(keys, None, None)
});

/// Panics if it does not hold. The first byte says what the rest is.
pub(crate) fn check(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    match kind {
        b'c' => check_claims(rest),
        b'h' => check_header(rest),
        b'k' => check_keys(rest),
        b'w' => check_answer(rest),
        _ => check_token(rest),
    }
}

/// Nobody gets in with a token that nobody has signed.
fn check_token(bytes: &[u8]) {
    let Ok(token) = str::from_utf8(bytes) else { return };
    assert!(BY_SECRET.check(token).is_err());
    assert!(BY_SET.check(token).is_err());
}

/// Signed claims grant what they say and nothing else.
fn check_claims(bytes: &[u8]) {
    let token = sign(br#"{"alg":"HS256"}"#, bytes);
    assert!(BY_SET.check(&token).is_err());
    let Ok(grant) = BY_SECRET.check(&token) else { return };
    assert!(member(bytes, "exp").is_some_and(|end| end.is_number()));
    let [user, rooms, join] = ["sub", "rooms", "join"].map(|name| member(bytes, name));
    check_grant(&grant, user.as_ref(), rooms.as_ref(), join.as_ref());
}

/// A header only ever agrees with the key.
fn check_header(bytes: &[u8]) {
    let claims = br#"{"sub":"u","exp":99999999999}"#;
    let token = sign(bytes, claims);
    assert!(BY_SET.check(&token).is_err());
    let Ok(grant) = BY_SECRET.check(&token) else { return };
    assert_eq!(grant.user_id.as_deref(), Some("u"));
    assert_eq!(member(bytes, "alg"), Some("HS256".into()));
    assert!(member(bytes, "crit").is_none_or(|critical| critical.is_null()));
}

/// A set has keys, but not too many.
fn check_keys(bytes: &[u8]) {
    if let Ok(keys) = KeySet::from_jwks(bytes) {
        assert!((1..=64).contains(&keys.len()));
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    for keys in [KeySet::from_pem(text), KeySet::from_secret_lines(text)].into_iter().flatten() {
        assert!((1..=16).contains(&keys.len()));
    }
}

/// An answer grants what it says and nothing else.
fn check_answer(bytes: &[u8]) {
    let Ok(grant) = read_answer(bytes) else { return };
    let answer: Value = serde_json::from_slice(bytes).expect("an answer is JSON");
    let Value::Object(answer) = answer else { panic!("an answer is no object") };
    let in_2001 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    assert!(grant.expires.is_none_or(|end| end >= in_2001));
    assert_eq!(grant.metadata.as_ref(), answer.get("metadata").filter(|data| !data.is_null()));
    check_grant(&grant, answer.get("userId"), answer.get("rooms"), answer.get("join"));
}

fn check_grant(grant: &Grant, user: Option<&Value>, rooms: Option<&Value>, join: Option<&Value>) {
    assert_eq!(grant.user_id.as_deref(), user.and_then(Value::as_str));
    let strings = |list: Option<&Value>| -> Vec<String> {
        let items = list.and_then(Value::as_array).into_iter().flatten();
        items.map(|item| item.as_str().expect("a string").to_owned()).collect()
    };
    let rooms_granted: Vec<String> = grant.rooms.iter().map(ToString::to_string).collect();
    assert_eq!(rooms_granted, strings(rooms));
    assert!(grant.rooms.len() <= 256);
    assert_eq!(grant.join, strings(join));
}

/// A member of an object. Others are passed over unread, as they are where tokens are checked: they
/// need not even be text.
fn member(json: &[u8], name: &str) -> Option<Value> {
    let json = String::from_utf8_lossy(json);
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(&json).expect("an object");
    members.get(name).map(|value| serde_json::from_str(value.get()).expect("JSON"))
}

fn sign(header: &[u8], claims: &[u8]) -> String {
    let mut token = format!("{}.{}", base64(header), base64(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = base64(hmac::sign(&key, token.as_bytes()).as_ref());
    token.push('.');
    token.push_str(&signature);
    token
}

/// Base64 for URLs, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for index in 0..=three.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * index) & 63) as usize]));
        }
    }
    out
}
