//! What must hold for any input.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, value::RawValue};
use signal_core::{
    channel::{Channel, ChannelNames, Target, sharded_name, unsharded_name},
    envelope::{Codec, Envelope, Kind},
    id::ClientId,
    json,
    limits::JSON_DEPTH_MAX,
    message,
    room::{RoomNameError, validate_requested},
};

/// Any JSON value, shallow enough for `serde_json` to build it.
fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Text that is often JSON and often nearly so.
fn json_like() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"event\"",
        "\"",
        "\\",
        "\\u00e9",
        "\\ud834",
        "0",
        "-1",
        "01",
        "1.5",
        "1.",
        "1e9",
        "1e",
        "-",
        "+",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\t",
        "\u{b}",
        "\u{1}",
        "é",
        "𝄞",
        "/",
        "x",
    ]);
    prop_oneof![
        json_value().prop_map(|value| value.to_string()),
        (json_value(), any::<prop::sample::Index>(), token.clone()).prop_map(
            |(value, index, token)| {
                let mut text = value.to_string();
                let at =
                    (0..=index.index(text.len() + 1)).rev().find(|&at| text.is_char_boundary(at));
                text.insert_str(at.unwrap_or(0), token);
                text
            }
        ),
        prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.concat()),
        any::<String>(),
    ]
}

#[derive(Clone, Debug)]
struct Parts {
    server_id: String,
    kind: Kind,
    target: String,
    event: String,
    data: Option<String>,
    exclude: Vec<String>,
    id: Option<String>,
    ts: Option<u64>,
    from: Option<String>,
    trace: Option<String>,
}

impl Parts {
    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            server_id: Cow::Borrowed(&self.server_id),
            kind: self.kind,
            target: (self.kind != Kind::Broadcast).then_some(Cow::Borrowed(&*self.target)),
            event_json: json::string(&self.event).into(),
            data: self.data.as_deref(),
            exclude: self.exclude.iter().map(|client| Cow::Borrowed(&**client)).collect(),
            id: self.id.as_deref().map(Cow::Borrowed),
            ts: self.ts,
            from: self.from.as_deref().map(Cow::Borrowed),
            trace: self.trace.as_deref().map(Cow::Borrowed),
        }
    }
}

prop_compose! {
    fn parts()(
        (server_id, event) in any::<(String, String)>(),
        kind in prop::sample::select(vec![Kind::Broadcast, Kind::Room, Kind::User, Kind::Client]),
        target in ".+",
        data in prop::option::of(json_value().prop_map(|value| value.to_string())),
        exclude in prop::collection::vec(any::<String>(), 0..20),
        (id, ts, from, trace) in any::<(Option<String>, Option<u64>, Option<String>, Option<String>)>(),
    ) -> Parts {
        Parts { server_id, kind, target, event, data, exclude, id, ts, from, trace }
    }
}

