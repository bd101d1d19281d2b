//! Runs `republish` actions: at least once, in order per device, with the id as idempotency key. All other actions of the
//! outbox are passed over: they are those of [`crate::actions`].
//!
//! Nothing is dropped while the ingress is away: the partition goes back to the entry that failed and waits. What the
//! ingress refuses for good becomes a dead letter.

use std::sync::Arc;

use async_trait::async_trait;
use drover_bus::{Bus, Stored};
use drover_host::grpc::Client;
use drover_host::{CarryOut, InOrder, Shutdown};
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::rules::v1::{OutboxEntry, Republish, outbox_entry};
use drover_types::limits::RECEIVE_MAXIMUM;
use drover_types::{Clock, TenantId};
use prost::Message as _;
use tokio::sync::watch;

use crate::append::append;
use crate::domain::{Batch, Board, OUTBOX_TOPIC, RuleSet, RuleTally, Verdict, Views};
use crate::platform;
use crate::telemetry::Telemetry;

/// Consumer group of the outbox.
pub const OUTBOX_GROUP: &str = "drover.rules.outbox";
/// Entries of one poll; those of one partition run one after the other. After a crash they are sent again, so they must
/// fit the window that recognises what is sent again.
const POLL_RECORDS: usize = RECEIVE_MAXIMUM as usize;

/// The loop over `drover.rules.outbox`.
pub struct Outbox {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub ingress: IngressClient<Client>,
    pub member: String,
    pub rules: watch::Receiver<Arc<RuleSet>>,
    pub views: Arc<Views>,
    pub board: Arc<Board>,
    pub telemetry: Telemetry,
}

impl Outbox {
    /// Works until `shutdown`.
    pub async fn run(self, shutdown: Shutdown) {
        let (bus, member) = (Arc::clone(&self.bus), self.member.clone());
        let (group, topic, poll_records) = (OUTBOX_GROUP, OUTBOX_TOPIC, POLL_RECORDS);
        InOrder { bus, group, member, topic, poll_records }.run(&self, &shutdown).await;
    }

    /// Done means confirmed by the ingress, or buried for good. The error: why not yet.
    async fn run_one(&self, stored: &Stored) -> Result<(), String> {
        let value = stored.record.value.clone().unwrap_or_default();
        let entry = match OutboxEntry::decode(value) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::error!(%error, offset = stored.position.offset, "an entry of the outbox cannot be read");
                let mut batch = Batch::default();
                batch.bury(Arc::new(stored.clone()), None, None, &error.to_string());
                return self.bury(batch).await;
            }
        };
        let Some(outbox_entry::Work::Republish(work)) = &entry.work else { return Ok(()) };
        match self.publish(&entry, work).await {
            Verdict::Done => {
                self.telemetry.republished.inc();
                self.delivered(&entry);
                Ok(())
            }
            Verdict::Later(reason) | Verdict::Away(reason) => Err(reason),
            Verdict::Refused(cause) => {
                tracing::warn!(cause, offset = stored.position.offset, "an action becomes a dead letter");
                let mut batch = Batch::default();
                batch.fail_entry(&entry, stored, &cause, &self.rules.borrow().clone(), &self.views);
                self.bury(batch).await?;
                self.telemetry.republish_refused.inc();
                Ok(())
            }
        }
    }

    async fn publish(&self, entry: &OutboxEntry, work: &Republish) -> Verdict {
        let request = PublishRequest {
            id: entry.id.clone(),
            tenant: entry.tenant.clone(),
            device: entry.device.clone(),
            client: format!("rule/{}", entry.rule),
            topic: work.topic.clone(),
            payload: work.payload.clone(),
            qos: work.qos,
            hops: work.hops,
            traceparent: entry.traceparent.clone(),
        };
        platform::publish(&self.ingress, request).await
    }

    /// Returns when what an entry has become is durable.
    async fn bury(&self, mut batch: Batch) -> Result<(), String> {
        append(&*self.bus, &*self.clock, &mut batch).await?;
        batch.by_rule().for_each(|(key, tally)| self.board.add(key, tally));
        Ok(())
    }

    /// Counts an entry that is done in the rule's status.
    fn delivered(&self, entry: &OutboxEntry) {
        let Ok(tenant) = TenantId::new(&entry.tenant) else { return };
        let mut told = RuleTally::default();
        told.action(entry.action).delivered = 1;
        self.board.add(&(tenant, entry.rule.clone()), &told);
    }
}

#[async_trait]
impl CarryOut for Outbox {
    async fn carry_out(&self, stored: &Stored) -> Result<(), String> {
        self.run_one(stored).await.inspect_err(|_| {
            self.telemetry.republish_retries.inc();
        })
    }
}
