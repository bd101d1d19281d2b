//! How many bytes of changes one process writes to one minute of the outbox, which is a partition of the database.
//!
//! Only what clients ask for is counted and refused. What is brought to its end for a process that ended, or given a number
//! of now, was counted once already, where it began.

use crate::ports::StoreError;

/// Most bytes of a minute and process: what two of them write stays within the 100 MB that servers advise for a partition.
/// Of devices of 350 bytes these are some 140,000 a minute.
const BYTES_MAX: usize = 48 << 20;
/// What a row has besides the two versions of its object, about.
const ROW_BYTES: usize = 256;

/// The minute of this process's last change, and what it has written to it.
#[derive(Debug, Default)]
pub struct Minutes {
    minute: i64,
    bytes: usize,
}

impl Minutes {
    /// Takes room in `minute` for a change between versions of an object of so many bytes together. One before the last
    /// minute counts to that one.
    pub fn take(&mut self, minute: i64, versions_bytes: usize) -> Result<(), StoreError> {
        if minute > self.minute {
            *self = Self { minute, bytes: 0 };
        }
        let bytes = self.bytes.saturating_add(versions_bytes).saturating_add(ROW_BYTES);
        if bytes > BYTES_MAX {
            return Err(StoreError::Busy { limit: BYTES_MAX, bytes });
        }
        self.bytes = bytes;
        Ok(())
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
}
