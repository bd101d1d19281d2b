//! Who a connection is, and how it proves it.
//!
//! Domain layer, pure. A tenant comes from here and from nowhere else.

use std::fmt;

use drover_types::{ClientId, DeviceId, TenantId, hex};

use crate::domain::authorize::Policy;
use crate::domain::filter::Who;

/// An authenticated device.
#[derive(Debug)]
pub struct Identity {
    pub tenant: TenantId,
    pub device: DeviceId,
    /// Empty for an anonymous device.
    pub credential: Box<str>,
    /// Of all that apply to it.
    pub policy: Policy,
    /// When the credential ends, milliseconds since the Unix epoch; 0: never.
    pub expires_ms: u64,
    /// Number of the newest revocation when this was known to be true.
    pub generation: u64,
}

impl Identity {
    /// Whether it may be connected under this client id. An id of the server's choice is fine for whoever may connect as
    /// itself.
    pub fn may_connect_as(&self, client: &str, assigned: bool) -> bool {
        self.policy.may_connect(self.who(if assigned { self.device.as_str() } else { client }))
    }

    /// As [`Policy::may_publish`], under this client id.
    pub fn may_publish(&self, topic: &str, client: &str) -> bool {
        self.policy.may_publish(topic, self.who(client))
    }

    /// As [`Policy::may_subscribe`], under this client id.
    pub fn may_subscribe(&self, filter: &str, client: &str) -> bool {
        self.policy.may_subscribe(filter, self.who(client))
    }

    /// As [`Policy::may_publish_for`].
    pub fn may_publish_for(&self, device: &str) -> bool {
        self.policy.may_publish_for(self.who(device))
    }

    fn who<'a>(&'a self, client: &'a str) -> Who<'a> {
        Who { device: self.device.as_str(), client }
    }

    /// How long the credential lasts from `now_ms` on, milliseconds; `None`: for ever.
    pub fn lasts_ms(&self, now_ms: u64) -> Option<u64> {
        (self.expires_ms > 0).then(|| self.expires_ms.saturating_sub(now_ms))
    }
}

/// What a client shows; `Debug` hides secrets.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    Token {
        /// `TENANT/DEVICE` or `DEVICE`.
        user_name: String,
        token: String,
    },
    /// A token that alone says whose it is.
    ApiKey {
        token: String,
    },
    Certificate(Certificate),
    /// A pre-shared key, which the association has shown that a request comes by.
    PreSharedKey {
        tenant: TenantId,
        device: DeviceId,
        credential: String,
    },
    /// Nothing, where that is allowed.
    Anonymous {
        client: ClientId,
    },
    /// One of these, verified before, of a connection that is open.
    Known {
        tenant: TenantId,
        device: DeviceId,
        /// Empty for an anonymous device.
        credential: String,
    },
    /// None of its own: another device, whose policy lets it, hands in messages of this one.
    Behalf {
        tenant: TenantId,
        device: DeviceId,
    },
}

/// A client certificate whose key the handshake has seen used. Whose it is, the registry knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Certificate {
    /// SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
    /// DER forms of it and of those that the client has shown with it.
    pub chain: Vec<Vec<u8>>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Proof::Token { user_name, .. } => write!(f, "token of user {user_name:?}"),
            Proof::ApiKey { .. } => f.write_str("a token alone"),
            Proof::Certificate(certificate) => {
                write!(f, "certificate {}", hex(&certificate.fingerprint))
            }
            Proof::PreSharedKey { credential, .. } => write!(f, "pre-shared key {credential:?}"),
            Proof::Anonymous { .. } => f.write_str("no credentials"),
            Proof::Known { credential, .. } => write!(f, "credential {credential:?}, verified before"),
            Proof::Behalf { device, .. } => write!(f, "another device speaks for {device}"),
        }
    }
}

/// Why a client is not who it says, or cannot be known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticateError {
    /// The proof does not hold.
    #[error("wrong credentials: {reason}")]
    Wrong { reason: String },
    /// It holds, but the device may not connect now.
    #[error("refused: {reason}")]
    Refused { reason: String },
    /// Nobody could tell; never admitted.
    #[error("registry cannot be asked: {reason}")]
    Unavailable { reason: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_shown_without_its_secret() {
        let proof = Proof::Token { user_name: "d".into(), token: "hunter2".into() };
        assert_eq!(format!("{proof:?}"), "token of user \"d\"");
    }
}
