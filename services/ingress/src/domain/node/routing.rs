//! Who on this node gets a durable message.
//!
//! Domain layer. The sessions of this node have a message before a peer is offered it.

use std::cell::Cell;
use std::sync::{Arc, PoisonError};

use drover_mqtt::PacketId;
use drover_types::{ClientId, Qos};

use super::Node;
use super::overfull::Overfull;
use crate::domain::confirmations::Confirmations;
use crate::domain::message::Message;
use crate::domain::peers::Placed;
use crate::domain::router::Match;
use crate::domain::session::{Delivery, Dropped, Session, WhenFull};

/// Whom a message from another service is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Every session with a matching subscription.
    Subscribers,
    /// Only this client, if it has subscribed; with `epoch` only while that connection holds its session.
    Client { client: ClientId, epoch: Option<u64> },
}

/// What becomes of a message for shared subscriptions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// One member of each has it, of those of this node.
    Chosen,
    /// None has it by this: other nodes have members as well.
    LeftOut,
}

/// A message that a session took.
pub(super) struct Offered {
    /// Position of the journal that its publisher has to wait for; 0: none.
    pub(super) position: u64,
    /// The session, if its publisher has to wait for room there.
    overfull: Option<Arc<Session>>,
}

/// What became of messages.
#[derive(Default)]
pub(super) struct Handed {
    /// How often a session took one.
    taken: usize,
    /// As in [`Offered`], the highest.
    pub(super) position: u64,
    pub(super) overfull: Overfull,
}

impl Handed {
    pub(super) fn add(&mut self, Offered { position, overfull }: Offered) {
        self.taken += 1;
        self.position = self.position.max(position);
        self.overfull.extend(overfull.map(|session| (session.number, session)));
    }

    pub(super) fn join(&mut self, mut other: Self) {
        self.taken += other.taken;
        self.position = self.position.max(other.position);
        self.overfull.append(&mut other.overfull);
    }
}

/// What became of durable messages of this node.
#[derive(Default)]
pub(super) struct Routed {
    pub(super) handed: Handed,
    /// Nodes that are to give them to members of shared subscriptions.
    pub(super) placed: Vec<Placed>,
}

impl Node {
    /// Hands durable messages to all subscribers: those of this node at once, those of other nodes as
    /// [`crate::domain::peers::Peers::forward`] says. Returns when the inboxes of sessions that are kept have them durably,
    /// too, and inboxes that are full have room or a moment has passed. They came from no session.
    pub(super) async fn route_all(&self, messages: &[Arc<Message>]) {
        self.room_for(messages, &[]).await;
        let round = self.peers.round();
        let mut routed = Routed::default();
        for (at, message) in messages.iter().enumerate() {
            self.route(at, message, None, &mut routed);
        }
        let Routed { handed: Handed { position, overfull, .. }, placed } = routed;
        let forwarded = self.peers.forward(messages, &placed, round, &self.telemetry);
        tokio::join!(forwarded, self.journal.durable(position), self.room_in(overfull));
    }

    /// As [`Node::route_all`], for messages of several sessions: `publishers` are those, in the order of the messages.
    /// Returns when the order is settled, with what receipts have to wait for besides. Those whose messages are in full
    /// inboxes acknowledge nothing before there is room.
    pub async fn route_each(&self, messages: &[Arc<Message>], publishers: &[&Session]) -> Confirmations {
        self.room_for(messages, publishers).await;
        let round = self.peers.round();
        let mut routed = Routed::default();
        for (at, (message, publisher)) in messages.iter().zip(publishers).enumerate() {
            self.route(at, message, Some(publisher), &mut routed);
            let overfull = &mut routed.handed.overfull;
            if !overfull.is_empty() {
                self.withhold(std::mem::take(overfull), publisher);
            }
        }
        let Routed { handed: Handed { position, .. }, placed } = routed;
        let offered = self.peers.offer(messages, &placed, round, &self.telemetry).await;
        offered.and_inboxes(&self.journal, position)
    }

    /// Returns when the journal has room for what routing `messages` of `publishers` adds to it; at once where that is
    /// nothing: a store that is away holds up those that need it, and nobody else.
    async fn room_for(&self, messages: &[Arc<Message>], publishers: &[&Session]) {
        if !self.journal.has_room() && self.adds_to_journal(messages, publishers) {
            self.journal.room().await;
        }
    }

    /// Whether one of `messages` may be for a session whose messages are kept, or tell of an exchange that is.
    fn adds_to_journal(&self, messages: &[Arc<Message>], publishers: &[&Session]) -> bool {
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |message: &Arc<Message>| {
            let telemetry = &message.telemetry;
            let member = Cell::new(false);
            let ready = |session: &Arc<Session>| {
                member.set(member.get() || session.keeps_messages());
                false // so that every member of a group is asked
            };
            let found = router.matches(&telemetry.tenant, telemetry.topic.as_str(), None, ready);
            member.get() || found.iter().any(|found| found.subscriber.keeps_messages())
        };
        let exact = |message: &Arc<Message>| message.telemetry.qos == Qos::ExactlyOnce;
        messages.iter().any(exact) && publishers.iter().any(|publisher| publisher.keeps_messages())
            || messages.iter().any(|message| message.telemetry.qos > Qos::AtMostOnce && is_kept(message))
    }

