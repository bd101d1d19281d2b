//! What an aggregate knows of the values so far. Totals of two pieces of time merge into that of both, whatever the
//! order they came in: sums are exact decimals, and `first`, `last` and `collect` go by time and then by place in the
//! log.

use sketches_ddsketch::{Config, DDSketch};

use super::state::unreadable;
use crate::ast::AggregateKind;
use crate::error::EvalError;
use crate::json;
use crate::number::Number;
use crate::value::Value;

/// Of one aggregate; which fields are used depends on its kind.
#[derive(Clone, Default)]
pub(crate) struct Total {
    /// Values, of aggregates that count them.
    pub count: u64,
    /// The sum, or the least or greatest value.
    pub number: Option<Number>,
    /// Sum of the squares.
    pub squares: Option<Number>,
    pub sketch: Option<DDSketch>,
    /// In the order of their places.
    pub samples: Vec<Sample>,
}

/// A value that is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub time_ms: u64,
    /// Its place in the log, among values of one time.
    pub order: u64,
    pub json: String,
}

impl std::fmt::Debug for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { count, number, samples, .. } = self;
        f.debug_struct("Total").field("count", count).field("number", number).field("samples", samples).finish()
    }
}

impl Total {
    /// Of one value. What is undefined or null, or no number where numbers are asked for, counts as nothing.
    pub fn of(kind: AggregateKind, value: &Value<'_>, time_ms: u64, order: u64) -> Result<Self, EvalError> {
        let none = Self::default();
        if matches!(value, Value::Undefined | Value::Null) {
            return Ok(none);
        }
        let Some(number) = value.to_number() else {
            return Ok(match kind {
                AggregateKind::Count => Self { count: 1, ..none },
                AggregateKind::First | AggregateKind::Last | AggregateKind::Collect(_) => {
                    Self::of_sample(value, time_ms, order)
                }
                AggregateKind::Sum
                | AggregateKind::Avg
                | AggregateKind::Min
                | AggregateKind::Max
                | AggregateKind::Stddev
                | AggregateKind::Percentile(_) => none,
            });
        };
        Ok(match kind {
            AggregateKind::Count => Self { count: 1, ..none },
            AggregateKind::Sum | AggregateKind::Min | AggregateKind::Max => Self { number: Some(number), ..none },
            AggregateKind::Avg => Self { count: 1, number: Some(number), ..none },
            AggregateKind::Stddev => {
                let squares = Some(number.product(number).ok_or(EvalError::OutOfRange)?);
                Self { count: 1, number: Some(number), squares, ..none }
            }
            AggregateKind::Percentile(_) => {
                let mut sketch = DDSketch::new(Config::defaults());
                sketch.add(number.to_f64().ok_or(EvalError::OutOfRange)?);
                Self { sketch: Some(sketch), ..none }
            }
            AggregateKind::First | AggregateKind::Last | AggregateKind::Collect(_) => {
                Self::of_sample(value, time_ms, order)
            }
        })
    }

    fn of_sample(value: &Value<'_>, time_ms: u64, order: u64) -> Self {
        Self { samples: vec![Sample { time_ms, order, json: value.to_string() }], ..Self::default() }
    }

    /// Adds what `other` knows.
    pub fn merge(&mut self, kind: AggregateKind, other: &Self) -> Result<(), EvalError> {
        self.count += other.count;
        let joined = |a: Option<Number>, b: Option<Number>, join: fn(Number, Number) -> Option<Number>| match (a, b) {
            (Some(a), Some(b)) => join(a, b).map(Some).ok_or(EvalError::OutOfRange),
            (a, b) => Ok(a.or(b)),
        };
        let number: fn(Number, Number) -> Option<Number> = match kind {
            AggregateKind::Min => |a, b| Some(a.min(b)),
            AggregateKind::Max => |a, b| Some(a.max(b)),
            AggregateKind::Count
            | AggregateKind::Sum
            | AggregateKind::Avg
            | AggregateKind::Stddev
            | AggregateKind::Percentile(_)
            | AggregateKind::First
            | AggregateKind::Last
            | AggregateKind::Collect(_) => Number::sum,
        };
        self.number = joined(self.number, other.number, number)?;
        self.squares = joined(self.squares, other.squares, Number::sum)?;
        match (&mut self.sketch, &other.sketch) {
            (Some(ours), Some(theirs)) => ours.merge(theirs).map_err(|error| unreadable(error.to_string()))?,
            (None, theirs) => self.sketch = theirs.clone(),
            (Some(_), None) => {}
        }
        self.samples.extend(other.samples.iter().cloned());
        self.samples.sort_by_key(|sample| (sample.time_ms, sample.order));
        match kind {
            AggregateKind::Last => drop(self.samples.drain(..self.samples.len().saturating_sub(1))),
            AggregateKind::Collect(most) => self.samples.truncate(most),
            AggregateKind::First => self.samples.truncate(1),
            AggregateKind::Count
            | AggregateKind::Sum
            | AggregateKind::Avg
            | AggregateKind::Min
            | AggregateKind::Max
            | AggregateKind::Stddev
            | AggregateKind::Percentile(_) => {}
        }
        Ok(())
    }

