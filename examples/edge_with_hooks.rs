//! An edge of your own: an authenticator, a room policy, and a message handler that replies to one
//! client and publishes to a room.
//!
//! ```text
//! cargo run -p signal-examples --bin edge_with_hooks
//! cargo run --release --bin signal -- tail --url ws://127.0.0.1:3000/ws --user branch-1 --room branch:1
//! ```
//!
//! and, with any WebSocket client, `{"event":"order.ready","data":{"order":"o-1"}}`.

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use serde::Deserialize;
use serde_json::json;
use signal_server::hooks::RoomPolicy;
use signal_server::{
    AuthError, Client, Config, Credentials, Grant, HookError, Message, Signal, SignalError,
};

#[derive(Debug, Deserialize)]
struct Ready {
    order: String,
}

/// A user `branch-N` may enter the room `branch:N`.
struct OwnBranch;

impl RoomPolicy for OwnBranch {
    async fn allow(&self, client: Client, rooms: Vec<String>) -> Result<Vec<String>, HookError> {
        let own = client.user_id.as_deref().map(|user| user.replace('-', ":"));
        Ok(rooms.into_iter().filter(|room| Some(room) == own.as_ref()).collect())
    }
}

async fn on_message(client: Client, message: Message) -> Result<(), HookError> {
    if message.event != "order.ready" {
        return Ok(());
    }
    let ready: Ready = message.parse()?;
    let room = client.user_id.as_deref().unwrap_or_default().replace('-', ":");
    client.signal.send_to_room(&room, "order.ready", &json!({ "order": ready.order })).await?;
    let id = client.id.to_string();
    client.signal.send_to_client(&id, "thanks", &json!({ "for": ready.order })).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), SignalError> {
    tracing_subscriber::fmt().init();
    let signal = Signal::builder()
        .config(Config::default())
        .authenticator(async |_client, credentials: Credentials| {
            match credentials.string("userId") {
                Some(user) if user.starts_with("branch-") => Ok(Grant::user(user)),
                _ => Err(AuthError::Rejected("the user is no branch".to_owned())),
            }
        })
        .room_policy(OwnBranch)
        .on_message(on_message)
        .on_connect(async |client: Client| {
            println!("{} is here", client.user_id.as_deref().unwrap_or("somebody"));
            Ok(())
        })
        .bind()
        .await?;
    println!("listening on {}", signal.address());
    signal
        .run(async {
            let _ = tokio::signal::ctrl_c().await;
        })
        .await
}
