//! The one thread that writes objects: compare-and-set by being alone, one fsync for whoever waits.

use std::collections::HashSet;
use std::sync::Arc;

use fjall::{OwnedWriteBatch, PersistMode};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::{Open, Shared, keys, store_error};
use crate::object::{Object, ObjectKey};
use crate::ports::{Change, Mutation, StoreError};
use crate::wire;

/// Writes in one commit; bounds how long the first of them waits.
const GROUP_MAX: usize = 64;

type Answer = Result<Option<Object>, StoreError>;

/// A write and who waits for it.
pub struct Request {
    pub mutation: Mutation,
    pub answer: oneshot::Sender<Answer>,
}

/// Writes until every sender is gone.
pub fn run(shared: &Shared, mut queue: mpsc::Receiver<Request>) {
    let mut carried = None;
    while let Some(first) = carried.take().or_else(|| queue.blocking_recv()) {
        let group;
        (group, carried) = gather(first, &mut queue);
        match shared.database.opened().map_err(StoreError::from) {
            Ok(open) => commit(shared, &open, group),
            Err(error) => group.into_iter().for_each(|request| tell(request.answer, Err(error.clone()))),
        }
    }
}

/// What is waiting now, up to the first write of a key that is in the group already: that one must see the outcome.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> (Vec<Request>, Option<Request>) {
    let mut keys: HashSet<ObjectKey> = HashSet::from([first.mutation.key.clone()]);
    let mut group = vec![first];
    while group.len() < GROUP_MAX {
        let Ok(next) = queue.try_recv() else { break };
        if !keys.insert(next.mutation.key.clone()) {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

fn commit(shared: &Shared, open: &Arc<Open>, group: Vec<Request>) {
    let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
    let mut written = Vec::with_capacity(group.len());
    let mut sequence = match last_sequence(open) {
        Ok(sequence) => sequence,
        Err(error) => return group.into_iter().for_each(|request| tell(request.answer, Err(error.clone()))),
    };
    for Request { mutation, answer } in group {
        match stage(open, mutation, sequence + 1, &mut batch) {
            Ok(after) => {
                sequence += 1;
                written.push((answer, after));
            }
            Err(refused) => tell(answer, Err(refused)),
        }
    }
    if written.is_empty() {
        return;
    }
    batch.insert(&open.rows, keys::SEQUENCE, sequence.to_be_bytes());
    let outcome = shared.database.commit(open, batch).map_err(StoreError::from);
    for (answer, after) in written {
        tell(answer, outcome.clone().map(|()| after));
    }
}

/// Adds one write to the batch: the object's row, its indexes, and its outbox row.
fn stage(open: &Open, mutation: Mutation, sequence: u64, batch: &mut OwnedWriteBatch) -> Answer {
    let Mutation { key, expected, mut after, time_ms, actor } = mutation;
    let before = open.object(&key)?;
    let found = before.as_ref().map(|object| object.meta.revision);
    if found != expected {
        return Err(StoreError::Conflict { expected, found });
    }
    if let Some(after) = &mut after {
        after.meta.revision = sequence;
    }
    let row = keys::object(&key);
    if let Some((_, device)) = after.as_ref().or(before.as_ref()).and_then(Object::credential) {
        batch.insert(&open.rows, keys::credentials_of(&device), []);
    }
    let index = |object: &Object| {
        let (credential, device) = object.credential()?;
        let by_device = [keys::credentials_of(&device), object.meta.name.clone().into_bytes()].concat();
        Some([keys::digest(&credential.digest), by_device])
    };
    let (old, new) = (before.as_ref().and_then(index), after.as_ref().and_then(index));
    // One batch says one thing of a row: what stays is not removed.
    if old != new {
        for old in old.into_iter().flatten() {
            batch.remove(&open.rows, old);
        }
        for new in new.into_iter().flatten() {
            batch.insert(&open.rows, new, row.as_slice());
        }
    }
    match &after {
        Some(object) => batch.insert(&open.rows, row, keys::write_object(object)),
        None => batch.remove(&open.rows, row),
    }
    let change = Change { key, before, after, time_ms, actor, revision: sequence };
    batch.insert(&open.rows, keys::outbox(sequence), wire::encode_change(&change).encode_to_vec());
    Ok(change.after)
}

fn last_sequence(open: &Open) -> Result<u64, StoreError> {
    let row = open.rows.get(keys::SEQUENCE).map_err(store_error)?;
    row.map_or(Ok(0), |row| keys::read_number(&row))
}

fn tell(answer: oneshot::Sender<Answer>, outcome: Answer) {
    // Whoever asked may have gone; the write stands either way.
    drop(answer.send(outcome));
}
