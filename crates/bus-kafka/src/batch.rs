//! One batch on its way: a ticket for each record, a receipt for all.
//!
//! Tickets come back from librdkafka's thread in any order; the last one resolves the receipt and frees the queue.

use std::sync::{Arc, Mutex, PoisonError};

use drover_bus::{Outgoing, Partition, Position, TopicPartition, Unacknowledged};
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::waiting::Place;

/// What is known about the records of a batch.
pub(crate) struct Batch(Mutex<State>);

struct State {
    /// In the order given; offsets as they become known.
    positions: Vec<Position>,
    left: usize,
    /// The first failure: which record, and why.
    failure: Option<(usize, RDKafkaErrorCode)>,
    done: Option<oneshot::Sender<Outcome>>,
    room: Option<Place>,
}

/// Positions in the order given, or the first record that failed and why.
pub(crate) type Outcome = Result<Vec<Position>, (usize, RDKafkaErrorCode)>;

/// One record of a batch.
pub(crate) struct Ticket {
    batch: Arc<Batch>,
    index: usize,
}

impl Batch {
    /// Tickets for the records of `batch`, and the receipt.
    pub fn acknowledged(
        batch: &[Outgoing],
        partitions: &[Partition],
        room: Option<Place>,
    ) -> (impl Iterator<Item = Ticket>, impl Future<Output = Result<Vec<Position>, Unacknowledged>> + use<>) {
        let (tickets, outcome) = Self::tracked(batch, partitions, room);
        let receipt = async move {
            let lost = |_| Unacknowledged { reason: "kafka: the bus is closed".to_owned() };
            outcome.await.map_err(lost)?.map_err(|(_, code)| Unacknowledged { reason: format!("kafka: {code}") })
        };
        (tickets, receipt)
    }

    /// As [`Self::acknowledged`], with what exactly failed.
    pub fn tracked(
        batch: &[Outgoing],
        partitions: &[Partition],
        room: Option<Place>,
    ) -> (impl Iterator<Item = Ticket> + use<>, oneshot::Receiver<Outcome>) {
        let place = |(outgoing, partition): (&Outgoing, &Partition)| {
            let at = TopicPartition { topic: outgoing.topic.clone(), partition: *partition };
            Position { at, offset: 0 }
        };
        let positions: Vec<_> = batch.iter().zip(partitions).map(place).collect();
        let (done, outcome) = oneshot::channel();
        let count = positions.len();
        let state = State { positions, left: count, failure: None, done: Some(done), room };
        let batch = Arc::new(Self(Mutex::new(state)));
        if count == 0 {
            batch.settle(|_| {});
        }
        ((0..count).map(move |index| Ticket { batch: batch.clone(), index }), outcome)
    }

    fn settle(&self, note: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut state);
        state.left = state.left.saturating_sub(1);
        if state.left > 0 {
            return;
        }
        drop(state.room.take());
        let outcome = match state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut state.positions)),
        };
        if let Some(done) = state.done.take() {
            // Whoever dropped the receipt does not want to know.
            drop(done.send(outcome));
        }
    }
}

impl Ticket {
    /// The record is in the log.
    pub fn delivered(self, offset: i64) {
        self.batch.settle(|state| state.positions[self.index].offset = crate::convert::offset(offset));
    }

    /// The record is not in the log, or may be.
    pub fn failed(self, code: RDKafkaErrorCode) {
        self.batch.settle(|state| {
            if state.failure.is_none() {
                state.failure = Some((self.index, code));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use drover_bus::Record;

    use super::*;

    fn batch(count: usize) -> (Vec<Ticket>, oneshot::Receiver<Outcome>) {
        let outgoing = vec![Outgoing::keyed("t", Record::default()); count];
        let (tickets, outcome) = Batch::tracked(&outgoing, &vec![0; count], None);
        (tickets.collect(), outcome)
    }

    #[test]
    fn positions_come_in_the_order_given_whatever_order_they_are_known_in() {
        let (tickets, mut outcome) = batch(3);
        for (ticket, offset) in tickets.into_iter().zip([7, 8, 9]).rev() {
            assert!(outcome.try_recv().is_err());
            ticket.delivered(offset);
        }
        let positions = outcome.try_recv().expect("resolved").expect("delivered");
        assert_eq!(positions.iter().map(|position| position.offset).collect::<Vec<_>>(), [7, 8, 9]);
    }

    #[test]
    fn one_failure_fails_the_batch_after_all_are_settled() {
        let (mut tickets, mut outcome) = batch(2);
        tickets.remove(1).failed(RDKafkaErrorCode::PurgeInflight);
        assert!(outcome.try_recv().is_err());
        tickets.remove(0).delivered(1);
        assert_eq!(outcome.try_recv().expect("resolved"), Err((1, RDKafkaErrorCode::PurgeInflight)));
    }

    #[test]
    fn an_empty_batch_is_settled_at_once() {
        assert_eq!(batch(0).1.try_recv().expect("resolved"), Ok(vec![]));
    }
}
