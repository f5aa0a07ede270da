//! One WebSocket: messages in, messages out.
//!
//! Reading is a task of its own, because a frame that is read half must be read on. It ends with the
//! socket. What was read waits in a queue of [`INPUTS_MAX`]; when that is full the peer waits.

use std::time::Duration;

use bytes::Bytes;
use fastwebsockets::{
    FragmentCollectorRead, Frame, OpCode, Payload, WebSocketRead, WebSocketWrite,
};
use http_body_util::Empty;
use hyper::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::upgrade::Upgraded;
use hyper::{Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use signal_core::v1::Variant;
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event::Loss;
use crate::tls::Tls;

/// Frames that were read and wait.
const INPUTS_MAX: usize = 64;

/// Bytes of a message: far beyond any envelope.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A peer that takes no byte for this long is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where an address names no port: of `ws:` and of `wss:`.
const PORT: u16 = 80;
const PORT_TLS: u16 = 443;

type Stream = TokioIo<Upgraded>;

/// What comes from the peer.
#[derive(Debug)]
pub(crate) enum Input {
    Message(Vec<u8>),
    /// The protocol wants this to be answered.
    Control(OpCode, Vec<u8>),
    Ended(Loss),
}

/// See the module.
pub(crate) struct Socket {
    inputs: mpsc::Receiver<Input>,
    writer: WebSocketWrite<WriteHalf<Stream>>,
    /// Of the frames that carry messages.
    opcode: OpCode,
    reader: JoinHandle<()>,
}

// === impl Socket ===

impl Socket {
    /// Connects, to speak this variant of `signal.v1`; by TLS if there is one to shake hands with.
    pub(crate) async fn dial(url: &Uri, variant: Variant, tls: Option<&Tls>) -> Result<Self, Loss> {
        let port = if tls.is_some() { PORT_TLS } else { PORT };
        let (host, port) = host_and_port(authority(url), port);
        let stream = TcpStream::connect((host, port))
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| Loss::Failed(format!("no edge at {url}: {error}")))?;
        let Some(tls) = tls else { return Box::pin(Self::upgrade(url, variant, stream)).await };
        let stream = tls
            .handshake(host, stream)
            .await
            .map_err(|problem| Loss::Failed(format!("no TLS with {url}: {problem}")))?;
        Box::pin(Self::upgrade(url, variant, stream)).await
    }

    /// Asks for the WebSocket.
    async fn upgrade(
        url: &Uri,
        variant: Variant,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Self, Loss> {
        let authority = authority(url);
        let subprotocol = variant.subprotocol().expect("signal.v1 has names");
        let request = Request::builder()
            .uri(url.path_and_query().map_or("/", PathAndQuery::as_str))
            .header(HOST, authority.as_str())
            .header(UPGRADE, "websocket")
            .header(CONNECTION, "upgrade")
            .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_PROTOCOL, subprotocol)
            .body(Empty::<Bytes>::new())
            .map_err(|error| Loss::Failed(error.to_string()))?;
        let refused = |why: &dyn std::fmt::Display| Loss::Failed(format!("{url} refused: {why}"));
        let (socket, response) =
            fastwebsockets::handshake::client(&TokioExecutor::new(), request, stream)
                .await
                .map_err(|error| refused(&error))?;
        let spoken = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
        if spoken.is_none_or(|name| name != subprotocol) {
            return Err(refused(&format_args!("it does not speak {subprotocol}")));
        }
        let (mut reader, writer) = socket.split(tokio::io::split);
        reader.set_max_message_size(MESSAGE_BYTES_MAX);
        let (sender, inputs) = mpsc::channel(INPUTS_MAX);
        let opcode = if variant.is_binary() { OpCode::Binary } else { OpCode::Text };
        let reader = tokio::spawn(read(reader, opcode, sender));
        Ok(Self { inputs, writer, opcode, reader })
    }

    /// What comes next; for ever `Ended` after the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost.
    pub(crate) async fn next(&mut self) -> Input {
        let end = || Input::Ended(Loss::Failed("the connection ended".to_owned()));
        self.inputs.recv().await.unwrap_or_else(end)
    }

    pub(crate) async fn send(&mut self, message: Vec<u8>) -> Result<(), Loss> {
        self.write(Frame::new(true, self.opcode, None, Payload::Owned(message))).await
    }

    /// Answers as the protocol wants.
    pub(crate) async fn answer(&mut self, opcode: OpCode, payload: Vec<u8>) -> Result<(), Loss> {
        self.write(Frame::new(true, opcode, None, Payload::Owned(payload))).await
    }

    /// Says that it is over. Does not wait for the peer.
    pub(crate) async fn close(mut self) {
        // Whether the peer still hears it does not matter.
        let _ = self.write(Frame::close(1000, b"")).await;
    }

    async fn write(&mut self, frame: Frame<'_>) -> Result<(), Loss> {
        let write = async {
            self.writer.write_frame(frame).await?;
            // Under TLS the socket may not have taken all of it yet.
            self.writer.flush().await
        };
        match tokio::time::timeout(WRITE_TIMEOUT, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Loss::Failed(error.to_string())),
            Err(_) => Err(Loss::Failed("the edge takes nothing".to_owned())),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(
    reader: WebSocketRead<ReadHalf<Stream>>,
    opcode: OpCode,
    inputs: mpsc::Sender<Input>,
) {
    let mut reader = FragmentCollectorRead::new(reader);
    let controls = inputs.clone();
    let mut answer = |frame: Frame<'_>| {
        let input = Input::Control(frame.opcode, frame.payload.to_vec());
        let controls = controls.clone();
        async move { controls.send(input).await }
    };
    loop {
        let input = match reader.read_frame(&mut answer).await {
            Ok(frame) => match frame.opcode {
                OpCode::Close => Input::Ended(closed(&frame.payload)),
                found if found == opcode => Input::Message(frame.payload.to_vec()),
                OpCode::Text | OpCode::Binary => {
                    Input::Ended(Loss::Failed("a frame of another protocol came".to_owned()))
                }
                _ => continue,
            },
            Err(error) => Input::Ended(Loss::Failed(error.to_string())),
        };
        let is_over = matches!(input, Input::Ended(_));
        if inputs.send(input).await.is_err() || is_over {
            return;
        }
    }
}

fn closed(payload: &[u8]) -> Loss {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return Loss::Failed("the edge closed the connection".to_owned());
    };
    let reason = String::from_utf8_lossy(reason).into_owned();
    Loss::Closed { code: u16::from_be_bytes(*code), reason }
}

fn authority(url: &Uri) -> &Authority {
    url.authority().expect("the configuration has checked the address")
}

/// The brackets of an IPv6 address are not part of it.
fn host_and_port(authority: &Authority, port: u16) -> (&str, u16) {
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (host, authority.port_u16().unwrap_or(port))
}
