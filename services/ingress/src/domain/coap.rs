//! CoAP (RFC 7252) with block-wise transfer (RFC 7959) and observation (RFC 7641), as far as it decides anything: messages,
//! repeats, what is sent again, bodies in blocks.
//!
//! Domain layer, no I/O: time is monotonic milliseconds, addresses are only compared. The codec is `coap-lite`.

pub mod block;
pub mod downloads;
pub mod exchanges;
pub mod formats;
pub mod reply;
pub mod request;
pub mod transmissions;
pub mod uploads;

use std::net::SocketAddr;

/// How long a message id names one message, in milliseconds (RFC 7252 section 4.8.2, with its default parameters).
pub const EXCHANGE_LIFETIME_MS: u64 = 247_000;

/// A message of one peer, or to it.
pub type MessageKey = (SocketAddr, u16);
