//! The floor's Redis connection: batched SUBSCRIBE out, pushes in.
//!
//! Owns its socket and both its buffers. Never reconnects. What comes in is bounded by
//! [`INCOMING_BYTES_MAX`], what goes out by the channels of the clients.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::FloorError;
use crate::resp::{self, Push, RespError};

/// The most that one read takes, so the largest batch; Redis writes 64 KiB at a time.
const INCOMING_BYTES_MAX: usize = 256 * 1024;

/// Channels per SUBSCRIBE.
const SUBSCRIBE_BATCH_MAX: usize = 512;

/// A subscribed connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: TcpStream,
    incoming: Box<[u8]>,
    /// Bytes of `incoming` already handed out.
    start: usize,
    /// Bytes of `incoming` read so far.
    end: usize,
    wanted: VecDeque<Box<str>>,
    outgoing: Vec<u8>,
}

// === impl Bus ===

impl Bus {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            incoming: vec![0; INCOMING_BYTES_MAX].into(),
            start: 0,
            end: 0,
            wanted: VecDeque::new(),
            outgoing: Vec::new(),
        })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Asks for a channel; sent by the next [`Bus::flush`].
    pub(super) fn subscribe(&mut self, channel: &str) {
        self.wanted.push_back(channel.into());
    }

    /// Sends what was asked for, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.wanted.is_empty() {
            let count = self.wanted.len().min(SUBSCRIBE_BATCH_MAX);
            let batch: Vec<Box<str>> = self.wanted.drain(..count).collect();
            let mut parts = vec![&b"SUBSCRIBE"[..]];
            parts.extend(batch.iter().map(|channel| channel.as_bytes()));
            resp::write_command(&mut self.outgoing, parts.into_iter());
        }
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once; true if there may be more.
    pub(super) fn fill(&mut self) -> Result<bool, FloorError> {
        self.incoming.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let free = &mut self.incoming[self.end..];
        if free.is_empty() {
            return Err(RespError::Unexpected.into());
        }
        let free_bytes = free.len();
        match self.stream.read(free) {
            Ok(0) => Err(FloorError::RedisClosed),
            Ok(count) => {
                self.end += count;
                Ok(count == free_bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The next push that is all there.
    pub(super) fn next_push(&mut self) -> Result<Option<Push<'_>>, RespError> {
        let Some((push, used)) = resp::parse_push(&self.incoming[self.start..self.end])? else {
            return Ok(None);
        };
        self.start += used;
        Ok(Some(push))
    }
}
