//! Hands what requests came to over to connected clients: at least once, in order per device.
//!
//! Nothing is dropped while an ingress node is away for a moment: the partition goes back to the delivery that failed
//! and waits. How long that is worth it is decided behind [`IngressNodes`].

use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::{Bus, Stored};
use drover_host::{CarryOut, InOrder, Shutdown};
use drover_proto::shadow::v1::{Audience, Delivery};
use prost::Message as _;

use crate::ports::{IngressNodes, Undelivered};
use crate::telemetry::Telemetry;
use crate::topics::REPLIES_TOPIC;

/// Consumer group of the deliveries.
pub const DELIVERY_GROUP: &str = "drover.shadow.replies";
/// Deliveries of one poll; those of one partition follow each other.
const POLL_RECORDS: usize = 100;

/// The loop over `drover.shadow.replies`.
pub struct Deliveries {
    pub bus: Arc<dyn Bus>,
    pub nodes: Arc<dyn IngressNodes>,
    pub member: String,
    pub telemetry: Telemetry,
}

impl Deliveries {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let (bus, member) = (Arc::clone(&self.bus), self.member.clone());
        let (group, topic, poll_records) = (DELIVERY_GROUP, REPLIES_TOPIC, POLL_RECORDS);
        InOrder { bus, group, member, topic, poll_records }.run(&self, &shutdown).await;
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

#[async_trait]
impl CarryOut for Deliveries {
    async fn carry_out(&self, stored: &Stored) -> Result<(), String> {
        self.deliver(stored).await.map_err(|undelivered| {
            self.telemetry.delivery_retries.inc();
            undelivered.to_string()
        })
    }
}
