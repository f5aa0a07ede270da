//! What the servers beside Signal speak: to clients, and on Redis between their edges.
//!
//! Pure. The load is the same for all: the same data, to the same users and rooms, published on Redis
//! as the server's own producers or edges would. A delivered text is recognised by the data in it,
//! whatever stands around.

use serde_json::json;

use super::payload::{self, Audience};
use crate::resp;

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Signal, the floor, and the TypeScript server.
    #[default]
    Signal,
    /// socket.io with its Redis adapter.
    SocketIo,
    /// socketioxide with its own adapter, for the same clients.
    Socketioxide,
    /// Centrifugo with its Redis engine.
    Centrifugo,
    /// Sockudo with its Redis adapter; Pusher's protocol to clients.
    Sockudo,
}

/// What follows from a text that came while a client logs in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// More is to be said.
    Say(String),
    /// It is logged in.
    Done,
    /// Something else.
    Unexpected,
}

// === impl Dialect ===

impl Dialect {
    /// Where the WebSocket is.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Signal => "/ws",
            Self::SocketIo | Self::Socketioxide => "/socket.io/?EIO=4&transport=websocket",
            Self::Centrifugo => "/connection/websocket",
            Self::Sockudo => "/app/bench?protocol=7&client=bench&version=1",
        }
    }

    /// What a client says first, if the server does not.
    pub(super) fn greeting(self, user: &str) -> Option<String> {
        match self {
            Self::Centrifugo => Some(format!(
                "{{\"id\":1,\"connect\":{{}}}}\n\
                 {{\"id\":2,\"subscribe\":{{\"channel\":\"user.{user}\"}}}}"
            )),
            Self::Signal | Self::SocketIo | Self::Socketioxide | Self::Sockudo => None,
        }
    }

    /// What follows from the next text of a login.
    pub(super) fn login(self, text: &[u8], user: &str) -> Login {
        match (self, text) {
            (Self::SocketIo | Self::Socketioxide, [b'0', ..]) => {
                Login::Say(format!("40{{\"userId\":\"{user}\"}}"))
            }
            (Self::SocketIo | Self::Socketioxide, [b'4', b'0', ..]) => Login::Done,
            (Self::Centrifugo, text) if contains(text, b"\"error\"") => Login::Unexpected,
            (Self::Centrifugo, text) if contains(text, b"\"id\":2") => Login::Done,
            (Self::Centrifugo, _) => Login::Say(String::new()),
            (Self::Sockudo, text) if contains(text, b"\"pusher:connection_established\"") => {
                Login::Say(self.join(&format!("user-{user}")))
            }
            (Self::Sockudo, text) if contains(text, b"subscription_succeeded\"") => Login::Done,
            _ => Login::Unexpected,
        }
    }

    /// Asks for a room.
    pub(super) fn join(self, room: &str) -> String {
        match self {
            Self::Signal => format!(r#"{{"event":"join","data":{{"rooms":["{room}"]}}}}"#),
            Self::SocketIo | Self::Socketioxide => format!(r#"42["join","{room}"]"#),
            Self::Centrifugo => {
                format!(r#"{{"id":3,"subscribe":{{"channel":"{room}"}}}}"#)
            }
            Self::Sockudo => {
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{room}"}}}}"#)
            }
        }
    }

    /// The messages in a text: Centrifugo puts several into one, a line each.
    pub(super) fn messages(self, text: &[u8]) -> impl Iterator<Item = &[u8]> {
        text.split(move |byte| self == Self::Centrifugo && *byte == b'\n')
    }

    /// The answer to a server's own sign of life, if a text is one.
    pub(super) fn answer(self, text: &[u8]) -> Option<&'static str> {
        match (self, text) {
            (Self::SocketIo | Self::Socketioxide, b"2") => Some("3"),
            (Self::Centrifugo, b"{}") => Some("{}"),
            (Self::Sockudo, text) if contains(text, b"\"pusher:ping\"") => {
                Some(r#"{"event":"pusher:pong","data":{}}"#)
            }
            _ => None,
        }
    }

    /// The PUBLISH of a message, as a producer or another edge would send it.
    pub(super) fn command(
        self,
        audience: Audience,
        target: u32,
        event: &str,
        data: &str,
    ) -> Vec<u8> {
        let (channel, body) = match self {
            Self::Signal => {
                let (channel, envelope) = payload::envelope(audience, target, event, data);
                (channel, envelope.into_bytes())
            }
            Self::SocketIo => {
                let room = room(audience, target, ':');
                let mut body = vec![0x93];
                string(&mut body, "bench");
                // {"type":2,"data":[event,data],"nsp":"/"}
                body.push(0x83);
                string(&mut body, "type");
                body.push(2);
                string(&mut body, "data");
                body.push(0x92);
                string(&mut body, event);
                fields(&mut body, data);
                string(&mut body, "nsp");
                string(&mut body, "/");
                // {"rooms":[room],"except":[],"flags":{}}
                body.push(0x83);
                string(&mut body, "rooms");
                body.push(0x91);
                string(&mut body, &room);
                string(&mut body, "except");
                body.push(0x90);
                string(&mut body, "flags");
                body.push(0x80);
                (format!("socket.io#/#{room}#"), body)
            }
            Self::Socketioxide => {
                let text = format!("[\"{event}\",{data}]");
                // [node, request, broadcast, packet, no rooms, options]
                let mut body = vec![0x96];
                string(&mut body, "AAAAAAAAAAAAAAAA");
                string(&mut body, "AAAAAAAAAAAAAAAA");
                body.push(0);
                // [namespace, event, [text, its bytes, none], no ack, no error]
                body.push(0x95);
                string(&mut body, "/");
                body.extend([2, 0x93, 0, 0xdc]);
                let length = u16::try_from(text.len()).expect("texts are short");
                body.extend(length.to_be_bytes());
                body.extend(text.as_bytes());
                body.extend([0xc0, 0xc0, 0xc0, 0xc0]);
                // [no flags, rooms, none excepted, no sender, no server]
                body.extend([0x95, 0, 0x91]);
                string(&mut body, &room(audience, target, ':'));
                body.extend([0x90, 0xc0, 0xc0]);
                ("socket.io-request#/#".to_owned(), body)
            }
            Self::Centrifugo => {
                // A publication: the field `data` and nothing else.
                let data = match event {
                    "bench" => data.to_owned(),
                    event => format!(r#"{{"{event}":true}}"#),
                };
                let mut body = vec![0x22];
                let mut length = data.len();
                while length > 0x7f {
                    body.push(0x80 | u8::try_from(length & 0x7f).expect("seven bits"));
                    length >>= 7;
                }
                body.push(u8::try_from(length).expect("seven bits"));
                body.extend(data.as_bytes());
                (format!("centrifugo.client.{}", room(audience, target, '.')), body)
            }
            Self::Sockudo => {
                let channel = room(audience, target, '-');
                // What clients get, and around it what edges send one another; data is text.
                let message = json!({ "event": event, "channel": channel, "data": data });
                let body = json!({
                    "node_id": "bench",
                    "app_id": "bench",
                    "channel": channel,
                    "message": message.to_string(),
                    "except_socket_id": null,
                });
                ("sockudo_adapter::#broadcast".to_owned(), body.to_string().into_bytes())
            }
        };
        let mut command = Vec::new();
        let parts = [&b"PUBLISH"[..], channel.as_bytes(), &body];
        resp::write_command(&mut command, parts.into_iter());
        command
    }
}

/// The room of an audience, where a user is a room like any other.
fn room(audience: Audience, target: u32, separator: char) -> String {
    match audience {
        Audience::Room => payload::ROOM.to_owned(),
        Audience::User => format!("user{separator}{}", payload::user_id(target)),
        Audience::Rooms => payload::room_number(target),
    }
}

/// Appends a MessagePack string.
fn string(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).expect("strings are short");
    match length {
        0..=31 => out.push(0xa0 | length),
        _ => out.extend([0xd9, length]),
    }
    out.extend(text.as_bytes());
}

/// Appends the data of a message as a MessagePack map of strings: what its numbers are made of stays
/// digits, to be filled in.
fn fields(out: &mut Vec<u8>, data: &str) {
    let parsed: serde_json::Value = serde_json::from_str(data).unwrap_or_default();
    let Some(members) = parsed.as_object() else { return out.push(0xc0) };
    out.push(0x80 | u8::try_from(members.len()).expect("members are few"));
    for name in ["seq", "ts", "pad"] {
        let Some(value) = members.get(name) else { continue };
        string(out, name);
        string(out, value.as_str().map_or_else(|| value.to_string(), str::to_owned).as_str());
    }
}

pub(super) fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_of_centrifugo_is_a_field_with_a_length() {
        let command = Dialect::Centrifugo.command(Audience::User, 7, "bench", &"x".repeat(300));
        let body = [&[0x22, 0xac, 0x02][..], "x".repeat(300).as_bytes()].concat();
        assert!(contains(&command, b"centrifugo.client.user.u00007\r\n"));
        assert!(contains(&command, &body));
    }

    #[test]
    fn a_client_of_socket_io_logs_in_when_it_is_asked_to() {
        let dialect = Dialect::SocketIo;
        assert_eq!(dialect.login(b"0{}", "u1"), Login::Say("40{\"userId\":\"u1\"}".to_owned()));
        assert_eq!(dialect.login(b"40{}", "u1"), Login::Done);
        assert_eq!(dialect.login(b"44{}", "u1"), Login::Unexpected);
        assert_eq!(dialect.answer(b"2"), Some("3"));
    }

    #[test]
    fn what_sockudo_delivers_is_read_through_its_quotes() {
        let command = Dialect::Sockudo.command(Audience::User, 7, "bench", &payload::data(1, 2));
        let text = String::from_utf8(command).unwrap();
        let body: serde_json::Value =
            serde_json::from_str(text.trim_end().rsplit("\r\n").next().unwrap()).unwrap();
        assert_eq!(body["channel"], "user-u00007");
        let delivered = body["message"].as_str().unwrap();
        assert_eq!(payload::find(delivered.as_bytes()), Some((1, 2)));
    }

    #[test]
    fn several_messages_in_one_text_are_told_apart() {
        assert_eq!(Dialect::Centrifugo.messages(b"{1}\n{2}").count(), 2);
        assert_eq!(Dialect::Signal.messages(b"{1}\n{2}").count(), 1);
    }
}
