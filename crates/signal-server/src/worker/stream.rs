//! A connection's socket, in the clear or under TLS, as the fan-out writes it and its task reads it.
//!
//! It owns the socket and, under TLS, the session, with what it has encrypted and the socket has not
//! taken yet: [`CIPHERTEXT_BYTES_MAX`] at most, beyond which it takes no more, so what a slow consumer
//! is owed waits in the outbox as ever and is bounded there. It never waits and never calls back. In
//! the clear each method is the socket's own behind one branch, and the size is the socket's.
//!
//! Why the session is here, and not in a task of its own with a pair of sockets in between: a
//! connection stays one file, one task and one write, and there is no second place where bytes wait.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ServerConnection;

/// Bytes of ciphertext that wait for the socket.
const CIPHERTEXT_BYTES_MAX: usize = 64 * 1024;

/// Reads of one poll that bring no byte for the connection, like those of empty records.
const BARREN_READS_MAX: u32 = 16;

/// The socket; see the module.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

// It is paid for by every connection, with TLS or without.
const _: () = assert!(size_of::<Stream>() == size_of::<TcpStream>());

/// A socket under TLS.
#[derive(Debug)]
pub(crate) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
}

/// The socket, as the session reads and writes it.
struct Transport<'a>(&'a TcpStream);

// === impl Stream ===

impl Stream {
    /// A connection whose handshake is done.
    pub(crate) fn tls(socket: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(CIPHERTEXT_BYTES_MAX));
        Self::Tls(Box::new(TlsStream { socket, session }))
    }

    /// Writes what it takes at once.
    #[inline]
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write(bytes),
            Self::Tls(stream) => stream.write(|session| session.write(bytes)),
        }
    }

    /// Writes what it takes at once.
    #[inline]
    pub(super) fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.try_write_vectored(slices),
            Self::Tls(stream) => stream.write(|session| session.write_vectored(slices)),
        }
    }

    /// Whether something that was written waits for the socket here.
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.session.wants_write(),
        }
    }

    /// Gives the socket what waits for it; returns whether it took all.
    #[inline]
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Plain(_) => Ok(true),
            Self::Tls(stream) => stream.flush(),
        }
    }

    pub(super) fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => socket.poll_write_ready(context),
            Self::Tls(stream) => stream.socket.poll_write_ready(context),
        }
    }

    /// Reads what there is; nothing is the end.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, space),
            Self::Tls(stream) => stream.poll_read(context, space),
        }
    }

    /// Tells the peer that nothing more comes.
    pub(super) fn shut_down(&mut self) {
        let socket: &TcpStream = match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => {
                stream.session.send_close_notify();
                if !stream.flush().is_ok_and(|all| all) {
                    return;
                }
                &stream.socket
            }
        };
        let _ = SockRef::from(socket).shutdown(Shutdown::Write);
    }
}

// === impl TlsStream ===

impl TlsStream {
    fn write(
        &mut self,
        encrypt: impl FnOnce(&mut dyn Write) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // Makes room first, so that nothing is taken only if the socket takes nothing.
        self.flush()?;
        let taken = encrypt(&mut self.session.writer())?;
        self.flush()?;
        if taken == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Transport(&self.socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..BARREN_READS_MAX {
            match self.session.reader().read(space.initialize_unfilled()) {
                Ok(count) => {
                    space.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            ready!(self.socket.poll_read_ready(context))?;
            match self.session.read_tls(&mut Transport(&self.socket)) {
                // Nothing is the end too, which the session tells as its reader is asked.
                Ok(_) => {
                    let outcome = self.session.process_new_packets();
                    // It may answer: an alert, or a key of its own.
                    self.poll_flush(context)?;
                    outcome.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        // Other connections get their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Flushes, or has the task woken when that goes on.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.flush()? {
            match self.socket.poll_write_ready(context) {
                Poll::Ready(outcome) => outcome?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl Drop for TlsStream {
    /// Says that this is the end, as far as it can be said at once.
    fn drop(&mut self) {
        self.session.send_close_notify();
        let _ = self.flush();
    }
}

// === impl Transport ===

impl Read for Transport<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Transport<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
