//! Every bound of the wire, with its reason.
//!
//! Owns numbers only. A limit that an operator may change is the default here and a field of the
//! server's configuration there; the relations between them are asserted at compile time.

/// Bytes in one message from a client; more closes the connection with 1009.
///
/// Clients send credentials, joins and small commands; bulk data goes over HTTP.
pub const MESSAGE_BYTES_MAX: usize = 128 * 1024;

/// Bytes in one bus envelope; a larger one is counted and dropped by the edge, refused by the emitter.
///
/// Half of an outbox at most: one huge message must not cut a whole room as slow consumers.
pub const BUS_MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// Bytes queued for one connection before it is closed as a slow consumer (4100).
pub const OUTBOX_BYTES_MAX: usize = 1024 * 1024;

/// UTF-16 code units in a room name that a client asks for.
///
/// Counted as JavaScript counts `length`, because the fleet's clients and the older servers do.
pub const ROOM_NAME_UTF16_MAX: usize = 256;

/// Levels of arrays and objects in one JSON text, the outermost included.
///
/// The scanner keeps one bit per level in a `u128`, so the limit also bounds its memory.
pub const JSON_DEPTH_MAX: usize = 128;

/// Levels in the `data` of a message: it is always wrapped in one object on its way.
pub const DATA_DEPTH_MAX: usize = JSON_DEPTH_MAX - 1;

/// Rooms one connection may be in; the default rooms and its own are not counted.
pub const ROOMS_PER_CONNECTION_MAX: usize = 128;

/// Connections of one edge that have not logged in.
///
/// A login takes a round trip, so at this many a thousand clients a second may each take five.
pub const UNAUTHENTICATED_MAX: usize = 5000;

/// Channels in one SUBSCRIBE or SSUBSCRIBE.
///
/// Measured: 300 000 channels in batches of this size took half a second on one connection.
pub const SUBSCRIBE_BATCH_MAX: usize = 512;

/// Bytes in the reason of a Close frame (RFC 6455 section 5.5: 125 less the two of the code).
pub const CLOSE_REASON_BYTES_MAX: usize = 123;

const _: () = assert!(2 * BUS_MESSAGE_BYTES_MAX <= OUTBOX_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= BUS_MESSAGE_BYTES_MAX);
const _: () = assert!(JSON_DEPTH_MAX <= u128::BITS as usize);
const _: () = assert!(4 * ROOM_NAME_UTF16_MAX * ROOMS_PER_CONNECTION_MAX <= MESSAGE_BYTES_MAX);
