//! What becomes of live connections when an identity ends, or may do something else than before.

use std::sync::Arc;

use super::{Entry, Key, Sessions, State};
use crate::domain::identity::Identity;
use crate::domain::link::{Link, Stop};
use crate::domain::message::Publisher;
use crate::domain::reverify::Affected;
use crate::domain::revocations::Revocation;

impl Sessions {
    /// Refuses identities that the revocation concerns and that were verified until now, and tells their connections
    /// to close. Returns those, to be waited for.
    pub fn revoke(&self, revocation: Revocation) -> Vec<Arc<Link>> {
        let mut inner = self.lock();
        let links: Vec<Arc<Link>> = inner
            .entries
            .iter()
            .filter_map(|entry| match &entry.state {
                State::Live { link, identity } if revocation.concerns(identity) => Some(link.clone()),
                State::Live { .. } | State::Away { .. } => None,
            })
            .collect();
        inner.revocations.add(revocation);
        links.iter().for_each(|link| link.stop(Stop::Revoked));
        links
    }

    /// Whether a revocation with a number higher than `generation` concerns the identity, which need not have a session; in
    /// doubt it does.
    pub fn is_revoked_after(&self, generation: u64, identity: &Identity) -> bool {
        self.lock().revocations.concern_after(generation, identity)
    }

    /// Clients whose live connections a change may concern.
    pub fn affected(&self, affected: &Affected) -> Vec<Key> {
        let inner = self.lock();
        let concerned = inner.entries.iter().filter_map(|entry| match &entry.state {
            State::Live { identity, .. } if affected.concerns(identity) => Some(entry.session.key().clone()),
            State::Live { .. } | State::Away { .. } => None,
        });
        concerned.collect()
    }

    /// Which connection a client has, and who it is; `None` while it has none.
    pub fn identity(&self, client: &Key) -> Option<(Publisher, Arc<Identity>)> {
        let inner = self.lock();
        let entry = inner.entries.get(client)?;
        match &entry.state {
            State::Live { identity, .. } => Some((entry.publisher(), identity.clone())),
            State::Away { .. } => None,
        }
    }

    /// Gives the connection that `publisher` is a newer identity, unless another one has taken over or the identity is
    /// revoked already. Its will goes if it may no longer publish it.
    pub fn reauthorize(&self, publisher: &Publisher, newer: &Arc<Identity>) {
        let mut inner = self.lock();
        if inner.revocations.concern(newer) {
            return;
        }
        let Some(mut entry) = inner.entries.take(&publisher.key()) else { return };
        if entry.epoch == publisher.epoch {
            entry.reauthorize(newer);
        }
        inner.entries.insert(entry);
    }

    /// Tells the connection that `publisher` is to close: its proof does not hold any more.
    pub fn expel(&self, publisher: &Publisher) {
        let inner = self.lock();
        let entry = inner.entries.get(&publisher.key()).filter(|entry| entry.epoch == publisher.epoch);
        if let Some(State::Live { link, .. }) = entry.map(|entry| &entry.state) {
            link.stop(Stop::Revoked);
        }
    }
}

impl Entry {
    /// Its connection has a newer identity. Its will goes if it may no longer publish it.
    fn reauthorize(&mut self, newer: &Arc<Identity>) {
        if let State::Live { link, identity } = &mut self.state {
            *identity = newer.clone();
            link.reauthorize(newer.clone());
        }
        let client = self.session.client().as_str();
        if self.will.take_if(|will| !newer.may_publish(will.publication.topic.as_str(), client)).is_some() {
            self.put_head(None);
        }
    }
}
