//! What a peer is to give to members of shared subscriptions: it is held until they have done with it, and if nobody there
//! can have it, or the peer is lost, somebody else is found.

use std::sync::Arc;

use drover_types::Qos;

use super::{Peer, Waiting};
use crate::domain::message::Message;
use crate::domain::peers::held::{Done, Unplaced};
use crate::domain::shares::{Refused, Share};
use crate::ports::Answer;

impl Peer {
    /// What members of the peer were given, by its `answer` to this batch, is held until they have done with it; for the rest
    /// others are found, and whoever waits for the batch waits for that as well.
    pub(super) fn place(&self, sequence: u64, batch: &[Waiting], answer: &Answer) {
        if batch.iter().all(|waiting| waiting.shares.is_empty()) {
            return;
        }
        let done: Vec<Done> = batch.iter().flat_map(|waiting| waiting.done.iter().cloned()).collect();
        let name: Arc<str> = answer.node.as_str().into();
        for (number, Waiting { message, shares, .. }) in batch.iter().enumerate() {
            for (share, wanted) in shares.iter().enumerate() {
                if answer.refused.contains(&Refused { message: number, share }) {
                    let mut share = wanted.clone();
                    share.tried.push(name.clone()); // it is not asked again
                    self.unplaced.add([Unplaced { message: message.clone(), share, done: done.clone() }]);
                } else if message.telemetry.qos > Qos::AtMostOnce {
                    self.held().hold(sequence, message.clone(), wanted.filter.clone());
                }
            }
        }
        self.held().completed(answer.completed); // the store may have all of it already
    }

    /// The peer has not taken these: others are found for its members, and for the rest nobody waits any more.
    pub(super) fn give_back(&self, batch: Vec<Waiting>) {
        if batch.iter().any(|waiting| !waiting.shares.is_empty()) {
            let done: Vec<Done> = batch.iter().flat_map(|waiting| waiting.done.iter().cloned()).collect();
            for Waiting { message, shares, .. } in &batch {
                self.unplace(message, shares.clone(), &done);
            }
        }
        self.settle(batch);
    }

    /// Has somebody found for these anew, if there is one: whoever was asked before may have members by now that were here.
    pub(super) fn unplace(&self, message: &Arc<Message>, shares: Vec<Share>, done: &[Done]) {
        self.unplaced.add(shares.into_iter().map(|share| Unplaced {
            message: message.clone(),
            share: Share::new(share.filter),
            done: done.to_vec(),
        }));
    }
}