    /// Hands a durable message to the subscribers of this node. `publisher` is the session it came from. To be called for
    /// every durable message of a connection, also after the connection is gone: it is how a session learns that a
    /// message of QoS 2 is kept. One that comes out of the log's doubt a second time is not handed out again. `routed` learns
    /// what is to be waited for, and which nodes are to give it, as number `at`, to members of shared subscriptions.
    fn route(&self, at: usize, message: &Arc<Message>, publisher: Option<&Session>, routed: &mut Routed) {
        let telemetry = &message.telemetry;
        self.telemetry.stored(telemetry.qos.into());
        let packet_id = telemetry.packet_id.and_then(PacketId::new).filter(|_| telemetry.qos == Qos::ExactlyOnce);
        let exact = publisher.zip(packet_id);
        // That it was received is never written without it.
        let _together = exact.is_some().then(|| self.journal.together());
        let noted = exact.map(|(session, packet_id)| session.stored(packet_id));
        let position = match noted {
            None => 0,
            Some(Some(position)) => position,
            Some(None) => self.journal.position(), // where it was noted
        };
        routed.handed.position = routed.handed.position.max(position);
        if noted == Some(None) {
            return;
        }
        let publisher = publisher.map(|session| session.number);
        let members = if self.peers.is_none() { Members::Chosen } else { Members::LeftOut };
        routed.handed.join(self.hand_out(message, publisher, WhenFull::Wait, members, |_| true));
        if members == Members::LeftOut {
            self.share_out(at, message, routed);
        }
    }

    /// Hands messages that another service or node has logged to whom they are for; how many sessions took them. Returns
    /// when the inboxes of those that are kept have them durably.
    pub async fn deliver_kept(&self, messages: &[Arc<Message>], recipient: &Recipient) -> usize {
        // At once, for whoever asks may go away while this waits, and not ask again.
        let handed: Vec<_> = messages.iter().map(|message| self.hand_to(message, recipient)).collect();
        self.journal.durable(handed.iter().map(|handed| handed.position).max().unwrap_or_default()).await;
        handed.iter().map(|handed| handed.taken).sum()
    }

    /// Hands messages to the sessions that have come here lately, and do not have them; the position of the journal as of
    /// which their inboxes do. For members of shared subscriptions the node that logged a message finds somebody itself.
    pub(in crate::domain) fn hand_to_moved(&self, messages: &[Arc<Message>]) -> u64 {
        let hand = |message| self.hand_out(message, None, WhenFull::Drop, Members::LeftOut, Session::has_moved);
        messages.iter().map(hand).map(|handed| handed.position).max().unwrap_or_default()
    }

    /// As [`Node::deliver_kept`], for one message, and without waiting.
    pub fn deliver(&self, message: &Arc<Message>, recipient: &Recipient) -> usize {
        self.hand_to(message, recipient).taken
    }

    fn hand_to(&self, message: &Arc<Message>, recipient: &Recipient) -> Handed {
        self.hand_out(message, None, WhenFull::Drop, Members::Chosen, |session| match recipient {
            Recipient::Subscribers => true,
            Recipient::Client { client, epoch } => {
                session.client() == client && epoch.is_none_or(|epoch| session.is_held_by(epoch))
            }
        })
    }

    /// Hands a message to those sessions of this node whom it concerns.
    pub(super) fn hand_out(
        &self,
        message: &Arc<Message>,
        publisher: Option<u64>,
        when_full: WhenFull,
        members: Members,
        concerns: impl Fn(&Session) -> bool,
    ) -> Handed {
        let (tenant, topic) = (&message.telemetry.tenant, message.telemetry.topic.as_str());
        let router = self.router.read().unwrap_or_else(PoisonError::into_inner);
        // Of a group the one whom it concerns, if it is in it: nobody else may have the message.
        let ready = |session: &Arc<Session>| concerns(session) && session.is_ready();
        let matches = match members {
            Members::Chosen => router.matches(tenant, topic, publisher, ready),
            Members::LeftOut => router.own_matches(tenant, topic, publisher),
        };
        drop(router);
        let mut handed = Handed::default();
        for found in matches.into_iter().filter(|found| concerns(&found.subscriber)) {
            match offer(message.clone(), found, when_full) {
                Ok(offered) => handed.add(offered),
                Err(why) => self.telemetry.dropped(why, 1),
            }
        }
        handed
    }
}

/// Puts a message into the session of a subscriber, as its subscriptions want it.
pub(super) fn offer(
    message: Arc<Message>,
    found: Match<Arc<Session>>,
    when_full: WhenFull,
) -> Result<Offered, Dropped> {
    let delivery = Delivery {
        qos: message.telemetry.qos.min(found.qos),
        retain: message.telemetry.retain && found.retain_as_published,
        message,
        ids: found.ids.into(),
        share: found.share,
    };
    let taken = found.subscriber.put(delivery, when_full)?;
    Ok(Offered { position: taken.position, overfull: taken.overfull.then_some(found.subscriber) })
}
