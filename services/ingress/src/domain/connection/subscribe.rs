//! SUBSCRIBE and UNSUBSCRIBE: each filter is granted or refused by itself; the answer waits until routing follows it.

use std::collections::VecDeque;

use drover_mqtt::{
    Packet, PacketId, Properties, ReasonCode, ReasonCodeList, SubAck, Subscribe, Subscription, SubscriptionId,
    UnsubAck, Unsubscribe,
};
use drover_types::{Qos, TopicFilter};

use super::{Connection, Effect, Fault, Live, Now};
use crate::domain::router::Options;

/// SUBSCRIBE and UNSUBSCRIBE packets that wait for their answer; at it nothing is read.
const ANSWERS_WAITING_MAX: usize = 8;

/// A subscription to route by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub filter: Box<str>,
    pub options: Options,
}

/// Answers that wait for routing, in order.
#[derive(Default)]
pub(super) struct Answers(VecDeque<Answer>);

enum Answer {
    Subscribed(PacketId, ReasonCodeList),
    Unsubscribed(PacketId, ReasonCodeList),
}

impl Answers {
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < ANSWERS_WAITING_MAX
    }
}

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Fault> {
        let filters_max = self.environment.limits.filters_max;
        let Some(live) = self.live() else { return Ok(()) };
        let id = subscribe.properties.subscription_ids().next();
        let mut granted = Vec::new();
        let mut reasons = ReasonCodeList::default();
        for subscription in subscribe.subscriptions.iter() {
            match live.grant(subscription, id, filters_max) {
                Ok(grant) => {
                    reasons.push(ReasonCode::granted(grant.options.qos));
                    granted.push(grant);
                }
                Err(reason) => reasons.push(reason),
            }
        }
        live.answers.0.push_back(Answer::Subscribed(subscribe.packet_id, reasons)); // [MQTT-3.8.4-1, -5, -6]
        self.effects.push_back(Effect::Subscribe(granted));
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), Fault> {
        let Some(live) = self.live() else { return Ok(()) };
        let mut gone = Vec::new();
        let mut reasons = ReasonCodeList::default();
        for filter in unsubscribe.filters.iter() {
            let existed = live.session.remove_filter(filter);
            reasons.push(if existed { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted });
            gone.extend(existed.then(|| filter.into()));
        }
        live.answers.0.push_back(Answer::Unsubscribed(unsubscribe.packet_id, reasons)); // [MQTT-3.10.4-4, -5]
        self.effects.push_back(Effect::Unsubscribe(gone));
        Ok(())
    }

    /// Routing follows the oldest unanswered [`Effect::Subscribe`] or [`Effect::Unsubscribe`].
    pub fn subscribed(&mut self, now: Now) {
        let paused = !self.takes_packets();
        let Some(answer) = self.live().and_then(|live| live.answers.0.pop_front()) else { return };
        let properties = Properties::default();
        match &answer {
            Answer::Subscribed(packet_id, reasons) => {
                let reasons = reasons.as_reason_codes();
                self.send(&Packet::SubAck(SubAck { packet_id: *packet_id, properties, reasons }));
            }
            Answer::Unsubscribed(packet_id, reasons) => {
                let reasons = reasons.as_reason_codes();
                self.send(&Packet::UnsubAck(UnsubAck { packet_id: *packet_id, properties, reasons }));
            }
        }
        self.resume(paused, now);
    }
}

impl Live {
    /// What is granted for one subscription, or the reason for the SUBACK.
    fn grant(
        &self,
        subscription: Subscription<'_>,
        id: Option<SubscriptionId>,
        filters_max: usize,
    ) -> Result<Granted, ReasonCode> {
        let filter = TopicFilter::new(subscription.filter).map_err(|_| ReasonCode::TopicFilterInvalid)?;
        if filter.share().is_some() {
            return Err(ReasonCode::SharedSubscriptionsNotSupported);
        }
        if !self.identity.policy.may_subscribe(filter.as_str(), self.publisher.client.as_str()) {
            return Err(ReasonCode::NotAuthorized);
        }
        self.session.add_filter(filter.as_str(), filters_max).map_err(|_| ReasonCode::QuotaExceeded)?;
        let options = Options {
            qos: subscription.options.qos.min(Qos::AtLeastOnce),
            no_local: subscription.options.no_local,
            retain_as_published: subscription.options.retain_as_published,
            id,
        };
        Ok(Granted { filter: filter.as_str().into(), options })
    }
}
