//! The promises of [`CommandStore`], and commands of the store in memory.

use async_trait::async_trait;
use drover_bus::{Offset, Partition};
use drover_types::{DeviceKey, RecordId};
use futures::future::try_join_all;

use super::{Factory, MemoryStore, key};
use crate::domain::command::{Answered, Body, Change, Execution, Head, SLOTS, Slot, What};
use crate::ports::{CommandStore, Store, StoreError};

/// Runs every promise.
pub async fn suite(factory: &dyn Factory) {
    a_command_reads_back_as_it_was_put_answered_and_sent(factory).await;
    a_place_belongs_to_the_last_command_and_to_no_other_device(factory).await;
    what_is_late_changes_nothing(factory).await;
    who_folds_at_the_same_time_changes_nothing(factory).await;
    a_command_made_again_under_its_id_was_not_sent_with_the_first(factory).await;
    what_would_leave_a_gap_is_refused(factory).await;
    a_place_that_is_forgotten_is_free(factory).await;
    every_place_of_a_device_is_told(factory).await;
    only_what_is_over_is_forgotten(factory).await;
    everything_survives_reopening(factory).await;
}

fn lamp() -> DeviceKey {
    key("home/lamp").device
}

fn execution(number: u8, slot: Slot, created_at: Offset) -> Execution {
    let head = Head {
        id: RecordId([number; 16]),
        slot,
        created_at,
        created_ms: 1_000 + created_at,
        expires_ms: 61_000 + created_at,
        sent_ms: None,
        answered: None,
    };
    let body = Body { name: format!("fan-{number}"), payload: "{\"on\":true}".into(), response: Default::default() };
    Execution { head, body }
}

fn change(offset: Offset, slot: Slot, what: What) -> Change {
    Change { device: lamp(), offset, slot, what }
}

/// A command made by the record at `offset`.
fn create(number: u8, slot: Slot, offset: Offset) -> Change {
    change(offset, slot, What::Create(Box::new(execution(number, slot, offset))))
}

fn answer(number: u8, slot: Slot, offset: Offset, code: u16) -> Change {
    let answered = Answered { code, time_ms: 2_000 + offset };
    let response = code.to_string().into();
    change(offset, slot, What::Answer { id: RecordId([number; 16]), answered, response })
}

/// All commands of a device, by their places.
async fn all(store: &dyn Store, device: &DeviceKey) -> Vec<Execution> {
    let mut found = Vec::new();
    let mut heads = store.command_heads(device).await.expect("readable");
    heads.sort_by_key(|head| head.slot);
    for head in heads {
        let body = store.command_body(device, &head).await.expect("readable").expect("it has its place");
        found.push(Execution { head, body });
    }
    found
}

async fn a_command_reads_back_as_it_was_put_answered_and_sent(factory: &dyn Factory) {
    let store = factory.empty().await;
    assert_eq!((store.commands_next(3).await, all(&*store, &lamp()).await), (Ok(None), Vec::new()));
    store.put_commands(3, 0, 10, vec![create(1, 0, 5), create(2, 1, 9)]).await.expect("put");
    let (one, two) = (execution(1, 0, 5), execution(2, 1, 9));
    assert_eq!(all(&*store, &lamp()).await, [one.clone(), two.clone()]);
    assert_eq!((store.commands_next(3).await, store.commands_next(4).await), (Ok(Some(10)), Ok(None)));

    store.command_sent(&lamp(), &one.head, 1_500).await.expect("remembered");
    store.put_commands(3, 10, 12, vec![answer(1, 0, 10, 100), answer(1, 0, 11, 200)]).await.expect("put");
    store.command_sent(&lamp(), &two.head, 1_600).await.expect("remembered");
    let answered = Some(Answered { code: 200, time_ms: 2_011 });
    let head = Head { sent_ms: Some(1_500), answered, ..one.head };
    let one = Execution { head, body: Body { response: "200".into(), ..one.body } };
    let two = Execution { head: Head { sent_ms: Some(1_600), ..two.head }, body: two.body };
    assert_eq!(all(&*store, &lamp()).await, [one, two]);
    for other in ["home/lam", "home/lamp-2", "house/lamp"] {
        assert_eq!(store.command_heads(&key(other).device).await, Ok(Vec::new()), "{other}");
    }
}

