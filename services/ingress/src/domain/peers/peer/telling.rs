//! What a peer is told of what is wanted on this node, with each batch.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Known, Peer};
use crate::domain::interest::{Interest, News};
use crate::domain::message::Message;
use crate::domain::shares::{Group, Share};
use crate::ports::Batch;

/// What is wanted here, and what the peer will know when it has been told.
pub(super) struct ToTell {
    pub news: News,
    groups: Option<Vec<Group>>,
    /// `None`: it knows nothing of them then.
    pub groups_version: Option<u64>,
}

impl ToTell {
    pub fn batch<'a>(
        &'a self,
        sequence: u64,
        hello: bool,
        messages: &'a [Arc<Message>],
        shares: &'a [Vec<Share>],
    ) -> Batch<'a> {
        Batch { sequence, hello, messages, shares, news: &self.news, groups: self.groups.as_deref() }
    }
}

impl Peer {
    /// What the peer has to be told of what is wanted.
    pub(super) fn to_tell(&self, interest: &Mutex<Interest>) -> ToTell {
        let Known { interest: known, groups, .. } = *self.known.borrow();
        let interest = interest.lock().unwrap_or_else(PoisonError::into_inner);
        let news = interest.news(known);
        if interest.is_unknown() {
            return ToTell { news, groups: None, groups_version: None }; // what it knows of before still holds
        }
        let memberships = &interest.memberships;
        ToTell { news, groups: memberships.news(groups), groups_version: Some(memberships.version()) }
    }
}
