//! What waits for the change feed, and which process takes it there.
//!
//! Rows lie in one partition a minute, so that what was taken away is left behind with its partition. The relay reads
//! the last minutes, from the oldest that may hold something; one older minute at a time it looks at again, for rows
//! of a process that had stopped for long between deciding and writing.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use drover_scylla_kit::Failure;
use futures::future::{BoxFuture, FutureExt};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::time::Instant;

use super::Scylla;
use super::rows;
use super::sequence::minute;
use crate::object::ObjectKey;
use crate::ports::{OutboxRow, RelayTurn, StoreError};

/// Minutes that are always read: longer than a write that is under way, and than clocks are apart.
const HOT_MINUTES: i64 = 3;
/// Minutes read ahead of this clock, for writers whose clocks are.
const AHEAD_MINUTES: i64 = 1;
/// Minutes before the oldest that may hold something, which are looked at again now and then.
const TRAIL_MINUTES: i64 = 24 * 60;
/// Minutes that pass before the oldest is written down again.
const SAVE_EVERY_MINUTES: i64 = 5;
/// Minutes read at once.
const CONCURRENT: usize = 32;
/// Most rows of one answer.
const ROWS_MAX: usize = 1_000;
/// How long the relay stays one process's after its last word.
const LEASE_SECONDS: i32 = 10;
/// How often that process says so.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// Sequence, kind, tenant, name, change.
type Row = (i64, String, String, String, Vec<u8>);

/// What this process remembers of the outbox.
#[derive(Default)]
pub struct Relay {
    /// When this process last was told that it relays; `None`: it does not.
    renewed: Option<Instant>,
    /// The oldest minute that may hold something; `None`: not read yet.
    low: Option<i64>,
    saved: i64,
    /// The last minute that was looked at again.
    swept: i64,
    /// What was shown and not forgotten: the keys of rows by their numbers, which two processes may give twice.
    shown: BTreeMap<i64, Vec<ObjectKey>>,
}

impl Scylla {
    fn relay<T>(&self, with: impl FnOnce(&mut Relay) -> T) -> T {
        with(&mut self.relay.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn claim(&self) -> Result<RelayTurn, StoreError> {
        if self.relay(|relay| relay.renewed.is_some_and(|at| at.elapsed() < RENEW_EVERY)) {
            return Ok(RelayTurn::Ours);
        }
        let was_ours = self.relay(|relay| relay.renewed.take().is_some());
        let row: Option<(Option<Vec<u8>>, Option<i64>)> = self.store.row(&self.statements.relay, ()).await?;
        let holder = row.and_then(|(holder, _)| holder);
        if holder.as_ref().is_some_and(|holder| *holder != self.writer) {
            return Ok(RelayTurn::Others);
        }
        let asked = Instant::now();
        let values = (LEASE_SECONDS, self.writer.as_slice(), holder);
        if !self.store.try_write(&self.statements.claim, values).await? {
            return Ok(RelayTurn::Others);
        }
        self.relay(|relay| {
            relay.renewed = Some(asked);
            if !was_ours {
                relay.low = None;
            }
        });
        Ok(RelayTurn::Ours)
    }

    pub(super) async fn waiting(&self, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        let limit = limit.min(ROWS_MAX);
        let (low, now) = (self.low().await?, self.sequence.minute());
        let seen = self.collect(low, now + AHEAD_MINUTES, limit).await?;
        let oldest = seen.first().map_or(now, |row| minute(row.0));
        let low = low.max(oldest.min(now - HOT_MINUTES));
        self.advance(low).await?;
        let Some(horizon) = seen.last().map(|row| row.0) else { return Ok(Vec::new()) };
        // A row was there before the next one of its object was begun. So all that come before those seen are there
        // now, also where the first look came too early for them.
        let rows = self.collect(low, minute(horizon), limit).await?;
        let mut found = Vec::with_capacity(rows.len());
        let mut shown: BTreeMap<i64, Vec<ObjectKey>> = BTreeMap::new();
        for (sequence, kind, tenant, name, change) in rows.into_iter().filter(|row| row.0 <= horizon) {
            shown.entry(sequence).or_default().push(rows::key(&kind, &tenant, name)?);
            found.push(OutboxRow { sequence: rows::number(sequence)?, change: rows::read_change(&change)? });
        }
        self.relay(|relay| relay.shown = shown);
        Ok(found)
    }

    pub(super) async fn remove(&self, sequences: &[u64]) -> Result<(), StoreError> {
        let known = |sequence: &u64| {
            let at = rows::signed(*sequence);
            self.relay(|relay| relay.shown.get(&at).cloned()).unwrap_or_default().into_iter().map(move |key| (at, key))
        };
        let rows: Vec<(i64, ObjectKey)> = sequences.iter().flat_map(known).collect();
        let removals: Vec<BoxFuture<'_, Result<(), Failure>>> =
            rows.iter().map(|(at, key)| self.remove_row(*at, key).boxed()).collect();
        stream::iter(removals).buffer_unordered(CONCURRENT).try_collect::<()>().await?;
        self.relay(|relay| rows.iter().for_each(|(at, _)| drop(relay.shown.remove(at))));
        Ok(())
    }

    async fn remove_row(&self, at: i64, key: &ObjectKey) -> Result<(), Failure> {
        let values = (minute(at), at, key.kind.as_str(), key.tenant.as_str(), key.name.as_str());
        self.store.write_at(at, &self.statements.remove_outbox, values).await
    }

    /// Up to `limit` rows of the minutes from `low` to `high`, in order.
    async fn collect(&self, low: i64, high: i64, limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = i32::try_from(limit).unwrap_or(i32::MAX);
        let reads = (low..=high).map(|minute| self.store.rows::<Row>(&self.statements.outbox, (minute, rows)).boxed());
        let mut minutes = stream::iter(reads).buffered(CONCURRENT);
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(rows) = minutes.try_next().await? else { break };
            found.extend(rows);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// From which minute to read; the first time, from well before the one that was written down.
    async fn low(&self) -> Result<i64, StoreError> {
        if let Some(low) = self.relay(|relay| relay.low) {
            return Ok(low);
        }
        let row: Option<(Option<Vec<u8>>, Option<i64>)> = self.store.row(&self.statements.relay, ()).await?;
        let now = self.sequence.minute();
        let saved = row.and_then(|(_, low)| low).unwrap_or(now).min(now);
        let low = saved - TRAIL_MINUTES;
        self.relay(|relay| *relay = Relay { low: Some(low), saved, swept: low, ..std::mem::take(relay) });
        Ok(low)
    }

    /// Nothing is left before `low`: remembers that, and looks at one minute of the trail again.
    async fn advance(&self, low: i64) -> Result<(), StoreError> {
        let (again, save) = self.relay(|relay| {
            relay.low = Some(low);
            relay.swept = if relay.swept + 1 < low { relay.swept + 1 } else { low - TRAIL_MINUTES };
            (relay.swept, low - relay.saved >= SAVE_EVERY_MINUTES)
        });
        if save {
            self.store.write_at(self.sequence.now(), &self.statements.put_low, (low,)).await?;
            self.relay(|relay| relay.saved = low);
        }
        if !self.collect(again, again, 1).await?.is_empty() {
            tracing::info!(minute = again, "rows of long ago found in the outbox");
            self.relay(|relay| relay.low = Some(again));
        }
        Ok(())
    }
}
