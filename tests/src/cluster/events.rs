//! What the lifecycle events say of each client, and whether they contradict themselves (P4).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use drover_bus::{Bus, TopicPartition};
use drover_load::presence::{Told, contradiction};
use drover_registry::EVENTS_TOPIC;
use drover_sim::SimBus;
use serde_json::Value;

use super::PARTITIONS;

/// All there is in the log of a moment.
#[derive(Debug, Default)]
pub struct Events {
    /// The last of each client.
    last: BTreeMap<String, Told>,
    pub count: usize,
    /// Events that do not follow from the one before of their client, by the rule of the ledger.
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
                events.take(client, Told { connected: event["eventType"] == "connected", epoch });
            }
        }
        Ok(events)
    }

    /// Whether the last that was said of a client is that it is connected.
    pub fn is_connected(&self, client: &str) -> bool {
        self.last.get(client).is_some_and(|told| told.connected)
    }

    fn take(&mut self, client: &str, now: Told) {
        self.count += 1;
        let before = self.last.insert(client.to_owned(), now);
        self.contradictions += usize::from(contradiction(before, now).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_judged_by_its_own_events_and_is_what_the_last_of_them_says() {
        let mut events = Events::default();
        let told = [("c", true, 1), ("d", true, 1), ("c", false, 1), ("c", true, 5), ("c", false, 5)];
        told.into_iter().for_each(|(client, connected, epoch)| events.take(client, Told { connected, epoch }));
        assert_eq!((events.contradictions, events.count), (0, 5));
        assert!(events.is_connected("d") && !events.is_connected("c") && !events.is_connected("e"));
        events.take("e", Told { connected: false, epoch: 1 });
        events.take("d", Told { connected: true, epoch: 2 });
        assert_eq!(events.contradictions, 2, "nothing ends that has not begun, and what has begun ends first");
    }
}
