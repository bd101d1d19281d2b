//! All decisions of the registry.
//!
//! Domain layer: knows its ports, never gRPC, files or the system's clock. Each file adds to [`Domain`] what it is
//! named for; the change feed and the presence log are loops of their own.

pub mod api_tokens;
pub mod audit;
pub mod authenticate;
pub mod authorities;
pub mod bulk;
mod certificates;
pub mod changes;
mod checks;
mod claims;
pub mod credentials;
mod device_groups;
mod device_types;
pub mod devices;
pub mod functions;
mod group_tree;
pub mod jwt;
mod large;
pub mod lifecycle;
pub mod members;
pub mod nodes;
pub mod output_topics;
pub mod policies;
pub mod pre_shared_keys;
pub mod presence;
mod registration;
mod room;
pub mod rules;
pub mod topic_owners;
pub mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_functions::Pool;
use drover_host::actor;
use drover_types::{ApiError, Clock, ErrorCode, Random, TenantId};
use tokio::sync::{Mutex, Notify};

use crate::audit::UNKNOWN;
use crate::object::{Kind, Meta, Object, ObjectKey, Spec};
use crate::ports::{CertificateAuthority, IngressNodes, Mutation, RegistryStore, StoreError, Vault};
use crate::telemetry::Telemetry;

/// Objects on a page when nobody says how many.
const PAGE_SIZE_DEFAULT: usize = 100;
/// Most objects on a page; bounds the memory of one answer.
const PAGE_SIZE_MAX: usize = 1_000;
/// How often an unconditional update starts over because somebody else was faster.
const UPDATE_TRIES_MAX: usize = 16;

/// What the registry decides with, and about.
pub struct Domain {
    pub store: Arc<dyn RegistryStore>,
    pub nodes: Arc<dyn IngressNodes>,
    pub authority: Arc<dyn CertificateAuthority>,
    pub vault: Arc<dyn Vault>,
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub telemetry: Arc<Telemetry>,
    /// Where functions are tried.
    pub functions: Pool,
    /// Woken after every write; the change feed listens.
    pub written: Arc<Notify>,
    /// Held while a rule is written: two creations cannot both be the last, and a rule's topics follow its writes.
    pub writing_rule: Mutex<()>,
    /// Held while a function is written: two creations cannot both be the last.
    pub writing_function: Mutex<()>,
    /// Held while a policy is written: two creations cannot both be the last.
    pub writing_policy: Mutex<()>,
    /// Held while a certificate authority is written: two creations cannot both be the last, and the claims of subjects
    /// follow its writes.
    pub writing_authority: Mutex<()>,
    /// Held while a device type is written: two creations cannot both be the last.
    pub writing_device_type: Mutex<()>,
    /// Held while a device group is written or deleted: none comes to be within one that goes, or within itself.
    pub writing_device_group: Mutex<()>,
    /// Held while an API token is made: two cannot both be the last.
    pub making_api_token: Mutex<()>,
    /// Who may vouch for devices.
    pub issuers: Arc<jwt::Issuers>,
    pub settings: Settings,
}

/// What an operator may choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether clients without credentials may be devices of the tenant `default`.
    pub anonymous: bool,
    pub rules_per_tenant_max: usize,
    pub policies_per_tenant_max: usize,
    pub output_topics: output_topics::OutputTopics,
    /// Partitions of the event log, to find a device's presence.
    pub partitions: u32,
}

/// Most bytes of a page's objects: an answer has at most 4 MiB.
const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// An object as somebody wants it.
#[derive(Clone, Debug)]
pub struct Declared {
    pub tenant: TenantId,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// The revision it is meant to replace; 0: any.
    pub revision: u64,
    /// Who is to keep it as it is; empty: who does so far.
    pub owner: String,
    pub spec: Spec,
}

/// Which page of a list is wanted.
#[derive(Clone, Debug)]
pub struct PageRequest {
    pub tenant: TenantId,
    /// 1 to 1,000; 0: 100.
    pub size: u32,
    /// Name after which to go on; empty: from the start.
    pub after: String,
}

/// Some objects in the order of their names.
#[derive(Debug)]
pub struct Page<T = Object> {
    pub items: Vec<T>,
    /// Name after which the next page goes on; empty: there is none.
    pub next: String,
}

impl PageRequest {
    fn limit(&self) -> Result<usize, ApiError> {
        match self.size as usize {
            0 => Ok(PAGE_SIZE_DEFAULT),
            size if size <= PAGE_SIZE_MAX => Ok(size),
            size => Err(ApiError::invalid("page_size", "page is too large").over(PAGE_SIZE_MAX, size)),
        }
    }
}

impl Page {
    /// A page of `limit` out of up to `limit + 1` objects; it ends also where it would get too large for one answer.
    fn cut(mut items: Vec<Object>, limit: usize) -> Self {
        let mut bytes = 0;
        let fits = items.iter().take_while(|object| {
            bytes += object.bytes();
            bytes <= PAGE_BYTES_MAX
        });
        // One object is always within an answer.
        let kept = fits.count().max(1).min(limit);
        let more = items.len() > kept;
        items.truncate(kept);
        let last = items.last().filter(|_| more);
        Self { next: last.map(|object| object.meta.name.clone()).unwrap_or_default(), items }
    }
}

