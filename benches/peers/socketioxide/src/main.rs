//! A server on socketioxide with its Redis adapter, as its documents set one up: one user per
//! connection, `join` for rooms, one thread.
//!
//!   socketioxide-peer PORT REDIS_PORT

use socketioxide::extract::{AckSender, Data, SocketRef, TryData};
use socketioxide::{SocketIo, adapter::Adapter};
use socketioxide_redis::drivers::redis::redis_client as redis;
use socketioxide_redis::{RedisAdapter, RedisAdapterCtr};

async fn on_connect<A: Adapter>(socket: SocketRef<A>, TryData(login): TryData<serde_json::Value>) {
    if let Ok(login) = login
        && let Some(user) = login["userId"].as_str()
    {
        socket.join(format!("user:{user}"));
    }
    socket.on("join", async |socket: SocketRef<A>, Data(room): Data<String>| socket.join(room));
    // The ingest row: a message is answered when it was handled.
    socket.on("ingest", async |Data(_): Data<serde_json::Value>, ack: AckSender<A>| {
        let _ = ack.send("");
    });
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(port), Some(redis_port)) = (arguments.next(), arguments.next()) else {
        return Err("usage: socketioxide-peer PORT REDIS_PORT".into());
    };
    let client = redis::Client::open(format!("redis://127.0.0.1:{redis_port}?protocol=resp3"))?;
    let adapter = RedisAdapterCtr::new_with_redis(&client).await?;
    let (layer, io) = SocketIo::builder().with_adapter::<RedisAdapter<_>>(adapter).build_layer();
    io.ns("/", on_connect).await?;
    let app = axum::Router::new().layer(layer);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
