//! Turns that are more than one load.
//!
//! Each module has what is done, what it reads, and the lines that the report shows. As in [`turn`],
//! every turn has a fresh Redis, a fresh server and fresh clients. [`fleet`] is a measurement of its
//! own: many servers, and no floor beside them.
//!
//! [`turn`]: crate::turn

pub mod churn;
pub mod emitter;
pub mod fleet;
pub mod ingest;
pub mod mixed;
pub mod peers;
pub mod workers;
