//! CoAP (RFC 7252) with block-wise transfer (RFC 7959) and observation (RFC 7641), as far as it decides anything: messages,
//! repeats, what is sent again, bodies in blocks; and what is looked at of DTLS (RFC 6347).
//!
//! Domain layer, no I/O: time is monotonic milliseconds, addresses are only compared. The codec is `coap-lite`.

pub mod block;
pub mod downloads;
pub mod exchanges;
pub mod formats;
pub mod records;
pub mod reply;
pub mod request;
pub mod transmissions;
pub mod uploads;

use std::fmt;
use std::net::SocketAddr;

/// How long a message id names one message, in milliseconds (RFC 7252 section 4.8.2, with its default parameters).
pub const EXCHANGE_LIFETIME_MS: u64 = 247_000;

/// Whom messages come from and go to: an address and, over DTLS, one association with it. The next association from there is
/// another peer, which no message of the one before is for (RFC 7252 section 9.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    pub address: SocketAddr,
    /// 0: none.
    pub association: u64,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self { address, association: 0 }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// A message of one peer, or to it.
pub type MessageKey = (Peer, u16);
