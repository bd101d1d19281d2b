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
use crate::domain::message::Publisher;
use crate::domain::notices::{self, Change};
use crate::domain::quotas::{Quotas, Rates};

/// Refusals of one device that are told in a second; more are counted.
const DEVICE_REFUSALS_MAX: u32 = 10;
/// Refusals of all devices of a tenant that are told in a second.
const TENANT_REFUSALS_MAX: u32 = 100;

/// What is left of the refusals that are told.
pub(super) fn refusals() -> Quotas {
    let (device, tenant) = (Rate::new(DEVICE_REFUSALS_MAX), Rate::new(TENANT_REFUSALS_MAX));
    Quotas::new(Rates { device_messages: device, tenant_messages: tenant, connects: None })
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
        let filters: Vec<&str> = filters.collect();
        let topic = notices::subscriptions_topic(change, &publisher.device);
        if !filters.is_empty() && self.is_wanted(&publisher.tenant, topic.as_str()) {
            let node = self.peers.node();
            self.tell(publisher, topic, |time_ms| notices::subscriptions(change, &filters, publisher, node, time_ms));
        }
    }

    /// Tells why something that the client of `publisher` wanted was refused.
    pub fn tell_refusal(&self, publisher: &Publisher, error: impl FnOnce() -> ApiError) {
        let (tenant, device) = (&publisher.tenant, &publisher.device);
        let topic = notices::errors_topic(device);
        if !self.is_wanted(tenant, topic.as_str()) {
            return;
        }
        match self.refusals.take(tenant, device, self.now().monotonic_ms) {
            Ok(()) => self.tell(publisher, topic, |time_ms| notices::refusal(&error(), publisher, time_ms)),
            Err(_) => self.telemetry.refusal_untold(),
        }
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
        let mut message = notices::message(publisher, topic, payload(now_ms), self.stamp(now_ms, None));
        self.deliver(&Arc::new(message.clone()), &Recipient::Subscribers);
        message.telemetry.qos = Qos::AtMostOnce;
        self.peers.tell(&Arc::new(message), &self.telemetry);
    }
}
