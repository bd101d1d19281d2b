//! The suite that every store adapter must pass, a store in memory that passes it, and one that is slow where a test wants it.
//!
//! An adapter's test gives a [`Factory`]; each function here is one promise of [`ShadowStore`], in `commands` of
//! [`CommandStore`](crate::ports::CommandStore).

mod commands;
mod slow;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::shadow::ShadowName;
use drover_types::{DeviceId, DeviceKey, TenantId};

use crate::domain::command::{Body, Head, Slot};
use crate::domain::{Shadow, ShadowKey};
use crate::ports::{ShadowStore, Store, StoreError};

pub use slow::SlowStore;

/// Makes stores for the suite.
#[async_trait]
pub trait Factory: Send + Sync {
    /// A store with nothing in it.
    async fn empty(&self) -> Arc<dyn Store>;
    /// The same store after its process has stopped in good order and come back; nobody else holds `store`.
    async fn reopened(&self, store: Arc<dyn Store>) -> Arc<dyn Store>;
    /// Whether what is over goes by itself, some time, and not when it is asked to.
    fn rows_end_by_themselves(&self) -> bool {
        false
    }
}

/// Runs every promise.
pub async fn suite(factory: &dyn Factory) {
    what_is_put_reads_back_with_its_offset(factory).await;
    the_highest_version_and_the_highest_offset_stay(factory).await;
    what_would_leave_a_gap_is_refused(factory).await;
    names_are_those_of_the_device_in_order(factory).await;
    open_deltas_are_those_of_the_classic_shadows_as_they_are(factory).await;
    open_deltas_come_page_by_page(factory).await;
    everything_survives_reopening(factory).await;
    shadows_put_side_by_side_are_all_there(factory).await;
    commands::suite(factory).await;
}

fn key(text: &str) -> ShadowKey {
    ShadowKey::parse(text).expect("a key")
}

