//! One object, decided: its head, what follows from it, and who brings that to its end.
//!
//! A write is one compare-and-set on the head, which holds all of it. What others read besides (lists, indexes, the
//! outbox) follows from the head and is written after it, at the write's own number as timestamp, so that it may be
//! written again, late, and by several without harm; `applied` is written when it all stands. Whoever meets a head
//! that is not applied brings it to its end before using it: nobody sees a write by half.

use std::sync::PoisonError;

use drover_scylla_kit::{Failure, Read};
use futures::future::{BoxFuture, FutureExt, try_join_all};

use super::rows::{self, corrupt, signed};
use super::sequence::minute;
use super::{Scylla, WRITER_BYTES};
use crate::object::{Object, ObjectKey, Spec};
use crate::ports::{Change, Mutation, StoreError};

/// How long the head of a deleted object stays, in seconds: its revision is greater than those that follow only as long
/// as it is known. Beyond that, clocks see to it: revisions are milliseconds since the Unix epoch, or greater.
const DELETED_TTL_SECONDS: i32 = 30 * 24 * 3600;
/// No time to live.
const FOR_EVER: i32 = 0;
/// A head that was not applied for this long, in microseconds, gets a new number first: the relay reads the last
/// minutes of the outbox, and its row must come before those of later writes.
const RESTAMP_AFTER_MICROS: i64 = 60 * 1_000_000;
/// How often a write starts over because the object changed and changed back meanwhile.
const TRIES_MAX: usize = 8;

/// The head of an object, or of one that was.
#[derive(Clone, Debug)]
pub struct Head {
    revision: i64,
    sequence: i64,
    /// Whose write it was; with `sequence`, which. Behind the [`WRITER_BYTES`] of the process, who asked for it: a process of
    /// an older version then leaves nobody's name behind, and not the former one's.
    writer: Vec<u8>,
    /// `None`: deleted.
    object: Option<Vec<u8>>,
    before: Option<Vec<u8>>,
    time_ms: i64,
    /// The last number of which all stands that follows from it.
    applied: i64,
}

/// A head's row.
type Row = (Option<i64>, Option<i64>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Option<i64>);

impl Head {
    fn of(row: Row) -> Result<Option<Self>, StoreError> {
        let (revision, sequence, writer, object, before, time_ms, applied) = row;
        let applied = applied.unwrap_or(0);
        match (revision, sequence, writer, time_ms) {
            (Some(revision), Some(sequence), Some(writer), Some(time_ms)) => {
                Ok(Some(Self { revision, sequence, writer, object, before, time_ms, applied }))
            }
            // Only `applied` is left of an object deleted long ago, or nothing but the key.
            (None, None, None, None) => Ok(None),
            _ => Err(corrupt("a head has some columns and lacks others")),
        }
    }

    fn live_revision(&self) -> Result<Option<u64>, StoreError> {
        self.object.as_ref().map(|_| rows::number(self.revision)).transpose()
    }

    fn object(&self) -> Result<Option<Object>, StoreError> {
        self.object.as_ref().map(|bytes| rows::read_object(bytes, self.revision)).transpose()
    }

    /// Who asked for it; empty: not known.
    fn actor(&self) -> String {
        String::from_utf8_lossy(self.writer.get(WRITER_BYTES..).unwrap_or_default()).into_owned()
    }

    fn ttl_seconds(&self) -> i32 {
        if self.object.is_some() { FOR_EVER } else { DELETED_TTL_SECONDS }
    }
}

impl Scylla {
    pub(super) async fn object(&self, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        self.current(key).await?.map_or(Ok(None), |head| head.object())
    }

    pub(super) async fn write_object(&self, mutation: &Mutation) -> Result<Option<Object>, StoreError> {
        let Mutation { key, expected, after, .. } = mutation;
        for _ in 0..TRIES_MAX {
            let former = self.current(key).await?;
            let found = former.as_ref().map_or(Ok(None), Head::live_revision)?;
            if found != *expected {
                return Err(StoreError::Conflict { expected: *expected, found });
            }
            let (head, written) = self.next(former.as_ref(), mutation)?;
            self.take_room(&head, takes_away(former.as_ref(), after.as_ref())?)?;
            match self.decide(key, &head, former.as_ref()).await? {
                Decision::Ours => {
                    self.follow(key, &head).await?;
                    return Ok(written);
                }
                Decision::Other(found) if found != *expected => {
                    return Err(StoreError::Conflict { expected: *expected, found });
                }
                Decision::Other(_) => {}
            }
        }
        Err(StoreError::Unavailable { reason: format!("{key} changed {TRIES_MAX} times under the same write") })
    }

