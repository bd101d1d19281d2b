//! What one device and one tenant may send, and how fast clients may connect: of this node, so that a noisy neighbour
//! costs others nothing.
//!
//! Domain layer, pure; time is monotonic milliseconds. Only who has sent within the last second is remembered, by a hash:
//! two that share one, which is not to be expected, share a quota.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_types::{DeviceId, TenantId};

use crate::domain::bucket::{Bucket, Rate};

/// Parts of the table, each with a lock of its own; loops of several cores meet here.
const SHARDS: usize = 16;
/// Senders of one part that are remembered; what others send is not counted. A million of one second on one node.
const SENDERS_MAX: usize = 65_536;
/// Senders up to which nobody is looked for that can be forgotten.
const SWEPT_MIN: usize = 64;

/// Rates of one node; `None`: any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Messages of one device, by whatever protocol and connection.
    pub device_messages: Option<Rate>,
    /// Messages of all devices of a tenant.
    pub tenant_messages: Option<Rate>,
    /// CONNECTs of all clients.
    pub connects: Option<Rate>,
}

/// Whose quota it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOf {
    Device,
    Tenant,
}

impl std::fmt::Display for QuotaOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            QuotaOf::Device => "device",
            QuotaOf::Tenant => "tenant",
        })
    }
}

/// More was sent than a quota allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{of} sends more than {limit} messages a second to this node, which is its quota")]
pub struct OverQuota {
    pub of: QuotaOf,
    /// Messages a second.
    pub limit: u32,
}

/// What is left of the quotas of this node.
#[derive(Debug, Default)]
pub struct Quotas {
    rates: Rates,
    /// Of devices and tenants, by their hash.
    senders: [Mutex<Senders>; SHARDS],
    connects: Mutex<Bucket>,
    hashes: RandomState,
}

#[derive(Debug, Default)]
struct Senders {
    buckets: HashMap<u64, Bucket>,
    /// As many as there may be before those are looked for that can be forgotten.
    swept_at: usize,
}

impl Quotas {
    /// Quotas nobody has used yet.
    pub fn new(rates: Rates) -> Self {
        Self { rates, ..Self::default() }
    }

    /// Takes one message of a device, or says whose quota it is beyond.
    pub fn take(&self, tenant: &TenantId, device: &DeviceId, now_ms: u64) -> Result<(), OverQuota> {
        let Rates { device_messages, tenant_messages, .. } = self.rates;
        if let Some(rate) = device_messages {
            let taken = self.with(&(tenant, device), now_ms, |bucket| bucket.take(rate, now_ms));
            if !taken.unwrap_or(true) {
                return Err(OverQuota { of: QuotaOf::Device, limit: rate.per_second() });
            }
        }
        let Some(rate) = tenant_messages else { return Ok(()) };
        let taken = self.with(tenant, now_ms, |bucket| bucket.take(rate, now_ms));
        if taken.unwrap_or(true) {
            return Ok(());
        }
        if let Some(rate) = device_messages {
            self.with(&(tenant, device), now_ms, |bucket| bucket.give_back(rate));
        }
        Err(OverQuota { of: QuotaOf::Tenant, limit: rate.per_second() })
    }

    /// Takes one message of a device in any case; for how many milliseconds the next one has to wait.
    pub fn owe(&self, tenant: &TenantId, device: &DeviceId, now_ms: u64) -> u64 {
        let Rates { device_messages, tenant_messages, .. } = self.rates;
        let of_device =
            device_messages.and_then(|rate| self.with(&(tenant, device), now_ms, |bucket| bucket.owe(rate, now_ms)));
        let of_tenant = tenant_messages.and_then(|rate| self.with(tenant, now_ms, |bucket| bucket.owe(rate, now_ms)));
        of_device.max(of_tenant).unwrap_or(0)
    }

