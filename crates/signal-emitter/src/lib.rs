//! Publishes events to the clients of Signal.