proptest! {
    #[test]
    fn envelopes_survive_both_codecs(parts in parts()) {
        let envelope = parts.envelope();
        for codec in [Codec::Json, Codec::MsgPack] {
            let mut bytes = Vec::new();
            envelope.encode(codec, &mut bytes);
            let decoded = Envelope::decode(&bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(&envelope));
            let decoded = decoded.unwrap();
            prop_assert_eq!(decoded.event(), parts.event.as_str());
        }
    }

    #[test]
    fn the_json_form_is_json_to_others(parts in parts()) {
        let mut bytes = Vec::new();
        parts.envelope().encode(Codec::Json, &mut bytes);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(value["event"].as_str(), Some(parts.event.as_str()));
        prop_assert_eq!(value["id"].as_str(), parts.id.as_deref());
        prop_assert_eq!(value["ts"].as_u64(), parts.ts);
        prop_assert_eq!(value.get("data").is_some(), parts.data.is_some());
    }

    #[test]
    fn the_compact_form_is_messagepack_to_others(parts in parts()) {
        let mut bytes = Vec::new();
        parts.envelope().encode(Codec::MsgPack, &mut bytes);
        let mut rest = bytes.as_slice();
        prop_assert_eq!(rmp::decode::read_array_len(&mut rest).unwrap(), 11);
        prop_assert_eq!(rmp::decode::read_int::<u64, _>(&mut rest).unwrap(), 1);
        let (server_id, _) = rmp::decode::read_str_from_slice(rest).unwrap();
        prop_assert_eq!(server_id, parts.server_id.as_str());
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = Envelope::decode(&bytes);
    }

    #[test]
    fn decoding_damaged_envelopes_never_panics(
        parts in parts(),
        compact in any::<bool>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        let codec = if compact { Codec::MsgPack } else { Codec::Json };
        parts.envelope().encode(codec, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if cut {
            bytes.truncate(at);
        }
        if let Ok(envelope) = Envelope::decode(&bytes) {
            // Whatever is accepted is text that a browser can parse.
            let mut delivery = Vec::new();
            message::write_delivery(&mut delivery, &envelope.event_json, envelope.data);
            let text = str::from_utf8(&delivery).unwrap();
            prop_assert_eq!(json::validate(text, JSON_DEPTH_MAX), Ok(text));
        }
    }

    #[test]
    fn the_scanner_agrees_with_serde_json(text in json_like()) {
        let reference = serde_json::from_str::<&RawValue>(&text);
        prop_assert_eq!(json::validate(&text, JSON_DEPTH_MAX).is_ok(), reference.is_ok());
    }

    #[test]
    fn members_agree_with_serde_json(value in json_value(), name in any::<String>()) {
        let mut object = serde_json::Map::new();
        object.insert(name.clone(), value.clone());
        object.insert("other".to_owned(), Value::Null);
        let text = Value::Object(object).to_string();
        let [found] = json::members(&text, &[&name]).unwrap();
        let found = found.unwrap();
        let expected = value.to_string();
        prop_assert!(name == "other" || found == expected);
    }

    #[test]
    fn strings_agree_with_serde_json(value in any::<String>(), text in json_like()) {
        prop_assert_eq!(json::string(&value), serde_json::to_string(&value).unwrap());
        if let Ok(value) = serde_json::from_str::<String>(&text) {
            prop_assert_eq!(json::unescape(text.trim_ascii()).unwrap(), value);
        }
    }

    #[test]
    fn messages_never_panic_and_are_slices(text in json_like()) {
        if let Ok(message) = message::parse(&text) {
            prop_assert!(!message.event.is_empty());
            for part in [message.data, message.id.as_deref()].into_iter().flatten() {
                prop_assert!(text.contains(part));
                prop_assert!(serde_json::from_str::<&RawValue>(part).is_ok());
            }
        }
    }

    #[test]
    fn a_delivery_keeps_its_data(
        event in any::<String>(),
        data in prop::option::of(json_value().prop_map(|value| value.to_string())),
    ) {
        let event_json = message::json_string(&event);
        let mut out = b"before".to_vec();
        message::write_delivery(&mut out, &event_json, data.as_deref());
        let text = str::from_utf8(&out[b"before".len()..]).unwrap();
        prop_assert_eq!(text.len(), message::delivery_len(&event_json, data.as_deref()));
        let parsed: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
        prop_assert_eq!(parsed.len(), 1 + usize::from(data.is_some()));
        let message = message::parse(text);
        if event.is_empty() {
            prop_assert!(message.is_err());
        } else {
            let message = message.unwrap();
            prop_assert_eq!(message.event, event);
            prop_assert_eq!(message.data, data.as_deref());
        }
    }

    #[test]
    fn client_ids_keep_their_parts(
        instance in 0_u64..1 << 48,
        worker in any::<u8>(),
        slot in 0_u32..1 << 28,
        random in 0_u64..1 << 38,
    ) {
        let id = ClientId::from_parts(instance, worker, slot, random);
        prop_assert_eq!((id.instance(), id.worker(), id.slot()), (instance, worker, slot));
        let text = id.to_string();
        prop_assert_eq!(id.encode(), text.as_bytes());
        prop_assert_eq!(ClientId::parse(&text), Some(id));
        prop_assert_eq!(ClientId::parse(&text.to_uppercase()), Some(id));
        prop_assert_eq!(validate_requested(&text), Err(RoomNameError::ClientId));
        let other = ClientId::from_parts(instance, worker, slot, random ^ 1 << 37);
        prop_assert_ne!(id, other);
    }

    #[test]
    fn parsing_ids_never_panics(text in any::<String>()) {
        let _ = ClientId::parse(&text);
    }

    #[test]
    fn channels_keep_their_target(prefix in any::<String>(), name in "(?s).+", worker in any::<usize>()) {
        let names = ChannelNames::new(&prefix);
        for target in [Target::Broadcast, Target::Room(&name), Target::User(&name), Target::Client(&name)] {
            let channel = names.name(target);
            prop_assert_eq!(names.parse(&channel), Some(Channel::Target(target)));
            let sharded = sharded_name(&channel);
            prop_assert_eq!(unsharded_name(&sharded), Some(channel.as_str()));
        }
        let probe = names.probe(&name, worker);
        prop_assert_eq!(names.parse(&probe), Some(Channel::Probe { instance: &name, worker }));
    }

    #[test]
    fn parsing_channels_never_panics(prefix in any::<String>(), channel in any::<String>()) {
        let _ = ChannelNames::new(&prefix).parse(&channel);
        let _ = unsharded_name(&channel);
    }
}
