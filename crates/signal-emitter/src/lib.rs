//! Publishes events to the clients of Signal: what a producer embeds.
//!
//! ```no_run
//! use serde::Serialize;
//! use signal_emitter::{Emitter, EmitterConfig};
//!
//! #[derive(Serialize)]
//! struct Order {
//!     id: u64,
//!     total: u64,
//! }
//!
//! # async fn run() -> Result<(), signal_emitter::EmitterError> {
//! // Reads APP_ENV_WEBSOCKET_REDIS_MODE, _HOST, _PORT and so on, as the edge does.
//! let emitter = Emitter::connect(EmitterConfig::from_env()?).await?;
//!
//! let order = Order { id: 7, total: 184_500 };
//! let receipt = emitter.to_room("branch:12").event("order.created").data(&order).send().await?;
//! if receipt.receivers() == Some(0) {
//!     // Nobody listens to this room right now; the message is gone.
//! }
//!
//! emitter.to_user("u-7").event("inbox.changed").send().await?;
//! emitter.broadcast().event("maintenance").data(&"in five minutes").send().await?;
//! emitter.shutdown().await
//! # }
//! ```
//!
//! An [`Emitter`] is the connection to one Redis or Redis Cluster, cheap to clone and to share. Every
//! call ends by its deadline: with a [`Receipt`], or with an [`EmitterError`]. Delivery is at most once;
//! a message never goes out after the call that brought it has ended, and twice only if the emitter is
//! to [hold](WhenAway::Hold) messages while Redis is away, with one id by which edges drop the repeat.
//! `docs/producers.md` says what a producer can rely on.
//!
//! In reading order:
//!
//! - `config`: where Redis is and how long to wait;
//! - `emitter`: the handle that a producer holds;
//! - `publish`: one message, from target to receipt;
//! - `revoke`: credentials that are withdrawn;
//! - `message_id`: the ids that messages get;
//! - `connection`: Redis, the only part that knows it;
//! - `edges`: whether there is an edge that would hear it;
//! - `error`: what can go wrong.

mod config;
pub mod connection;
mod edges;
mod emitter;
mod error;
mod message_id;
mod publish;
mod revoke;

pub use config::{EdgeCheck, EmitterConfig, WhenAway};
pub use connection::Connection;
pub use emitter::Emitter;
pub use error::EmitterError;
pub use publish::{Publish, Receipt};
pub use signal_core::{id::ClientId, redis};
