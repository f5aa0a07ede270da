use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::message;
use crate::v1::{self, Outgoing, To, Variant};

fn agreed() -> (Key, Key) {
    let offer = Offer::new();
    let Agreement { server_public_key, salt, key } = Agreement::with(offer.public_key()).unwrap();
    (key, offer.accept(&server_public_key, &salt).unwrap())
}

/// Seals behind what is there already, with a frame of three bytes in front; returns the payload.
fn sealed(variant: Variant, text: &str, seal: impl FnOnce(&mut Vec<u8>, usize)) -> Vec<u8> {
    let mut out = b"before".to_vec();
    out.extend_from_slice(text.as_bytes());
    seal(&mut out, 6);
    assert_eq!(&out[..9], b"before<->", "{variant:?}");
    out.split_off(9)
}

fn data_of(variant: Variant, payload: &[u8]) -> String {
    let message = match variant.is_binary() {
        true => v1::parse_msgpack(payload).unwrap(),
        false => message::parse(std::str::from_utf8(payload).unwrap()).unwrap(),
    };
    assert_eq!((&*message.event, message.id), ("encrypted", None));
    message.data.unwrap().to_owned()
}

#[test]
fn both_sides_of_a_session_open_what_the_other_sealed() {
    let (mut server, mut client) = agreed();
    for variant in Variant::ALL {
        for text in ["", "x", r#"{"event":"e","data":"é"}"#, &"long ".repeat(1000)] {
            let mut length = 0;
            let payload = sealed(variant, text, |out, start| {
                server.seal(out, start, variant, |bytes| {
                    length = bytes;
                    b"<->"
                });
            });
            assert_eq!(payload.len(), length);
            assert_eq!(client.open(&data_of(variant, &payload)).unwrap(), text);
        }
    }
    let payload = sealed(Variant::Plain, "up", |out, start| {
        client.seal(out, start, Variant::Plain, |_| b"<->");
    });
    assert_eq!(server.open(&data_of(Variant::Plain, &payload)).unwrap(), "up");
}

