//! What records make of the commands of their devices: the first last answer in the order of the log counts.

use std::collections::{HashMap, HashSet};

use drover_bus::Offset;
use drover_types::{DeviceKey, RecordId};

use super::super::forget::CLOCKS_APART_MS;
use super::change::{Change, What};
use super::execution::{Answered, Body, Execution, Head, room};
use super::record::{CommandEvent, Event};

/// The commands of devices that records are about, as they are by then, and what is to be put.
#[derive(Debug, Default)]
pub struct Commands {
    heads: HashMap<DeviceKey, Vec<Head>>,
    changes: Vec<Change>,
}

/// What a record came to; for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Created,
    Answered,
    Forgotten,
    /// A command of this id is there already.
    Repeated,
    /// The device has too many that are open.
    Refused,
    /// Nobody knows the command that is answered.
    Unknown,
    /// The answer came when its time was over.
    Late,
    /// The answer came after the last one.
    AfterLast,
}

impl Outcome {
    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Answered => "answered",
            Self::Forgotten => "forgotten",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Late => "late",
            Self::AfterLast => "after_last",
        }
    }
}

impl Commands {
    /// Makes a device's commands known.
    pub fn learn(&mut self, device: DeviceKey, heads: Vec<Head>) {
        self.heads.insert(device, heads);
    }

    /// Takes the record at `offset`, whose device is known. The time that decides is the record's, so that the log read again
    /// makes the same.
    pub fn take(&mut self, offset: Offset, event: &Event) -> Outcome {
        let heads = self.heads.entry(event.device.clone()).or_default();
        let change = |slot, what| Change { device: event.device.clone(), offset, slot, what };
        match &event.what {
            CommandEvent::Created { id, name, payload, expires_ms, .. } => {
                if heads.iter().any(|head| head.id == *id) {
                    return Outcome::Repeated;
                }
                let Ok(slot) = room(heads, event.time_ms) else { return Outcome::Refused };
                let head = Head {
                    id: *id,
                    slot,
                    created_at: offset,
                    created_ms: event.time_ms,
                    expires_ms: *expires_ms,
                    sent_ms: None,
                    answered: None,
                };
                let body = Body { name: name.clone(), payload: payload.clone(), ..Body::default() };
                heads.retain(|head| head.slot != slot);
                heads.push(head.clone());
                self.changes.push(change(slot, What::Create(Box::new(Execution { head, body }))));
                Outcome::Created
            }
            CommandEvent::Answered { id, code, response } => {
                let Some(head) = heads.iter_mut().find(|head| head.id == *id) else { return Outcome::Unknown };
                if head.answered.is_some_and(|answered| answered.is_final()) {
                    return Outcome::AfterLast;
                }
                if event.time_ms > head.expires_ms {
                    return Outcome::Late;
                }
                let answered = Answered { code: *code, time_ms: event.time_ms };
                head.answered = Some(answered);
                let what = What::Answer { id: *id, answered, response: response.clone() };
                self.changes.push(change(head.slot, what));
                Outcome::Answered
            }
            CommandEvent::Forgotten { deleted_ms } => {
                let ends = deleted_ms.saturating_add(CLOCKS_APART_MS);
                let gone: HashSet<_> = heads.iter().filter(|h| h.created_ms <= ends).map(|h| h.slot).collect();
                heads.retain(|head| !gone.contains(&head.slot));
                self.changes.extend(gone.into_iter().map(|slot| change(slot, What::Forget)));
                Outcome::Forgotten
            }
        }
    }

    /// A command as it is by now.
    pub fn head(&self, device: &DeviceKey, id: RecordId) -> Option<&Head> {
        self.heads.get(device)?.iter().find(|head| head.id == id)
    }

    /// Whether a command of a device that is known is gone, or has its last answer.
    pub fn is_over(&self, device: &DeviceKey, id: RecordId) -> bool {
        let Some(heads) = self.heads.get(device) else { return false };
        let head = heads.iter().find(|head| head.id == id);
        head.is_none_or(|head| head.answered.is_some_and(|answered| answered.is_final()))
    }

