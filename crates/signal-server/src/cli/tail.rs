//! `signal tail`: a client that prints what arrives.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;
use clap::ArgMatches;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload};
use http_body_util::Empty;
use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper::http::uri::PathAndQuery;
use hyper::upgrade::Upgraded;
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use signal_core::crypto::{Key, Offer};
use tokio::net::TcpStream;

use super::{Failure, host_and_port};

type Socket = FragmentCollector<TokioIo<Upgraded>>;

#[derive(Debug, Deserialize)]
struct Delivery<'a> {
    event: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What `connected` says of encryption.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerHalf<'a> {
    server_public_key: &'a str,
    salt: &'a str,
}

/// Opens what an edge seals, if it does.
enum Seal {
    Offered(Offer),
    Agreed(Key),
    None,
}

pub(crate) async fn run(arguments: &ArgMatches) -> Result<(), Failure> {
    let text = |name: &str| arguments.get_one::<String>(name).map(String::as_str);
    let mut socket = connect(text("url").expect("it has a default")).await?;
    let offer = Offer::new();
    let mut credentials = json!({ "publicKey": offer.public_key() });
    let mut seal = Seal::Offered(offer);
    for (argument, member) in [("token", "token"), ("user", "userId")] {
        if let Some(value) = text(argument) {
            credentials[member] = json!(value);
        }
    }
    send(&mut socket, &json!({ "event": "authenticate", "data": credentials })).await?;
    let rooms: Vec<&String> = arguments.get_many("room").into_iter().flatten().collect();
    if !rooms.is_empty() {
        send(&mut socket, &json!({ "event": "join", "data": { "rooms": rooms } })).await?;
    }
    loop {
        let frame = socket.read_frame().await.map_err(Failure::unavailable)?;
        match frame.opcode {
            OpCode::Text => print(&seal.open(&String::from_utf8_lossy(&frame.payload)))?,
            OpCode::Close => return Err(closed(&frame.payload)),
            _ => {}
        }
    }
}

// === impl Seal ===

impl Seal {
    /// The text of a message; one that does not open, or is in clear, as it is.
    fn open<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        let delivery = serde_json::from_str::<Delivery<'_>>(text).ok();
        let Some(Delivery { event, data: Some(data) }) = delivery else { return text.into() };
        match (&*event, std::mem::replace(self, Self::None)) {
            ("connected", Self::Offered(offer)) => {
                let accepted = serde_json::from_str(data.get()).ok().and_then(
                    |ServerHalf { server_public_key, salt }| {
                        offer.accept(server_public_key, salt).ok()
                    },
                );
                *self = accepted.map_or(Self::None, Self::Agreed);
            }
            ("encrypted", Self::Agreed(key)) => {
                let opened = key.open(data.get());
                *self = Self::Agreed(key);
                return opened.map_or(text.into(), Cow::Owned);
            }
            (_, unchanged) => *self = unchanged,
        }
        text.into()
    }
}

async fn connect(url: &str) -> Result<Socket, Failure> {
    let url: Uri = url.parse().map_err(|_| Failure::usage("--url takes ws://host:port/path"))?;
    let (Some("ws"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(Failure::usage("--url takes ws://host:port/path; wss is not in this version"));
    };
    let stream = TcpStream::connect(host_and_port(authority))
        .await
        .map_err(|error| Failure::unavailable(format!("no edge at {url}: {error}")))?;
    let request = Request::builder()
        .uri(url.path_and_query().map_or("/", PathAndQuery::as_str))
        .header(HOST, authority.as_str())
        .header(UPGRADE, "websocket")
        .header(CONNECTION, "upgrade")
        .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(Empty::<Bytes>::new())
        .map_err(Failure::usage)?;
    let (socket, _) = fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream)
        .await
        .map_err(|error| Failure::unavailable(format!("{url} refused: {error}")))?;
    Ok(FragmentCollector::new(socket))
}

async fn send(socket: &mut Socket, message: &serde_json::Value) -> Result<(), Failure> {
    let text = message.to_string().into_bytes();
    socket.write_frame(Frame::text(Payload::Owned(text))).await.map_err(Failure::unavailable)
}

/// One line per message: when, what, and the data as it came.
fn print(text: &str) -> Result<(), Failure> {
    let time = humantime::format_rfc3339_millis(std::time::SystemTime::now());
    let mut out = std::io::stdout().lock();
    match serde_json::from_str::<Delivery<'_>>(text) {
        Ok(delivery) => {
            let data = delivery.data.map_or("", RawValue::get);
            writeln!(out, "{time}  {:<20} {data}", delivery.event)
        }
        Err(_) => writeln!(out, "{time}  {text}"),
    }
    .map_err(Failure::other)
}

fn closed(payload: &[u8]) -> Failure {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Failure::unavailable("the edge closed the connection");
    };
    let (code, reason) = (u16::from_be_bytes(*code), String::from_utf8_lossy(reason));
    Failure::unavailable(format!("the edge closed the connection: {code} {reason}"))
}
