//! Hands what requests came to over to connected clients: at least once, in order per device.
//!
//! Nothing is dropped while an ingress node is away for a moment: the partition goes back to the delivery that failed
//! and waits. How long that is worth it is decided behind [`IngressNodes`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bus, ConsumeError, Consumer, GroupConfig, Polled, Position, Start, Stored, TopicPartition};
use drover_host::{Backoff, Shutdown};
use drover_proto::shadow::v1::{Audience, Delivery};
use futures::future::join_all;
use prost::Message as _;
use tokio::time::Instant;

use crate::ports::{IngressNodes, Undelivered};
use crate::telemetry::Telemetry;
use crate::topics::REPLIES_TOPIC;

/// Consumer group of the deliveries.
pub const DELIVERY_GROUP: &str = "drover.shadow.replies";
/// Deliveries of one poll; those of one partition follow each other.
const POLL_RECORDS: usize = 100;
/// Longest wait of one poll.
const POLL_WAIT: Duration = Duration::from_secs(1);
/// A member that hangs for this long loses its partitions.
const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest one partition's turn may take, so that the member polls well within its session timeout.
const TURN: Duration = Duration::from_secs(10);

/// The loop over `drover.shadow.replies`.
pub struct Deliveries {
    pub bus: Arc<dyn Bus>,
    pub nodes: Arc<dyn IngressNodes>,
    pub member: String,
    pub telemetry: Telemetry,
}

impl Deliveries {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut backoff = Backoff::default();
        loop {
            match self.session(&shutdown, &mut backoff).await {
                Ok(()) => return Ok(()),
                Err(error) => tracing::warn!(%error, "deliveries begin again from the committed offsets"),
            }
            if !backoff.wait(&shutdown).await {
                return Ok(());
            }
        }
    }

    async fn session(&self, shutdown: &Shutdown, backoff: &mut Backoff) -> Result<(), ConsumeError> {
        let config = GroupConfig {
            group: DELIVERY_GROUP.to_owned(),
            member: self.member.clone(),
            topics: vec![REPLIES_TOPIC.into()],
            start: Start::Earliest,
            session_timeout: SESSION_TIMEOUT,
        };
        let mut consumer = self.bus.join(config).await?;
        loop {
            let polled = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                polled = consumer.poll(POLL_RECORDS, POLL_WAIT) => polled?,
            };
            match polled {
                // Whatever was done is committed: nothing is in hand between two polls.
                Polled::Assigned(_) | Polled::Revoked(_) | Polled::Idle => {}
                Polled::Records(records) => {
                    if self.deliver_all(records, &mut *consumer).await? {
                        backoff.reset();
                    } else if !backoff.wait(shutdown).await {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Delivers, partitions side by side; false if some have to wait, to which their partition then goes back.
    async fn deliver_all(&self, records: Vec<Stored>, consumer: &mut dyn Consumer) -> Result<bool, ConsumeError> {
        let mut partitions: BTreeMap<TopicPartition, Vec<Stored>> = BTreeMap::new();
        for stored in records {
            partitions.entry(stored.position.at.clone()).or_default().push(stored);
        }
        let turns = join_all(partitions.values().map(|deliveries| self.turn(deliveries))).await;
        consumer.commit(turns.iter().map(|(position, _)| position.clone()).collect()).await?;
        let mut all = true;
        for (position, done) in turns {
            if !done {
                all = false;
                consumer.seek(position).await?;
            }
        }
        Ok(all)
    }

    /// Delivers what one partition brought, in order; the offset to go on from, and whether all was done.
    async fn turn(&self, deliveries: &[Stored]) -> (Position, bool) {
        let started = Instant::now();
        let mut next = deliveries[0].position.clone();
        for stored in deliveries {
            if started.elapsed() > TURN {
                return (next, false);
            }
            if let Err(undelivered) = self.deliver(stored).await {
                self.telemetry.delivery_retries.inc();
                tracing::warn!(%undelivered, partition = next.at.partition, offset = next.offset, "a delivery waits");
                return (next, false);
            }
            next.offset = stored.position.offset + 1;
        }
        (next, true)
    }

    async fn deliver(&self, stored: &Stored) -> Result<(), Undelivered> {
        let delivery = match Delivery::decode(stored.record.value.clone().unwrap_or_default()) {
            Ok(delivery) => delivery,
            Err(error) => {
                self.telemetry.malformed(&stored.position, &error);
                return Ok(());
            }
        };
        match delivery.audience() {
            Audience::Nobody => Ok(()),
            Audience::Unspecified => {
                self.telemetry.malformed(&stored.position, &"delivery has no audience");
                Ok(())
            }
            Audience::Connection | Audience::Subscribers => self.nodes.deliver(&delivery).await,
        }
    }
}
