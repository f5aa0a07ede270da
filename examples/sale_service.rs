//! A Sale service that embeds the emitter: an order every second, to the room of its branch.
//!
//! ```text
//! redis-server --save "" --appendonly no
//! export APP_ENV_WEBSOCKET_REDIS_MODE=single
//! SIGNAL_AUTH=insecure-dev SIGNAL_ROOMS='*' cargo run --release --bin signal
//! cargo run -p signal-examples --bin sale_service
//! cargo run -p signal-examples --bin pos_terminal -- pos-1 branch:1
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::time::Duration;

use serde::Serialize;
use signal_emitter::{Emitter, EmitterConfig, EmitterError};

#[derive(Debug, Serialize)]
struct Order {
    id: String,
    branch: u32,
    total: &'static str,
    currency: &'static str,
}

#[tokio::main]
async fn main() -> Result<(), EmitterError> {
    tracing_subscriber::fmt().init();
    let emitter = Emitter::connect(EmitterConfig::from_env()?).await?;
    for number in 1..=60 {
        let branch = 1 + number % 3;
        let order = Order { id: format!("o-{number}"), branch, total: "11.40", currency: "EUR" };
        let room = format!("branch:{branch}");
        // The sale is committed by now: a bus that is away must not undo it, so the error is told and
        // the service goes on.
        match emitter.to_room(room).event("order.created").data(&order).send().await {
            Ok(receipt) => {
                println!("{}: edges that heard it: {:?}", order.id, receipt.receivers());
            }
            Err(error) => eprintln!("{}: not published: {error}", order.id),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    emitter.shutdown().await
}
