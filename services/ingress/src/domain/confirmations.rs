//! What receipts of messages that are in the log wait for besides: the peers whose subscribers may want them, the inboxes
//! of sessions that are kept, and the store of retained messages where it has failed.
//!
//! Domain layer. To be waited for where nothing else waits: a peer may take its lease, and a store that is away as long
//! as it is.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::journal::Journal;
use crate::domain::message::Message;
use crate::domain::node::Node;

/// What is not confirmed yet.
#[derive(Default)]
pub struct Confirmations {
    /// Peers that have messages of QoS 1 on their way; each tells when it has them, or its lease has ended.
    peers: Vec<oneshot::Receiver<()>>,
    /// The journal, and the position as of which the inboxes have their messages durably.
    inboxes: Option<(Arc<Journal>, u64)>,
    /// Messages some of which are to be retained, and are not.
    retained: Option<(Arc<Node>, Vec<Arc<Message>>)>,
}

impl Confirmations {
    /// Those of peers.
    pub fn of_peers(peers: Vec<oneshot::Receiver<()>>) -> Self {
        Self { peers, ..Self::default() }
    }

    /// And that of the inboxes whose messages are in the journal up to `position`; 0: there are none.
    #[must_use]
    pub fn and_inboxes(self, journal: &Arc<Journal>, position: u64) -> Self {
        let inboxes = (!journal.is_durable(position)).then(|| (journal.clone(), position));
        Self { inboxes, ..self }
    }

    /// And that of `messages` those to be retained are, by now or when the store is there again.
    #[must_use]
    pub fn and_retained(self, node: &Arc<Node>, messages: &[Arc<Message>]) -> Self {
        let retained = messages.iter().filter(|message| message.is_retained()).cloned().collect();
        Self { retained: Some((node.clone(), retained)), ..self }
    }

    /// Whether nothing is to be waited for.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty() && self.inboxes.is_none() && self.retained.is_none()
    }

    /// Returns when all is confirmed.
    pub async fn all(self) {
        for confirmed in self.peers {
            // An error means that nobody will tell: the node stops.
            confirmed.await.ok();
        }
        if let Some((journal, position)) = self.inboxes {
            journal.durable(position).await;
        }
        if let Some((node, messages)) = self.retained {
            node.retain_each(&messages).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use drover_types::{ClientId, TenantId};
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::journal::tests::journal;
    use crate::ports::sessions::{Change, Place, What};

    #[tokio::test(start_paused = true)]
    async fn receipts_wait_for_every_peer_and_for_the_inboxes() {
        let (_store, journal) = journal(0);
        let key = (TenantId::default_tenant(), ClientId::new("c").expect("valid"));
        let what = What::Remove(Place { epoch: 1, number: 1 });
        let position = journal.push(Change { key: Arc::new(key), stamp: 1, what });
        let inboxes = Confirmations::default().and_inboxes(&journal, position);
        assert!(!inboxes.is_empty());
        let (tell, told) = oneshot::channel();
        let both = Confirmations::of_peers(vec![told]).and_inboxes(&journal, position);
        inboxes.all().await;
        assert!(journal.is_durable(position));
        let mut both = Box::pin(both.all());
        assert!(both.as_mut().now_or_never().is_none(), "the peer has not said");
        tell.send(()).expect("somebody waits");
        both.await;
        assert!(Confirmations::default().and_inboxes(&journal, position).is_empty(), "they are durable");
        assert!(Confirmations::default().and_inboxes(&journal, 0).is_empty());
    }
}
