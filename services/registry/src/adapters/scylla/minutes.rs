//! How many bytes of changes one process writes to one minute of the outbox, which is a partition of the database.
//!
//! Only what clients ask for is counted and refused. What is brought to its end for a process that ended, or given a number
//! of now, was counted once already, where it began. What takes something away (a credential, a device, what it may do) is
//! counted and never refused: nobody's revocation waits for what others import (P5).

use crate::ports::StoreError;

/// Most bytes of a minute and process: what two of them write stays within the 100 MB that servers advise for a partition.
/// Of devices of 350 bytes these are some 140,000 a minute.
const BYTES_MAX: usize = 48 << 20;
/// What a row has besides the two versions of its object, about.
const ROW_BYTES: usize = 256;

/// The minute of this process's last change, and what it has written in it.
#[derive(Debug, Default)]
pub struct Minutes {
    minute: i64,
    bytes: usize,
}

impl Minutes {
    /// Takes room in `minute` for a change between versions of an object of so many bytes together. One before the last
    /// minute counts to that one.
    pub fn take(&mut self, minute: i64, versions_bytes: usize) -> Result<(), StoreError> {
        let bytes = self.with(minute, versions_bytes);
        if bytes > BYTES_MAX {
            return Err(StoreError::Busy { limit: BYTES_MAX, bytes });
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Takes room for a change that takes something away, whether there is any or not.
    pub fn take_anyway(&mut self, minute: i64, versions_bytes: usize) {
        self.bytes = self.with(minute, versions_bytes);
    }

    /// How many bytes there are in `minute` with one more change.
    fn with(&mut self, minute: i64, versions_bytes: usize) -> usize {
        if minute > self.minute {
            *self = Self { minute, bytes: 0 };
        }
        self.bytes.saturating_add(versions_bytes).saturating_add(ROW_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_takes_its_bytes_and_not_one_more_and_the_next_begins_anew() {
        let mut minutes = Minutes::default();
        let half = BYTES_MAX / 2 - ROW_BYTES;
        assert_eq!(minutes.take(7, half), Ok(()));
        assert_eq!(minutes.take(7, half + 1), Err(StoreError::Busy { limit: BYTES_MAX, bytes: BYTES_MAX + 1 }));
        assert_eq!(minutes.take(7, half), Ok(()), "what was refused takes no room");
        let full = Err(StoreError::Busy { limit: BYTES_MAX, bytes: BYTES_MAX + ROW_BYTES });
        assert_eq!(minutes.take(7, 0), full);
        assert_eq!(minutes.take(6, 0), full, "a clock that went back makes no room");
        assert_eq!(minutes.take(8, 0), Ok(()));
    }

    #[test]
    fn what_takes_something_away_is_counted_and_not_refused() {
        let mut minutes = Minutes::default();
        assert_eq!(minutes.take(7, BYTES_MAX - ROW_BYTES), Ok(()));
        minutes.take_anyway(7, 0);
        let bytes = BYTES_MAX + 2 * ROW_BYTES;
        assert_eq!(minutes.take(7, 0), Err(StoreError::Busy { limit: BYTES_MAX, bytes }));
        minutes.take_anyway(8, BYTES_MAX);
        assert!(minutes.take(8, 0).is_err());
    }
}
