//! The bus over one Redis: a subscriber connection per worker, which is ours, and a publisher.
//!
//! [`Subscriptions`] is the table of what is wanted and confirmed; [`link`] keeps a connection and
//! drives the table with Redis' replies; [`push`] decodes what arrives; [`Publisher`] sends.

pub(crate) mod link;
mod publisher;
mod push;
mod subscriptions;

pub(crate) use self::publisher::Publisher;
pub(crate) use self::subscriptions::Subscriptions;