impl Domain {
    /// Writes through in the name of who asked, wakes the change feed, and keeps readiness true to what the store says.
    async fn write(&self, mutation: Mutation) -> Result<Option<Object>, StoreError> {
        let actor = actor::current().map_or_else(|| UNKNOWN.to_owned(), |actor| actor.to_string());
        let mutation = Mutation { actor, ..mutation };
        let outcome = self.store.write(mutation).await;
        match &outcome {
            Ok(_) => {
                self.telemetry.working("store");
                self.written.notify_one();
            }
            Err(StoreError::Conflict { .. } | StoreError::Busy { .. }) => {} // nothing is wrong with the store
            Err(failure) => self.telemetry.obstacle("store", failure),
        }
        outcome
    }

    async fn get(&self, key: ObjectKey) -> Result<Object, ApiError> {
        self.store.get(&key).await?.ok_or_else(|| not_found(&key))
    }

    async fn page(&self, kind: Kind, request: &PageRequest) -> Result<Page, ApiError> {
        let limit = request.limit()?;
        Ok(Page::cut(self.store.page(kind, &request.tenant, &request.after, limit + 1).await?, limit))
    }

    /// Writes a new object; `already_exists` if there is one of its name.
    async fn create(&self, declared: Declared) -> Result<Object, ApiError> {
        let now_ms = self.clock.now_ms();
        let object = declared.onto(None, now_ms);
        let key = object.key();
        match self.write(Mutation::new(key.clone(), None, Some(object), now_ms)).await {
            Ok(written) => Ok(written.expect("what was written is answered")),
            Err(StoreError::Conflict { .. }) => {
                Err(ApiError::new(ErrorCode::AlreadyExists, format!("{key} exists already")))
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Replaces `current`, or whatever takes its place meanwhile if the declaration names no revision. Writes nothing
    /// if nothing changes.
    async fn replace(&self, declared: Declared, mut current: Object) -> Result<Object, ApiError> {
        let key = current.key();
        for _ in 0..UPDATE_TRIES_MAX {
            let found = current.meta.revision;
            if declared.revision != 0 && declared.revision != found {
                return Err(stale(&key, declared.revision, found));
            }
            let owner = declared.owner_after(&current.meta, &key)?;
            let same_meta = declared.labels == current.meta.labels && owner == current.meta.owner;
            if same_meta && declared.spec == current.spec {
                return Ok(current);
            }
            let now_ms = self.clock.now_ms();
            let after = Some(declared.clone().onto(Some(&current.meta), now_ms)).map(|mut object| {
                object.meta.generation += u64::from(declared.spec != current.spec);
                object
            });
            match self.write(Mutation::new(key.clone(), Some(found), after, now_ms)).await {
                Ok(written) => return Ok(written.expect("what was written is answered")),
                Err(StoreError::Conflict { .. }) => current = self.get(key.clone()).await?,
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(ApiError::new(ErrorCode::Aborted, format!("{key} keeps changing")).over(UPDATE_TRIES_MAX, UPDATE_TRIES_MAX))
    }

    /// Deletes an object whatever its revision; `not_found` if there is none.
    async fn delete(&self, key: ObjectKey) -> Result<Object, ApiError> {
        for _ in 0..UPDATE_TRIES_MAX {
            let current = self.get(key.clone()).await?;
            let expected = Some(current.meta.revision);
            let time_ms = self.clock.now_ms();
            match self.write(Mutation::new(key.clone(), expected, None, time_ms)).await {
                Ok(_) => return Ok(current),
                Err(StoreError::Conflict { .. }) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(ApiError::new(ErrorCode::Aborted, format!("{key} keeps changing")).over(UPDATE_TRIES_MAX, UPDATE_TRIES_MAX))
    }
}

impl Declared {
    /// Whose the object is once this has taken the place of the one with `former` metadata. To take it from its owner
    /// needs the revision: whoever names it has seen whose it was.
    fn owner_after(&self, former: &Meta, key: &ObjectKey) -> Result<String, ApiError> {
        match self.owner.as_str() {
            "" => Ok(former.owner.clone()),
            owner if owner == former.owner || self.revision == former.revision => Ok(owner.to_owned()),
            owner => Err(not_owned(key, owner, &former.owner)),
        }
    }

    /// The object that takes the place of the one with `former` metadata, its generation not yet raised.
    fn onto(self, former: Option<&Meta>, now_ms: u64) -> Object {
        let meta = Meta {
            tenant: self.tenant,
            name: self.name,
            labels: self.labels,
            generation: former.map_or(1, |meta| meta.generation),
            revision: 0,
            created_ms: former.map_or(now_ms, |meta| meta.created_ms),
            updated_ms: now_ms,
            owner: former.map(|meta| meta.owner.clone()).filter(|_| self.owner.is_empty()).unwrap_or(self.owner),
        };
        Object { meta, spec: self.spec }
    }
}

fn not_found(key: &ObjectKey) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("{key} does not exist"))
}

/// The error of whoever takes for its own what is another's.
fn not_owned(key: &ObjectKey, wanted: &str, found: &str) -> ApiError {
    let whose = if found.is_empty() { "nobody's".to_owned() } else { format!("kept by {found}") };
    let message = format!("{key} is {whose}, not {wanted}'s");
    ApiError { field: Some("metadata.owner".into()), ..ApiError::new(ErrorCode::FailedPrecondition, message) }
        .over(found, wanted)
}

fn stale(key: &ObjectKey, wanted: u64, found: u64) -> ApiError {
    let message = format!("{key} has revision {found}, not {wanted}: somebody else changed it");
    ApiError { field: Some("metadata.resourceVersion".into()), ..ApiError::new(ErrorCode::Aborted, message) }
        .over(found, wanted)
}
