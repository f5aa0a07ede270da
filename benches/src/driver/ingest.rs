//! Messages from clients: bursts of them, each behind the answer to the last.
//!
//! A burst ends with a ping, and servers answer in order: the pong says that all before it was read.
//! So one burst per client is under way, and nothing is published.

use std::time::Duration;

use super::payload::TEXT_BYTES;
use super::{Driver, DriverError};
use crate::websocket;

/// Messages per burst.
const BURST: usize = 16;

// === impl Driver ===

impl Driver {
    /// Lets every client send as fast as it is answered; returns the messages that were read.
    pub fn ingest(&mut self, duration: Duration) -> Result<u64, DriverError> {
        let burst = burst();
        let end = self.clock.elapsed() + duration;
        if !self.bursting {
            self.bursting = true;
            self.ponged = (0..self.connections.len()).collect();
        }
        let mut bursts = 0;
        while self.clock.elapsed() < end {
            let mut ponged = std::mem::take(&mut self.ponged);
            for client in ponged.drain(..) {
                self.connections[client].send_frames(&burst)?;
                bursts += 1;
            }
            self.ponged = ponged;
            self.step(end)?;
        }
        Ok(bursts * BURST as u64)
    }
}

/// Messages that no server hands on or answers, of the size of all others, and the ping.
fn burst() -> Vec<u8> {
    let head = r#"{"event":"heartbeat","data":{"pad":""#;
    let text = format!("{head}{}\"}}}}", "x".repeat(TEXT_BYTES - head.len() - 3));
    let mut frames = Vec::new();
    for _ in 0..BURST {
        websocket::write_masked(&mut frames, websocket::OPCODE_TEXT, text.as_bytes());
    }
    websocket::write_masked(&mut frames, websocket::OPCODE_PING, b"");
    frames
}
