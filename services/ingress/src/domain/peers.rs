//! The other ingress nodes: what this node logs, their subscribers get as well; what a client leaves there, ends.
//!
//! Domain layer over the port [`PeerLink`]. A message goes to the peers that may want it ([`Pictures`]). One of QoS 1 is
//! acknowledged when each of them has confirmed it or its lease has ended; one of QoS 0 never waits. A subscription is
//! answered when each peer knows of it or its lease has ended: who has not heard of a peer for a lease takes it to want
//! everything, so no message that is published after the answer passes the subscriber by.

mod peer;
mod pictures;
mod senders;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_types::TenantId;
use futures::future::{join_all, select_all};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::confirmations::Confirmations;
use crate::domain::interest::{self, Interest, News};
use crate::domain::message::Message;
use crate::domain::sessions::Key;
use crate::ports::PeerLink;
use crate::telemetry::Telemetry;
pub use peer::BATCH_MESSAGES_MAX;
use peer::Peer;
use pictures::Pictures;
pub use senders::Senders;

/// How long a peer may take to end what it holds of a client. Beyond it the new connection goes on: the lifecycle
/// events end the old one.
const TAKE_OVER: Duration = Duration::from_secs(1);
/// How long the greeting of a node that is not known yet may wait for being answered in kind.
const INTRODUCTION: Duration = Duration::from_millis(300);
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// All other nodes, as far as the configuration names them; this node may be among them.
pub struct Peers {
    /// Name of this node.
    node: String,
    all: Vec<Arc<Peer>>,
    /// Of the batches that come from them.
    pub senders: Senders,
    /// What their subscribers want.
    pictures: Pictures,
    /// What the subscribers of this node want; counted only if there are peers.
    interest: Mutex<Interest>,
    /// The zero of monotonic time.
    started: Instant,
}

impl Peers {
    /// The peers at the other end of `links`; nothing is sent before [`Peers::run`]. `started` is the zero of monotonic
    /// time.
    pub fn new(node: &str, links: Vec<Arc<dyn PeerLink>>, started: Instant) -> Self {
        let all = links.into_iter().map(|link| Arc::new(Peer::new(link, started))).collect();
        let (senders, pictures, interest) = (Senders::default(), Pictures::default(), Mutex::default());
        Self { node: node.to_owned(), all, senders, pictures, interest, started }
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Speaks to all peers until `stop`.
    pub async fn run(&self, telemetry: &Telemetry, stop: CancellationToken) {
        let talks = self.all.iter().map(|peer| peer.run(&self.node, &self.interest, telemetry));
        stop.run_until_cancelled(join_all(talks)).await;
    }

    /// Returns when every peer has answered, or is known to be away: at the latest when a lease is over.
    pub async fn greeted(&self) {
        join_all(self.all.iter().map(|peer| peer.knows(0))).await;
    }

    /// As [`Peers::offer`]; returns when all is confirmed.
    pub async fn forward(&self, messages: &[Arc<Message>], telemetry: &Telemetry) {
        self.offer(messages, telemetry).await.all().await;
    }

    /// Hands messages that are durable to the peers whose subscribers may want them. Returns when they are in the queues
    /// to these: messages offered after that follow them. While a peer's queue is full, QoS 1 waits and QoS 0 is dropped
    /// and counted.
    pub async fn offer(&self, messages: &[Arc<Message>], telemetry: &Telemetry) -> Confirmations {
        if self.all.is_empty() {
            return Confirmations::default();
        }
        let beginnings =
            |message: &Arc<Message>| interest::of_topic(&message.telemetry.tenant, message.telemetry.topic.as_str());
        let beginnings: Vec<_> = messages.iter().map(beginnings).collect();
        let now = self.started.elapsed();
        let wanted = self.all.iter().filter(|peer| !peer.is_ourselves()).map(|peer| {
            let name = peer.name();
            let may_want = |of: &[u64]| name.as_deref().is_none_or(|name| self.pictures.may_want(name, of, now));
            let wanted = messages.iter().zip(&beginnings).filter(|(_, of)| may_want(of));
            let wanted: Vec<_> = wanted.map(|(message, _)| message.clone()).collect();
            async move { peer.offer(&wanted, telemetry).await }
        });
        Confirmations::of_peers(join_all(wanted).await.into_iter().flatten().collect())
    }

    /// A subscription more; the version that [`Peers::announced`] waits for.
    pub fn subscribed(&self, tenant: &TenantId, filter: &str) -> u64 {
        if self.all.is_empty() { 0 } else { self.interest().add(interest::of_filter(tenant, filter)) }
    }

    /// A subscription less.
    pub fn unsubscribed(&self, tenant: &TenantId, filter: &str) {
        if !self.all.is_empty() {
            self.interest().remove(interest::of_filter(tenant, filter));
        }
    }

    /// Returns when every peer knows what is wanted as of `version`, or its lease has ended.
    pub async fn announced(&self, version: u64) {
        if version > 0 {
            self.all.iter().for_each(|peer| peer.speak_of_news());
            join_all(self.all.iter().map(|peer| peer.knows(version))).await;
        }
    }

    /// A peer tells what its subscribers want; whether that is whole now.
    pub fn hear(&self, node: &str, boot: u64, news: News) -> bool {
        self.pictures.hear(node, boot, news, self.started.elapsed())
    }

    fn interest(&self) -> std::sync::MutexGuard<'_, Interest> {
        self.interest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node says that it is there: one that is not known is spoken to at once, so that messages reach it from when
    /// its greeting is answered.
    pub async fn introduced(&self, node: &str) {
        let strangers: Vec<_> = self.all.iter().filter(|peer| !peer.is_live()).collect();
        if node == self.node || strangers.is_empty() || self.knows(node) {
            return;
        }
        strangers.iter().for_each(|peer| peer.speak());
        let known = async {
            while !self.knows(node) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        // Whoever is not known by then is not in the configuration, or cannot be reached.
        tokio::time::timeout(INTRODUCTION, known).await.ok();
    }

    /// Ends what the former owner of a session, or any peer, holds of it. The answer: the epoch of what a peer holds,
    /// if that is higher. Who does not answer in time is left to the lifecycle events.
    pub async fn take_over(&self, former: Option<&str>, key: &Key, epoch: u64) -> Option<u64> {
        let live = || self.all.iter().filter(|peer| peer.may_be_live());
        let named: Vec<_> = live().filter(|peer| former.is_some_and(|name| peer.is_named(name))).collect();
        // A name that no peer has told yet may be that of any.
        let asked = if named.is_empty() { live().collect() } else { named };
        let mut calls: Vec<_> = asked
            .into_iter()
            .map(|peer| Box::pin(tokio::time::timeout(TAKE_OVER, peer.link.take_over(&key.0, &key.1, epoch))))
            .collect();
        while !calls.is_empty() {
            let (answer, _, left) = select_all(calls).await;
            match answer {
                Ok(Ok(Some(newer))) => return Some(newer),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => tracing::debug!(error, "a peer did not end a session"),
                Err(_) => tracing::debug!("a peer did not end a session in time"),
            }
            calls = left;
        }
        None
    }

    fn knows(&self, node: &str) -> bool {
        self.all.iter().any(|peer| peer.is_live() && peer.is_named(node))
    }
}

#[cfg(test)]
mod tests;