    /// Takes one CONNECT; an error says how many a second there may be.
    pub fn admit(&self, now_ms: u64) -> Result<(), u32> {
        let Some(rate) = self.rates.connects else { return Ok(()) };
        let there = self.connects.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now_ms);
        if there { Ok(()) } else { Err(rate.per_second()) }
    }

    /// Does something with a sender's bucket; `None`: there are too many senders to remember this one.
    fn with<T>(&self, sender: &impl Hash, now_ms: u64, change: impl FnOnce(&mut Bucket) -> T) -> Option<T> {
        let hash = self.hashes.hash_one(sender);
        let mut senders = self.shard(hash);
        if !senders.buckets.contains_key(&hash) && !senders.has_room(now_ms) {
            return None;
        }
        Some(change(senders.buckets.entry(hash).or_default()))
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Senders> {
        let shard = usize::try_from(hash % SHARDS as u64).expect("a small number");
        self.senders[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Senders {
    /// Whether another one can be remembered; from time to time those are forgotten whose buckets are full.
    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.buckets.len() >= self.swept_at.max(SWEPT_MIN) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
            self.swept_at = (2 * self.buckets.len()).min(SENDERS_MAX);
            self.buckets.shrink_to(self.swept_at);
        }
        self.buckets.len() < SENDERS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(device: u32, tenant: u32) -> Quotas {
        Quotas::new(Rates { device_messages: Rate::new(device), tenant_messages: Rate::new(tenant), connects: None })
    }

    fn device(name: impl AsRef<str>) -> DeviceId {
        DeviceId::new(name).expect("valid")
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("valid")
    }

    #[test]
    fn one_device_uses_up_its_own_quota_and_its_tenants_and_no_others() {
        let (quotas, home, other) = (quotas(3, 5), tenant("home"), tenant("other"));
        let takes =
            |tenant: &TenantId, name: &str| (0..10).filter(|_| quotas.take(tenant, &device(name), 0).is_ok()).count();
        assert_eq!(takes(&home, "a"), 3);
        let over = quotas.take(&home, &device("a"), 0).expect_err("over its quota");
        assert_eq!(over, OverQuota { of: QuotaOf::Device, limit: 3 });
        assert_eq!(takes(&home, "b"), 2, "the rest of the tenant's");
        let over = quotas.take(&home, &device("c"), 0).expect_err("over the tenant's quota");
        assert_eq!(over, OverQuota { of: QuotaOf::Tenant, limit: 5 });
        assert_eq!(takes(&other, "a"), 3, "another tenant's device of that name");
        let later = (0..10).filter(|_| quotas.take(&home, &device("c"), 1_000).is_ok()).count();
        assert_eq!(later, 3, "what the tenant had no room for has cost the device nothing");
    }

    #[test]
    fn who_is_not_told_waits() {
        let quotas = quotas(2, 0);
        let (home, lamp) = (tenant("home"), device("lamp"));
        assert_eq!([0; 3].map(|_| quotas.owe(&home, &lamp, 7)), [0, 500, 1_000]);
        assert!(quotas.take(&home, &lamp, 1_006).is_err() && quotas.take(&home, &lamp, 1_007).is_ok());
    }

    #[test]
    fn without_quotas_nothing_is_remembered() {
        let quotas = Quotas::default();
        assert_eq!(quotas.take(&tenant("home"), &device("a"), 0), Ok(()));
        assert_eq!((quotas.owe(&tenant("home"), &device("a"), 0), quotas.admit(0)), (0, Ok(())));
        assert!(quotas.senders.iter().all(|shard| shard.lock().expect("sound").buckets.is_empty()));
    }

    #[test]
    fn those_who_have_not_sent_lately_are_forgotten_and_there_is_room_for_no_more_than_so_many() {
        let quotas = quotas(1_000, 0);
        let count = || quotas.senders.iter().map(|shard| shard.lock().expect("sound").buckets.len()).sum::<usize>();
        for second in 0..20 {
            for name in 0..1_000 {
                quotas.take(&tenant("home"), &device(format!("{second}-{name}")), second * 1_000).expect("within it");
            }
            assert!(count() <= 3 * (1_000 + SHARDS * SWEPT_MIN), "{}", count());
        }
        let mut senders = Senders::default();
        let busy = |hash| (hash, with_one_taken());
        senders.buckets = (0..SENDERS_MAX as u64).map(busy).collect();
        assert!(!senders.has_room(0));
        assert!(senders.has_room(2_000), "they have not sent for a while");
    }

    fn with_one_taken() -> Bucket {
        let mut bucket = Bucket::default();
        assert!(bucket.take(Rate::new(1).expect("not 0"), 0));
        bucket
    }

    #[test]
    fn connects_beyond_their_rate_are_told_it() {
        let quotas = Quotas::new(Rates { connects: Rate::new(2), ..Rates::default() });
        assert_eq!([0, 0, 0, 499, 500].map(|now_ms| quotas.admit(now_ms)), [Ok(()), Ok(()), Err(2), Err(2), Ok(())]);
    }
}