fn shadow(version: u64, on: Option<bool>) -> Shadow {
    let document = match on {
        Some(on) => format!(
            r#"{{"state":{{"desired":{{"on":{on}}}}},"metadata":{{"desired":{{"on":{{"timestamp":7}}}}}},"version":{version},"timestamp":7}}"#
        ),
        None => format!(r#"{{"version":{version},"timestamp":7}}"#),
    };
    Shadow::from_json(document.as_bytes()).expect("a document")
}

async fn what_is_put_reads_back_with_its_offset(factory: &dyn Factory) {
    let store = factory.empty().await;
    assert_eq!(store.get(&key("home/lamp")).await, Ok(None));
    assert_eq!(store.next(3).await, Ok(None));
    let there = shadow(1, Some(true));
    store.put(3, 0, 10, vec![(key("home/lamp"), there.clone())]).await.expect("put");
    assert_eq!(store.get(&key("home/lamp")).await, Ok(Some(there)));
    assert_eq!((store.next(3).await, store.next(4).await), (Ok(Some(10)), Ok(None)));
    store.put(3, 10, 11, vec![(key("home/lamp"), shadow(2, None))]).await.expect("put");
    assert_eq!(store.get(&key("home/lamp")).await, Ok(Some(shadow(2, None))));
    for other in ["home/lamp/a", "home/lam", "house/lamp"] {
        assert_eq!(store.get(&key(other)).await, Ok(None), "{other}");
    }
    store.put(3, 11, 12, Vec::new()).await.expect("an offset alone");
    assert_eq!(store.next(3).await, Ok(Some(12)));
}

async fn the_highest_version_and_the_highest_offset_stay(factory: &dyn Factory) {
    let store = factory.empty().await;
    store.put(0, 0, 20, vec![(key("home/lamp"), shadow(5, Some(true)))]).await.expect("put");
    let late = vec![(key("home/lamp"), shadow(4, None)), (key("home/fan"), shadow(1, Some(true)))];
    store.put(0, 18, 19, late).await.expect("put late");
    assert_eq!(store.get(&key("home/lamp")).await, Ok(Some(shadow(5, Some(true)))));
    assert_eq!(store.get(&key("home/fan")).await, Ok(Some(shadow(1, Some(true)))));
    assert_eq!(store.next(0).await, Ok(Some(20)));
}

async fn what_would_leave_a_gap_is_refused(factory: &dyn Factory) {
    let store = factory.empty().await;
    let lamp = || vec![(key("home/lamp"), shadow(1, Some(true)))];
    let behind = |kept| Err(StoreError::Behind { partition: 0, kept, from: 5 });
    assert_eq!(store.put(0, 5, 6, lamp()).await, behind(0));
    store.put(0, 0, 4, Vec::new()).await.expect("put");
    assert_eq!(store.put(0, 5, 6, lamp()).await, behind(4));
    assert_eq!((store.get(&key("home/lamp")).await, store.next(0).await), (Ok(None), Ok(Some(4))));
    store.put(0, 4, 6, lamp()).await.expect("nothing is missing");
}

async fn names_are_those_of_the_device_in_order(factory: &dyn Factory) {
    let store = factory.empty().await;
    let put = ["home/lamp/b", "home/lamp", "home/lamp/a:1", "home/lamp-2/c", "home/lam", "other/lamp/d"];
    let shadows = put.iter().map(|text| (key(text), shadow(1, Some(true)))).collect();
    store.put(0, 0, 1, shadows).await.expect("put");
    store.put(0, 1, 2, vec![(key("home/lamp/b"), shadow(2, None))]).await.expect("put");
    let names = store.names(&key("home/lamp").device).await.expect("readable");
    let names: Vec<_> = names.iter().map(|(name, there)| (name.as_str(), *there)).collect();
    assert_eq!(names, [("", true), ("a:1", true), ("b", false)]);
    assert_eq!(store.names(&key("home/none").device).await, Ok(Vec::new()));
}

/// A shadow whose wish is reported.
fn met(version: u64) -> Shadow {
    let document = format!(
        r#"{{"state":{{"desired":{{"on":1}},"reported":{{"on":1.0}}}},"metadata":{{}},"version":{version},"timestamp":7}}"#
    );
    Shadow::from_json(document.as_bytes()).expect("a document")
}

/// All open deltas of a tenant, in pages of `limit`; in the order of names.
async fn open(store: &dyn ShadowStore, tenant: &str, limit: usize) -> Vec<String> {
    let tenant = TenantId::new(tenant).expect("a tenant");
    let mut found: Vec<DeviceId> = Vec::new();
    loop {
        let page = store.open_deltas(&tenant, found.last(), limit).await.expect("readable");
        assert!(page.len() <= limit, "{page:?}");
        let is_last = page.len() < limit;
        found.extend(page);
        if is_last {
            found.sort();
            return found.iter().map(DeviceId::to_string).collect();
        }
    }
}

async fn open_deltas_are_those_of_the_classic_shadows_as_they_are(factory: &dyn Factory) {
    let store = factory.empty().await;
    let wants = |version| shadow(version, Some(true));
    let put = [
        ("home/lamp", wants(1)),
        ("home/fan", wants(1)),
        ("home/bulb", met(1)),
        ("home/bell/a", wants(1)),
        ("home-2/door", wants(1)),
    ];
    store.put(0, 0, 10, put.map(|(text, shadow)| (key(text), shadow)).to_vec()).await.expect("put");
    assert_eq!(open(&*store, "home", 10).await, ["fan", "lamp"]);
    assert_eq!(open(&*store, "home-2", 10).await, ["door"]);
    let put = [("home/lamp", met(2)), ("home/fan", shadow(2, None)), ("home/bulb", wants(2))];
    store.put(0, 10, 20, put.map(|(text, shadow)| (key(text), shadow)).to_vec()).await.expect("put");
    assert_eq!(open(&*store, "home", 10).await, ["bulb"]);
    let late = [("home/lamp", wants(1)), ("home/bulb", met(1))];
    store.put(0, 10, 20, late.map(|(text, shadow)| (key(text), shadow)).to_vec()).await.expect("put late");
    assert_eq!(open(&*store, "home", 10).await, ["bulb"]);
    store.put(0, 20, 21, vec![(key("home/lamp"), wants(3))]).await.expect("put");
    assert_eq!(open(&*store, "home", 10).await, ["bulb", "lamp"]);
}

async fn open_deltas_come_page_by_page(factory: &dyn Factory) {
    let store = factory.empty().await;
    assert_eq!(open(&*store, "home", 3).await, Vec::<String>::new());
    let names: Vec<String> = (10..22).map(|number| format!("lamp-{number}")).collect();
    let shadows = names.iter().map(|name| (key(&format!("home/{name}")), shadow(1, Some(true)))).collect();
    store.put(0, 0, 12, shadows).await.expect("put");
    for limit in [1, 3, 5, 100] {
        assert_eq!(open(&*store, "home", limit).await, names, "pages of {limit}");
    }
}

async fn everything_survives_reopening(factory: &dyn Factory) {
    let store = factory.empty().await;
    store.put(1, 0, 5, vec![(key("home/lamp"), shadow(3, Some(false)))]).await.expect("put");
    let store = factory.reopened(store).await;
    assert_eq!(open(&*store, "home", 10).await, ["lamp"]);
    assert_eq!(store.get(&key("home/lamp")).await, Ok(Some(shadow(3, Some(false)))));
    assert_eq!(store.next(1).await, Ok(Some(5)));
}

async fn shadows_put_side_by_side_are_all_there(factory: &dyn Factory) {
    let store = factory.empty().await;
    let mut puts = tokio::task::JoinSet::new();
    for partition in 0..8u32 {
        let store = store.clone();
        puts.spawn(async move {
            for version in 1..=20u64 {
                let of_partition = key(&format!("home/lamp-{partition}"));
                let shadows =
                    vec![(of_partition, shadow(version, Some(true))), (key("home/all"), shadow(version, None))];
                store.put(partition, version - 1, version, shadows).await.expect("put");
            }
        });
    }
    puts.join_all().await;
    for partition in 0..8 {
        let found = store.get(&key(&format!("home/lamp-{partition}"))).await.expect("readable");
        assert_eq!(found.map(|shadow| shadow.version), Some(20));
        assert_eq!(store.next(partition).await, Ok(Some(20)));
    }
    assert_eq!(store.get(&key("home/all")).await, Ok(Some(shadow(20, None))));
}

/// A store in memory: for simulation, where no thread may decide what comes first.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    shadows: BTreeMap<ShadowKey, Shadow>,
    next: BTreeMap<Partition, Offset>,
    commands: BTreeMap<(DeviceKey, Slot), (Head, Body)>,
    commands_next: BTreeMap<Partition, Offset>,
}

