//! What the lifecycle events say of each client, and whether they contradict themselves (P4).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use drover_bus::{Bus, TopicPartition};
use drover_registry::EVENTS_TOPIC;
use drover_sim::SimBus;
use serde_json::Value;

use super::PARTITIONS;

/// All there is in the log of a moment.
#[derive(Debug, Default)]
pub struct Events {
    /// By client: whether it is connected, and with which epoch it was last.
    last: BTreeMap<String, (bool, u64)>,
    pub count: usize,
    /// Events that do not follow from the one before of their client: twice the same, or the end of another connection than
    /// the one that began, or the beginning of an older one.
    pub contradictions: usize,
}

impl Events {
    pub async fn read(bus: &SimBus) -> anyhow::Result<Self> {
        let mut events = Self::default();
        for partition in 0..PARTITIONS {
            let at = TopicPartition::new(EVENTS_TOPIC, partition);
            for stored in bus.read(&at, 0, usize::MAX, Duration::ZERO).await? {
                let event: Value = serde_json::from_slice(stored.record.value.as_deref().unwrap_or_default())?;
                let client = event["clientId"].as_str().context("an event names its client")?;
                let epoch = event["epoch"].as_u64().context("an event has an epoch")?;
                events.take(client, event["eventType"] == "connected", epoch);
            }
        }
        Ok(events)
    }

    /// Whether the last that was said of a client is that it is connected.
    pub fn is_connected(&self, client: &str) -> bool {
        self.last.get(client).is_some_and(|(connected, _)| *connected)
    }

    fn take(&mut self, client: &str, connected: bool, epoch: u64) {
        self.count += 1;
        let follows = match (self.last.get(client), connected) {
            (None, connected) => connected,
            (Some((was, before)), true) => !was && epoch > *before,
            (Some((was, before)), false) => *was && epoch == *before,
        };
        self.contradictions += usize::from(!follows);
        self.last.insert(client.to_owned(), (connected, epoch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_alternate_with_growing_epochs_do_not_contradict_each_other() {
        let mut events = Events::default();
        for (connected, epoch) in [(true, 1), (false, 1), (true, 5), (false, 5)] {
            events.take("c", connected, epoch);
        }
        events.take("d", true, 1);
        assert_eq!((events.contradictions, events.count), (0, 5));
        assert!(events.is_connected("d") && !events.is_connected("c") && !events.is_connected("e"));
    }

    #[test]
    fn whatever_does_not_follow_is_a_contradiction() {
        for (second, third) in [((true, 1), (false, 1)), ((true, 2), (false, 2)), ((false, 2), (true, 3))] {
            let mut events = Events::default();
            [(true, 1), second, third].into_iter().for_each(|(connected, epoch)| events.take("c", connected, epoch));
            assert!(events.contradictions > 0, "{second:?}");
        }
        let mut events = Events::default();
        events.take("c", false, 1);
        events.take("c", true, 1);
        assert_eq!(events.contradictions, 2, "nothing ends that has not begun, and epochs grow");
    }
}
