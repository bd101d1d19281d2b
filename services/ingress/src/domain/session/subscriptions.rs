//! What a client has subscribed to: its filters, the retained messages they want, and its part in shared subscriptions.
//!
//! Domain layer, no I/O. The session has them; who gets which message is for the router to know.

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_mqtt::SubscriptionId;
use drover_types::Qos;

use super::{Delivery, Gone, Session};
use crate::domain::connection::Granted;
use crate::domain::filter::topics;

/// A new subscription that wants the retained messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub filter: Box<str>,
    pub qos: Qos,
    pub id: Option<SubscriptionId>,
}

impl Session {
    /// Adds a filter. `Ok(true)`: it is new. `Err` with the limit: there are too many.
    pub fn add_filter(&self, filter: &str, limit: usize) -> Result<bool, usize> {
        let mut state = self.state();
        if state.filters.contains(filter) {
            return Ok(false);
        }
        if state.filters.len() >= limit {
            return Err(limit);
        }
        state.filters.insert(filter);
        Ok(true)
    }

    /// These are routed by from now on, as far as they have not been removed meanwhile.
    pub fn subscribed(&self, granted: &[Granted]) -> u64 {
        let mut state = self.state();
        for Granted { filter, options, .. } in granted {
            state.filters.set(filter, *options);
        }
        state.record_filters()
    }

    /// Filters were removed.
    pub fn unsubscribed(&self) -> u64 {
        self.state().record_filters()
    }

    /// Removes a filter; whether it was there.
    pub fn remove_filter(&self, filter: &str) -> bool {
        self.state().filters.remove(filter)
    }

    /// Whether the session has this filter.
    pub fn has_filter(&self, filter: &str) -> bool {
        self.state().filters.contains(filter)
    }

    /// Gives up the filters that are not `allowed`, and every message that no other filter asks for; nothing if another
    /// connection than that of `epoch` holds the session.
    pub fn withdraw(&self, epoch: u64, allowed: impl Fn(&str) -> bool) -> Gone {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Gone::default();
        }
        let filters = state.filters.remove_denied(allowed);
        if filters.is_empty() {
            return Gone::default();
        }
        let left = state.filters.clone();
        let wanted = |topic: &str| left.iter().any(|(filter, _)| drover_types::matches(topics(filter), topic));
        let dropped = state.keep(|delivery| wanted(delivery.message.telemetry.topic.as_str()));
        Gone { filters, dropped, shared: Vec::new() }
    }

    /// Retained messages are to be read for this subscription. True if nobody reads for this session: whoever asks then
    /// has to call [`Session::next_wanted`] until there is no more.
    pub fn want_retained(&self, wanted: Wanted) -> bool {
        let mut state = self.state();
        if state.ended.is_some() {
            return false;
        }
        let idle = state.wanted.is_none();
        let list = state.wanted.get_or_insert_default();
        list.retain(|known| known.filter != wanted.filter); // at most one for each filter of the session
        list.push_back(wanted);
        idle
    }

    /// The subscription to read retained messages for next.
    pub fn next_wanted(&self) -> Option<Wanted> {
        let mut state = self.state();
        let next = state.wanted.as_mut().and_then(|list| list.pop_front());
        if next.is_none() {
            state.wanted = None;
        }
        next
    }

    /// Shared subscriptions whose messages wait here or may be sent again, while no connection holds the session.
    pub fn shares(&self) -> BTreeSet<Arc<str>> {
        let state = self.state();
        let outbox = state.outbox.as_ref().filter(|_| state.holder.is_none());
        outbox.map(|outbox| outbox.shares()).unwrap_or_default()
    }

    /// Takes out what other members of the shared subscriptions `moved` may have: what was not sent, and what was sent
    /// at QoS 1 and not acknowledged. A delivery of QoS 2 that has begun is completed with its client
    /// [MQTT-4.8.2-4].
    pub fn take_shared(&self, moved: impl Fn(&Arc<str>) -> bool) -> Vec<Delivery> {
        let mut state = self.state();
        if state.holder.is_some() {
            return Vec::new(); // it has come back meanwhile
        }
        let taken = state.outbox.as_mut().map(|outbox| outbox.take_shared(moved)).unwrap_or_default();
        state.tidy();
        taken
    }

    /// Whether a member of a shared subscription can have a message now.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.holder.is_some() && state.outbox.as_ref().is_none_or(|outbox| outbox.has_room())
    }
}