    /// Takes room in the outbox for what `head` will write there; if it takes something away, whether there is any or not. What
    /// is written to a minute to come, after a clock that was ahead, counts to the minute it is: it goes on when that ends.
    fn take_room(&self, head: &Head, takes_away: bool) -> Result<(), StoreError> {
        let versions = [head.before.as_ref(), head.object.as_ref()];
        let bytes: usize = versions.into_iter().flatten().map(Vec::len).sum();
        let (minute, mut minutes) =
            (self.sequence.minute(), self.minutes.lock().unwrap_or_else(PoisonError::into_inner));
        if takes_away {
            minutes.take_anyway(minute, bytes);
            return Ok(());
        }
        minutes.take(minute, bytes)
    }

    /// The head and the object that take the place of `former`.
    fn next(&self, former: Option<&Head>, mutation: &Mutation) -> Result<(Head, Option<Object>), StoreError> {
        let (mut after, time_ms) = (mutation.after.clone(), signed(mutation.time_ms));
        let revision = former.map_or(1, |former| former.revision + 1).max(time_ms);
        if let Some(after) = &mut after {
            after.meta.revision = rows::number(revision)?;
        }
        let head = Head {
            revision,
            sequence: self.sequence.after(former.map_or(0, |former| former.sequence)),
            writer: [&self.writer, mutation.actor.as_bytes()].concat(),
            object: after.as_ref().map(rows::write_object),
            before: former.and_then(|former| former.object.clone()),
            time_ms,
            applied: 0,
        };
        Ok((head, after))
    }

    /// The head, with all that follows from it in place.
    async fn current(&self, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        for _ in 0..TRIES_MAX {
            let Some(head) = self.head(&self.statements.head, key).await? else { return Ok(None) };
            if head.applied >= head.sequence {
                return Ok(Some(head));
            }
            if self.sequence.now() - head.sequence < RESTAMP_AFTER_MICROS {
                self.follow(key, &head).await?;
                return Ok(Some(head));
            }
            self.restamp(key, &head).await?;
        }
        Err(StoreError::Unavailable { reason: format!("{key} changed {TRIES_MAX} times while it was read") })
    }

    async fn head(&self, read: &Read, key: &ObjectKey) -> Result<Option<Head>, StoreError> {
        let row: Option<Row> = self.store.row(read, (key.kind.as_str(), key.tenant.as_str(), &key.name)).await?;
        row.map_or(Ok(None), Head::of)
    }

    /// Puts `head` in the place of `former`. Whatever is answered, or not, the head itself says who it was.
    async fn decide(&self, key: &ObjectKey, head: &Head, former: Option<&Head>) -> Result<Decision, StoreError> {
        let Head { revision, sequence, writer, object, before, time_ms, .. } = head;
        let (kind, tenant, name) = (key.kind.as_str(), key.tenant.as_str(), key.name.as_str());
        let (ttl, condition) = (head.ttl_seconds(), former.map(|former| former.sequence));
        let values = (ttl, revision, sequence, writer, object, before, time_ms, kind, tenant, name, condition);
        let answer = self.store.try_write(&self.statements.decide, values).await;
        match answer {
            Ok(true) => return Ok(Decision::Ours),
            Ok(false) | Err(Failure::Unavailable { .. }) => {}
            Err(failure) => return Err(failure.into()),
        }
        let now = self.head(&self.statements.settled_head, key).await?;
        if now.as_ref().is_some_and(|now| now.sequence == head.sequence && now.writer == head.writer) {
            return Ok(Decision::Ours);
        }
        match answer {
            // It may still come, or has come and was replaced: only `Conflict` says that nothing happened.
            Err(failure) => Err(failure.into()),
            Ok(_) => Ok(Decision::Other(now.as_ref().map_or(Ok(None), Head::live_revision)?)),
        }
    }

    /// Gives a head that was left behind long ago a number of now.
    async fn restamp(&self, key: &ObjectKey, head: &Head) -> Result<(), StoreError> {
        let sequence = self.sequence.after(head.sequence);
        let place = (key.kind.as_str(), key.tenant.as_str(), key.name.as_str());
        let values = (head.ttl_seconds(), sequence, place.0, place.1, place.2, head.sequence);
        self.store.try_write(&self.statements.restamp, values).await?;
        Ok(())
    }

