//! A client of Signal: `signal.v1.json` or `signal.v1.msgpack`, over `ws:` or `wss:`.
//!
//! It logs in, joins rooms and joins them again, comes back with full jitter as the table of close codes
//! allows, renews credentials in place, finds dead links, and says [`Event::Resync`] whenever a message
//! may have been missed. In reading order:
//!
//! - [`Config`]: where to, as whom, how to come back.
//! - [`Client`] and [`Events`]: what an application holds; made by [`connect`].
//! - [`Event`]: what it hears.
//! - `driver`: the one task that owns the connection; `session`: one connection's life; `socket`: its
//!   bytes; `tls`: whom it believes; `keys`: what may come sealed or in clear; `rooms`,
//!   `queue` and `retry`: what is wanted, what waits and when to dial, pure.
//!
//! What is written and read on the wire, and what opens it, is in `signal-core`, where the programs find
//! it that are no such client: tests that send what no client should, and the load driver.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use signal_client::{Config, Event};
//!
//! let config = Config::new("ws://127.0.0.1:3000/ws")?.room("branch:12");
//! let (client, mut events) = signal_client::connect(config);
//! while let Some(event) = events.next().await {
//!     match event {
//!         Event::Message(message) => println!("{}", message.event),
//!         Event::Resync { .. } => println!("load anew"),
//!         _ => {}
//!     }
//! }
//! # drop(client); Ok(()) }
//! ```

mod client;
mod config;
mod driver;
mod event;
mod keys;
mod queue;
mod retry;
mod rooms;
mod session;
mod socket;
mod tls;

pub use client::{Client, Events, RequestError, connect};
pub use config::{Config, ConfigError, LoginError, LoginReason};
pub use event::{Event, Loss, Message, To};
