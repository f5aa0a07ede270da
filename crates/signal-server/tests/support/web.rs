//! A web server for tests that answers as it is told, and misbehaves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Status and body.
    Answer(u16, String),
    /// These bytes, and then the end.
    Raw(Vec<u8>),
    /// Nothing, until the server is told to go on; then status and body.
    Late(u16, String),
    /// The end, without an answer.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: String,
}

/// The server.
#[derive(Debug)]
pub struct Web {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    reply: Mutex<Reply>,
    asked: Mutex<Vec<Asked>>,
    connections: AtomicUsize,
    /// A permit for each late answer that may go out.
    go_on: Semaphore,
}

// === impl Web ===

impl Web {
    /// Speaks HTTP, and answers each request so.
    pub async fn start(reply: Reply) -> Self {
        Self::serve(reply, None).await
    }

    /// Speaks HTTPS.
    pub async fn start_tls(reply: Reply, tls: TlsAcceptor) -> Self {
        Self::serve(reply, Some(tls)).await
    }

    async fn serve(reply: Reply, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            asked: Mutex::default(),
            connections: AtomicUsize::new(0),
            go_on: Semaphore::new(0),
        });
        let accepting = {
            let shared = shared.clone();
            tokio::spawn(async move {
                loop {
                    let Ok((stream, _)) = listener.accept().await else { return };
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    let (shared, tls) = (shared.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            None => shared.converse(stream).await,
                            Some(tls) => match tls.accept(stream).await {
                                Ok(stream) => shared.converse(stream).await,
                                Err(_) => Some(()),
                            },
                        }
                    });
                }
            })
        };
        Self { address, shared, accepting }
    }

    /// Its URL with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// From now on it answers so.
    pub fn answers(&self, reply: Reply) {
        *self.shared.reply.lock() = reply;
    }

    /// What it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().clone()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Lets this many late answers go out.
    pub fn go_on(&self, count: usize) {
        self.shared.go_on.add_permits(count);
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

// === impl Shared ===

impl Shared {
    async fn converse(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Option<()> {
        let mut buffer = Vec::new();
        loop {
            let head = loop {
                if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head: Vec<u8> = buffer.drain(..end + 4).collect();
                    break String::from_utf8(head).ok()?;
                }
                if stream.read_buf(&mut buffer).await.ok()? == 0 {
                    return None;
                }
            };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let length: usize = length.unwrap_or(0);
            while buffer.len() < length {
                stream.read_buf(&mut buffer).await.ok().filter(|count| *count > 0)?;
            }
            let body = String::from_utf8(buffer.drain(..length).collect()).ok()?;
            let line = head.lines().next().unwrap_or_default().to_owned();
            self.asked.lock().push(Asked { line, head, body });
            let reply = self.reply.lock().clone();
            let (status, body) = match reply {
                Reply::Answer(status, body) => (status, body),
                Reply::Late(status, body) => {
                    self.go_on.acquire().await.ok()?.forget();
                    (status, body)
                }
                Reply::Raw(bytes) => {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.shutdown().await;
                    return None;
                }
                Reply::Close => return None,
            };
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Whatever\r\nLocation: /elsewhere\r\nContent-Length: {length}\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.ok()?;
        }
    }
}
