//! Messages of QoS 2 from one client: which packet ids are in use, and how far each has come (section 4.3.3).
//!
//! Domain layer, no I/O. A message is taken exactly once: its packet id is noted before it goes to the log, and stays until
//! the client lets go of it with PUBREL.
//!
//! A PUBLISH with DUP whose id is not open is one of two things: a message of before this session, which the log may have,
//! or one whose first sending got lost. If its id was let go of in this session, it is the latter: a client does not give
//! a number away that it still needs.

use std::collections::VecDeque;

use drover_mqtt::PacketId;
use drover_types::limits::RECEIVE_MAXIMUM;

use super::{Session, State};

/// Open exchanges of one session: a client of MQTT 5 may have as many as its receive maximum says, one of 3.1.1 does
/// not know that.
pub const RECEIVED_MAX: usize = 1_000;

/// Ids let go of that are remembered: the log's window of repeats knows no more messages of a client.
const RELEASED_MAX: usize = RECEIVE_MAXIMUM as usize;

/// What a PUBLISH of QoS 2 is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// To be taken. `reused`: its id was let go of in this session, so nobody can have seen it before.
    New { reused: bool },
    /// It was on its way into the log when its connection ended: to be taken, as one that may be there.
    Doubtful,
    /// It was taken before [MQTT-4.3.3-10]: to be answered, not to be taken.
    Repeat,
    /// There are too many open exchanges.
    Full,
    /// Another connection holds the session.
    Lost,
}

/// What is to be said to a client that lets go of a message of QoS 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// PUBCOMP that says success.
    Known,
    /// PUBCOMP that says there is no such message.
    Unknown,
    /// PUBCOMP comes when it is due, from [`Session::next`].
    Later,
}

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// On its way into the log, by the present connection.
    Open,
    /// It was on its way when its connection ended.
    Doubtful,
    /// In the log.
    Stored,
}

/// The exchanges of one session.
#[derive(Debug, Default)]
pub(super) struct Received {
    /// By packet id.
    open: Vec<(PacketId, Stage)>,
    /// Ids let go of, the latest last.
    released: VecDeque<PacketId>,
    /// PUBCOMPs of this connection that wait for a position of the journal.
    completions: VecDeque<(PacketId, u64)>,
}