    /// Writes all that follows from `head`, and then that it stands.
    async fn follow(&self, key: &ObjectKey, head: &Head) -> Result<(), StoreError> {
        let (statements, at) = (&self.statements, head.sequence);
        let (kind, tenant, name) = (key.kind.as_str(), key.tenant.as_str(), key.name.as_str());
        let after = head.object()?;
        let before = head.before.as_ref().map(|bytes| rows::decode_object(bytes)).transpose()?;
        let mut writes: Vec<BoxFuture<'_, Result<(), Failure>>> = self.index(at, before.as_ref(), after.as_ref());
        let shard = rows::shard(key);
        writes.push(match &head.object {
            Some(object) => {
                let values = (kind, tenant, shard, name, head.revision, object);
                self.store.write_at(at, &statements.list, values).boxed()
            }
            None => self.store.write_at(at, &statements.unlist, (kind, tenant, shard, name)).boxed(),
        });
        let (time_ms, revision) = (rows::number(head.time_ms)?, rows::number(head.revision)?);
        let change = Change { key: key.clone(), before, after, time_ms, actor: head.actor(), revision };
        let values = (minute(at), at, kind, tenant, name, rows::write_change(&change));
        writes.push(self.store.write_at(at, &statements.put_outbox, values).boxed());
        try_join_all(writes).await?;
        Ok(self.store.write_at(at, &statements.applied, (head.ttl_seconds(), at, kind, tenant, name)).await?)
    }

    /// The writes that make a credential found by digest and by device, or no longer found.
    fn index<'a>(
        &'a self,
        at: i64,
        before: Option<&Object>,
        after: Option<&Object>,
    ) -> Vec<BoxFuture<'a, Result<(), Failure>>> {
        let place = |object: &Object| {
            let (credential, device) = object.credential()?;
            let (tenant, name) = (device.tenant.to_string(), object.meta.name.clone());
            Some((credential.digest.to_vec(), tenant, device.device.to_string(), name))
        };
        let (before, after) = (before.and_then(place), after.and_then(place));
        let statements = &self.statements;
        let mut writes = Vec::new();
        // At one timestamp a removal would win over what takes its place.
        if let Some((digest, tenant, device, name)) = before.filter(|before| Some(before) != after.as_ref()) {
            writes.push(self.store.write_at(at, &statements.remove_digest, (digest,)).boxed());
            writes.push(self.store.write_at(at, &statements.remove_credential, (tenant, device, name)).boxed());
        }
        if let Some((digest, tenant, device, name)) = after {
            let values = (digest, tenant.clone(), name.clone());
            writes.push(self.store.write_at(at, &statements.put_digest, values).boxed());
            writes.push(self.store.write_at(at, &statements.put_credential, (tenant, device, name)).boxed());
        }
        writes
    }
}

/// Whose head it is now.
enum Decision {
    Ours,
    /// Somebody else's, with this revision; `None`: they deleted it.
    Other(Option<u64>),
}

/// Whether `after` in the place of `former` takes something away: an object is deleted, or a device disabled.
fn takes_away(former: Option<&Head>, after: Option<&Object>) -> Result<bool, StoreError> {
    let Some(after) = after else { return Ok(true) };
    let is_disabled = |object: &Object| matches!(&object.spec, Spec::Device(device) if !device.enabled);
    if !is_disabled(after) {
        return Ok(false);
    }
    let before = former.map_or(Ok(None), Head::object)?;
    Ok(before.is_some_and(|before| !is_disabled(&before)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::device;

    fn head(object: Object) -> Head {
        let object = Some(rows::write_object(&object));
        Head { revision: 1, sequence: 1, writer: Vec::new(), object, before: None, time_ms: 0, applied: 1 }
    }

    #[test]
    fn what_deletes_or_disables_takes_away_and_nothing_else_does() {
        let of = |enabled: bool| {
            let mut object = device("d");
            if let Spec::Device(device) = &mut object.spec {
                device.enabled = enabled;
            }
            object
        };
        for (former, after, expected) in [
            (Some(true), None, true),
            (Some(true), Some(false), true),
            (Some(true), Some(true), false),
            (Some(false), Some(false), false),
            (Some(false), Some(true), false),
            (None, Some(false), false),
        ] {
            let (head, object) = (former.map(|enabled| head(of(enabled))), after.map(of));
            assert_eq!(takes_away(head.as_ref(), object.as_ref()), Ok(expected), "{former:?} {after:?}");
        }
    }
}
