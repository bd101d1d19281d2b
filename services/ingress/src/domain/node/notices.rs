//! How notices reach those who subscribe: the sessions of this node have them at once, in their inboxes where those are kept;
//! other nodes get them at QoS 0, as far as they are known to want them. Nobody waits for a notice, and none holds anything up.
//!
//! Domain layer.

use std::sync::{Arc, PoisonError};

use bytes::Bytes;
use drover_types::{ApiError, Qos, TenantId, TopicName};

use super::{Node, Recipient};
use crate::domain::bucket::Rate;
use crate::domain::connection::Close;
use crate::domain::message::{Message, Publisher};
use crate::domain::notices::{self, Change};
use crate::domain::quotas::{Quotas, Rates};

/// Refusals of one device that are told in a second; more are counted.
const DEVICE_REFUSALS_MAX: u32 = 10;
/// Refusals of all devices of a tenant that are told in a second.
const TENANT_REFUSALS_MAX: u32 = 100;
/// Filters of one device that are told in a second, as they come and go; more are counted. As many as a client may have.
const DEVICE_FILTERS_MAX: u32 = 100;
/// Filters of all devices of a tenant that are told in a second.
const TENANT_FILTERS_MAX: u32 = 10_000;

/// What is left of what is told: devices decide how much there is to tell, and queues to other nodes are everybody's.
#[derive(Debug)]
pub(super) struct Told {
    refusals: Quotas,
    filters: Quotas,
}

impl Default for Told {
    fn default() -> Self {
        let of = |device, tenant| {
            let (device_messages, tenant_messages) = (Rate::new(device), Rate::new(tenant));
            Quotas::new(Rates { device_messages, tenant_messages, connects: None })
        };
        let refusals = of(DEVICE_REFUSALS_MAX, TENANT_REFUSALS_MAX);
        Self { refusals, filters: of(DEVICE_FILTERS_MAX, TENANT_FILTERS_MAX) }
    }
}

impl Node {
    /// Tells what becomes of filters of the client of `publisher`. Told before routing follows, the client does not hear of
    /// its own first subscription to such notices.
    pub fn tell_subscriptions<'f>(
        &self,
        publisher: &Publisher,
        change: Change,
        filters: impl Iterator<Item = &'f str>,
    ) {
        let mut filters = filters.peekable();
        if filters.peek().is_none() {
            return;
        }
        let topic = notices::subscriptions_topic(change, &publisher.device);
        if !self.is_wanted(&publisher.tenant, topic.as_str()) {
            return;
        }
        let may_tell = |_: &&str| self.may_tell("subscription", &self.told.filters, publisher);
        let told: Vec<&str> = filters.filter(may_tell).collect();
        if !told.is_empty() {
            let node = self.peers.node();
            self.tell(publisher, topic, |time_ms| notices::subscriptions(change, &told, publisher, node, time_ms));
        }
    }

    /// Tells why something that the client of `publisher` wanted was refused.
    pub fn tell_refusal(&self, publisher: &Publisher, error: impl FnOnce() -> ApiError) {
        let topic = notices::errors_topic(&publisher.device);
        let is_wanted = self.is_wanted(&publisher.tenant, topic.as_str());
        if is_wanted && self.may_tell("refusal", &self.told.refusals, publisher) {
            self.tell(publisher, topic, |time_ms| notices::refusal(&error(), publisher, time_ms));
        }
    }

    /// Whether one more may be told; one that may not is counted.
    fn may_tell(&self, notice: &'static str, left: &Quotas, publisher: &Publisher) -> bool {
        let taken = left.take(&publisher.tenant, &publisher.device, self.now().monotonic_ms);
        if taken.is_err() {
            self.telemetry.untold(notice);
        }
        taken.is_ok()
    }

    /// Tells why a connection is closed, if that is because of what its client has sent.
    pub fn tell_close(&self, publisher: &Publisher, close: &Close) {
        if let Some(fault) = close.clients_fault() {
            self.tell_refusal(publisher, || fault.to_error());
        }
    }

    /// Whether anybody is known to want what is told there.
    fn is_wanted(&self, tenant: &TenantId, topic: &str) -> bool {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let here = !router.own_matches(tenant, topic, None).is_empty() || !router.shares(tenant, topic).is_empty();
        drop(router);
        here || self.peers.is_any_known_to_want(tenant, topic)
    }

    fn tell(&self, publisher: &Publisher, topic: TopicName, payload: impl FnOnce(u64) -> Bytes) {
        let now_ms = self.now().unix_ms;
        let (tenant, device) = (publisher.tenant.clone(), publisher.device.clone());
        let mut message = Message::of_platform(tenant, device, topic, payload(now_ms), self.stamp(now_ms, None));
        self.deliver(&Arc::new(message.clone()), &Recipient::Subscribers);
        message.telemetry.qos = Qos::AtMostOnce;
        self.peers.tell(&Arc::new(message), &self.telemetry);
    }
}