impl Received {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.released.is_empty() // a completion is of an id let go of
    }

    /// Messages that an earlier process has told their client are stored.
    pub fn restored(packet_ids: impl IntoIterator<Item = PacketId>) -> Self {
        let mut open: Vec<_> = packet_ids.into_iter().map(|id| (id, Stage::Stored)).collect();
        open.sort_unstable_by_key(|(id, _)| *id);
        Self { open, ..Self::default() }
    }

    /// The ids of all that are in the log.
    pub fn all_stored(&self) -> Vec<PacketId> {
        self.open.iter().filter(|(_, stage)| *stage == Stage::Stored).map(|(id, _)| *id).collect()
    }

    /// PUBCOMP of this message is due at `position` of the journal.
    pub fn complete_at(&mut self, packet_id: PacketId, position: u64) {
        self.completions.push_back((packet_id, position));
    }

    /// The next PUBCOMP that is due; `durable` says whether a position of the journal is.
    pub fn next_completion(&mut self, durable: impl Fn(u64) -> bool) -> Option<PacketId> {
        self.completions.pop_front_if(|(_, position)| durable(*position)).map(|(packet_id, _)| packet_id)
    }

    fn find(&self, packet_id: PacketId) -> Result<usize, usize> {
        self.open.binary_search_by_key(&packet_id, |(id, _)| *id)
    }

    /// Whether the message was taken: by the present connection, or into the log.
    pub fn has(&self, packet_id: PacketId) -> bool {
        self.find(packet_id).is_ok_and(|at| self.open[at].1 != Stage::Doubtful)
    }

    /// Whether the message was on its way into the log when its connection ended.
    pub fn doubts(&self, packet_id: PacketId) -> bool {
        self.find(packet_id).is_ok_and(|at| self.open[at].1 == Stage::Doubtful)
    }

    /// A PUBLISH has come.
    pub fn begin(&mut self, packet_id: PacketId) -> Begun {
        match self.find(packet_id) {
            Ok(at) if self.open[at].1 == Stage::Doubtful => {
                self.open[at].1 = Stage::Open;
                Begun::Doubtful
            }
            Ok(_) => Begun::Repeat,
            Err(_) if self.open.len() >= RECEIVED_MAX => Begun::Full,
            Err(at) => {
                self.open.insert(at, (packet_id, Stage::Open));
                Begun::New { reused: self.released.contains(&packet_id) }
            }
        }
    }

    /// The log has it; false if it had it before, or nobody waits for it any more.
    pub fn stored(&mut self, packet_id: PacketId) -> bool {
        let Ok(at) = self.find(packet_id) else { return false };
        std::mem::replace(&mut self.open[at].1, Stage::Stored) != Stage::Stored
    }

    /// PUBREL has come; whether there was something to release.
    pub fn release(&mut self, packet_id: PacketId) -> bool {
        match self.find(packet_id) {
            Ok(at) if self.open[at].1 == Stage::Stored => {
                self.open.remove(at);
                self.released.retain(|id| *id != packet_id);
                if self.released.len() == RELEASED_MAX {
                    self.released.pop_front();
                }
                self.released.push_back(packet_id);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// The connection is gone: nobody will tell it what the log says.
    pub fn doubt(&mut self) {
        self.completions.clear(); // its PUBRELs come again
        let open = self.open.iter_mut();
        open.filter(|(_, stage)| *stage == Stage::Open).for_each(|(_, stage)| *stage = Stage::Doubtful);
    }
}

impl Session {
    /// The client of `epoch` publishes message `packet_id` at QoS 2.
    pub fn begin(&self, epoch: u64, packet_id: PacketId) -> Begun {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Begun::Lost;
        }
        let begun = state.received.get_or_insert_default().begin(packet_id);
        state.tidy();
        begun
    }

    /// Whether message `packet_id` of QoS 2 of the client of `epoch` was taken, and not let go of.
    pub fn has_received(&self, epoch: u64, packet_id: PacketId) -> bool {
        let state = self.state();
        state.held_by(epoch) && state.received.as_ref().is_some_and(|received| received.has(packet_id))
    }

    /// Whether message `packet_id` of QoS 2 of the client of `epoch` may be in the log, and nobody knows.
    pub fn doubts(&self, epoch: u64, packet_id: PacketId) -> bool {
        let state = self.state();
        state.held_by(epoch) && state.received.as_ref().is_some_and(|received| received.doubts(packet_id))
    }

    /// The client's message `packet_id` of QoS 2 is in the log. The answer, if that is news: the position of the journal
    /// to wait for before the client is told, or 0. Not bound to an epoch: the log may answer after the connection is
    /// gone.
    pub fn stored(&self, packet_id: PacketId) -> Option<u64> {
        let mut state = self.state();
        let State { received: Some(received), record, .. } = &mut *state else { return None };
        if !received.stored(packet_id) {
            return None;
        }
        let record = record.as_mut().filter(|record| record.keeps_messages());
        Some(record.map_or(0, |record| record.put_received(received.all_stored())))
    }

    /// A message of QoS 2 that was taken before has come again: the position of the journal as of which what came of it
    /// is durable, when the connection is woken; 0 if it is.
    pub fn repeated(&self) -> u64 {
        let state = self.state();
        let (Some(record), Some(holder)) = (&state.record, &state.holder) else { return 0 };
        let position = record.journal().position();
        if record.journal().is_durable(position) {
            return 0;
        }
        record.journal().wake_at(position, holder.link.clone());
        position
    }

    /// The client of `epoch` has let go of message `packet_id` of QoS 2. Where that is kept, PUBCOMP waits until the store
    /// knows it as well, for the client may give the number to another message after it.
    pub fn released(&self, epoch: u64, packet_id: PacketId) -> Released {
        let mut state = self.state();
        if !state.held_by(epoch) {
            return Released::Unknown;
        }
        let State { received: Some(received), record, holder, .. } = &mut *state else { return Released::Unknown };
        let mut released = if received.release(packet_id) { Released::Known } else { Released::Unknown };
        let record = record.as_mut().filter(|record| released == Released::Known && record.keeps_messages());
        if let (Some(record), Some(holder)) = (record, holder) {
            let position = record.put_received(received.all_stored());
            received.complete_at(packet_id, position);
            record.journal().wake_at(position, holder.link.clone());
            released = Released::Later;
        }
        state.tidy();
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u16) -> PacketId {
        PacketId::new(id).expect("not 0")
    }

    #[test]
    fn a_message_is_taken_once_until_its_client_lets_go_of_it() {
        // [MQTT-4.3.3-8] to [MQTT-4.3.3-12]
        let mut received = Received::default();
        assert_eq!(received.begin(id(7)), Begun::New { reused: false });
        assert_eq!(received.begin(id(7)), Begun::Repeat);
        assert!(!received.release(id(7)), "nobody has told the client that it is stored");
        assert!(received.stored(id(7)) && !received.stored(id(7)));
        assert_eq!(received.begin(id(7)), Begun::Repeat);
        assert!(received.release(id(7)) && !received.release(id(7)));
        assert_eq!(received.begin(id(7)), Begun::New { reused: true }, "the id is free again");
    }

    #[test]
    fn a_message_whose_fate_is_unknown_is_taken_again_as_one_that_may_be_there() {
        let mut received = Received::default();
        for n in [3, 1, 2] {
            received.begin(id(n));
        }
        received.stored(id(2));
        received.doubt();
        assert!(received.stored(id(1)), "the log has answered late");
        assert_eq!([1, 2, 3].map(|n| received.begin(id(n))), [Begun::Repeat, Begun::Repeat, Begun::Doubtful]);
        assert!(received.stored(id(3)) && !received.stored(id(3)), "both sendings reach the log, one is routed");
    }

    #[test]
    fn open_exchanges_are_bounded() {
        let mut received = Received::default();
        for n in 1..=RECEIVED_MAX {
            assert_eq!(received.begin(id(n as u16)), Begun::New { reused: false });
        }
        assert_eq!(received.begin(id(5_000)), Begun::Full);
        assert_eq!(received.begin(id(1)), Begun::Repeat);
        for n in 1..=RELEASED_MAX + 1 {
            assert!(received.stored(id(n as u16)) && received.release(id(n as u16)));
        }
        let reused = [1, 2].map(|n| received.begin(id(n)));
        assert_eq!(reused, [Begun::New { reused: false }, Begun::New { reused: true }], "the oldest is forgotten");
    }
}