    /// What the aggregate comes to; undefined where there was no value, and the deviation of a single one.
    pub fn value(&self, kind: AggregateKind) -> Result<Value<'static>, EvalError> {
        Ok(match kind {
            AggregateKind::Count => Value::Number(Number::Int(self.count.into())),
            AggregateKind::Sum | AggregateKind::Min | AggregateKind::Max => self.number.into(),
            AggregateKind::Avg => self.number.and_then(|sum| self.per_value(sum)).into(),
            AggregateKind::Stddev => self.deviation().and_then(Number::from_f64).into(),
            AggregateKind::Percentile(rank) => {
                let rank = rank.to_f64().unwrap_or_default() / 100.0;
                let at = self.sketch.as_ref().and_then(|sketch| sketch.quantile(rank).ok().flatten());
                at.and_then(Number::from_f64).into()
            }
            AggregateKind::First | AggregateKind::Last => {
                self.samples.first().map_or(Ok(Value::Undefined), Sample::value)?
            }
            AggregateKind::Collect(_) => {
                Value::Array(self.samples.iter().map(Sample::value).collect::<Result<_, _>>()?)
            }
        })
    }

    /// Divides by the number of values, as decimals.
    fn per_value(&self, of: Number) -> Option<Number> {
        let count = Number::Int(self.count.into()).decimal();
        of.decimal().quotient(count).map(|mean| Number::Decimal(mean).normal())
    }

    /// Standard deviation of a sample: `sqrt((Σx² - (Σx)²/n) / (n - 1))`.
    fn deviation(&self) -> Option<f64> {
        let (sum, squares) = self.number.zip(self.squares)?;
        let others = Number::Int(i128::from(self.count.checked_sub(1)?)).decimal();
        let around_mean = squares.difference(self.per_value(sum.product(sum)?)?)?;
        let variance = Number::Decimal(around_mean.decimal().quotient(others)?).to_f64()?;
        Some(variance.max(0.0).sqrt())
    }
}

impl Sample {
    fn value(&self) -> Result<Value<'static>, EvalError> {
        Ok(json::read(self.json.as_bytes())?.into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KINDS: [AggregateKind; 10] = [
        AggregateKind::Count,
        AggregateKind::Sum,
        AggregateKind::Avg,
        AggregateKind::Min,
        AggregateKind::Max,
        AggregateKind::Stddev,
        AggregateKind::Percentile(Number::Int(90)),
        AggregateKind::First,
        AggregateKind::Last,
        AggregateKind::Collect(3),
    ];

    fn told(kind: AggregateKind, values: &[&str]) -> String {
        let mut total = Total::default();
        for (order, value) in (0..).zip(values) {
            let value = json::read(value.as_bytes()).expect("JSON");
            total.merge(kind, &Total::of(kind, &value, 5, order).expect("in range")).expect("in range");
        }
        format!("{:?}", total.value(kind).expect("a value").to_text())
    }

    #[test]
    fn each_aggregate_says_what_the_table_says() {
        let values = ["2", "null", "\"4\"", "\"x\"", "5.5"];
        let expected = ["4", "11.5", "3.833333333333333333333333333333333", "2", "5.5", "1.7559422921421233", "4"];
        for (kind, expected) in KINDS.into_iter().zip(expected) {
            if !matches!(kind, AggregateKind::Percentile(_)) {
                assert_eq!(told(kind, &values), format!("Some({expected:?})"), "{kind:?}");
            }
        }
        assert_eq!(told(AggregateKind::First, &values), r#"Some("2")"#);
        assert_eq!(told(AggregateKind::Last, &values), r#"Some("5.5")"#);
        assert_eq!(told(AggregateKind::Collect(3), &values), r#"Some("[2,\"4\",\"x\"]")"#);
    }

    #[test]
    fn of_nothing_there_is_nothing_and_of_one_value_no_deviation() {
        for kind in KINDS {
            let expected = match kind {
                AggregateKind::Count => "Some(\"0\")",
                AggregateKind::Collect(_) => "Some(\"[]\")",
                _ => "None",
            };
            assert_eq!(told(kind, &["null"]), expected, "{kind:?}");
        }
        assert_eq!(told(AggregateKind::Stddev, &["3"]), "None");
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_one_per_cent(mut values in prop::collection::vec(1u32..1_000_000, 1..200), rank in 0u8..=100) {
            let kind = AggregateKind::Percentile(Number::Int(rank.into()));
            let mut total = Total::default();
            for value in &values {
                let value = Value::Number(Number::Int((*value).into()));
                total.merge(kind, &Total::of(kind, &value, 0, 0).expect("in range")).expect("merges");
            }
            values.sort_unstable();
            let exact = f64::from(values[(f64::from(rank) / 100.0 * (values.len() - 1) as f64) as usize]);
            let found = total.value(kind).expect("a value").to_number().and_then(Number::to_f64).expect("a number");
            prop_assert!((found - exact).abs() <= exact * 0.0101, "{found} is not {exact}");
        }

        #[test]
        fn deviation_agrees_with_two_passes(values in prop::collection::vec(-1_000i32..1_000, 2..50), far in prop::bool::ANY) {
            let shift = if far { 1_000_000_000_000 } else { 0 };
            let mut total = Total::default();
            for value in &values {
                let value = Value::Number(Number::Int(i128::from(*value) + shift));
                total.merge(AggregateKind::Stddev, &Total::of(AggregateKind::Stddev, &value, 0, 0).expect("in range")).expect("merges");
            }
            let mean = values.iter().sum::<i32>() as f64 / values.len() as f64;
            let squares: f64 = values.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum();
            let exact = (squares / (values.len() - 1) as f64).sqrt();
            let found = total.deviation().expect("two values");
            prop_assert!((found - exact).abs() <= 1e-9 * exact.max(1.0), "{found} is not {exact}");
        }
    }
}
