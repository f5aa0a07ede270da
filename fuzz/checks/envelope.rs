//! What must hold for any bytes from the bus.

use signal_core::{
    envelope::{Codec, Envelope},
    json,
    limits::JSON_DEPTH_MAX,
    message,
};

/// Panics if it does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(envelope) = Envelope::decode(bytes) else { return };
    let mut delivery = Vec::new();
    message::write_delivery(&mut delivery, &envelope.event_json, envelope.data);
    let delivery = str::from_utf8(&delivery).expect("one bad byte makes browsers disconnect");
    assert_eq!(json::validate(delivery, JSON_DEPTH_MAX), Ok(delivery));

    let mut encoded = Vec::new();
    envelope.encode(Codec::Json, &mut encoded);
    assert_eq!(Envelope::decode(&encoded).as_ref(), Ok(&envelope));

    encoded.clear();
    envelope.encode(Codec::MsgPack, &mut encoded);
    let compact = Envelope::decode(&encoded).expect("what is encoded can be decoded");
    // The compact form holds the event itself, so its escapes may be written otherwise.
    assert_eq!(compact.event(), envelope.event());
    assert_eq!(Envelope { event_json: envelope.event_json.clone(), ..compact }, envelope);
}
