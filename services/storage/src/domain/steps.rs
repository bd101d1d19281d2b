//! Sums up numbers in steps of time.

/// Scales numbers so that the sum of 2^20 of any cannot overflow; a power of two, so nothing is rounded by it.
const SCALE: f64 = 1.0 / (1 << 20) as f64;

/// The numbers of one span of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Start of the span, milliseconds since the Unix epoch.
    pub time_ms: u64,
    pub count: u64,
    pub average: f64,
    pub minimum: f64,
    pub maximum: f64,
}

/// Steps in the making: numbers come in the order of their time.
#[derive(Debug)]
pub struct Steps {
    from_ms: u64,
    step_ms: u64,
    done: Vec<Step>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    time_ms: u64,
    count: u64,
    scaled_sum: f64,
    minimum: f64,
    maximum: f64,
}

impl Steps {
    /// Steps of `step_ms` milliseconds, not 0, the first from `from_ms` on.
    pub fn new(from_ms: u64, step_ms: u64) -> Self {
        Self { from_ms, step_ms, done: Vec::new(), open: None }
    }

    /// Start of the step that a time not before the first belongs to.
    pub fn start_of(&self, time_ms: u64) -> u64 {
        let into = time_ms.saturating_sub(self.from_ms);
        self.from_ms + into / self.step_ms * self.step_ms
    }

    /// Steps with a number so far, the last of which may get more.
    pub fn count(&self) -> usize {
        self.done.len() + usize::from(self.open.is_some())
    }

    /// Start of the step that may get more.
    pub fn open_from(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.time_ms)
    }

    /// Adds a finite number.
    pub fn add(&mut self, time_ms: u64, number: f64) {
        let start = self.start_of(time_ms);
        if self.open_from() != Some(start) {
            self.close();
        }
        let open = self.open.get_or_insert(Open {
            time_ms: start,
            count: 0,
            scaled_sum: 0.0,
            minimum: number,
            maximum: number,
        });
        open.count += 1;
        open.scaled_sum += number * SCALE;
        open.minimum = open.minimum.min(number);
        open.maximum = open.maximum.max(number);
    }

    fn close(&mut self) {
        self.done.extend(self.open.take().map(Step::from));
    }

    /// All steps, the last as it is.
    pub fn finish(mut self) -> Vec<Step> {
        self.close();
        self.done
    }

    /// The steps that are certain to get no more.
    pub fn finished(self) -> Vec<Step> {
        self.done
    }
}

impl From<Open> for Step {
    fn from(open: Open) -> Self {
        let Open { time_ms, count, scaled_sum, minimum, maximum } = open;
        // Rounding may put the average of equal numbers beside them.
        let average = (scaled_sum / count as f64 / SCALE).clamp(minimum, maximum);
        Self { time_ms, count, average, minimum, maximum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(from_ms: u64, step_ms: u64, numbers: &[(u64, f64)]) -> Vec<Step> {
        let mut steps = Steps::new(from_ms, step_ms);
        numbers.iter().for_each(|(time_ms, number)| steps.add(*time_ms, *number));
        steps.finish()
    }

    #[test]
    fn numbers_are_summed_up_by_step_and_steps_without_one_are_left_out() {
        let found = steps(5, 10, &[(5, 1.0), (14, 3.0), (15, 7.0), (40, -1.0)]);
        let step = |time_ms, count, average, minimum, maximum| Step { time_ms, count, average, minimum, maximum };
        assert_eq!(found, [step(5, 2, 2.0, 1.0, 3.0), step(15, 1, 7.0, 7.0, 7.0), step(35, 1, -1.0, -1.0, -1.0)]);
    }

    #[test]
    fn the_largest_numbers_have_an_average_too() {
        let found = steps(0, 10, &[(0, f64::MAX), (1, f64::MAX), (2, f64::MAX)]);
        assert_eq!(found[0].average, f64::MAX);
        assert_eq!(steps(0, 10, &[(0, f64::MAX), (1, f64::MIN)])[0].average, 0.0);
        let equal = [(0, 0.1); 10];
        assert_eq!(steps(0, 10, &equal)[0].average, 0.1);
    }

    #[test]
    fn times_and_widths_at_the_end_of_their_range_do_not_overflow() {
        assert_eq!(steps(u64::MAX - 1, u64::MAX, &[(u64::MAX, 1.0)])[0].time_ms, u64::MAX - 1);
        assert_eq!(steps(0, u64::MAX, &[(u64::MAX, 1.0)])[0].time_ms, u64::MAX);
    }

    proptest! {
        #[test]
        fn every_number_counts_once_and_averages_lie_between_the_extremes(
            numbers in prop::collection::vec((0u64..1_000, -1e300..1e300f64), 1..100), step_ms in 1u64..200
        ) {
            let mut numbers = numbers;
            numbers.sort_by_key(|(time_ms, _)| *time_ms);
            let found = steps(0, step_ms, &numbers);
            prop_assert_eq!(found.iter().map(|step| step.count).sum::<u64>(), numbers.len() as u64);
            prop_assert!(found.windows(2).all(|pair| pair[0].time_ms < pair[1].time_ms));
            for step in found {
                prop_assert!(step.minimum <= step.average && step.average <= step.maximum);
                prop_assert_eq!(step.time_ms % step_ms, 0);
            }
        }
    }
}
