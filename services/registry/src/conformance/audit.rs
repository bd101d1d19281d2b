//! What a store promises of audit trails.

use drover_types::TenantId;

use super::Factory;
use crate::audit::{Action, Entry, Position};
use crate::object::Kind;
use crate::ports::RegistryStore;

/// Late 2026, milliseconds since the Unix epoch; the beginning of a day, as days are 86,400,000.
const DAY_MS: u64 = 24 * 3600 * 1000;
const TODAY_MS: u64 = 20_775 * DAY_MS;
/// The day before.
const RECENT_MS: u64 = TODAY_MS - DAY_MS;

pub async fn suite(factory: &dyn Factory) {
    entries_are_read_newest_first_each_once_and_survive_reopening(factory).await;
    entries_of_one_moment_are_in_the_order_of_their_revisions(factory).await;
    pages_reach_entries_of_long_ago_across_days_without_any(factory).await;
    a_trail_is_its_tenants_alone(factory).await;
}

fn entry(tenant: &str, name: &str, time_ms: u64, revision: u64) -> Entry {
    Entry {
        tenant: TenantId::new(tenant).expect("valid"),
        time_ms,
        actor: "token ci".into(),
        action: Action::Updated,
        kind: Kind::Credential,
        name: name.into(),
        device: Some("d".into()),
        revision,
        changed: vec!["metadata.owner".into(), "…".into()],
    }
}

/// All entries of a tenant since `oldest_ms` and before `before`, read by pages of `limit`.
async fn read(store: &dyn RegistryStore, tenant: &str, oldest_ms: u64, before: Position, limit: usize) -> Vec<Entry> {
    let (tenant, mut next) = (TenantId::new(tenant).expect("valid"), Some(before));
    let mut found = Vec::new();
    while let Some(before) = next {
        let page = store.audit(&tenant, oldest_ms, &before, limit).await.expect("readable");
        assert!(page.entries.len() <= limit);
        assert!(page.next.as_ref().is_none_or(|next| *next < before), "it goes on");
        found.extend(page.entries);
        next = page.next;
    }
    found
}

async fn entries_are_read_newest_first_each_once_and_survive_reopening(factory: &dyn Factory) {
    let store = factory.empty().await;
    let entries: Vec<Entry> = (0..7).map(|i| entry("a", &format!("e{i}"), TODAY_MS + i, i + 1)).collect();
    store.put_audit(entries[..4].to_vec()).await.expect("writable");
    store.put_audit(entries.clone()).await.expect("what is there already stays one");
    // With the rows that are forgotten after them they are durable.
    super::create(&*store, super::device("d")).await;
    let sequence = store.outbox(1).await.expect("readable")[0].sequence;
    store.forget(&[sequence]).await.expect("writable");
    let store = factory.reopened(store).await;
    let newest_first: Vec<Entry> = entries.iter().rev().cloned().collect();
    for limit in [1, 3, 7, 100] {
        assert_eq!(
            read(&*store, "a", RECENT_MS, Position::at(TODAY_MS + DAY_MS), limit).await,
            newest_first,
            "by {limit}"
        );
    }
    let before = entries[5].position();
    assert_eq!(read(&*store, "a", TODAY_MS + 2, before, 2).await, newest_first[2..5], "a span");
    assert_eq!(read(&*store, "a", TODAY_MS + 9, Position::at(TODAY_MS + 9), 2).await, [], "an empty span");
}

async fn entries_of_one_moment_are_in_the_order_of_their_revisions(factory: &dyn Factory) {
    let store = factory.empty().await;
    let [first, second, other] =
        [entry("a", "z", TODAY_MS, 9), entry("a", "a", TODAY_MS, 10), entry("a", "b", TODAY_MS, 10)];
    store.put_audit(vec![other.clone(), first.clone(), second.clone()]).await.expect("writable");
    assert_eq!(
        read(&*store, "a", RECENT_MS, Position::at(TODAY_MS + 1), 2).await,
        [other, second.clone(), first.clone()]
    );
    assert_eq!(read(&*store, "a", RECENT_MS, second.position(), 2).await, [first]);
}

async fn pages_reach_entries_of_long_ago_across_days_without_any(factory: &dyn Factory) {
    let store = factory.empty().await;
    let days_ago = [89, 40, 39, 0];
    let entries = days_ago.map(|days| entry("a", &format!("e{days}"), TODAY_MS - days * DAY_MS, 100 - days));
    for entry in &entries {
        store.put_audit(vec![entry.clone()]).await.expect("writable");
    }
    let newest_first: Vec<Entry> = entries.iter().rev().cloned().collect();
    assert_eq!(read(&*store, "a", TODAY_MS - 89 * DAY_MS, Position::at(TODAY_MS + 1), 3).await, newest_first);
    let since_40_days = read(&*store, "a", TODAY_MS - 40 * DAY_MS, Position::at(TODAY_MS + 1), 3).await;
    assert_eq!(since_40_days, newest_first[..3]);
}

async fn a_trail_is_its_tenants_alone(factory: &dyn Factory) {
    let store = factory.empty().await;
    let entries = ["a", "a-b", "b"].map(|tenant| entry(tenant, "e", TODAY_MS, 1));
    store.put_audit(entries.to_vec()).await.expect("writable");
    for (tenant, entry) in ["a", "a-b", "b"].into_iter().zip(entries) {
        assert_eq!(read(&*store, tenant, RECENT_MS, Position::at(TODAY_MS + 1), 9).await, [entry], "{tenant}");
    }
}
