//! A Payment service: tells the branch that an order is paid, and one user that a payment is odd.
//!
//! ```text
//! redis-server --save "" --appendonly no
//! export APP_ENV_WEBSOCKET_REDIS_MODE=single
//! SIGNAL_AUTH=insecure-dev SIGNAL_ROOMS='*' cargo run --release --bin signal
//! cargo run -p signal-examples --bin payment_service -- o-17 branch:1
//! cargo run -p signal-examples --bin pos_terminal -- admin branch:1
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use serde_json::json;
use signal_emitter::{Emitter, EmitterConfig, EmitterError};

#[tokio::main]
async fn main() -> Result<(), EmitterError> {
    tracing_subscriber::fmt().init();
    let mut arguments = std::env::args().skip(1);
    let order = arguments.next().unwrap_or_else(|| "o-1".to_owned());
    let room = arguments.next().unwrap_or_else(|| "branch:1".to_owned());

    let mut config = EmitterConfig::from_env()?;
    config.name = Some("payment".to_owned());
    let emitter = Emitter::connect(config).await?;

    let payment = json!({ "id": "p-1", "order": order, "amount": "11.40", "method": "card" });
    let receipt = emitter.to_room(&room).event("payment.captured").data(&payment).send().await?;
    println!("{room}: edges that heard of the payment: {:?}", receipt.receivers());

    let flag = json!({ "payment": "p-1", "reason": "amount above limit" });
    let flagged = emitter.to_user("admin").event("payment.flagged").data(&flag);
    match flagged.require_receivers().send().await {
        Err(EmitterError::NoReceivers { .. }) => {
            println!("no admin is connected: the message is gone, since delivery is at most once");
        }
        outcome => drop(outcome?),
    }
    emitter.shutdown().await
}
