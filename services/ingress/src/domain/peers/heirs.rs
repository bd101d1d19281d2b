//! What becomes of a node that is away: its sessions are claimed by those that are there, and what was for it is handed to
//! them. Until then whoever waits for it waits.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, join_all, select};

use super::peer::Peer;
use crate::domain::message::Message;
use crate::ports::{Claimed, OwnHeir};

/// Wait before heirs are asked again of which one could not: at first, and at most, twice as long each time. They are asked
/// as long as there are any: what they are asked for is acknowledged to its publisher when they have it.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often messages are handed to the heirs.
const INHERITED: u32 = 2;
/// Pause between two looks whether an heir is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// This node and its peers.
#[derive(Clone, Copy)]
pub(super) struct Heirs<'a> {
    /// This node; absent where sessions are not shared, so that nobody can have those of another.
    pub own: Option<&'a dyn OwnHeir>,
    pub node: &'a str,
    pub peers: &'a [Arc<Peer>],
}

impl<'a> Heirs<'a> {
    /// Whether there is anything to inherit.
    pub fn can(self) -> bool {
        self.own.is_some()
    }

    /// The live ones but for `gone`, by their names.
    fn live(self, gone: &str) -> Vec<(String, &'a Arc<Peer>)> {
        let named = self.peers.iter().filter(|peer| peer.is_there()).filter_map(|peer| Some((peer.name()?, peer)));
        named.filter(|(name, _)| name != gone).collect()
    }

    /// Names of nodes that are not there, as far as their peers have none: that of a peer which has never answered is among
    /// them.
    pub async fn unheard(self) -> Vec<String> {
        let Some(own) = self.own else { return Vec::new() };
        let mut nodes = own.nodes().await;
        nodes.retain(|node| node != self.node && !self.peers.iter().any(|peer| peer.is_named(node)));
        nodes
    }

    /// Returns when every live node has claimed its share of the sessions of `gone`. The answer: whether one of them has
    /// heard that node.
    pub async fn claim(self, gone: &str) -> bool {
        let Some(own) = self.own else { return false };
        let (mut never, mut pause) = (Vec::<String>::new(), RETRY);
        loop {
            let mut live = self.live(gone);
            live.retain(|(name, _)| !never.contains(name));
            let mut names: Vec<String> = live.iter().map(|(name, _)| name.clone()).collect();
            names.push(self.node.to_owned());
            names.sort();
            let others: Vec<_> =
                live.iter().map(|(_, peer)| while_there(peer, peer.link.claim(gone, &names))).collect();
            let (own, others) = futures::future::join(own.claim(gone, &names), join_all(others)).await;
            let mut answers = others;
            answers.push(own);
            if answers.contains(&Ok(Claimed::Returned)) {
                return true; // whatever the others say
            }
            let before = never.len();
            let refusing = live.iter().zip(&answers).filter(|(_, answer)| **answer == Ok(Claimed::Never));
            never.extend(refusing.map(|((name, _), _)| name.clone()));
            if never.len() > before {
                continue; // the share of those is for the others
            }
            match answers.into_iter().collect::<Result<Vec<Claimed>, String>>() {
                Ok(_) if self.are_still(gone, &live) => return false,
                Ok(_) => {} // one that has gone since may have taken what nobody has now
                Err(error) => tracing::debug!(gone, error, "sessions are not claimed yet"),
            }
            tokio::time::sleep(pause).await;
            pause = longer(pause);
        }
    }

    /// Returns when every live node has handed the messages to the sessions that have come to it. Twice, so that one which
    /// moves from a node that has not handed them out yet to one that has, gets them as well.
    pub async fn inherit(self, gone: &str, messages: &[Arc<Message>]) {
        let (mut times, mut pause) = (0, RETRY);
        while let Some(own) = self.own.filter(|_| times < INHERITED) {
            let live = self.live(gone);
            let others: Vec<_> = live.iter().map(|(_, peer)| while_there(peer, peer.link.inherit(messages))).collect();
            let (own, others) = futures::future::join(own.inherit(messages), join_all(others)).await;
            let mut answers = others;
            answers.push(own);
            match answers.into_iter().collect::<Result<(), String>>() {
                Ok(()) => times += 1,
                Err(error) => {
                    tracing::debug!(gone, error, "messages are not inherited yet");
                    tokio::time::sleep(pause).await;
                    pause = longer(pause);
                }
            }
        }
    }

    fn are_still(self, gone: &str, live: &[(String, &Arc<Peer>)]) -> bool {
        let now = self.live(gone);
        live.iter().all(|(name, _)| now.iter().any(|(known, _)| known == name))
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(RETRY_MAX)
}

/// What a peer answers, if it is there until then.
async fn while_there<T>(peer: &Peer, call: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let gone = async {
        while peer.is_there() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    match select(Box::pin(call), Box::pin(gone)).await {
        Either::Left((answer, _)) => answer,
        Either::Right(((), _)) => Err("it is away itself".to_owned()),
    }
}
