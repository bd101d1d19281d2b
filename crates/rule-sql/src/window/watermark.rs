//! How far time has come for one rule in one partition: windows that end before it are closed.
//!
//! It follows the newest message, `LATENESS` behind; where no message of the rule comes it goes on with the clock. It
//! never goes back. The clock here is the time at which the log's messages were received, or the present time once all
//! of them are read: so it makes no difference how late they are read.

/// How long a rule has no message in a partition before time goes on without one, in milliseconds: what is delivered
/// late by a moment must not come too late.
pub const IDLE_MS: u64 = 5_000;

/// Both are milliseconds since the Unix epoch; 0 as long as there was no message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    pub time_ms: u64,
    /// What the clock said when time was taken from a message last, or [`IDLE_MS`] ago when it was taken from the clock.
    pub clock_ms: u64,
}

impl Watermark {
    /// Nobody was heard of up to now.
    pub fn idle(&mut self, clock_ms: u64) {
        let idle_ms = clock_ms.saturating_sub(self.clock_ms).saturating_sub(IDLE_MS);
        if self.clock_ms > 0 && idle_ms > 0 {
            self.time_ms += idle_ms;
            self.clock_ms += idle_ms;
        }
    }

    /// A message of `time_ms` was received at `clock_ms`.
    pub fn heard(&mut self, time_ms: u64, clock_ms: u64, lateness_ms: u64) {
        self.time_ms = self.time_ms.max(time_ms.saturating_sub(lateness_ms));
        self.clock_ms = self.clock_ms.max(clock_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_newest_message_and_never_goes_back() {
        let mut mark = Watermark::default();
        mark.idle(50_000);
        assert_eq!(mark, Watermark::default());
        mark.heard(10_000, 20_000, 1_000);
        mark.heard(5_000, 19_000, 1_000);
        assert_eq!(mark, Watermark { time_ms: 9_000, clock_ms: 20_000 });
    }

    #[test]
    fn it_goes_on_with_the_clock_once_nobody_is_heard_of_however_often_it_is_asked() {
        let mut at_once = Watermark { time_ms: 9_000, clock_ms: 20_000 };
        let mut step_by_step = at_once;
        at_once.idle(20_000 + IDLE_MS);
        assert_eq!(at_once.time_ms, 9_000);
        at_once.idle(40_000);
        for clock_ms in (20_000..=40_000).step_by(700).chain([40_000]) {
            step_by_step.idle(clock_ms);
        }
        assert_eq!((at_once.time_ms, at_once), (9_000 + 20_000 - IDLE_MS, step_by_step));
    }
}
