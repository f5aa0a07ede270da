//! A POS terminal: connects, joins its branch, prints what arrives, and comes back when it is lost.
//!
//! ```text
//! cargo run --release --bin signal -- demo
//! cargo run -p signal-examples --bin pos_terminal -- pos-1 branch:1
//! ```

#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;

use serde_json::json;
use serde_json::value::RawValue;
use signal_client::{Config, Event};

const EDGE: &str = "ws://127.0.0.1:3000/ws";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let user = arguments.next().unwrap_or_else(|| "pos-1".to_owned());
    let room = arguments.next().unwrap_or_else(|| "branch:1".to_owned());
    let config = Config::new(EDGE)?.credentials(json!({ "userId": user })).room(room);
    let (_client, mut events) = signal_client::connect(config);
    while let Some(event) = events.next().await {
        match event {
            Event::Online(_) => println!("online"),
            Event::Message(message) => {
                println!(
                    "{}: {}",
                    message.event,
                    message.data.as_deref().map_or("", RawValue::get)
                );
            }
            Event::Resync { .. } => println!("something may have been missed: load anew"),
            Event::Recovering { loss, delay } => println!("{loss}; again in {delay:?}"),
            Event::Closed(loss) => return Err(loss.into()),
            _ => {}
        }
    }
    Ok(())
}
