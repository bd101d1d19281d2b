//! Which partition a row lies in. Rule: its time and its size alone say so, so that a row that is written again lies
//! where it lay, whoever writes it.

use drover_types::limits::{PAYLOAD_BYTES_MAX, TOPIC_BYTES_MAX};

use super::schema::DAY_MS;

/// What a partition is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Points,
    Messages,
}

impl Kind {
    /// Its name in the lists of slices.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Messages => "messages",
        }
    }
}

/// How long the slices of time are that rows of some sizes lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Width {
    /// Bytes of the smallest of these rows.
    pub row_bytes_min: usize,
    /// Bytes of the largest.
    pub row_bytes_max: usize,
    /// Milliseconds of a slice; a day has a whole number of slices.
    pub slice_ms: u64,
    /// Slices that a read opens at a time: few where one has megabytes of large rows.
    pub read_ahead: usize,
}

/// Bytes of the largest row there is: payload, topic, and what surrounds them.
const ROW_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + TOPIC_BYTES_MAX + 64;

/// The larger a row, the shorter its slice: of 100 rows a second no slice has more than 100 MB, and small rows that
/// come once a minute lie together all the same. What was released stays in this list, for rows lie there.
pub const WIDTHS: [Width; 5] = [
    Width { row_bytes_min: 0, row_bytes_max: 200, slice_ms: 3_600_000, read_ahead: 4 },
    Width { row_bytes_min: 201, row_bytes_max: 1_024, slice_ms: 900_000, read_ahead: 4 },
    Width { row_bytes_min: 1_025, row_bytes_max: 8_192, slice_ms: 120_000, read_ahead: 2 },
    Width { row_bytes_min: 8_193, row_bytes_max: 65_536, slice_ms: 15_000, read_ahead: 1 },
    LARGEST,
];
/// Of rows that are in no other.
const LARGEST: Width = Width { row_bytes_min: 65_537, row_bytes_max: ROW_BYTES_MAX, slice_ms: 3_000, read_ahead: 1 };

/// Where versions before slices kept all rows: read, not written.
pub const DAYS: Width = Width { row_bytes_min: 0, row_bytes_max: ROW_BYTES_MAX, slice_ms: DAY_MS, read_ahead: 1 };

impl Width {
    /// Of rows of so many bytes.
    fn of(row_bytes: usize) -> Self {
        WIDTHS.into_iter().find(|width| row_bytes <= width.row_bytes_max).unwrap_or(LARGEST)
    }

    /// When the slice of a time begins, milliseconds since the Unix epoch.
    pub const fn start_ms(self, time_ms: u64) -> u64 {
        time_ms - time_ms % self.slice_ms
    }
}

/// A slice of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    pub slice_ms: u64,
    /// Milliseconds since the Unix epoch.
    pub start_ms: u64,
}

impl Slice {
    /// Where a row lies.
    pub fn of(time_ms: u64, row_bytes: usize) -> Self {
        let width = Width::of(row_bytes);
        Self { slice_ms: width.slice_ms, start_ms: width.start_ms(time_ms) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the largest partition may have; beyond it repairs and compaction become slow.
    const PARTITION_BYTES_MAX: u64 = 100_000_000;
    /// Rows of a device a second that this holds for: `ingress.quotas.device_messages` of the chart's `values-ha`.
    const ROWS_PER_S: u64 = 100;
    /// What a database keeps beside a row's value: time, id, lengths, timestamp, time to live.
    const AROUND_BYTES: u64 = 50;

    #[test]
    fn no_slice_has_more_than_100_mb_of_100_rows_a_second() {
        for width in WIDTHS {
            let bytes = (width.row_bytes_max as u64 + AROUND_BYTES) * ROWS_PER_S * width.slice_ms / 1_000;
            assert!(bytes <= PARTITION_BYTES_MAX, "{bytes} bytes in {width:?}");
        }
        let slices: u64 = WIDTHS.iter().map(|width| DAY_MS / width.slice_ms).max().expect("some");
        assert_eq!(slices, 28_800, "rows of the longest list of a day");
    }

    #[test]
    fn every_size_has_one_width_and_days_are_whole_numbers_of_slices() {
        assert_eq!((WIDTHS[0].row_bytes_min, LARGEST.row_bytes_max), (0, ROW_BYTES_MAX));
        for pair in WIDTHS.windows(2) {
            assert_eq!(pair[0].row_bytes_max + 1, pair[1].row_bytes_min);
            assert_eq!((Width::of(pair[0].row_bytes_max), Width::of(pair[1].row_bytes_min)), (pair[0], pair[1]));
        }
        assert!(WIDTHS.iter().all(|width| DAY_MS.is_multiple_of(width.slice_ms) && width.slice_ms < DAY_MS));
    }

    /// Rows lie where this says: a change of this test is a change of the format.
    #[test]
    fn a_row_lies_in_the_slice_of_its_time_and_its_size() {
        let hour = |start_ms| Slice { slice_ms: 3_600_000, start_ms };
        assert_eq!([Slice::of(3_599_999, 0), Slice::of(3_600_000, 200)], [hour(0), hour(3_600_000)]);
        assert_eq!(Slice::of(3_600_000, 201), Slice { slice_ms: 900_000, start_ms: 3_600_000 });
        assert_eq!(Slice::of(239_999, 8_192), Slice { slice_ms: 120_000, start_ms: 120_000 });
        assert_eq!(Slice::of(29_999, 65_536), Slice { slice_ms: 15_000, start_ms: 15_000 });
        assert_eq!(Slice::of(5_999, usize::MAX), Slice { slice_ms: 3_000, start_ms: 3_000 });
    }
}
