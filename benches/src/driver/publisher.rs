//! The producer: pipelined PUBLISH on one Redis connection.
//!
//! Owns its socket. Never waits for a reply; counts them. What Redis does not take is bounded by
//! [`OUTGOING_BYTES_MAX`], beyond which the load asked for is more than this machine can make.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::DriverError;

/// Commands that may wait for Redis to take them: about ten thousand.
const OUTGOING_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A connection that publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    stream: TcpStream,
    /// Commands that were not sent yet.
    pub(super) outgoing: Vec<u8>,
}

// === impl Publisher ===

impl Publisher {
    pub(super) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: TcpStream::from_std(stream), outgoing: Vec::new() })
    }

    pub(super) fn stream(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Queues one message that is not on the measured path.
    pub(super) fn publish(&mut self, command: &[u8]) {
        self.outgoing.extend_from_slice(command);
    }

    /// Sends what is queued, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), DriverError> {
        while !self.outgoing.is_empty() {
            match self.stream.write(&self.outgoing) {
                Ok(written) => drop(self.outgoing.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if self.outgoing.len() > OUTGOING_BYTES_MAX {
            return Err(DriverError::PublisherOverrun);
        }
        Ok(())
    }

    /// Reads what Redis answered: `:receivers` per message.
    pub(super) fn read_replies(&mut self, buffer: &mut [u8]) -> Result<(), DriverError> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(DriverError::PublisherClosed),
                // Integers hold no minus: there are no negative receivers.
                Ok(count) if buffer[..count].contains(&b'-') => {
                    let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    return Err(DriverError::PublishRefused(text));
                }
                Ok(count) if count < buffer.len() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
