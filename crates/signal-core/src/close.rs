//! The one table of WebSocket close codes.
//!
//! Owns number, name, reason text and whether a client should come back. No other place may spell a
//! code: servers, clients, metrics and documents take it from here. 41xx says "reconnect after a
//! backoff", 45xx says "do not".

use std::fmt;

use crate::limits::CLOSE_REASON_BYTES_MAX;

macro_rules! close_codes {
    ($($(#[$documentation:meta])* $variant:ident $code:literal $name:literal $reason:literal $reconnect:literal;)*) => {
        /// Why a connection was closed, as the peer sees it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum CloseCode {
            $($(#[$documentation])* $variant = $code,)*
        }

        impl CloseCode {
            /// Every code, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in metrics, logs and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The reason text of the Close frame.
            pub const fn reason(self) -> &'static str {
                match self { $(Self::$variant => $reason,)* }
            }

            /// Whether a client should connect again, after a backoff.
            pub const fn reconnect(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }

            /// The code with this number, if Signal sends it.
            pub const fn from_code(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }

        $(const _: () = assert!($reason.len() <= CLOSE_REASON_BYTES_MAX);)*
    };
}

close_codes! {
    /// The peer asked to close.
    Normal 1000 "normal" "" false;
    /// The edge drains; what plain clients get.
    ServerShuttingDown 1001 "server_shutting_down" "Server shutting down" true;
    /// The peer broke RFC 6455.
    ProtocolError 1002 "protocol_error" "Protocol error" false;
    /// Text that is not UTF-8.
    InvalidPayload 1007 "invalid_payload" "Invalid payload" false;
    /// A message beyond [`MESSAGE_BYTES_MAX`](crate::limits::MESSAGE_BYTES_MAX).
    MessageTooBig 1009 "message_too_big" "Message too big" false;
    /// No credentials, or no decision about them, in time.
    AuthenticationTimeout 4001 "authentication_timeout" "Authentication timeout" true;
    /// An authenticated client was silent for too long.
    HeartbeatTimeout 4002 "heartbeat_timeout" "Heartbeat timeout" true;
    /// The credentials were rejected, or could not be judged.
    AuthenticationFailed 4003 "authentication_failed" "Authentication failed" false;
    /// Encryption is required and was not agreed on.
    EncryptionRequired 4004 "encryption_required" "Encryption required" false;
    /// The outbox is full: the client reads too slowly.
    SlowConsumer 4100 "slow_consumer" "Slow consumer" true;
    /// The edge drains; what clients of `signal.v1` get, after `goodbye` with a retry hint.
    Draining 4101 "draining" "Server draining" true;
    /// The connection reached the age at which connections are spread anew.
    TooOld 4102 "too_old" "Connection too old" true;
    /// The edge lost the bus for longer than it may go on without.
    BusLost 4103 "bus_lost" "Bus lost" true;
    /// The credentials expired or were withdrawn.
    CredentialsRevoked 4500 "credentials_revoked" "Credentials revoked" false;
    /// An operator or the application closed the connection.
    Kicked 4501 "kicked" "Kicked" false;
    /// Well-formed frames that break the protocol inside them.
    ProtocolViolation 4502 "protocol_violation" "Protocol violation" false;
    /// The client went beyond a rate or a count it is allowed.
    LimitExceeded 4503 "limit_exceeded" "Limit exceeded" false;
}

// === impl CloseCode ===

impl CloseCode {
    /// The number in the Close frame.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.code(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_consistent() {
        assert!(CloseCode::ALL.windows(2).all(|pair| pair[0].code() < pair[1].code()));
        for &code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(code.code()), Some(code));
            match code.code() {
                4100..=4199 => assert!(code.reconnect(), "{code}"),
                4500..=4599 => assert!(!code.reconnect(), "{code}"),
                _ => {}
            }
        }
        assert_eq!(CloseCode::from_code(1005), None);
    }

    #[test]
    fn reasons_that_existing_clients_read() {
        let fixed = [
            (1001, "Server shutting down"),
            (4001, "Authentication timeout"),
            (4002, "Heartbeat timeout"),
            (4003, "Authentication failed"),
            (4004, "Encryption required"),
        ];
        for (code, reason) in fixed {
            assert_eq!(CloseCode::from_code(code).unwrap().reason(), reason);
        }
    }
}
