//! What the proofs of one call have had looked up, and what they lack.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;

use drover_types::object::DEFAULT_POLICY;
use drover_types::{ApiError, DeviceKey, TenantId};

use super::Rights;
use crate::domain::policies;
use crate::object::{Digest, Kind, Object, ObjectKey};
use crate::ports::{Found, Lookups, RegistryStore, StoreError};

/// What the store said of each key; `None`: it was not asked yet.
type Answers<K, V> = HashMap<K, Option<Result<V, StoreError>>>;

/// Why a proof has no identity.
#[derive(Debug)]
pub enum Pause {
    /// Not before what was noted is looked up.
    Lacking,
    Refused(ApiError),
}

impl From<ApiError> for Pause {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// Bounded by the proofs of a call, each of which looks up a credential, a device and its policies at most.
#[derive(Default)]
pub struct Notes {
    objects: Answers<ObjectKey, Option<Arc<Object>>>,
    by_digest: Answers<Digest, Option<Arc<Object>>>,
    had_credentials: Answers<DeviceKey, bool>,
    rights: HashMap<TenantId, HashMap<Vec<String>, Arc<Rights>>>,
    lacking: Lookups,
}

impl Notes {
    pub fn lacks_any(&self) -> bool {
        !self.lacking.is_empty()
    }

    pub fn object(&mut self, key: ObjectKey) -> Result<Option<Arc<Object>>, Pause> {
        known(&mut self.objects, key, &mut self.lacking.objects)
    }

    pub fn by_digest(&mut self, digest: &Digest) -> Result<Option<Arc<Object>>, Pause> {
        known(&mut self.by_digest, *digest, &mut self.lacking.digests)
    }

    /// The credential with this digest is there now.
    pub fn found(&mut self, digest: Digest, credential: Object) {
        self.by_digest.insert(digest, Some(Ok(Some(Arc::new(credential)))));
    }

    pub fn had_credentials(&mut self, device: &DeviceKey) -> Result<bool, Pause> {
        known(&mut self.had_credentials, device.clone(), &mut self.lacking.had_credentials)
    }

    /// All statements of the named policies; a policy that is gone has none.
    pub fn rights(&mut self, tenant: &TenantId, names: &[String]) -> Result<Arc<Rights>, Pause> {
        if let Some(rights) = self.rights.get(tenant).and_then(|of_tenant| of_tenant.get(names)) {
            return Ok(Arc::clone(rights));
        }
        let mut found = Vec::with_capacity(names.len());
        for name in names.iter().filter(|name| *name != DEFAULT_POLICY) {
            found.push(self.object(ObjectKey::new(Kind::Policy, tenant, name))); // what is lacking is lacking at once
        }
        let mut found = found.into_iter();
        let mut statements = Vec::new();
        for name in names {
            if name == DEFAULT_POLICY {
                statements.extend(policies::default_statements());
            } else if let Some(policy) = found.next().expect("one for each name")? {
                statements.extend(policy.spec.policy().statements.iter().cloned());
            }
        }
        let rights = Arc::new(Rights { policies: names.to_vec(), statements });
        self.rights.entry(tenant.clone()).or_default().insert(names.to_vec(), Arc::clone(&rights));
        Ok(rights)
    }

    /// Looks up all that is lacking.
    pub async fn look_up(&mut self, store: &dyn RegistryStore) {
        let lacking = Arc::new(std::mem::take(&mut self.lacking));
        let found = match store.look_up(Arc::clone(&lacking)).await {
            Ok(found) => found,
            Err(error) => nothing(&lacking, &error),
        };
        let Lookups { objects, digests, had_credentials } = Arc::unwrap_or_clone(lacking);
        note(&mut self.objects, objects, found.objects.into_iter().map(shared));
        note(&mut self.by_digest, digests, found.by_digest.into_iter().map(shared));
        note(&mut self.had_credentials, had_credentials, found.had_credentials.into_iter());
    }
}

/// What is known of `key`; otherwise it is noted as lacking, once.
fn known<K: Clone + Eq + Hash, V: Clone>(
    answers: &mut Answers<K, V>,
    key: K,
    lacking: &mut Vec<K>,
) -> Result<V, Pause> {
    match answers.entry(key) {
        Entry::Occupied(entry) => match entry.get() {
            Some(Ok(answer)) => Ok(answer.clone()),
            Some(Err(error)) => Err(Pause::Refused(error.clone().into())),
            None => Err(Pause::Lacking),
        },
        Entry::Vacant(entry) => {
            lacking.push(entry.key().clone());
            entry.insert(None);
            Err(Pause::Lacking)
        }
    }
}

fn note<K: Eq + Hash, V>(
    answers: &mut Answers<K, V>,
    keys: Vec<K>,
    found: impl Iterator<Item = Result<V, StoreError>>,
) {
    answers.extend(keys.into_iter().zip(found.map(Some)));
}

fn shared(found: Result<Option<Object>, StoreError>) -> Result<Option<Arc<Object>>, StoreError> {
    found.map(|object| object.map(Arc::new))
}

/// The same failure for all that was wanted.
fn nothing(wanted: &Lookups, error: &StoreError) -> Found {
    Found {
        objects: vec![Err(error.clone()); wanted.objects.len()],
        by_digest: vec![Err(error.clone()); wanted.digests.len()],
        had_credentials: vec![Err(error.clone()); wanted.had_credentials.len()],
    }
}

#[cfg(test)]
mod tests {
    use drover_types::ErrorCode;

    use super::*;

    fn keys(kind: Kind) -> [ObjectKey; 2] {
        ["a", "b"].map(|name| ObjectKey::new(kind, &TenantId::default_tenant(), name))
    }

    #[test]
    fn what_several_lack_is_looked_up_once_and_a_failure_refuses_only_those_that_need_it() {
        let (mut notes, [a, b]) = (Notes::default(), keys(Kind::Device));
        for key in [&a, &b, &a] {
            assert!(matches!(notes.object(key.clone()), Err(Pause::Lacking)));
        }
        assert_eq!(notes.lacking.objects, [a.clone(), b.clone()]);
        let failed = Err(StoreError::Corrupt { reason: "bad row".to_owned() });
        note(&mut notes.objects, vec![a.clone(), b.clone()], [failed, Ok(None)].into_iter());
        let refused = notes.object(a).expect_err("it failed");
        assert!(matches!(&refused, Pause::Refused(error) if error.code == ErrorCode::DataLoss), "{refused:?}");
        assert!(matches!(notes.object(b), Ok(None)), "it is known not to be there");
    }

    #[test]
    fn all_policies_are_looked_up_together_and_one_that_is_gone_allows_nothing() {
        let (mut notes, policies) = (Notes::default(), keys(Kind::Policy));
        let (tenant, names) = (TenantId::default_tenant(), ["a", DEFAULT_POLICY, "b"].map(str::to_owned));
        assert!(matches!(notes.rights(&tenant, &names), Err(Pause::Lacking)));
        assert_eq!(notes.lacking.objects, policies);
        note(&mut notes.objects, policies.to_vec(), [Ok(None), Ok(None)].into_iter());
        let rights = notes.rights(&tenant, &names).expect("all is known");
        assert_eq!((rights.policies.as_slice(), rights.statements.len()), (names.as_slice(), 2));
        assert!(Arc::ptr_eq(&rights, &notes.rights(&tenant, &names).expect("as before")));
    }
}
