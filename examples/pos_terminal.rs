//! A POS terminal: connects, logs in, joins its branch and prints what arrives.
//!
//! ```text
//! cargo run --release --bin signal -- demo
//! cargo run -p signal-examples --bin pos_terminal -- pos-1 branch:1
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;

use bytes::Bytes;
use fastwebsockets::{FragmentCollector, Frame, OpCode, Payload, handshake};
use http_body_util::Empty;
use hyper::Request;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const EDGE: &str = "127.0.0.1:3000";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let user = arguments.next().unwrap_or_else(|| "pos-1".to_owned());
    let room = arguments.next().unwrap_or_else(|| "branch:1".to_owned());

    let request = Request::builder()
        .uri("/ws")
        .header("Host", EDGE)
        .header("Upgrade", "websocket")
        .header("Connection", "upgrade")
        .header("Sec-WebSocket-Key", handshake::generate_key())
        .header("Sec-WebSocket-Version", "13")
        .body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect(EDGE).await?;
    let (socket, _) = handshake::client(&TokioExecutor::new(), request, stream).await?;
    let mut socket = FragmentCollector::new(socket);

    let login = json!({ "event": "authenticate", "data": { "userId": user } });
    let join = json!({ "event": "join", "data": { "rooms": [room] } });
    for message in [login, join] {
        let text = message.to_string().into_bytes();
        socket.write_frame(Frame::text(Payload::Owned(text))).await?;
    }
    loop {
        // Pings are answered by the library.
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Text => {
                let message: Value = serde_json::from_slice(&frame.payload)?;
                println!("{}: {}", message["event"].as_str().unwrap_or("?"), message["data"]);
            }
            OpCode::Close => return Ok(()),
            _ => {}
        }
    }
}