impl MemoryStore {
    /// Loses everything, as a store does whose directory is deleted.
    pub fn lose(&self) {
        *self.memory() = Memory::default();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ShadowStore for MemoryStore {
    async fn get(&self, key: &ShadowKey) -> Result<Option<Shadow>, StoreError> {
        Ok(self.memory().shadows.get(key).cloned())
    }

    async fn names(&self, device: &DeviceKey) -> Result<Vec<(ShadowName, bool)>, StoreError> {
        let memory = self.memory();
        let of_device = memory.shadows.iter().filter(|(key, _)| key.device == *device);
        Ok(of_device.map(|(key, shadow)| (key.name.clone(), shadow.state.is_some())).collect())
    }

    async fn open_deltas(
        &self,
        tenant: &TenantId,
        after: Option<&DeviceId>,
        limit: usize,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let memory = self.memory();
        let classic = memory.shadows.iter().filter(|(key, _)| key.is_classic() && key.device.tenant == *tenant);
        let open = classic.filter(|(_, shadow)| shadow.is_open()).map(|(key, _)| &key.device.device);
        Ok(open.filter(|device| after.is_none_or(|after| *device > after)).take(limit).cloned().collect())
    }

    async fn next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        Ok(self.memory().next.get(&partition).copied())
    }

    async fn put(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        shadows: Vec<(ShadowKey, Shadow)>,
    ) -> Result<(), StoreError> {
        let mut memory = self.memory();
        let kept = memory.next.get(&partition).copied().unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        for (key, shadow) in shadows {
            if memory.shadows.get(&key).is_none_or(|there| there.version < shadow.version) {
                memory.shadows.insert(key, shadow);
            }
        }
        memory.next.insert(partition, next.max(kept));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct InMemory;

    #[async_trait]
    impl Factory for InMemory {
        async fn empty(&self) -> Arc<dyn Store> {
            Arc::<MemoryStore>::default()
        }

        async fn reopened(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
            store
        }
    }

    #[tokio::test]
    async fn the_store_in_memory_keeps_every_promise() {
        suite(&InMemory).await;
    }
}
