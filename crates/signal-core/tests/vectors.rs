//! The golden vectors, from both sides: decoding gives what they say, encoding gives their bytes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::borrow::Cow;

use serde_json::Value;
use signal_core::{
    channel::{self, Channel, ChannelNames, Target},
    close::CloseCode,
    envelope::{Codec, Envelope, Kind},
    message::{self, ClientMessageError},
    revocation::{Revocation, Subject},
};

fn cases(text: &str) -> Vec<Value> {
    let Value::Array(cases) = serde_json::from_str(text).unwrap() else { panic!("no array") };
    assert!(!cases.is_empty());
    cases
}

fn from_hex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn expected(fields: &Value) -> Envelope<'_> {
    let text = |name: &str| fields[name].as_str().map(Cow::Borrowed);
    let exclude = fields["exclude"].as_array().map_or(&[][..], Vec::as_slice);
    Envelope {
        server_id: text("serverId").unwrap(),
        kind: Kind::from_name(fields["type"].as_str().unwrap()).unwrap(),
        target: text("target"),
        event_json: text("event").unwrap(),
        data: fields["data"].as_str(),
        exclude: exclude.iter().map(|client| Cow::Borrowed(client.as_str().unwrap())).collect(),
        id: text("id"),
        ts: fields["ts"].as_u64(),
        from: text("from"),
        trace: text("trace"),
    }
}

#[test]
fn envelopes() {
    for case in cases(include_str!("../vectors/envelopes.json")) {
        let name = &case["name"];
        let (codec, bytes) = match (case["text"].as_str(), case["hex"].as_str()) {
            (Some(text), None) => (Codec::Json, text.as_bytes().to_vec()),
            (None, Some(hex)) => (Codec::MsgPack, from_hex(hex)),
            _ => panic!("{name}: either text or hex"),
        };
        let decoded = Envelope::decode(&bytes);
        if let Some(error) = case["error"].as_str() {
            assert_eq!(decoded.unwrap_err().reason(), error, "{name}");
            continue;
        }
        let expected = expected(&case["expect"]);
        assert_eq!(decoded.as_ref(), Ok(&expected), "{name}");
        let mut encoded = Vec::new();
        expected.encode(codec, &mut encoded);
        if case["canonical"] == Value::Bool(true) {
            assert_eq!(
                String::from_utf8_lossy(&encoded),
                String::from_utf8_lossy(&bytes),
                "{name}"
            );
            assert_eq!(encoded, bytes, "{name}");
        }
        assert_eq!(Envelope::decode(&encoded), Ok(expected), "{name}");
    }
}

/// Another reader must see the JSON form as JSON with the fields that the protocol names.
#[test]
fn canonical_envelopes_are_read_alike_by_another_parser() {
    for case in cases(include_str!("../vectors/envelopes.json")) {
        let (Some(text), Value::Bool(true)) = (case["text"].as_str(), &case["canonical"]) else {
            continue;
        };
        // Deep texts, lone surrogates and numbers beyond f64 are beyond what it builds values of.
        if let Ok(value) = serde_json::from_str::<Value>(text) {
            assert_eq!(value["serverId"], case["expect"]["serverId"]);
            assert_eq!(value["type"], case["expect"]["type"]);
            assert_eq!(value["id"], case["expect"]["id"]);
        }
    }
}

#[test]
fn revocations() {
    for case in cases(include_str!("../vectors/revocations.json")) {
        let text = case["text"].as_str().unwrap();
        let decoded = Revocation::decode(text.as_bytes());
        if let Some(error) = case["error"].as_str() {
            assert_eq!(decoded.unwrap_err().reason(), error, "{text}");
            continue;
        }
        let expect = &case["expect"];
        let name = |field: &str| expect[field].as_str().map(Cow::Borrowed);
        let subject = match (name("user"), name("client"), name("token")) {
            (Some(user), None, None) => Subject::User(user),
            (None, Some(client), None) => Subject::Client(client),
            (None, None, Some(token)) => Subject::Token(token),
            other => panic!("{other:?}"),
        };
        let server_id = name("serverId").unwrap();
        let ts = expect["ts"].as_u64().unwrap();
        let expected = Revocation { server_id, subject, id: name("id"), ts };
        assert_eq!(decoded.as_ref(), Ok(&expected), "{text}");
        let mut encoded = Vec::new();
        expected.encode(&mut encoded);
        if case["canonical"] == Value::Bool(true) {
            assert_eq!(str::from_utf8(&encoded).unwrap(), text);
        }
        assert_eq!(Revocation::decode(&encoded), Ok(expected), "{text}");
    }
}

#[test]
fn messages() {
    for case in cases(include_str!("../vectors/messages.json")) {
        let text = case["text"].as_str().unwrap();
        let parsed = message::parse(text);
        match case["error"].as_str() {
            Some("invalid") => assert_eq!(parsed, Err(ClientMessageError::Invalid), "{text}"),
            Some("no_event") => assert_eq!(parsed, Err(ClientMessageError::NoEvent), "{text}"),
            Some(other) => panic!("unknown error {other}"),
            None => {
                let parsed = parsed.expect(text);
                assert_eq!(parsed.event, case["event"].as_str().unwrap(), "{text}");
                assert_eq!(parsed.data, case["data"].as_str(), "{text}");
                assert_eq!(parsed.id.as_deref(), case["id"].as_str(), "{text}");
            }
        }
    }
}

#[test]
fn channels() {
    for case in cases(include_str!("../vectors/channels.json")) {
        let names = ChannelNames::new(case["prefix"].as_str().unwrap());
        let target = match (case["type"].as_str().unwrap(), case["target"].as_str()) {
            ("broadcast", None) => Target::Broadcast,
            ("room", Some(room)) => Target::Room(room),
            ("user", Some(user)) => Target::User(user),
            ("client", Some(client)) => Target::Client(client),
            other => panic!("unknown target {other:?}"),
        };
        let channel = names.name(target);
        assert_eq!(channel, case["channel"].as_str().unwrap());
        assert_eq!(names.parse(&channel), Some(Channel::Target(target)));
        assert_eq!(Some(u64::from(channel::partition(&channel))), case["partition"].as_u64());
        let sharded = channel::sharded_name(&channel);
        assert_eq!(sharded, case["sharded"].as_str().unwrap());
        assert_eq!(Some(u64::from(channel::slot(&sharded))), case["slot"].as_u64());
        assert_eq!(channel::unsharded_name(&sharded), Some(channel.as_str()));
    }
}

#[test]
fn close_codes() {
    let cases = cases(include_str!("../vectors/close-codes.json"));
    assert_eq!(cases.len(), CloseCode::ALL.len());
    for (case, code) in cases.iter().zip(CloseCode::ALL) {
        assert_eq!(case["code"].as_u64(), Some(u64::from(code.code())));
        assert_eq!(case["name"].as_str(), Some(code.name()));
        assert_eq!(case["reason"].as_str(), Some(code.reason()));
        assert_eq!(case["reconnect"].as_bool(), Some(code.reconnect()));
    }
}

#[test]
fn the_protocol_page_lists_the_close_codes() {
    use signal_core::close::CloseCode;
    let page = include_str!("../../../docs/protocol.md");
    let mut table = String::new();
    for code in CloseCode::ALL {
        let again = if code.reconnect() { "yes" } else { "no" };
        table.push_str(
            &[
                &format!("| {} | `{}` |", code.code(), code.name()),
                code.reason(),
                &format!("| {again} |\n"),
            ]
            .join(" "),
        );
    }
    assert!(page.contains(&table), "the table should be:\n{table}");
}
