//! What must hold for any bytes from a WebSocket client.

use std::ops::ControlFlow;

use signal_server::ws::parser::{Event, Parser, Violation};

/// Small, so that the fuzzer meets it.
const MESSAGE_BYTES_MAX: usize = 512;

/// An event's opcode and payload.
type Seen = (u8, Vec<u8>);

/// Panics if it does not hold. The first byte says in which pieces the rest arrives.
pub(crate) fn check(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else { return };
    let whole = read(bytes, bytes.len());
    assert_eq!(read(bytes, usize::from(*piece)), whole, "it matters how the input is cut");
}

/// The events, and how it ended.
fn read(bytes: &[u8], piece: usize) -> (Vec<Seen>, Result<(), Violation>) {
    let mut parser = Parser::default();
    let mut events = Vec::new();
    for piece in bytes.chunks(piece.max(1)) {
        let mut piece = piece.to_vec();
        let outcome = parser.advance(&mut piece, MESSAGE_BYTES_MAX, |event| {
            events.push(match event {
                Event::Text(text) => (1, text.as_bytes().to_vec()),
                Event::Binary(bytes) => (2, bytes.to_vec()),
                Event::Ping(bytes) => (9, bytes.to_vec()),
                Event::Pong => (10, Vec::new()),
                Event::Close(code) => (8, code.unwrap_or_default().to_be_bytes().to_vec()),
            });
            ControlFlow::Continue(())
        });
        if outcome.is_err() {
            return (events, outcome);
        }
        assert!(parser.kept_bytes() <= bytes.len(), "it keeps more than it got");
    }
    assert!(events.iter().all(|(_, payload)| payload.len() <= MESSAGE_BYTES_MAX));
    (events, Ok(()))
}
