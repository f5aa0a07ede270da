//! What must hold for any sealed message from a client, and for whatever is sealed.

use std::sync::LazyLock;

use signal_core::{
    crypto::{Key, OpenError, RoomKey},
    json, message,
    v1::{self, Variant},
};

static KEY: LazyLock<Key> = LazyLock::new(|| Key::from_bytes(&[7; 32]));

/// Panics if it does not hold.
pub(crate) fn check(bytes: &[u8]) {
    // As the wire brings it: what is no message of these is for other targets.
    let parsed = str::from_utf8(bytes).ok().and_then(|text| message::parse(text).ok());
    let parsed = parsed.or_else(|| v1::parse_msgpack(bytes).ok());
    if let Some(data) = parsed.and_then(|message| message.data) {
        open(data);
    }
    if let Ok(text) = str::from_utf8(bytes) {
        open(text);
        seal(text);
    }
}

/// Nothing but what was sealed under the key opens.
fn open(data: &str) {
    match KEY.open(data) {
        Err(OpenError::Malformed | OpenError::Unverified) => {}
        outcome => panic!("opened: {outcome:?}"),
    }
}

/// Whatever is sealed opens to the same, in every form, and is a message of the client wire.
fn seal(text: &str) {
    let mut session = Key::from_bytes(&[9; 32]);
    let mut room = RoomKey::new("r", 1 << 40);
    let [key] = json::members(room.handover(), &["key"]).expect("an object");
    let key = json::unescape(key.expect("a key")).expect("a string").into_owned();
    let member = Key::from_base64(&key).expect("a key");
    for variant in Variant::ALL {
        let mut out = text.as_bytes().to_vec();
        session.seal(&mut out, 0, variant, |_| b"");
        assert_eq!(session.open(&data(variant, &out)).as_deref(), Ok(text));
        assert_eq!(KEY.open(&data(variant, &out)), Err(OpenError::Unverified));
        let mut out = text.as_bytes().to_vec();
        room.seal(&mut out, 0, variant, |_| b"");
        assert_eq!(member.open(&data(variant, &out)).as_deref(), Ok(text));
    }
}

fn data(variant: Variant, payload: &[u8]) -> String {
    let message = match variant.is_binary() {
        true => v1::parse_msgpack(payload),
        false => message::parse(str::from_utf8(payload).expect("text")),
    };
    let message = message.expect("a message");
    assert_eq!(message.event, "encrypted");
    message.data.expect("data").to_owned()
}
