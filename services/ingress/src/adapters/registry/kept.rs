//! Identities kept for a short time by what was shown for them, so that who shows it again is not asked for again.
//!
//! Clients without credentials have a small table of their own: those that ask with each request are few, and a fleet that
//! connects once must neither fill memory nor drive out the others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::domain::identity::{Identity, Proof};
use crate::domain::reverify::Affected;

/// Identities with credentials kept; when there are more, those that are too old go, and if all are young, all do.
const KEPT_MAX: usize = 50_000;
/// Those without, likewise.
const ANONYMOUS_MAX: usize = 1_024;

/// What an answer is kept by: no secret stays in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    digest: [u8; 32],
    anonymous: bool,
}

impl Token {
    /// Of a proof; `None`: its answer is not kept, for who asks about an open connection wants to hear it anew.
    pub fn of(proof: &Proof) -> Option<Self> {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        match proof {
            Proof::Token { user_name, token } => [b"token", user_name.as_bytes(), token.as_bytes()].map(&mut part),
            Proof::ApiKey { token } => [b"api key", token.as_bytes(), b""].map(&mut part),
            Proof::Certificate(certificate) => {
                [b"certificate".as_slice(), &certificate.fingerprint, b""].map(&mut part)
            }
            Proof::PreSharedKey { tenant, device, credential } => {
                // Neither of the two has a slash.
                let device = format!("{tenant}/{device}");
                [b"pre-shared key".as_slice(), device.as_bytes(), credential.as_bytes()].map(&mut part)
            }
            Proof::Anonymous { client } => [b"anonymous", client.as_str().as_bytes(), b""].map(&mut part),
            Proof::Behalf { tenant, device } => {
                [b"behalf", tenant.as_str().as_bytes(), device.as_str().as_bytes()].map(&mut part)
            }
            Proof::Known { .. } => return None,
        };
        let anonymous = matches!(proof, Proof::Anonymous { .. });
        Some(Self { digest: hash.finalize().into(), anonymous })
    }
}

type Table = HashMap<[u8; 32], (Instant, Arc<Identity>)>;

/// The identities kept.
#[derive(Default)]
pub struct Kept {
    identities: Table,
    anonymous: Table,
    /// How often something was forgotten.
    forgotten: u64,
}

impl Kept {
    /// The identity, if it was kept less than `keep` ago.
    pub fn get(&self, token: &Token, keep: Duration) -> Option<Arc<Identity>> {
        let table = if token.anonymous { &self.anonymous } else { &self.identities };
        let (since, identity) = table.get(&token.digest)?;
        (since.elapsed() < keep).then(|| identity.clone())
    }

    /// How often something was forgotten, to be told with what is kept after it was asked for.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Keeps an identity, unless something was forgotten since `forgotten`: it may be one of those.
    pub fn keep(&mut self, token: Token, identity: &Arc<Identity>, forgotten: u64, keep: Duration) {
        if self.forgotten != forgotten || keep.is_zero() {
            return;
        }
        let (table, limit) =
            if token.anonymous { (&mut self.anonymous, ANONYMOUS_MAX) } else { (&mut self.identities, KEPT_MAX) };
        if table.len() >= limit {
            table.retain(|_, (since, _)| since.elapsed() < keep);
        }
        if table.len() >= limit {
            table.clear();
        }
        table.insert(token.digest, (Instant::now(), identity.clone()));
    }

    /// Forgets the identities that a change may concern.
    pub fn forget(&mut self, affected: &Affected) {
        self.forgotten += 1;
        for table in [&mut self.identities, &mut self.anonymous] {
            table.retain(|_, (_, identity)| !affected.concerns(identity));
        }
    }
}

#[cfg(test)]
impl Kept {
    /// How many are kept, with and without credentials.
    pub fn counts(&self) -> (usize, usize) {
        (self.identities.len(), self.anonymous.len())
    }
}