#[test]
fn the_bytes_of_a_sealed_message() {
    let mut key = Key::from_bytes(&[0; 32]);
    key.next_iv = 0;
    let text = "\0".repeat(16);
    let payload = sealed(Variant::V1Json, &text, |out, start| {
        key.seal(out, start, Variant::V1Json, |_| b"<->");
    });
    // The ciphertext and tag of test case 14 of the GCM specification.
    let data = r#"{"iv":"AAAAAAAAAAAAAAAA","ct":"zqdAPU1ga24HTsXTuvOdGNDRyKeZmWvwJluYtdSKuRk="}"#;
    let expected = format!(r#"{{"event":"encrypted","data":{data}}}"#);
    assert_eq!(String::from_utf8(payload).unwrap(), expected);
    key.next_iv = 0;
    let payload = sealed(Variant::V1MsgPack, &text, |out, start| {
        key.seal(out, start, Variant::V1MsgPack, |_| b"<->");
    });
    let head = b"\x82\xa5event\xa9encrypted\xa4data\xc4";
    let length = u8::try_from(data.len()).unwrap();
    assert_eq!(payload, [head, &[length][..], data.as_bytes()].concat());
    assert_eq!(key.open(data).unwrap(), text);
}

#[test]
fn a_session_made_by_webcrypto() {
    let bytes = |hex: &str| -> Vec<u8> {
        let digits = hex.as_bytes().as_chunks::<2>().0;
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        digits.iter().map(|pair| byte(pair).unwrap()).collect()
    };
    let shared = bytes("18b07f9badf45efe1c0ac6aaa17c53f547858b7b42fd0efc8efa0fa28927ca37");
    let salt = base64::decode("Pg1dQPJVC8sSVAbSG0kDrzKvEtFjss8F28GSAiwygD4=").unwrap();
    let key = derive(&shared, &salt);
    let expected = "9caf90072f07cde57b49af2e69cfae68c99cf136b51f6355ea1c408d17ddae24";
    assert_eq!(key[..], bytes(expected));
    let (session, room) = (
        Key::from_bytes(&key),
        Key::from_base64("4bsBUFLv7JwMFwHw0ltqDWVWoV6i4RLL4hJqHyVVqPs=").unwrap(),
    );
    for (key, data, text) in [
        (
            &session,
            r#"{"iv":"fwjIIpSOnMPkeChM","ct":"JGL/dQ5FkySfifctGgFmGHeQwSz3pErdzoE8qKCWNddNA5b2/XJdMXdBtQPB/DOb+kUNJ2CGY1w9uvi3vGYlG1oLSe8DmWFdDQ=="}"#,
            r#"{"event":"join","data":{"rooms":["branch:1"]},"id":"j-1"}"#,
        ),
        (
            &room,
            r#"{"kid":7,"iv":"0gbwSQnMExA1v+rC","ct":"hKv8mqk+EWK3WGa+zjYZZzdfFEyokH5pCQIXpR9RokQgAMCmrAFnZR4hnKadAupafD/jy5hfoMtIgJXI7pmEHgsV582MyGCaPY7wkILr0ClQJF9vkKL/s/vVAgfTg/tTfw=="}"#,
            r#"{"event":"order.created","data":{"id":"o-2"},"to":{"room":"branch:1"},"id":"m-1"}"#,
        ),
    ] {
        assert_eq!(key.open(data).unwrap(), text);
    }
}

#[test]
fn ivs_count_through_all_96_bits() {
    let mut key = Key::from_bytes(&[7; 32]);
    key.next_iv = IV_MASK - 1;
    let ivs: Vec<_> = (0..4).map(|_| key.take_iv()).collect();
    assert_eq!(ivs[1], [0xFF; IV_BYTES]);
    assert_eq!(ivs[2], [0; IV_BYTES]);
    assert_eq!(ivs.iter().collect::<HashSet<_>>().len(), 4);
    assert_eq!(key.sealed(), 4);
    // Keys begin anywhere.
    let begins: HashSet<_> = (0..100).map(|_| Key::from_bytes(&[7; 32]).next_iv).collect();
    assert_eq!(begins.len(), 100);
}

#[test]
fn a_room_key_is_handed_over_and_opens_what_the_room_gets() {
    let mut room = RoomKey::new("a\"b", (1 << 53) - 1);
    let [name, kid, key] = json::members(room.handover(), &["room", "kid", "key"]).unwrap();
    assert_eq!((name, kid), (Some(r#""a\"b""#), Some("9007199254740991")));
    let member = Key::from_base64(&json::unescape(key.unwrap()).unwrap()).unwrap();
    let outgoing = Outgoing {
        event_json: "\"e\"",
        data: Some("1.10"),
        to: Some(To::Room("a\"b")),
        id: Some("\"7\""),
    };
    let mut ciphertexts = HashSet::new();
    for variant in [Variant::V1Json, Variant::V1MsgPack] {
        let mut text = Vec::new();
        inner_variant(variant).write(&mut text, &outgoing);
        let text = String::from_utf8(text).unwrap();
        let payload = sealed(variant, &text, |out, start| {
            room.seal(out, start, variant, |_| b"<->");
        });
        let data = data_of(variant, &payload);
        assert!(data.starts_with(r#"{"kid":9007199254740991,"iv":""#), "{data}");
        assert_eq!(member.open(&data).unwrap(), text);
        assert_eq!(text, r#"{"event":"e","data":1.10,"to":{"room":"a\"b"},"id":"7"}"#);
        ciphertexts.insert(data);
    }
    assert_eq!((ciphertexts.len(), room.sealed()), (2, 2));
    let other = RoomKey::new("a", 1);
    assert_ne!(other.handover(), RoomKey::new("a", 1).handover());
    assert!(Key::from_base64("AAAA").is_none());
}

#[test]
fn public_keys_that_are_none() {
    let good = Offer::new().public_key().to_owned();
    let mut compressed = base64::decode(&good).unwrap()[..33].to_vec();
    compressed[0] = 2;
    let mut off_curve = base64::decode(&good).unwrap();
    off_curve[64] ^= 1;
    // A form of X9.62 that the library would take, and browsers do not.
    let mut hybrid = base64::decode(&good).unwrap();
    hybrid[0] = 6 + (hybrid[64] & 1);
    let mut origin = vec![0; 65];
    origin[0] = 4;
    for (key, error) in [
        (String::new(), AgreementError::Malformed),
        ("no base64".to_owned(), AgreementError::Malformed),
        (good[4..].to_owned(), AgreementError::Malformed),
        (format!("{good}AAAA"), AgreementError::Malformed),
        (base64::encode(&compressed), AgreementError::Malformed),
        (base64::encode(&[0; 65]), AgreementError::Malformed),
        (base64::encode(&hybrid), AgreementError::Malformed),
        (base64::encode(&origin), AgreementError::NoPoint),
        (base64::encode(&off_curve), AgreementError::NoPoint),
    ] {
        assert_eq!(Agreement::with(&key).unwrap_err(), error, "{key}");
    }
    assert_eq!(Offer::new().accept(&good, "?").unwrap_err(), AgreementError::Malformed);
}

#[test]
fn no_two_sessions_share_a_key() {
    let client = Offer::new();
    let public_key = client.public_key().to_owned();
    let first = Agreement::with(&public_key).unwrap();
    let second = Agreement::with(&public_key).unwrap();
    assert_ne!(first.server_public_key, second.server_public_key);
    assert_ne!(first.salt, second.salt);
    // The other session's salt gives another key.
    let wrong = client.accept(&first.server_public_key, &second.salt).unwrap();
    let mut right = first.key;
    let payload = sealed(Variant::Plain, "text", |out, start| {
        right.seal(out, start, Variant::Plain, |_| b"<->");
    });
    let data = data_of(Variant::Plain, &payload);
    assert_eq!(wrong.open(&data), Err(OpenError::Unverified));
    assert_eq!(right.open(&data).unwrap(), "text");
    assert!(!format!("{right:?}").contains("cipher"), "keys are not for logs");
}

#[test]
fn what_cannot_be_opened() {
    let (mut server, client) = agreed();
    let payload = sealed(Variant::Plain, "text", |out, start| {
        server.seal(out, start, Variant::Plain, |_| b"<->");
    });
    let good = data_of(Variant::Plain, &payload);
    assert_eq!(client.open(&good).unwrap(), "text");
    // Escapes that other languages' JSON writers make are read.
    assert_eq!(client.open(&good.replace('/', "\\/")).unwrap(), "text");
    for (data, error) in [
        ("null", OpenError::Malformed),
        ("{}", OpenError::Malformed),
        (r#"{"iv":1,"ct":2}"#, OpenError::Malformed),
        (r#"{"iv":"AAAAAAAAAAAAAAAA"}"#, OpenError::Malformed),
        (r#"{"iv":"AAAAAAAAAAAAAAAA","ct":""}"#, OpenError::Malformed),
        (r#"{"iv":"AAAAAAAAAAAAAAAA","ct":"AAAA"}"#, OpenError::Malformed),
        (r#"{"iv":"AAAA","ct":"AAAAAAAAAAAAAAAAAAAAAAAA"}"#, OpenError::Malformed),
        (r#"{"iv":"AAAAAAAAAAAAAAAA","ct":"AAAAAAAAAAAAAAAAAAAAAAAA"}"#, OpenError::Unverified),
    ] {
        assert_eq!(client.open(data), Err(error), "{data}");
    }
    let mut binary = vec![0xFF];
    server.seal(&mut binary, 0, Variant::Plain, |_| b"");
    let data = data_of(Variant::Plain, &binary);
    assert_eq!(client.open(&data), Err(OpenError::NotUtf8));
}

proptest! {
    #[test]
    fn a_changed_message_does_not_open(text in ".{0,40}", at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let mut key = Key::from_bytes(&[1; 32]);
        let mut payload = text.clone().into_bytes();
        key.seal(&mut payload, 0, Variant::Plain, |_| b"");
        let data = data_of(Variant::Plain, &payload);
        prop_assert_eq!(key.open(&data), Ok(text));
        let mut changed = data.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        if let Ok(changed) = String::from_utf8(changed) {
            prop_assert!(key.open(&changed).is_err(), "{}", changed);
        }
    }
}
