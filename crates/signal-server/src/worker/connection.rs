//! The task of one connection: waits for its socket, reads into the worker's buffer, hands on events.
//!
//! It owns the waiting and nothing else: the socket, the parser and the outbox are in the worker's
//! tables, so the task is two words, and an idle connection holds no buffer. It writes only what an
//! earlier write left over. It is the only one that ends a connection. One poll reads a bounded number
//! of times, so that a peer that never stops sending cannot keep the worker.

use std::future::Future;
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use signal_core::close::CloseCode;
use signal_core::message::{self, ClientMessageError};
use signal_core::v1::{self, Variant};
use tokio::io::ReadBuf;
use tracing::trace;

use super::hub::Slot;
use super::session::Phase;
use super::{State, Worker};
use crate::ws::frame::Opcode;
use crate::ws::parser::{Event, Violation};

/// Reads before other connections get their turn.
const READS_PER_POLL: usize = 4;

/// The task; see the module.
#[derive(Debug)]
pub(super) struct Connection {
    worker: Rc<Worker>,
    slot: Slot,
}

// A task is paid for every connection, so its size is part of the design.
const _: () = assert!(size_of::<Connection>() <= 16);

// === impl Connection ===

impl Connection {
    pub(super) fn new(worker: Rc<Worker>, slot: Slot) -> Self {
        Self { worker, slot }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let slot = self.slot;
        self.worker.turn(|state| {
            if !state.sessions.contains(slot.0 as usize) {
                // The worker has ended all connections.
                return Poll::Ready(());
            }
            let polled = state.poll_connection(slot, context);
            if polled.is_ready() {
                state.finish(slot);
            }
            polled
        })
    }
}

// === impl State ===

impl State {
    /// Ready when the connection is over.
    fn poll_connection(&mut self, slot: Slot, context: &mut Context<'_>) -> Poll<()> {
        self.session(slot).set_waker(context.waker());
        if self.sockets[slot.0 as usize].failure.is_some() {
            return Poll::Ready(());
        }
        if self.poll_outbox(slot, context).is_err() || self.is_done(slot) {
            return Poll::Ready(());
        }
        for _ in 0..READS_PER_POLL {
            if self.session(slot).is_paused {
                return Poll::Pending;
            }
            match self.poll_read(slot, context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ControlFlow::Break(())) => return Poll::Ready(()),
                Poll::Ready(ControlFlow::Continue(())) => {}
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes what an earlier write left over, as far as the socket takes it.
    fn poll_outbox(&mut self, slot: Slot, context: &mut Context<'_>) -> io::Result<()> {
        let socket = &mut self.sockets[slot.0 as usize];
        while socket.is_blocked() {
            match socket.stream.poll_write_ready(context) {
                Poll::Pending => break,
                Poll::Ready(ready) => ready?,
            }
            if self.fanout.write_outbox(socket)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether both sides are done, and the last word is written.
    fn is_done(&mut self, slot: Slot) -> bool {
        let session = &self.sessions[slot.0 as usize];
        let socket = &mut self.sockets[slot.0 as usize];
        if session.phase != Phase::Closing || socket.is_blocked() {
            return false;
        }
        if session.is_broken {
            // No answer can be understood any more. The peer gets an end of stream behind the Close
            // frame, and the rest of what it sends is read away, so that no reset overtakes the frame.
            socket.stream.shut_down();
        }
        session.peer_closed
    }

    fn poll_read(&mut self, slot: Slot, context: &mut Context<'_>) -> Poll<ControlFlow<()>> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut space = ReadBuf::new(&mut scratch);
        let stream = &mut self.sockets[slot.0 as usize].stream;
        let polled = stream.poll_read(context, &mut space);
        let count = space.filled().len();
        let flow = polled.map(|outcome| match outcome {
            Ok(()) if count > 0 => self.receive(slot, &mut scratch[..count]),
            _ => ControlFlow::Break(()),
        });
        self.scratch = scratch;
        flow
    }

    /// Takes what a client sent; breaks when the connection is over.
    pub(super) fn receive(&mut self, slot: Slot, bytes: &mut [u8]) -> ControlFlow<()> {
        self.counters.bytes_received += bytes.len() as u64;
        self.session(slot).received_bytes += bytes.len() as u64;
        if self.session(slot).is_broken {
            return ControlFlow::Continue(());
        }
        self.note_activity(slot);
        let mut parser = std::mem::take(&mut self.session(slot).parser);
        let message_bytes_max = self.shared.config.max_message;
        let outcome = parser.advance(bytes, message_bytes_max, |event| self.on_event(slot, &event));
        self.session(slot).parser = parser;
        if let Err(violation) = outcome {
            self.on_violation(slot, violation);
        }
        match self.is_done(slot) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn on_event(&mut self, slot: Slot, event: &Event<'_>) -> ControlFlow<()> {
        self.counters.frames_received += 1;
        let closing = self.session(slot).is_closing();
        match event {
            Event::Close(code) => {
                let echo = code.unwrap_or(1000);
                self.session(slot).peer_closed = true;
                if !closing {
                    self.begin_close_with(slot, echo, "");
                    self.session(slot).close = Some(code.unwrap_or(1005));
                }
                return ControlFlow::Break(());
            }
            _ if closing => {}
            _ if !self.spend_allowance(slot) => {
                self.counters.rate_exceeded += 1;
                self.begin_close(slot, CloseCode::LimitExceeded);
            }
            Event::Ping(payload) => self.send_frame(slot, Opcode::Pong, payload),
            Event::Pong => {}
            Event::Text(text) => self.on_message(slot, message::parse(text)),
            Event::Binary(bytes) if self.sockets[slot.0 as usize].variant == Variant::V1MsgPack => {
                self.on_message(slot, v1::parse_msgpack(bytes));
            }
            // A TypeScript server reads a binary frame as the text in it.
            Event::Binary(bytes) => {
                let text = std::str::from_utf8(bytes).map_err(|_| ClientMessageError::Invalid);
                self.on_message(slot, text.and_then(message::parse));
            }
        }
        ControlFlow::Continue(())
    }

    fn on_violation(&mut self, slot: Slot, violation: Violation) {
        trace!(client = %self.session(slot).client, %violation, "protocol violation");
        self.begin_close(slot, violation.close_code());
        let session = self.session(slot);
        session.is_broken = true;
        session.parser = crate::ws::parser::Parser::default();
    }
}
