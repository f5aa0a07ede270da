//! From an envelope to sockets: the loop that the budgets are multiples of.
//!
//! Owns the bytes of the batch. Encodes a frame once, whatever the number of members. The batch is
//! bounded by what one read of Redis brings.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use slab::Slab;

use super::Delivery;
use super::client::Client;
use crate::websocket;

#[derive(Debug)]
pub(super) struct Fanout {
    delivery: Delivery,
    /// The frames of this batch, one after the other.
    frames: Vec<u8>,
    /// Clients with something pending, each once.
    dirty: Vec<u32>,
}

/// What of an envelope matters to a client. The rest is skipped, not built.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

// === impl Fanout ===

impl Fanout {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self { delivery, frames: Vec::new(), dirty: Vec::new() }
    }

    /// Sends, or marks to be sent, one envelope to `members`.
    pub(super) fn deliver(&mut self, envelope: &[u8], members: &[u32], clients: &mut Slab<Client>) {
        let Some(range) = self.encode(envelope) else { return };
        match self.delivery {
            Delivery::Write => {
                let frame = &self.frames[range.start as usize..range.end as usize];
                for member in members {
                    clients[*member as usize].write(frame);
                }
                self.frames.clear();
            }
            Delivery::Coalesce => {
                for member in members {
                    let client = &mut clients[*member as usize];
                    if client.pending.is_empty() {
                        self.dirty.push(*member);
                    }
                    client.pending.push(range.clone());
                }
            }
        }
    }

    /// Writes each dirty socket once.
    pub(super) fn end_batch(&mut self, clients: &mut Slab<Client>) {
        for member in self.dirty.drain(..) {
            clients[member as usize].flush_pending(&self.frames);
        }
        self.frames.clear();
    }

    fn encode(&mut self, envelope: &[u8]) -> Option<Range<u32>> {
        let envelope: Envelope<'_> = serde_json::from_slice(envelope).ok()?;
        let (event, data) = (envelope.event.get(), envelope.data.get());
        let start = self.frames.len();
        let payload_bytes = r#"{"event":,"data":}"#.len() + event.len() + data.len();
        websocket::write_text_header(&mut self.frames, payload_bytes);
        for part in [r#"{"event":"#, event, r#","data":"#, data, "}"] {
            self.frames.extend_from_slice(part.as_bytes());
        }
        Some(u32::try_from(start).ok()?..u32::try_from(self.frames.len()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_event_and_data_untouched() {
        let mut fanout = Fanout::new(Delivery::Write);
        let envelope =
            br#"{"serverId":"emitter","type":"room","target":"r","event":"e","data":{"a": 1.10}}"#;
        let range = fanout.encode(envelope).unwrap();
        let header = websocket::parse_header(&fanout.frames).unwrap();
        assert_eq!(&fanout.frames[header.header_bytes..], br#"{"event":"e","data":{"a": 1.10}}"#);
        assert_eq!(range.len(), header.header_bytes + header.payload_bytes);
    }
}
