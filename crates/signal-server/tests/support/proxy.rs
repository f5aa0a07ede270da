//! A TCP proxy that can turn into a black hole: connections stay, new ones are taken, and nothing gets
//! through until it heals.

use std::sync::Arc;

use signal_core::redis::RedisSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Redis;

/// The proxy; it ends with this value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    open: Arc<watch::Sender<bool>>,
    accepting: JoinHandle<()>,
}

// === impl Proxy ===

impl Proxy {
    /// In front of a Redis.
    pub async fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let open = Arc::new(watch::Sender::new(true));
        let (target, gate) = (redis.port, open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let gate = gate.clone();
                tokio::spawn(async move {
                    is_open(&mut gate.subscribe()).await;
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(pass(from_client, to_server, gate.subscribe()));
                    tokio::spawn(pass(from_server, to_client, gate.subscribe()));
                });
            }
        });
        Self { port, open, accepting }
    }

    /// Nothing gets through any more.
    pub fn swallow(&self) {
        self.open.send_replace(false);
    }

    /// Everything does again, that which waited first.
    pub fn heal(&self) {
        self.open.send_replace(true);
    }

    /// How edges reach the Redis behind it.
    pub fn settings(&self) -> RedisSettings {
        RedisSettings::single("127.0.0.1", self.port)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        // What waits ends with its streams.
        self.heal();
    }
}

async fn is_open(gate: &mut watch::Receiver<bool>) {
    let _ = gate.wait_for(|open| *open).await;
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        is_open(&mut gate).await;
        let count = tokio::select! {
            // A black hole takes no further bytes: whoever sends them notices by what piles up.
            _ = gate.wait_for(|open| !*open) => continue,
            read = from.read(&mut buffer) => match read {
                Ok(count) if count > 0 => count,
                _ => return,
            },
        };
        is_open(&mut gate).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
