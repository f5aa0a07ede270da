// Written by `cargo run -p signal-core --example close_codes`; a test compares it with close.rs.

// What each close code means, and whether to come back.
export const CLOSE_CODES = {
  1000: { name: "normal", again: false },
  1001: { name: "server_shutting_down", again: true },
  1002: { name: "protocol_error", again: false },
  1007: { name: "invalid_payload", again: false },
  1009: { name: "message_too_big", again: false },
  4001: { name: "authentication_timeout", again: true },
  4002: { name: "heartbeat_timeout", again: true },
  4003: { name: "authentication_failed", again: false },
  4004: { name: "encryption_required", again: false },
  4100: { name: "slow_consumer", again: true },
  4101: { name: "draining", again: true },
  4102: { name: "too_old", again: true },
  4103: { name: "bus_lost", again: true },
  4500: { name: "credentials_revoked", again: false },
  4501: { name: "kicked", again: false },
  4502: { name: "protocol_violation", again: false },
  4503: { name: "limit_exceeded", again: false },
};
