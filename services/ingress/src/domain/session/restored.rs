//! A session that an earlier process, or another node, has kept.
//!
//! Domain layer, no I/O.

use std::sync::Arc;

use super::received::Received;
use super::record::Record;
use super::{Outbox, Session, State};
use crate::domain::journal::Journal;
use crate::domain::router::Subscriber;
use crate::domain::sessions::Key;
use crate::ports::sessions::{Place, Row, Stored};

impl Session {
    /// The session as `stored` says, with its inbox `rows` in their order; absent, of epoch `epoch`, which this node has
    /// taken. What an earlier connection may have sent is sent again, with DUP.
    pub fn restored(
        number: Subscriber,
        key: Key,
        journal: Arc<Journal>,
        epoch: u64,
        stored: &Stored,
        rows: Vec<Row>,
    ) -> Self {
        let head = &stored.head;
        let first = rows.first().map(|row| row.place);
        let in_doubt = |place: Place| head.away.is_none() || head.sent.is_some_and(|sent| place <= sent);
        let sent = rows.iter().map(|row| row.place).filter(|place| in_doubt(*place)).max();
        let record = Record::new(journal, key.clone(), epoch, true).restored(stored.stamp, first, sent);
        let last_packet_id = rows.last().map_or(0, |row| row.packet_id.get());
        let mut outbox = Outbox::default();
        for row in rows {
            let dup = in_doubt(row.place);
            outbox.restore(row, dup);
        }
        let filters = stored.subscriptions.iter();
        let state = State {
            filters: filters.map(|subscription| (subscription.filter.clone(), subscription.options)).collect(),
            record: Some(Box::new(record)),
            outbox: (!outbox.is_empty()).then(|| Box::new(outbox)),
            received: (!stored.received.is_empty())
                .then(|| Box::new(Received::restored(stored.received.iter().copied()))),
            last_packet_id,
            ..State::default()
        };
        let session = Self::new(number, key.0, key.1);
        *session.state() = state;
        session
    }
}
