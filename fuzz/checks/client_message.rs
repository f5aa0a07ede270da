//! What must hold for any text from a client.

use serde_json::value::RawValue;
use signal_core::{
    json::{self, JsonError},
    limits::JSON_DEPTH_MAX,
    message::{self, ClientMessageError},
};

/// Panics if it does not hold.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let validity = json::validate(text, JSON_DEPTH_MAX);
    let reference = serde_json::from_str::<&RawValue>(text);
    match validity {
        Ok(_) => assert!(reference.is_ok(), "accepted what is no JSON"),
        // Too deep is found before what comes after it is read.
        Err(JsonError::TooDeep) => {}
        Err(_) => assert!(reference.is_err(), "refused JSON"),
    }
    match message::parse(text) {
        Ok(message) => {
            assert!(validity.is_ok());
            assert!(!message.event.is_empty());
            for part in [message.data, message.id.as_deref()].into_iter().flatten() {
                assert!(text.contains(part));
                assert_eq!(json::validate(part, JSON_DEPTH_MAX), Ok(part));
            }
            let mut delivery = Vec::new();
            let event_json = message::json_string(&message.event);
            message::write_delivery(&mut delivery, &event_json, message.data);
            assert_eq!(delivery.len(), message::delivery_len(&event_json, message.data));
            let again = message::parse(str::from_utf8(&delivery).expect("text")).expect("message");
            assert_eq!((again.event, again.data), (message.event, message.data));
        }
        Err(ClientMessageError::NoEvent) => assert!(validity.is_ok()),
        Err(_) => {}
    }
}