async fn a_place_belongs_to_the_last_command_and_to_no_other_device(factory: &dyn Factory) {
    let store = factory.empty().await;
    let of_fan = Change { device: key("home/fan").device, ..create(9, 4, 2) };
    store.put_commands(0, 0, 3, vec![create(1, 4, 0), answer(1, 4, 1, 500), of_fan]).await.expect("put");
    let first = execution(1, 4, 0);
    store.command_sent(&lamp(), &first.head, 1_500).await.expect("remembered");
    store.put_commands(0, 3, 4, vec![create(2, 4, 3)]).await.expect("put");
    assert_eq!(all(&*store, &lamp()).await, [execution(2, 4, 3)], "nothing is left of the one before");
    assert_eq!(store.command_body(&lamp(), &first.head).await, Ok(None), "another one has its place");
    store.command_sent(&lamp(), &first.head, 1_700).await.expect("changes nothing");
    assert_eq!(all(&*store, &lamp()).await, [execution(2, 4, 3)]);
    assert_eq!(all(&*store, &key("home/fan").device).await, [execution(9, 4, 2)]);
}

/// What six records change: one is answered twice, one is sent, and one is forgotten.
fn six(device: &DeviceKey) -> Vec<Change> {
    let (progress, last) = (answer(1, 0, 1, 100), answer(1, 0, 3, 200));
    let changes = [create(1, 0, 0), progress, create(2, 1, 2), last, create(3, 2, 4), change(5, 2, What::Forget)];
    changes.into_iter().map(|change| Change { device: device.clone(), ..change }).collect()
}

async fn what_is_late_changes_nothing(factory: &dyn Factory) {
    let store = factory.empty().await;
    store.put_commands(0, 0, 3, six(&lamp())[..3].to_vec()).await.expect("put");
    store.command_sent(&lamp(), &execution(2, 1, 2).head, 1_500).await.expect("remembered");
    store.put_commands(0, 0, 6, six(&lamp())).await.expect("put over the first of them");
    let there = all(&*store, &lamp()).await;
    let [one, two] = &there[..] else { panic!("{there:?}") };
    assert_eq!((one.head.answered.map(|last| last.code), &*one.body.response), (Some(200), b"200".as_slice()));
    assert_eq!((two.head.id, two.head.sent_ms), (RecordId([2; 16]), Some(1_500)));
    for (from, next) in [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (2, 4), (4, 5), (5, 6)] {
        let late = six(&lamp())[from..next].to_vec();
        store.put_commands(0, from as u64, next as u64, late).await.expect("put late");
        let kept = (all(&*store, &lamp()).await, store.commands_next(0).await);
        assert_eq!(kept, (there.clone(), Ok(Some(6))), "{from}..{next}");
    }
}

async fn who_folds_at_the_same_time_changes_nothing(factory: &dyn Factory) {
    let (store, alone) = (factory.empty().await, MemoryStore::default());
    for partition in 0..8 {
        let device = key(&format!("home/lamp-{partition}")).device;
        alone.put_commands(partition, 0, 6, six(&device)).await.expect("put");
        let puts = (1..=6).map(|next| store.put_commands(partition, 0, next as u64, six(&device)[..next].to_vec()));
        try_join_all(puts).await.expect("put side by side");
        assert_eq!(all(&*store, &device).await, all(&alone, &device).await);
        assert_eq!(store.commands_next(partition).await, Ok(Some(6)));
    }
}

async fn a_command_made_again_under_its_id_was_not_sent_with_the_first(factory: &dyn Factory) {
    let store = factory.empty().await;
    let changes = vec![create(1, 0, 0), change(1, 0, What::Forget), create(1, 0, 2)];
    store.put_commands(0, 0, 3, changes).await.expect("put");
    store.command_sent(&lamp(), &execution(1, 0, 0).head, 1_500).await.expect("changes nothing");
    let mut again = execution(1, 0, 2);
    assert_eq!(all(&*store, &lamp()).await, [again.clone()]);
    store.command_sent(&lamp(), &again.head, 1_600).await.expect("remembered");
    again.head.sent_ms = Some(1_600);
    assert_eq!(all(&*store, &lamp()).await, [again]);
}

async fn what_would_leave_a_gap_is_refused(factory: &dyn Factory) {
    let store = factory.empty().await;
    let behind = |kept| Err(StoreError::Behind { partition: 0, kept, from: 5 });
    assert_eq!(store.put_commands(0, 5, 6, vec![create(1, 0, 5)]).await, behind(0));
    store.put_commands(0, 0, 4, Vec::new()).await.expect("put");
    assert_eq!(store.put_commands(0, 5, 6, vec![create(1, 0, 5)]).await, behind(4));
    assert_eq!((all(&*store, &lamp()).await, store.commands_next(0).await), (Vec::new(), Ok(Some(4))));
    assert_eq!(store.next(0).await, Ok(None), "that of documents is another one");
}

