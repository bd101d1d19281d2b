//! Removes what is older than retention allows, series by series, a bounded step at a time.
//!
//! A step looks at the first row from its cursor on. Rows of that row's series that are too old are removed; then the
//! cursor moves behind the series. So a series without old rows costs one look.

use std::ops::Bound;
use std::sync::Arc;

use drover_fjall_kit::Reopened;
use fjall::Keyspace;

use super::keys;
use super::open::{Open, store_error};
use crate::adapters::rows::{self, PLACE_BYTES};
use crate::ports::{Expired, StoreError};
use crate::series::Place;

/// Rows removed and series looked at in one step; it holds up writers meanwhile.
const STEP_MAX: usize = 1_000;
/// Bytes that follow no series' prefix: places and names sort before them.
const BEHIND: [u8; PLACE_BYTES + 1] = [0xff; PLACE_BYTES + 1];

/// The tables in the order in which they are swept; the first byte of a cursor.
#[derive(Clone, Copy)]
enum Table {
    Points,
    Messages,
    Newest,
}

impl Table {
    fn of(byte: u8) -> Result<Self, StoreError> {
        match byte {
            0 => Ok(Table::Points),
            1 => Ok(Table::Messages),
            2 => Ok(Table::Newest),
            3.. => Err(rows::corrupt("cursor of an unknown table")),
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Table::Points => Some(Table::Messages),
            Table::Messages => Some(Table::Newest),
            Table::Newest => None,
        }
    }

    fn rows(self, open: &Open) -> &Keyspace {
        match self {
            Table::Points => &open.points,
            Table::Messages => &open.messages,
            Table::Newest => &open.newest,
        }
    }
}

/// What a step has found to be removed, and where it stands.
struct Sweep<'o> {
    rows: &'o Keyspace,
    before_ms: u64,
    old: Vec<fjall::UserKey>,
    looks: usize,
}

/// One step from a cursor on.
pub fn step(
    database: &Reopened<Open>,
    open: &Arc<Open>,
    before_ms: u64,
    cursor: Option<Vec<u8>>,
) -> Result<Expired, StoreError> {
    let cursor = cursor.unwrap_or_else(|| vec![Table::Points as u8]);
    let (table, from) = cursor.split_first().ok_or_else(|| rows::corrupt("empty cursor"))?;
    let table = Table::of(*table)?;
    let mut sweep = Sweep { rows: table.rows(open), before_ms, old: Vec::new(), looks: 0 };
    let reached = match table {
        Table::Points | Table::Messages => sweep.by_series(from)?,
        Table::Newest => sweep.one_by_one(from)?,
    };
    let next = match reached {
        Some(at) => Some([&[table as u8], at.as_slice()].concat()),
        None => table.next().map(|table| vec![table as u8]),
    };
    let mut batch = open.database.batch();
    let rows = sweep.old.len() as u64;
    for key in sweep.old {
        batch.remove(table.rows(open), key);
    }
    database.commit(open, batch)?;
    Ok(Expired { rows, next })
}

impl Sweep<'_> {
    fn done(&self) -> bool {
        self.looks + self.old.len() >= STEP_MAX
    }

    /// Keys that end with a place. Answers where to go on; `None`: the table is done.
    fn by_series(&mut self, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let mut at = from.to_vec();
        while !self.done() {
            self.looks += 1;
            let Some(first) = self.rows.range((Bound::Included(at), Bound::Unbounded)).next() else { return Ok(None) };
            let key = first.key().map_err(store_error)?;
            let (series, _) = keys::split(&key)?;
            let horizon = keys::at(series, Place::first_of(self.before_ms));
            if *key < *horizon {
                for old in self.rows.range(key.to_vec()..horizon) {
                    let old = old.key().map_err(store_error)?;
                    if self.done() {
                        return Ok(Some(old.to_vec()));
                    }
                    self.old.push(old);
                }
            }
            at = [series, &BEHIND].concat();
        }
        Ok(Some(at))
    }

    /// Rows that begin with a place.
    fn one_by_one(&mut self, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        for row in self.rows.range((Bound::Included(from.to_vec()), Bound::Unbounded)) {
            let (key, row) = row.into_inner().map_err(store_error)?;
            if self.done() {
                return Ok(Some(key.to_vec()));
            }
            self.looks += 1;
            if rows::newest_place(&row)?.time_ms < self.before_ms {
                self.old.push(key);
            }
        }
        Ok(None)
    }
}