    /// What is to be put, in the order of the records.
    pub fn changes(self) -> Vec<Change> {
        self.changes
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use drover_types::limits::COMMANDS_OPEN_PER_DEVICE_MAX;
    use drover_types::{DeviceId, TenantId};

    use super::super::execution::Status;
    use super::*;

    const NOW_MS: u64 = 1_795_000_000_000;
    const EXPIRES_MS: u64 = NOW_MS + 60_000;
    const ID: RecordId = RecordId([1; 16]);

    fn lamp() -> DeviceKey {
        DeviceKey { tenant: TenantId::new("home").expect("valid"), device: DeviceId::new("lamp").expect("valid") }
    }

    fn created(id: RecordId, time_ms: u64) -> Event {
        let (name, payload, request) = ("fan".to_owned(), Bytes::from_static(b"{}"), Bytes::new());
        let what = CommandEvent::Created { id, name, payload, expires_ms: EXPIRES_MS, request, hops: 0 };
        Event { device: lamp(), time_ms, what }
    }

    fn answer(code: u16, time_ms: u64) -> Event {
        let what = CommandEvent::Answered { id: ID, code, response: code.to_string().into() };
        Event { device: lamp(), time_ms, what }
    }

    /// What comes of records, one after the other, and the state after them.
    fn folded(events: &[Event]) -> (Vec<Outcome>, Option<Status>) {
        let mut commands = Commands::default();
        let outcomes = (0..).zip(events).map(|(offset, event)| commands.take(offset, event)).collect();
        (outcomes, commands.head(&lamp(), ID).map(|head| head.status(EXPIRES_MS)))
    }

    #[test]
    fn the_first_last_answer_counts_and_those_before_it_are_progress() {
        let events = [created(ID, NOW_MS), answer(100, NOW_MS + 1), answer(102, NOW_MS + 2), answer(200, EXPIRES_MS)];
        let progress = folded(&events[..3]);
        assert_eq!(progress, (vec![Outcome::Created, Outcome::Answered, Outcome::Answered], Some(Status::InProgress)));
        assert_eq!(folded(&events).1, Some(Status::Succeeded), "at its deadline it is in time");
        let after = [created(ID, NOW_MS), answer(404, NOW_MS + 1), answer(200, NOW_MS + 2), answer(100, NOW_MS + 3)];
        let (outcomes, status) = folded(&after);
        assert_eq!(outcomes[2..], [Outcome::AfterLast, Outcome::AfterLast]);
        assert_eq!(status, Some(Status::Rejected));
    }

    #[test]
    fn what_is_late_unknown_or_repeated_changes_nothing() {
        assert_eq!(folded(&[answer(200, NOW_MS)]), (vec![Outcome::Unknown], None));
        let late = [created(ID, NOW_MS), answer(200, EXPIRES_MS + 1)];
        assert_eq!(folded(&late), (vec![Outcome::Created, Outcome::Late], Some(Status::Queued)));
        let twice = [created(ID, NOW_MS), answer(200, NOW_MS + 1), created(ID, NOW_MS + 2)];
        assert_eq!(folded(&twice).0[2], Outcome::Repeated);
        assert_eq!(folded(&twice).1, Some(Status::Succeeded));
    }

    #[test]
    fn records_read_again_over_what_they_made_change_nothing() {
        let events = [created(ID, NOW_MS), answer(100, NOW_MS + 1), answer(500, NOW_MS + 2)];
        let mut commands = Commands::default();
        let mut take = || (0..).zip(&events).map(|(offset, event)| commands.take(offset, event)).collect::<Vec<_>>();
        assert_eq!(take(), [Outcome::Created, Outcome::Answered, Outcome::Answered]);
        assert_eq!(take(), [Outcome::Repeated, Outcome::AfterLast, Outcome::AfterLast]);
        assert_eq!(commands.changes.len(), 3);
    }

    #[test]
    fn a_device_has_so_many_open_commands_and_no_more_until_one_ends() {
        let limit = u8::try_from(COMMANDS_OPEN_PER_DEVICE_MAX).expect("small");
        let mut events: Vec<Event> = (1..=limit).map(|number| created(RecordId([number; 16]), NOW_MS)).collect();
        events.push(created(RecordId([200; 16]), NOW_MS));
        events.push(answer(200, NOW_MS));
        events.push(created(RecordId([201; 16]), NOW_MS));
        events.push(created(RecordId([202; 16]), EXPIRES_MS + 1));
        let (outcomes, _) = folded(&events);
        let at = usize::from(limit);
        assert!(outcomes[..at].iter().all(|outcome| *outcome == Outcome::Created));
        assert_eq!(outcomes[at..], [Outcome::Refused, Outcome::Answered, Outcome::Created, Outcome::Created]);
    }

    #[test]
    fn a_deleted_device_takes_the_commands_with_it_that_were_there() {
        let forgotten = |deleted_ms| {
            let event = Event { device: lamp(), time_ms: deleted_ms, what: CommandEvent::Forgotten { deleted_ms } };
            folded(&[created(ID, NOW_MS), event]).1
        };
        assert_eq!(forgotten(NOW_MS - CLOCKS_APART_MS), None);
        assert_eq!(forgotten(NOW_MS - CLOCKS_APART_MS - 1), Some(Status::Queued), "it is that of a device made anew");
    }
}
