//! How many groups may keep committed offsets, and for how long without members: Kafka's `offsets.retention.minutes`
//! (KIP-211). The groups of the platform neither count nor expire.
//!
//! Adapter layer. The log keeps no time with an offset, so idle time is counted in memory, and anew from each start of
//! the process: offsets may stay for longer than configured, never for less.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_bus::embedded::EmbeddedBus;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::Instant;

use crate::config::OFFSET_GROUPS_MAX;
use crate::dispatch::Listener;
use crate::refusal;

/// Longest time between two looks at the groups: Kafka's `offsets.retention.check.interval.ms`.
const CHECK_INTERVAL: Duration = Duration::from_secs(600);

/// There are [`OFFSET_GROUPS_MAX`] groups with committed offsets already.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{OFFSET_GROUPS_MAX} groups have committed offsets, which is the limit; delete some, or wait until they expire"
)]
pub struct TooManyOffsets;

/// Which groups are idle.
#[derive(Default)]
pub struct Retention {
    /// Since when groups with offsets were seen without members, joins and commits. Those of the last look only, so as
    /// bounded as they are.
    idle: Mutex<BTreeMap<String, Instant>>,
    /// Shared by those who store offsets; held alone to let a new group in, and to remove one.
    turns: RwLock<()>,
}

impl Retention {
    /// The right to store offsets of `group`: as long as it is held the group does not expire, and no other new one is
    /// let in. The group's idle time begins anew.
    pub async fn admit(&self, bus: &EmbeddedBus, group: &str) -> Result<RwLockReadGuard<'_, ()>, TooManyOffsets> {
        let shared = self.turns.read().await;
        if bus.has_offsets(group) {
            self.idle().remove(group);
            return Ok(shared);
        }
        drop(shared);
        let alone = self.turns.write().await;
        if !bus.has_offsets(group) && foreign_groups(bus).count() >= OFFSET_GROUPS_MAX {
            return Err(TooManyOffsets);
        }
        self.idle().remove(group);
        Ok(alone.downgrade())
    }

    /// Somebody joins the group: its idle time begins anew.
    pub fn joined(&self, group: &str) {
        self.idle().remove(group);
    }

    /// Notes that these groups, and no others, are idle at `now`; those that are for `kept` already.
    fn note(&self, groups: Vec<String>, now: Instant, kept: Duration) -> Vec<String> {
        let mut idle = self.idle();
        let since: Vec<Instant> = groups.iter().map(|group| idle.get(group).copied().unwrap_or(now)).collect();
        *idle = groups.into_iter().zip(since).collect();
        idle.iter().filter(|(_, since)| now.duration_since(**since) >= kept).map(|(group, _)| group.clone()).collect()
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Groups with committed offsets that are not the platform's.
fn foreign_groups(bus: &EmbeddedBus) -> impl Iterator<Item = String> {
    bus.groups().into_iter().filter(|group| !refusal::is_reserved(group))
}

/// Removes offsets whose time is over, until dropped.
pub async fn expire(listener: &Listener) {
    loop {
        sweep(listener, Instant::now()).await;
        tokio::time::sleep(CHECK_INTERVAL.min(listener.config.offsets_retention)).await;
    }
}

async fn sweep(listener: &Listener, now: Instant) {
    let with_members = listener.coordinator.survey(|name, group| (!group.is_vacant()).then(|| name.to_owned()));
    let with_members: BTreeSet<String> = with_members.into_iter().flatten().collect();
    let idle = foreign_groups(&listener.bus).filter(|group| !with_members.contains(group)).collect();
    for group in listener.retention.note(idle, now, listener.config.offsets_retention) {
        forget(listener, &group).await;
    }
}

/// Removes the offsets of a group, unless somebody has committed or joined meanwhile.
async fn forget(listener: &Listener, group: &str) {
    let _alone = listener.retention.turns.write().await;
    let has_members = listener.coordinator.act(group, |group, _| (!group.is_vacant(), Vec::new())) == Some(true);
    if has_members || !listener.retention.idle().contains_key(group) {
        return;
    }
    match listener.bus.delete_group(group).await {
        Ok(()) => tracing::info!(group, "offsets of a group have expired: it was without members for too long"),
        Err(error) => tracing::warn!(group, %error, "expired offsets of a group stay for now"),
    }
}

#[cfg(test)]
mod tests {
    use drover_bus::embedded::{EmbeddedOptions, GroupOffset};
    use drover_bus::{Bus, TopicConfig, TopicPartition};
    use futures::future::join_all;
    use tempfile::TempDir;

    use super::super::exchange::Identity;
    use super::super::tests::joining;
    use super::*;
    use crate::config::ListenerConfig;
    use crate::metrics::Metrics;

    const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

    async fn listener() -> (Listener, TempDir) {
        let directory = TempDir::new().expect("a directory");
        let (bus, _) = EmbeddedBus::open(directory.path(), EmbeddedOptions::default()).expect("a fresh log");
        let (topic, partitions) = ("t".into(), 1);
        let config = TopicConfig { topic, partitions, compact: false, retention_ms: None, retention_bytes: None };
        bus.create_topic(config).await.expect("made");
        (Listener::new(bus, ListenerConfig::default(), Metrics::default()), directory)
    }

    async fn store(bus: &EmbeddedBus, group: &str) {
        let offset = GroupOffset { at: TopicPartition::new("t", 0), next: 0, metadata: String::new() };
        bus.store_offsets(group, vec![offset]).await.expect("stored");
    }

    #[tokio::test]
    async fn offsets_go_a_week_after_the_last_member_and_commit_and_those_of_the_platform_stay() {
        let (listener, _directory) = listener().await;
        for group in ["busy", "drover.rules", "idle", "joined"] {
            store(&listener.bus, group).await;
        }
        let _joining = listener.coordinator.join("joined", joining(1, "", "a")).expect("there is room");
        let start = Instant::now();
        sweep(&listener, start).await;
        sweep(&listener, start + WEEK - Duration::from_millis(1)).await;
        assert_eq!(listener.bus.groups().len(), 4, "not yet");
        drop(listener.retention.admit(&listener.bus, "busy").await.expect("it is known"));
        sweep(&listener, start + WEEK).await;
        assert_eq!(listener.bus.groups(), ["busy", "drover.rules", "joined"]);

        let who = Identity { member: "a".into(), instance: None };
        let left = listener.coordinator.act("joined", |group, now_ms| group.leave(now_ms, &who));
        assert_eq!(left, Some(Ok(())));
        sweep(&listener, start + WEEK).await;
        sweep(&listener, start + WEEK * 2 - Duration::from_millis(1)).await;
        assert_eq!(listener.bus.groups().len(), 3, "their time began anew");
        sweep(&listener, start + WEEK * 2).await;
        assert_eq!(listener.bus.groups(), ["drover.rules"]);
    }

    #[tokio::test]
    async fn groups_that_keep_offsets_are_bounded() {
        let (listener, _directory) = listener().await;
        let (bus, retention) = (&listener.bus, &listener.retention);
        let names: Vec<String> = (1..OFFSET_GROUPS_MAX).map(|n| format!("g-{n}")).collect();
        join_all(names.iter().map(|name| store(bus, name))).await;
        store(bus, "drover.rules").await;
        drop(retention.admit(bus, "last").await.expect("there is room"));
        store(bus, "last").await;
        assert_eq!(retention.admit(bus, "more").await.err(), Some(TooManyOffsets));
        drop(retention.admit(bus, "last").await.expect("it is known"));
        bus.delete_group("g-1").await.expect("deleted");
        assert!(retention.admit(bus, "more").await.is_ok(), "there is room again");
    }
}
