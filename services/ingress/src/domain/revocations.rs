//! Which identities were taken back, as far as one that is still on its way could be among them.
//!
//! Domain layer, pure. An identity carries the number of the newest revocation known when it was asked for; those with
//! a higher number may concern it.

use std::collections::VecDeque;

use drover_types::TenantId;

use crate::domain::identity::Identity;

/// Revocations of each kind remembered, to refuse an identity that was verified before one of them and arrives after it.
pub const REVOCATIONS_MAX: usize = 1_024;

/// Which connections of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    All,
    /// Those that have shown this credential.
    Credential(String),
    /// Those that have shown none.
    Anonymous,
}

/// What is taken back from a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub tenant: TenantId,
    pub device: String,
    pub whose: Whose,
}

impl Revocation {
    /// Whether it is about this identity.
    pub fn concerns(&self, identity: &Identity) -> bool {
        let same = match &self.whose {
            Whose::All => true,
            Whose::Credential(id) => **id == *identity.credential,
            Whose::Anonymous => identity.credential.is_empty(),
        };
        same && self.tenant == identity.tenant && self.device == identity.device.as_str()
    }
}

/// The newest revocations.
#[derive(Debug, Default)]
pub struct Revocations {
    /// Number of the newest.
    generation: u64,
    /// Those that may concern anybody.
    all: Newest,
    /// Those of [`Whose::Anonymous`]: one for each device that gets credentials, which may be many at once and must not
    /// put those in doubt that have some.
    anonymous: Newest,
}

#[derive(Debug, Default)]
struct Newest {
    /// With their numbers, the newest last.
    numbered: VecDeque<(u64, Revocation)>,
    /// Number of the newest that is not among them any more.
    forgotten: u64,
}

impl Revocations {
    /// Number of the newest revocation; an identity is verified as of the number read before it was asked for.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Adds one.
    pub fn add(&mut self, revocation: Revocation) {
        self.generation += 1;
        let list = match revocation.whose {
            Whose::All | Whose::Credential(_) => &mut self.all,
            Whose::Anonymous => &mut self.anonymous,
        };
        list.add(self.generation, revocation);
    }

    /// Whether a revocation after its verification concerns the identity; in doubt it does.
    pub fn concern(&self, identity: &Identity) -> bool {
        self.concern_after(identity.generation, identity)
    }

    /// Whether one with a number higher than `generation` concerns the identity; in doubt it does.
    pub fn concern_after(&self, generation: u64, identity: &Identity) -> bool {
        let anonymous = identity.credential.is_empty() && self.anonymous.concern(generation, identity);
        anonymous || self.all.concern(generation, identity)
    }
}

impl Newest {
    fn add(&mut self, number: u64, revocation: Revocation) {
        if self.numbered.len() == REVOCATIONS_MAX
            && let Some((forgotten, _)) = self.numbered.pop_front()
        {
            self.forgotten = forgotten;
        }
        self.numbered.push_back((number, revocation));
    }

    fn concern(&self, generation: u64, identity: &Identity) -> bool {
        let after = self.numbered.iter().rev().take_while(|(number, _)| *number > generation);
        generation < self.forgotten || after.into_iter().any(|(_, revocation)| revocation.concerns(identity))
    }
}
