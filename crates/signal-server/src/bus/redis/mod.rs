//! The bus over Redis, one or a cluster: subscriber connections, which are ours, and a publisher.
//!
//! In the data's way: [`link`] keeps a worker's connection to one node, made like the
//! emitter's, and drives the table of what is wanted and confirmed there, [`Subscriptions`], with
//! Redis' replies, which [`push`] decodes. [`Links`] knows which of a worker's links carries which
//! channel, [`names`] how a channel is called. [`watch`] asks the cluster who owns what, which
//! [`topology`] merges. [`Publisher`] sends, and keeps the edge's [`record`] of itself.

pub(crate) mod link;
mod links;
mod names;
mod publisher;
mod push;
mod record;
mod subscriptions;
mod topology;
pub(crate) mod watch;

pub(crate) use self::links::{LinkId, Links};
pub(crate) use self::names::WireNames;
pub(crate) use self::publisher::Publisher;
pub(crate) use self::subscriptions::Subscriptions;
pub(crate) use self::topology::Topology;
