//! What the effects of a connection's state machine do: questions are asked, sessions attached, messages staged for their lanes.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Slot, Stage, Untold};
use crate::domain::connection::{Admission, Close, Effect};
use crate::domain::message::{Message, Publication};
use crate::domain::node::Recipient;
use crate::domain::notices::Change;
use crate::domain::ownership::Claim;
use crate::domain::sessions::{Attach, AttachError};
use crate::server::loops::hands::Hands;
use crate::server::loops::lanes::LaneId;
use crate::server::loops::transport::Transport;
use crate::server::questions;

impl<T: Transport> Slot<T> {
    /// Carries out all effects up to the one that closes; whether there were any.
    pub(super) fn carry_out(&mut self, hands: &mut Hands) -> ControlFlow<Close, bool> {
        let mut any = false;
        while let Some(effect) = self.connection.next_effect() {
            any = true;
            match effect {
                Effect::Close(close) => return ControlFlow::Break(close),
                Effect::Publish(publication) => self.publish(publication, hands),
                Effect::Answer(publication) => self.answer(publication, hands),
                effect => self.carry_out_one(effect, hands),
            }
        }
        ControlFlow::Continue(any)
    }

    fn carry_out_one(&mut self, effect: Effect, hands: &mut Hands) {
        let node = &hands.shared.node;
        match effect {
            Effect::Authenticate(proof) => {
                let question = questions::authenticate(node.clone(), proof);
                self.stage = Stage::Asking(hands.ask(self.place, question));
            }
            Effect::Attach(admission) => {
                let question = questions::take(node.clone(), admission);
                self.stage = Stage::Asking(hands.ask(self.place, question));
            }
            Effect::Subscribe(granted) => {
                if let Some(publisher) = self.connection.publisher() {
                    let filters = granted.iter().map(|granted| &*granted.filter);
                    node.tell_subscriptions(&publisher, Change::Subscribed, filters);
                }
                let awaited = self.connection.session().map(|session| node.subscribe(session, granted));
                self.settle(awaited.unwrap_or_default(), hands);
            }
            Effect::Unsubscribe(filters) => {
                if let Some(publisher) = self.connection.publisher() {
                    let gone = filters.iter().map(|filter| &**filter);
                    node.tell_subscriptions(&publisher, Change::Unsubscribed, gone);
                }
                let awaited = self.connection.session().map(|session| node.unsubscribe(session, &filters));
                self.settle(awaited.unwrap_or_default(), hands);
            }
            Effect::Refused(fault) => {
                let publisher = self.connection.publisher();
                let client = publisher.as_ref().map_or("", |publisher| publisher.client.as_str());
                node.telemetry.message_refused(client, self.connection.peer(), &fault);
                if let Some(publisher) = &publisher {
                    node.tell_refusal(publisher, || fault.to_error());
                }
            }
            Effect::Delayed => node.telemetry.message_delayed(),
            Effect::Delivered { qos } => node.telemetry.delivered(qos),
            Effect::Dropped(why) => node.telemetry.dropped(why, 1),
            Effect::Withdraw(gone) => {
                if let Some(session) = self.connection.session() {
                    node.withdrawn(session, gone);
                }
            }
            Effect::Publish(_) | Effect::Answer(_) | Effect::Close(_) => {} // carried out by the caller
        }
    }

    /// The session is this connection's, as far as the nodes among themselves are concerned; or not. Mail is opened
    /// between turns: what a connection that is replaced here has sent is with its lane by now.
    pub(super) fn attach(&mut self, admission: Admission, claim: Result<Claim, AttachError>, hands: &mut Hands) {
        if self.connection.is_closed() {
            return; // the claim is given up, as that of a connection that is gone
        }
        let node = hands.shared.node.clone();
        let peer = self.connection.peer();
        let attached = claim.and_then(|claim| {
            let attach = Attach {
                identity: admission.identity,
                client: admission.client,
                epoch: claim.epoch,
                clean_start: admission.clean_start,
                expiry_s: admission.expiry_s,
                will: admission.will,
                version: admission.version.into(),
                peer,
                link: self.link.clone(),
            };
            self.reserved = false;
            node.attach(attach, claim)
        });
        match attached {
            Ok(attached) => {
                node.telemetry.connected(&attached.publisher.client, peer);
                if attached.awaited.is_nothing() {
                    self.stage = Stage::Live;
                    self.connection.attached(attached, hands.now);
                } else {
                    let publisher = attached.publisher.clone();
                    let asked = hands.ask(self.place, questions::settle(node, attached));
                    self.stage = Stage::Attached(Box::new(Untold { publisher, asked }));
                }
            }
            Err(error) => self.connection.refused(error),
        }
    }

    /// The message a publication becomes; one span each while this process takes part in a trace.
    fn message(&self, publication: Publication, hands: &mut Hands) -> Option<Arc<Message>> {
        let publisher = self.connection.publisher()?;
        let span = tracing::debug_span!("publish", device = %publisher.device, topic = publication.topic.as_str());
        let traceparent = if span.is_disabled() {
            None
        } else {
            if let Some(parent) = publication.traceparent() {
                drover_host::trace::continue_from(&span, parent.as_str());
            }
            drover_host::trace::traceparent_of(&span)
        };
        Some(Arc::new(publication.stamp(publisher, hands.stamp(traceparent))))
    }

    /// Hands an answer of the node to this client alone.
    fn answer(&mut self, publication: Publication, hands: &mut Hands) {
        let Some(message) = self.message(publication, hands) else { return };
        let telemetry = &message.telemetry;
        let recipient = Recipient::Client { client: telemetry.client.clone(), epoch: Some(telemetry.epoch) };
        hands.shared.node.deliver(&message, &recipient);
    }

    /// Stages a message for its lane, or has it wait for that.
    fn publish(&mut self, publication: Publication, hands: &mut Hands) {
        let Some(message) = self.message(publication, hands) else { return };
        if self.lane == 0 {
            self.lane = hands.appends.lane_of_device(&message.telemetry.key().to_text());
        }
        let lane = hands.appends.lane(&message, self.lane);
        if self.waiting.is_none() && (self.outstanding == 0 || lane == self.lane_now) {
            self.stage_message(lane, message, hands);
        } else {
            self.waiting.get_or_insert_default().push_back(message);
        }
    }

    pub(super) fn stage_message(&mut self, lane: LaneId, message: Arc<Message>, hands: &mut Hands) {
        let Some(session) = self.connection.session() else { return };
        hands.appends.stage(lane, message, &self.link, session, hands.instant);
        self.lane_now = lane;
        self.outstanding += 1;
    }

    /// Messages that waited for a lane follow once those in another are stored: receipts are told apart by their order.
    pub(super) fn stage_waiting(&mut self, hands: &mut Hands) {
        while let Some(waiting) = &mut self.waiting {
            let Some(message) = waiting.pop_front() else {
                self.waiting = None;
                return;
            };
            let lane = hands.appends.lane(&message, self.lane);
            if self.outstanding > 0 && lane != self.lane_now {
                waiting.push_front(message);
                return;
            }
            self.stage_message(lane, message, hands);
        }
    }
}
