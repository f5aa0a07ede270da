//! The wire of Signal: what producers, edges and clients agree on.
//!
//! This crate owns bytes and names: it parses, validates and writes them. It must never do IO, know
//! an async runtime, or read the environment. Nothing in it grows beyond the input it is given.
//!
//! In reading order:
//!
//! - [`limits`]: every bound, with its reason;
//! - [`close`]: the one table of WebSocket close codes;
//! - [`id`]: client ids, version-8 UUIDs that say which worker owns a client;
//! - [`room`]: which room names a client may ask for;
//! - [`channel`]: Redis channel names, plain and with a hash tag for sharded pub/sub;
//! - [`json`]: a validating scanner that slices JSON text and never builds values;
//! - [`message`]: the plain client wire;
//! - [`v1`]: what the `signal.v1` subprotocols add to it;
//! - `crypto`: what the client wire may be encrypted with (feature `crypto`, which producers do without);
//! - [`envelope`]: the bus wire, as JSON and as `MessagePack`;
//! - [`revocation`]: credentials that are withdrawn, on the bus;
//! - [`redis`]: the Redis settings that edges and producers share;
//! - [`edges`]: what an edge records of itself in Redis, for emitters to find.

pub mod limits;

pub mod close;

pub mod id;

pub mod room;

pub mod channel;

pub mod json;

pub mod message;

mod msgpack;

pub mod v1;

#[cfg(feature = "crypto")]
pub mod crypto;

pub mod envelope;

pub mod revocation;

pub mod redis;

pub mod edges;
