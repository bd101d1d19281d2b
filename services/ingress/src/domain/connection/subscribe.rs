//! SUBSCRIBE and UNSUBSCRIBE: each filter is granted or refused by itself; the answer waits until routing follows it.

use std::collections::VecDeque;

use drover_mqtt::{
    Packet, PacketId, Properties, ReasonCode, ReasonCodeList, RetainHandling, SubAck, Subscribe, Subscription,
    SubscriptionId, UnsubAck, Unsubscribe,
};
use drover_types::TopicFilter;

use super::{Connection, Effect, Fault, Limits, Live, Now};
use crate::domain::router::Options;

/// SUBSCRIBE and UNSUBSCRIBE packets that wait for their answer; at it nothing is read.
const ANSWERS_WAITING_MAX: usize = 8;

/// A subscription to route by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    pub filter: Box<str>,
    pub options: Options,
    /// Whether the retained messages are to be sent.
    pub retained: bool,
}

/// Answers that wait for routing, in order.
#[derive(Default)]
#[expect(clippy::box_collection, reason = "one word in the many connections that wait for none")]
pub(super) struct Answers(Option<Box<VecDeque<Answer>>>);

enum Answer {
    Subscribed(PacketId, ReasonCodeList),
    Unsubscribed(PacketId, ReasonCodeList),
}

impl Answers {
    pub(super) fn has_room(&self) -> bool {
        self.0.as_ref().is_none_or(|waiting| waiting.len() < ANSWERS_WAITING_MAX)
    }

    fn push(&mut self, answer: Answer) {
        self.0.get_or_insert_default().push_back(answer);
    }

    /// The oldest; without another no room is kept for those to come.
    fn take(&mut self) -> Option<Answer> {
        let oldest = self.0.as_mut().and_then(|waiting| waiting.pop_front());
        self.0.take_if(|waiting| waiting.is_empty());
        oldest
    }
}

impl Connection {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Fault> {
        let environment = self.environment.clone();
        let Some(live) = self.live() else { return Ok(()) };
        let id = subscribe.properties.subscription_ids().next();
        let (mut granted, mut refused) = (Vec::new(), Vec::new());
        let mut reasons = ReasonCodeList::default();
        for subscription in subscribe.subscriptions.iter() {
            match live.grant(subscription, id, &environment.limits) {
                Ok(grant) => {
                    reasons.push(ReasonCode::granted(grant.options.qos));
                    granted.push(grant);
                }
                Err(fault) => {
                    reasons.push(fault.reason_code());
                    refused.push(Effect::Refused(fault));
                }
            }
        }
        live.answers.push(Answer::Subscribed(subscribe.packet_id, reasons)); // [MQTT-3.8.4-1, -5, -6]
        refused.into_iter().for_each(|effect| self.want(effect));
        self.want(Effect::Subscribe(granted));
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
        live.answers.push(Answer::Unsubscribed(unsubscribe.packet_id, reasons)); // [MQTT-3.10.4-4, -5]
        self.want(Effect::Unsubscribe(gone));
        Ok(())
    }

    /// Routing follows the oldest unanswered [`Effect::Subscribe`] or [`Effect::Unsubscribe`].
    pub fn subscribed(&mut self, now: Now) {
        let paused = !self.takes_packets();
        let Some(answer) = self.live().and_then(|live| live.answers.take()) else { return };
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
    /// What is granted for one subscription, or why it is not.
    fn grant(
        &self,
        subscription: Subscription<'_>,
        id: Option<SubscriptionId>,
        limits: &Limits,
    ) -> Result<Granted, Fault> {
        let filter = TopicFilter::new(subscription.filter).map_err(Fault::Filter)?;
        let text = || filter.as_str().to_owned();
        if limits.denied_filters.iter().any(|denied| **denied == *filter.as_str()) {
            return Err(Fault::FilterDenied { filter: text() });
        }
        if !self.identity.may_subscribe(filter.as_str(), self.session.client().as_str()) {
            return Err(Fault::SubscribeDenied { filter: text() });
        }
        let added = self.session.add_filter(filter.as_str(), limits.filters_max);
        let new = added.map_err(|limit| Fault::TooManyFilters { limit })?;
        let asked = match subscription.options.retain_handling {
            RetainHandling::Send => true,       // [MQTT-3.3.1-9]
            RetainHandling::SendIfNew => new,   // [MQTT-3.3.1-10]
            RetainHandling::DoNotSend => false, // [MQTT-3.3.1-11]
        };
        let options = Options {
            qos: subscription.options.qos,
            no_local: subscription.options.no_local,
            retain_as_published: subscription.options.retain_as_published,
            id,
        };
        let retained = asked && filter.share().is_none(); // section 4.8.2: none to shared subscriptions
        Ok(Granted { filter: filter.as_str().into(), options, retained })
    }
}
