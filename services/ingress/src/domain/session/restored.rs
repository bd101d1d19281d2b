//! A session that an earlier process, or another node, has kept.
//!
//! Domain layer, no I/O. It is taken back at once, with its inbox; or it arrives from a node that still holds it: then it takes
//! messages here before its inbox is read, and what both have got is told by its record id.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::filters::Filters;
use super::moved::NO_ID;
use super::received::Received;
use super::record::Record;
use super::{Delivery, Dropped, Outbox, Session, State};
use crate::domain::journal::Journal;
use crate::domain::router::Subscriber;
use crate::domain::sessions::Kept;
use crate::ports::sessions::{Place, Row, Stored};

impl Session {
    /// The session as `kept` says, absent. What an earlier connection may have sent is sent again, with DUP.
    pub fn restored(number: Subscriber, journal: Arc<Journal>, kept: Kept) -> Self {
        let Kept { key, epoch, stored, rows, unsettled } = kept;
        let mut record = Record::new(journal, key.clone(), epoch, true).restored(
            stored.stamp,
            rows.first().map(|row| row.place),
            last_sent(&stored, &rows),
        );
        record.moved(&rows, unsettled);
        let last_packet_id = rows.last().map_or(0, |row| row.packet_id.get());
        let outbox = outbox(&stored, rows);
        let state = State {
            filters: Filters::of(&stored.subscriptions),
            record: Some(Box::new(record)),
            outbox: (!outbox.is_empty()).then(|| Box::new(outbox)),
            received: received(&stored),
            last_packet_id,
            ..State::default()
        };
        let session = Self::new(number, key.0, key.1);
        *session.state() = state;
        session
    }

    /// The inbox of a session that was arriving, and all else that its former owner has left of it: what has come here
    /// meanwhile stands behind it, but for what it has as well. `unsettled`: the former owner may still add to it. The
    /// answer: filters that it has no longer.
    pub fn arrived(&self, stored: &Stored, rows: Vec<Row>, unsettled: bool) -> Vec<Box<str>> {
        let mut state = self.state();
        let came = state.outbox.take().map(|outbox| outbox.into_kept()).unwrap_or_default();
        let State { record: Some(record), last_packet_id, .. } = &mut *state else { return Vec::new() };
        let theirs = rows.iter().filter_map(|row| row.delivery.as_ref().map(id_of));
        let theirs: BTreeSet<_> = theirs.filter(|id| *id != NO_ID).collect();
        record.remember(&rows);
        record.arrived(stored.stamp, rows.first().map(|row| row.place), last_sent(stored, &rows), unsettled);
        *last_packet_id = rows.last().map_or(*last_packet_id, |row| row.packet_id.get());
        let mut outbox = outbox(stored, rows);
        let mut twice = Vec::new();
        for (delivery, place) in came {
            if theirs.contains(&id_of(&delivery)) {
                twice.push(place);
                continue;
            }
            // Its number may be that of a message which the client knows.
            let packet_id = outbox.free_packet_id(last_packet_id);
            record.put(Row { place, packet_id, delivery: Some(delivery.clone()) });
            outbox.push(delivery, Some(super::outbox::Kept { place, packet_id }));
        }
        twice.into_iter().for_each(|place| record.remove(place));
        let known = std::mem::replace(&mut state.filters, Filters::of(&stored.subscriptions)).take();
        state.outbox = (!outbox.is_empty()).then(|| Box::new(outbox));
        state.received = received(stored);
        known.into_iter().filter(|filter| !state.filters.contains(filter)).collect()
    }

    /// Messages of the inbox whose places are of epochs before `epoch`; `None`: no former owner adds to it any more.
    pub fn unsettled(&self, epoch: u64) -> Option<BTreeSet<Place>> {
        let state = self.state();
        state.record.as_ref().filter(|record| record.is_unsettled())?;
        let places = state.outbox.as_ref().map(|outbox| outbox.places()).unwrap_or_default();
        Some(places.into_iter().filter(|place| place.epoch < epoch).collect())
    }

    /// The inbox is `rows` as far as it is of epochs before `epoch`: what is not among `known`, as [`Session::unsettled`]
    /// has answered, came late, and is put in as if it came now. `settled`: no former owner adds to it any more. Why some
    /// were dropped.
    pub fn take_up(&self, epoch: u64, rows: Vec<Row>, known: &BTreeSet<Place>, settled: bool) -> Vec<Dropped> {
        let late = rows.into_iter().filter(|row| row.place.epoch < epoch && !known.contains(&row.place));
        let mut dropped = Vec::new();
        for Row { place, delivery, .. } in late {
            let offered = delivery.map_or(Ok(0), |delivery| self.offer(delivery));
            dropped.extend(offered.err());
            if let Some(record) = &mut self.state().record {
                record.remove(place);
            }
        }
        if let Some(record) = self.state().record.as_mut().filter(|_| settled) {
            record.settled();
        }
        dropped
    }

    /// The store is this node's own: no other one has messages for the session.
    pub fn drop_former_way(&self) {
        if let Some(record) = &mut self.state().record {
            record.drop_former_way();
        }
    }

    /// What the session was given before it came here is forgotten when nothing comes to it from there any more.
    pub fn forget_former_way(&self) {
        if let Some(record) = &mut self.state().record {
            record.forget_former_way();
        }
    }

    /// Whether the session has come from the store lately.
    pub fn has_moved(&self) -> bool {
        self.state().record.as_ref().is_some_and(|record| record.has_moved())
    }

    /// The session leaves the list of the node that held it before; the position of the journal.
    pub fn leave_list(&self, node: &str) -> u64 {
        self.state().record.as_mut().map_or(0, |record| record.leave_list(node))
    }
}

/// Whether an earlier connection may have sent the message at `place`.
fn in_doubt(stored: &Stored, place: Place) -> bool {
    stored.head.away.is_none() || stored.head.sent.is_some_and(|sent| place <= sent)
}

fn last_sent(stored: &Stored, rows: &[Row]) -> Option<Place> {
    rows.iter().map(|row| row.place).filter(|place| in_doubt(stored, *place)).max()
}

fn outbox(stored: &Stored, rows: Vec<Row>) -> Outbox {
    let mut outbox = Outbox::default();
    for row in rows {
        let dup = in_doubt(stored, row.place);
        outbox.restore(row, dup);
    }
    outbox
}

fn received(stored: &Stored) -> Option<Box<Received>> {
    (!stored.received.is_empty()).then(|| Box::new(Received::restored(stored.received.iter().copied())))
}

fn id_of(delivery: &Delivery) -> drover_types::RecordId {
    delivery.message.telemetry.id
}
