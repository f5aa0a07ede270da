//! A proxy between an emitter and Redis, which can go away without Redis noticing.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinHandle, JoinSet},
};

/// The proxy; it ends with this value.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// New connections are closed at once.
    away: AtomicBool,
    /// What Redis answers goes nowhere.
    mute: AtomicBool,
    connections: Mutex<JoinSet<()>>,
}

// === impl Proxy ===

impl Proxy {
    pub(crate) async fn start(redis: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(State::default());
        let accepting = tokio::spawn(accept(listener, redis, state.clone()));
        Self { port, state, accepting }
    }

    /// Breaks all connections, and takes no new ones.
    pub(crate) fn go_away(&self) {
        self.state.away.store(true, Ordering::SeqCst);
        self.state.connections.lock().abort_all();
    }

    /// Takes connections again.
    pub(crate) fn come_back(&self) {
        self.state.mute.store(false, Ordering::SeqCst);
        self.state.away.store(false, Ordering::SeqCst);
    }

    /// From now on requests reach Redis, and nobody learns of it.
    pub(crate) fn mute(&self) {
        self.state.mute.store(true, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.go_away();
    }
}

async fn accept(listener: TcpListener, redis: u16, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.away.load(Ordering::SeqCst) {
            continue;
        }
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, redis)).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let muted = state.clone();
        let mut connections = state.connections.lock();
        connections.spawn(async move {
            tokio::select! {
                () = forward(from_client, to_server, None) => {}
                () = forward(from_server, to_client, Some(muted)) => {}
            }
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, muted: Option<Arc<State>>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if muted.as_ref().is_some_and(|state| state.mute.load(Ordering::SeqCst)) {
            continue;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
