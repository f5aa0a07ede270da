//! The edge: holds the WebSockets of POS and Admin clients, and delivers to them what producers
//! publish on the bus.
//!
//! Embed it with hooks of your own, or run the binary `signal`, which is a thin user of this library:
//!
//! ```no_run
//! use signal_server::{Config, Grant, Signal};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let signal = Signal::builder()
//!     .config(Config::default())
//!     .authenticator(async |_client, credentials: signal_server::Credentials| {
//!         let user = credentials.string("userId").unwrap_or_default();
//!         Ok(Grant::user(user))
//!     })
//!     .bind()
//!     .await?;
//! println!("listening on {}", signal.address());
//! signal.run(std::future::pending()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The modules, in the way of the data; ARCHITECTURE.md has the whole picture:
//!
//! - [`config`]: what an operator may set;
//! - `server`, `gate`: listeners, worker threads, what they share; who gets a place; drain;
//! - `http`, `tls`: from an accepted socket to a WebSocket, and everything else on the ports;
//! - `worker`: one core's connections, rooms and fan-out;
//! - [`ws`]: frames, parser and outbox, as pure machines;
//! - `bus`: what carries messages between edges;
//! - [`auth`], [`hooks`], `revocations`: who may log in and join, what an embedder decides, what was
//!   withdrawn;
//! - [`handle`], [`counts`], `metrics`: what an embedder and an operator can do and see.

pub mod auth;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod bus;
pub mod config;
pub mod counts;
mod gate;
pub mod handle;
pub mod hooks;
mod http;
mod metrics;
mod random;
mod revocations;
mod server;
mod tally;
mod tls;
mod trace;
mod worker;
pub mod ws;

pub use self::bus::{PublishError, Published};
pub use self::config::{Config, ConfigError};
pub use self::handle::{Publication, SendError, Sent, SignalHandle};
pub use self::hooks::{AuthError, Client, Credentials, Grant, HookError, Message, Reply};
pub use self::server::{Signal, SignalBuilder, SignalError};
pub use signal_core as core;
