//! Token buckets: so many a second, and at once no more than come in one second.
//!
//! Domain layer, pure. A bucket is one number, the time at which all that was taken is paid for (the generic cell rate
//! algorithm); one that lies in the past is full, and need not be kept.

use std::num::NonZeroU32;

/// What may be saved up, in nanoseconds: a second's worth.
const SAVED_NS: u64 = 1_000_000_000;
/// What may be owed, in nanoseconds: nobody waits longer than this, and who does not owe is kept waiting no longer.
const OWED_MAX_NS: u64 = 5_000_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// So many a second; at most a thousand million, whose interval is a nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU32);

impl Rate {
    /// `per_second`; 0 is no rate.
    pub fn new(per_second: u32) -> Option<Self> {
        NonZeroU32::new(per_second).map(Self)
    }

    pub fn per_second(self) -> u32 {
        self.0.get()
    }

    fn interval_ns(self) -> u64 {
        (SAVED_NS / u64::from(self.0.get())).max(1)
    }
}

/// A bucket, full at first. Times are monotonic milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When all that was taken is paid for.
    paid_ns: u64,
}

impl Bucket {
    /// Takes one, if there is one.
    pub fn take(&mut self, rate: Rate, now_ms: u64) -> bool {
        let paid_ns = self.paid_with_one_more(rate, now_ms);
        let there = paid_ns <= (now_ms * NS_PER_MS).saturating_add(SAVED_NS);
        if there {
            self.paid_ns = paid_ns;
        }
        there
    }

    /// Takes one whether or not there is one; for how many milliseconds, 5,000 at most, there is none after that.
    pub fn owe(&mut self, rate: Rate, now_ms: u64) -> u64 {
        let saved_ns = (now_ms * NS_PER_MS).saturating_add(SAVED_NS);
        self.paid_ns = self.paid_with_one_more(rate, now_ms).min(saved_ns.saturating_add(OWED_MAX_NS));
        let next_ns = self.paid_with_one_more(rate, now_ms);
        next_ns.saturating_sub(saved_ns).min(OWED_MAX_NS).div_ceil(NS_PER_MS)
    }

    /// Puts back what was just taken.
    pub fn give_back(&mut self, rate: Rate) {
        self.paid_ns = self.paid_ns.saturating_sub(rate.interval_ns());
    }

    /// Whether it is as a new one.
    pub fn is_full(&self, now_ms: u64) -> bool {
        self.paid_ns <= now_ms * NS_PER_MS
    }

    fn paid_with_one_more(self, rate: Rate, now_ms: u64) -> u64 {
        self.paid_ns.max(now_ms * NS_PER_MS).saturating_add(rate.interval_ns())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32) -> Rate {
        Rate::new(per_second).expect("not 0")
    }

    #[test]
    fn as_many_as_come_in_a_second_may_come_at_once_and_then_each_in_its_time() {
        let (mut bucket, rate) = (Bucket::default(), rate(10));
        let taken = |bucket: &mut Bucket, now_ms| (0..100).filter(|_| bucket.take(rate, now_ms)).count();
        assert_eq!(taken(&mut bucket, 5_000), 10);
        assert!(!bucket.is_full(5_999));
        assert_eq!((taken(&mut bucket, 5_099), taken(&mut bucket, 5_100)), (0, 1));
        assert_eq!(taken(&mut bucket, 5_350), 2);
        assert!(bucket.is_full(9_000));
        assert_eq!(taken(&mut bucket, 9_000), 10, "no more is saved up");
        bucket.give_back(rate);
        assert_eq!(taken(&mut bucket, 9_000), 1);
        assert_eq!(Rate::new(0), None);
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let (mut bucket, rate) = (Bucket::default(), rate(10));
        let waits: Vec<u64> = (0..12).map(|_| bucket.owe(rate, 1_000)).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 200, 300]);
        assert!(!bucket.take(rate, 1_299) && bucket.take(rate, 1_300));
    }

    #[test]
    fn no_more_is_owed_than_in_a_few_seconds() {
        let (mut bucket, rate) = (Bucket::default(), rate(10));
        assert_eq!((0..1_000).map(|_| bucket.owe(rate, 1_000)).max(), Some(5_000));
        assert!(!bucket.take(rate, 6_099) && bucket.take(rate, 6_100));
    }

    proptest! {
        #[test]
        fn in_no_time_are_more_taken_than_the_rate_and_one_seconds_savings(
            per_second in 1u32..2_000,
            pauses in proptest::collection::vec(0u64..400, 1..200),
        ) {
            let (mut bucket, rate) = (Bucket::default(), rate(per_second));
            let (mut now_ms, mut taken) = (0, 0u64);
            for pause in pauses {
                now_ms += pause;
                taken += (0..50).filter(|_| bucket.take(rate, now_ms)).count() as u64;
                prop_assert!(taken <= u64::from(per_second) * (now_ms + 1_000) / 1_000 + 1);
            }
        }
    }
}