async fn a_place_that_is_forgotten_is_free(factory: &dyn Factory) {
    let store = factory.empty().await;
    let forget = |offset, slot| change(offset, slot, What::Forget);
    store.put_commands(0, 0, 3, vec![create(1, 0, 0), create(2, 1, 1), forget(2, 0)]).await.expect("put");
    assert_eq!(all(&*store, &lamp()).await, [execution(2, 1, 1)]);
    store.put_commands(0, 3, 5, vec![forget(3, 1), create(3, 0, 4)]).await.expect("put");
    assert_eq!(all(&*store, &lamp()).await, [execution(3, 0, 4)]);
}

async fn every_place_of_a_device_is_told(factory: &dyn Factory) {
    let store = factory.empty().await;
    let changes = (0..SLOTS).map(|slot| create(slot, slot, slot.into())).collect();
    store.put_commands(0, 0, SLOTS.into(), changes).await.expect("put");
    let slots: Vec<Slot> = all(&*store, &lamp()).await.iter().map(|execution| execution.head.slot).collect();
    assert_eq!(slots, (0..SLOTS).collect::<Vec<_>>());
}

async fn only_what_is_over_is_forgotten(factory: &dyn Factory) {
    let store = factory.empty().await;
    let of_fan = Change { device: key("home/fan").device, ..create(3, 0, 2) };
    let changes = vec![create(1, 0, 0), answer(1, 0, 1, 200), of_fan, create(2, 1, 3)];
    store.put_commands(0, 0, 4, changes).await.expect("put");
    let there = all(&*store, &lamp()).await;
    let forget = async |before_ms| {
        let mut after = None;
        while let Some(last) = store.forget_commands(before_ms, after.as_ref()).await.expect("forgotten") {
            after = Some(last);
        }
    };
    let deadline = |execution: &Execution| execution.head.expires_ms;
    forget(deadline(&there[0])).await;
    assert_eq!(all(&*store, &lamp()).await, there, "at its deadline it is not over");
    forget(deadline(&there[0]) + 1).await;
    let left = if factory.rows_end_by_themselves() { &there[..] } else { &there[1..] };
    assert_eq!(all(&*store, &lamp()).await, left);
    assert_eq!(all(&*store, &key("home/fan").device).await, [execution(3, 0, 2)]);
    assert_eq!(store.commands_next(0).await, Ok(Some(4)));
}

async fn everything_survives_reopening(factory: &dyn Factory) {
    let store = factory.empty().await;
    store.put_commands(1, 0, 2, vec![create(1, 0, 0), answer(1, 0, 1, 404)]).await.expect("put");
    let before = all(&*store, &lamp()).await;
    let store = factory.reopened(store).await;
    assert_eq!((all(&*store, &lamp()).await, store.commands_next(1).await), (before, Ok(Some(2))));
}

#[async_trait]
impl CommandStore for MemoryStore {
    async fn command_heads(&self, device: &DeviceKey) -> Result<Vec<Head>, StoreError> {
        let memory = self.memory();
        let of_device = memory.commands.iter().filter(|((of, _), _)| of == device);
        Ok(of_device.map(|(_, (head, _))| head.clone()).collect())
    }

    async fn command_body(&self, device: &DeviceKey, head: &Head) -> Result<Option<Body>, StoreError> {
        let memory = self.memory();
        let there = memory.commands.get(&(device.clone(), head.slot)).filter(|(there, _)| there.id == head.id);
        Ok(there.map(|(_, body)| body.clone()))
    }

    async fn commands_next(&self, partition: Partition) -> Result<Option<Offset>, StoreError> {
        Ok(self.memory().commands_next.get(&partition).copied())
    }

    async fn put_commands(
        &self,
        partition: Partition,
        from: Offset,
        next: Offset,
        changes: Vec<Change>,
    ) -> Result<(), StoreError> {
        let mut memory = self.memory();
        let kept = memory.commands_next.get(&partition).copied().unwrap_or_default();
        if kept < from {
            return Err(StoreError::Behind { partition, kept, from });
        }
        for change in changes.into_iter().filter(|change| change.offset >= kept) {
            let place = (change.device.clone(), change.slot);
            let former = memory.commands.remove(&place);
            memory.commands.extend(change.applied(former).map(|there| (place, there)));
        }
        memory.commands_next.insert(partition, next.max(kept));
        Ok(())
    }

    async fn command_sent(&self, device: &DeviceKey, head: &Head, sent_ms: u64) -> Result<(), StoreError> {
        let mut memory = self.memory();
        let there = memory.commands.get_mut(&(device.clone(), head.slot));
        if let Some((there, _)) = there.filter(|(there, _)| there.is_same(head)) {
            there.sent_ms = Some(sent_ms);
        }
        Ok(())
    }

    async fn forget_commands(&self, before_ms: u64, _: Option<&DeviceKey>) -> Result<Option<DeviceKey>, StoreError> {
        self.memory().commands.retain(|_, (head, _)| head.expires_ms >= before_ms);
        Ok(None)
    }
}
