//! A WebSocket echo server on Signal's own parser and outbox, for conformance suites.
//!
//! ```text
//! cargo run --release -p signal-server --example echo -- 127.0.0.1:9001
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::ControlFlow;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use signal_server::ws::frame::{Opcode, write_close, write_frame};
use signal_server::ws::outbox::{Outbox, SLICES_MAX};
use signal_server::ws::parser::{Event, Parser};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

/// The suite sends messages of up to 16 MiB.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).ok_or("usage: echo 127.0.0.1:PORT")?;
    let listener = TcpListener::bind(&address).await?;
    eprintln!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            if let Err(error) = serve(stream).await {
                eprintln!("{error}");
            }
        });
    }
}

/// The handshake, then the echo.
async fn serve(stream: TcpStream) -> Result<(), Box<dyn Error + Send + Sync>> {
    let service = service_fn(|mut request: Request<Incoming>| {
        let answer = fastwebsockets::upgrade::upgrade(&mut request)
            .map_or_else(|_| hyper::Response::new(Empty::<Bytes>::new()), |(answer, _)| answer);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    poll_fn(|context| connection.poll_without_shutdown(context)).await?;
    let parts = connection.into_parts();
    echo(parts.io.into_inner(), &mut parts.read_buf.to_vec()).await?;
    Ok(())
}

async fn echo(mut stream: TcpStream, early: &mut [u8]) -> io::Result<()> {
    let mut parser = Parser::default();
    let mut outbox = Outbox::new(2 * MESSAGE_BYTES_MAX);
    let mut goes_on = answer(&mut parser, &mut outbox, early);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        flush(&mut stream, &mut outbox).await?;
        if !goes_on {
            break;
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        goes_on = answer(&mut parser, &mut outbox, &mut buffer[..count]);
    }
    // An end of stream behind the Close frame; what still comes is read away, so that no reset
    // overtakes the frame.
    socket2::SockRef::from(&stream).shutdown(std::net::Shutdown::Write)?;
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Queues the answer to each event; returns whether the connection goes on.
fn answer(parser: &mut Parser, outbox: &mut Outbox, bytes: &mut [u8]) -> bool {
    let mut frames = Vec::new();
    let mut goes_on = true;
    let outcome = parser.advance(bytes, MESSAGE_BYTES_MAX, |event| {
        match event {
            Event::Text(text) => write_frame(&mut frames, Opcode::Text, text.as_bytes()),
            Event::Binary(bytes) => write_frame(&mut frames, Opcode::Binary, bytes),
            Event::Ping(bytes) => write_frame(&mut frames, Opcode::Pong, bytes),
            Event::Pong => {}
            Event::Close(code) => {
                write_close(&mut frames, code.unwrap_or(1000), "");
                goes_on = false;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if let Err(violation) = outcome {
        let code = violation.close_code();
        write_close(&mut frames, code.code(), code.reason());
        goes_on = false;
    }
    let pushed = outbox.push(&frames, || Bytes::copy_from_slice(&frames));
    goes_on && pushed.is_ok()
}

async fn flush(stream: &mut TcpStream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.is_empty() {
        stream.writable().await?;
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        match stream.try_write_vectored(&slices[..count]) {
            Ok(written) => outbox.advance(written),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
