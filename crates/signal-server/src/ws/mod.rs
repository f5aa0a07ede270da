//! WebSocket as pure machines over bytes: nothing here touches a socket or a clock.
//!
//! [`parser`] takes what a read brought and yields messages; [`frame`] writes headers; [`outbox`]
//! keeps, within a bound, what a socket did not take yet.

pub mod frame;
pub mod outbox;
pub mod parser;
